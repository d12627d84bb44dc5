"""The page of a record: readable, self-contained, and harmless whatever stands in it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from bifrost_scheduler.runner import html

PAYLOADS = [
    "<script>window.pwned=1</script>",
    "<img src=x onerror='window.pwned=1'>",
    "<svg onload='window.pwned=1'><script>1</script></svg>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "<a href='javascript:window.pwned=1'>x</a>",
    "<a href='data:text/html,<script>1</script>'>x</a>",
    "[x](javascript:window.pwned=1)",
    "![x](javascript:window.pwned=1)",
    "![x](https://evil.example/pixel.png)",
    "<style>*{background:url(https://evil.example/x)}</style>",
    "<div style='background:url(https://evil.example/x)'>x</div>",
    "<form action='https://evil.example'><input><button>x</button></form>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=window.pwned=1>",
    "</main></body><script>window.pwned=1</script>",
    "\x1b[31m<script>1</script>\x1b[0m",
    "\\href{javascript:window.pwned=1}{x}",
    "<object data='x'></object><embed src='x'><link rel=stylesheet href='https://evil.example/x'>",
]
ALLOWED_IN_HEAD = ["html", "head", "meta", "meta", "meta", "meta", "title", "style", "body", "main"]


class Collector(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def page(payload: str) -> str:
    error = new_output("error", ename=payload, evalue=payload, traceback=[payload])
    shown = new_output("display_data", data={"text/html": payload, "text/markdown": payload, "image/svg+xml": payload})
    printed = [new_output("stream", text=payload), new_output("display_data", data={"application/javascript": payload})]
    cells = [new_markdown_cell(payload), new_code_cell(payload, outputs=[error, shown, *printed])]
    notebook = new_notebook(cells=cells, metadata={"bifrost": {"workflow": payload, "execution_id": payload}})
    return html.render(nbformat.writes(notebook).encode())


@pytest.mark.parametrize("payload", PAYLOADS)
def test_nothing_executes_or_loads(payload: str) -> None:
    """No payload becomes a script, a handler, a style, a form, or something that is loaded."""
    collector = Collector()
    collector.feed(page(payload))
    tags = [tag for tag, _ in collector.tags]
    assert tags[: len(ALLOWED_IN_HEAD)] == ALLOWED_IN_HEAD
    body = collector.tags[len(ALLOWED_IN_HEAD) :]
    forbidden = {
        "script",
        "style",
        "iframe",
        "svg",
        "form",
        "input",
        "button",
        "meta",
        "link",
        "object",
        "embed",
        "math",
    }
    assert not forbidden & {tag for tag, _ in body}
    for _, attributes in body:
        assert not [name for name in attributes if name.startswith("on") or name in {"style", "srcdoc"}]
        assert re.match(r"data:image/|$", attributes.get("src") or "")
        assert re.match(r"https?://|mailto:|$", attributes.get("href") or "")


def test_images_of_outputs_stay() -> None:
    """A PNG that the workflow displayed is part of the page."""
    shown = new_output("display_data", data={"image/png": "iVBORw0KGgo="})
    notebook = new_notebook(cells=[new_code_cell("x", outputs=[shown])])
    assert 'src="data:image/png;base64,iVBORw0KGgo="' in html.render(nbformat.writes(notebook).encode())


def test_tables_and_code_read_well() -> None:
    """Tables stay tables, code is highlighted, and the page adapts to phones, print and dark mode."""
    notebook = new_notebook(cells=[new_markdown_cell("| a | b |\n|---|---|\n| 1 | 2 |"), new_code_cell("x = 1")])
    rendered = html.render(nbformat.writes(notebook).encode())
    assert "<td>1</td>" in rendered
    assert '<span class="n">x</span>' in rendered
    assert all(words in rendered for words in ("prefers-color-scheme: dark", "@media print", "width=device-width"))
