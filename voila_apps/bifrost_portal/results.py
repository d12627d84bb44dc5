"""How a result is shown: its JSON becomes one of a few forms that people can read.

The pages of executions call it. Whatever a workflow returned is hostile text: here it becomes data for text nodes,
sanitised HTML, or a document for a sandboxed frame.
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import nh3
from markdown_it import MarkdownIt

Json = dict[str, Any]

MAX_COLUMNS = 30
MAX_ROWS_SHOWN = 1000
FORMULA = re.compile(r"^[\s]*[=+\-@\t\r]")
NUMBER = re.compile(r"^-?\d+(\.\d+)?$")
SAFE_NAME = re.compile(r"[^\w. -]+")

_markdown = MarkdownIt("commonmark", {"html": False}).enable("table")


def view(result: Any) -> Json:
    """What a page needs to show the result.

    `kind` is `nothing`, `text`, `fields` (`items` of `name` and `value`), `table` (`columns`, `rows`), `markdown`
    (`html`, sanitised), `html` (to be fetched as a document of its own), `file` (`name`), or `json` (`text`).
    """
    if result is None:
        return {"kind": "nothing"}
    if isinstance(result, str):
        return {"kind": "text", "text": result}
    if isinstance(result, Mapping):
        return _special(result) or _fields(result)
    if is_table(result):
        return _table(result)
    return {"kind": "json", "text": _pretty(result)}


def prose(text: str) -> str:
    """Markdown as sanitised HTML."""
    return nh3.clean(_markdown.render(text))


def is_table(result: Any) -> TypeGuard[list[Mapping[str, Any]]]:
    """A list of dicts."""
    return isinstance(result, list) and bool(result) and all(isinstance(row, Mapping) for row in result)


def find_html(result: Any) -> str | None:
    """The sanitised document of a result of the type `html`."""
    if _type(result) != "html":
        return None
    return nh3.clean(str(result["content"]), attributes=_with_style(), link_rel="noopener noreferrer nofollow")


def find_file(result: Any) -> tuple[str, bytes] | None:
    """Name and bytes of a result of the type `file`; the name is one without a path."""
    if _type(result) != "file":
        return None
    name = SAFE_NAME.sub("_", str(result.get("name") or "result")).strip(". ")[:100] or "result"
    content = result.get("content_base64")
    if content is None:
        return name, str(result.get("content", "")).encode()
    try:
        return name, base64.b64decode(str(content), validate=True)
    except (binascii.Error, ValueError):
        return name, b""


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV (RFC 4180), neutralised for spreadsheets, which run what begins like a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    columns = _columns(rows)
    writer.writerow([_neutral(column) for column in columns])
    writer.writerows([_neutral(_cell(row.get(column))) for column in columns] for row in rows)
    return text.getvalue()


def _special(result: Mapping[str, Any]) -> Json | None:
    kind = _type(result)
    if kind == "markdown":
        return {"kind": "markdown", "html": prose(str(result["content"]))}
    if kind == "text":
        return {"kind": "text", "text": str(result["content"])}
    if kind == "html":
        return {"kind": "html"}
    if kind == "file":
        found = find_file(result)
        assert found is not None
        return {"kind": "file", "name": found[0], "bytes": len(found[1])}
    return None


def _type(result: Any) -> str | None:
    """`{"type": "markdown" | "html" | "text", "content": …}` or `{"type": "file", "name": …, "content_base64": …}`."""
    if not isinstance(result, Mapping):
        return None
    kind, keys = result.get("type"), set(result)
    if kind in ("markdown", "html", "text") and keys == {"type", "content"}:
        return str(kind)
    if kind == "file" and "name" in keys and keys <= {"type", "name", "content", "content_base64"} and len(keys) == 3:
        return "file"
    return None


def _fields(result: Mapping[str, Any]) -> Json:
    return {"kind": "fields", "items": [_field(str(name), value) for name, value in result.items()]}


def _field(name: str, value: Any) -> Json:
    if is_table(value):
        return {"name": readable(name), "table": _table(value)}
    return {"name": readable(name), "value": _cell(value), "code": isinstance(value, dict | list)}


def _table(rows: Sequence[Mapping[str, Any]]) -> Json:
    columns = _columns(rows)[:MAX_COLUMNS]
    shown = [[_cell(row.get(column)) for column in columns] for row in rows[:MAX_ROWS_SHOWN]]
    return {"kind": "table", "columns": [readable(column) for column in columns], "rows": shown, "count": len(rows)}


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(str(column) for row in rows for column in row))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "Yes" if value else "No"
    if isinstance(value, str):
        return value
    return _pretty(value) if isinstance(value, dict | list) else json.dumps(value)


def _neutral(text: str) -> str:
    return f"'{text}" if FORMULA.match(text) and not NUMBER.match(text) else text


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def readable(name: str) -> str:
    """`user_id` as people write it."""
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def title(name: str) -> str:
    """`hello_world` as a heading; words that are written in capitals stay so."""
    return " ".join(word[:1].upper() + word[1:] for word in name.replace("_", " ").split())


def _with_style() -> dict[str, set[str]]:
    return {tag: set(names) for tag, names in nh3.ALLOWED_ATTRIBUTES.items()}
