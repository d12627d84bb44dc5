"""A record as one HTML page to read, print and keep: sanitised, without script, and loading nothing from anywhere.

Workers render; the web layer serves the page under a sandboxing policy. It never trusts a notebook, a record of ours
included: whatever stands in it may come from author code or a customer.
"""

from __future__ import annotations

import functools
import html as markup
import re
import threading

import nbformat
import nh3
from nbconvert.exporters.html import HTMLExporter
from pygments.formatters.html import HtmlFormatter

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_IMAGE = re.compile(r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]+")
_LINK = re.compile(r"(https?://|mailto:)", re.IGNORECASE)

_TAGS = nh3.ALLOWED_TAGS - {"map", "area"}
_ATTRIBUTES = {
    **{tag: {"class"} for tag in ("div", "span", "pre", "code", "p", "table")},
    "a": {"href", "title"},
    "img": {"src", "alt", "title", "width", "height"},
    "td": {"colspan", "rowspan", "align"},
    "th": {"colspan", "rowspan", "align", "scope"},
    "ol": {"start"},
}
_lock = threading.Lock()


def render(record: bytes) -> str:
    """The page.

    Raises:
        ValueError: the bytes are no notebook.
    """
    notebook = nbformat.reads(record.decode("utf-8"), as_version=4)
    about = notebook["metadata"].get("bifrost") or {}
    with _lock:  # one exporter, one template environment
        body, _ = _exporter().from_notebook_node(notebook)
    title = " · ".join(str(about[key]) for key in ("workflow", "execution_id") if about.get(key)) or "Notebook"
    return _PAGE.format(policy=_POLICY, title=markup.escape(title), style=_style(), body=sanitise(body))


def sanitise(body: str) -> str:
    """Only harmless elements and attributes; links to the web stay, images only as data."""
    return nh3.clean(
        body,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        attribute_filter=_filter_attribute,
        url_schemes={"http", "https", "mailto", "data"},
        link_rel="noopener noreferrer nofollow",
    )


def _filter_attribute(tag: str, name: str, value: str) -> str | None:
    if name == "src":
        return value if _IMAGE.fullmatch(value) else None
    if name == "href":
        return value if _LINK.match(value) else None
    return value


@functools.cache
def _exporter() -> HTMLExporter:
    # The template for embedding: no page around it, no link to a content delivery network.
    return HTMLExporter(template_name="basic", exclude_anchor_links=True, embed_images=False)


@functools.cache
def _style() -> str:
    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    return f"{_CSS}\n{light}\n@media screen and (prefers-color-scheme: dark) {{ {_DARK_CSS} {dark} }}"


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

_CSS = """
:root { --ink: #1d2230; --soft: #586074; --paper: #fff; --wash: #f4f6f9; --line: #d8dde6 }
:root { --bad: #a1121f; --good: #1b6b3a }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem }
h1 { font-size: 1.6rem; line-height: 1.25 } h2 { font-size: 1.2rem; margin-top: 2rem }
a { color: inherit }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: .92rem }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .7rem; text-align: left; vertical-align: top }
code, pre { font: .86rem/1.5 ui-monospace, "DejaVu Sans Mono", monospace }
td code, p code { overflow-wrap: anywhere }
td:nth-child(4) { min-width: 16rem }
pre { margin: .4rem 0; padding: .6rem .8rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere }
div.highlight, .input_area pre { background: var(--wash); border-radius: .4rem }
div.highlight pre { margin: 0 }
.output pre { border-left: 3px solid var(--line); border-radius: 0 }
.output_stderr pre, .output_error pre { border-left-color: var(--bad) }
.prompt { color: var(--soft); font: .75rem ui-monospace, monospace; margin-top: .8rem }
img { max-width: 100%; height: auto }
hr { border: 0; border-top: 1px solid var(--line); margin: 2rem 0 1rem }
.ansi-bold { font-weight: bold } .ansi-red-fg { color: var(--bad) } .ansi-green-fg { color: var(--good) }
@media (max-width: 40rem) { main { padding: 1rem .6rem 3rem } th, td { padding: .25rem .4rem } }
@media print { main { max-width: none; padding: 0 } pre { white-space: pre-wrap } h2 { break-after: avoid } }
"""

_DARK_CSS = """
:root { --ink: #e5e8ef; --soft: #9aa3b5; --paper: #14171f; --wash: #1d212c; --line: #343a49 }
:root { --bad: #ff8b8b; --good: #7fd6a2 }
"""
