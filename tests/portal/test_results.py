"""Results of workflows as people see them, and what hostile ones become."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bifrost_portal import results

SCRIPT = "<script>alert(1)</script>"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (None, "nothing"),
        ("text", "text"),
        ({"user_id": 7}, "fields"),
        ([{"a": 1}], "table"),
        ([1, 2], "json"),
        (7, "json"),
        ({"type": "markdown", "content": "# x"}, "markdown"),
        ({"type": "markdown", "content": "x", "more": 1}, "fields"),
        ({"type": "html", "content": "x"}, "html"),
        ({"type": "file", "name": "x", "content": "y"}, "file"),
        ({"type": "file", "name": "x"}, "fields"),
    ],
)
def test_each_has_its_form(result: object, kind: str) -> None:
    """What is no known form is shown as plain fields or JSON, never hidden."""
    assert results.view(result)["kind"] == kind


@given(JSON)
def test_anything_can_be_shown(result: object) -> None:
    """Every JSON value has a view."""
    assert results.view(result)["kind"]


def test_fields_read_well() -> None:
    """Names as people write them, yes and no, nothing for null, tables within."""
    view = results.view({"user_id": "u1", "is_admin": True, "note": None, "rows": [{"a": 1}], "raw": {"x": 1}})
    assert [(item["name"], item.get("value")) for item in view["items"][:3]] == [
        ("User id", "u1"),
        ("Is admin", "Yes"),
        ("Note", ""),
    ]
    assert view["items"][3]["table"]["rows"] == [["1"]]
    assert view["items"][4]["code"]


def test_a_table_has_every_column_and_says_how_many_rows() -> None:
    """Rows may differ; at most a thousand are shown."""
    view = results.view([{"a": 1}, {"b": 2}] * 1000)
    assert (view["columns"], view["rows"][:2], len(view["rows"]), view["count"]) == (
        ["A", "B"],
        [["1", ""], ["", "2"]],
        1000,
        2000,
    )


@pytest.mark.parametrize(
    "text", [SCRIPT, "[x](javascript:alert(1))", "<img src=x onerror=alert(1)>", "![x](data:text/html,x)"]
)
def test_markdown_runs_nothing(text: str) -> None:
    """Script, handlers and dangerous addresses are gone from what becomes HTML."""
    html = results.prose(text)
    assert "<script" not in html
    assert "<img src=x" not in html
    assert 'href="javascript:' not in html


def test_an_html_result_is_sanitised() -> None:
    """A document keeps its words and loses what could run."""
    html = results.find_html({"type": "html", "content": f"<h1 onclick=x>Hi</h1>{SCRIPT}<iframe src=x></iframe>"})
    assert html == "<h1>Hi</h1>"


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-cmd", "@x", "\t=1", "  =1", "\r=1"])
def test_csv_runs_no_formula(cell: str) -> None:
    """What a spreadsheet would run stands behind an apostrophe, in heads as well; numbers stay numbers."""
    text = results.to_csv([{cell: cell, "n": -5, "t": "-5"}])
    assert text.splitlines()[0].startswith(("'", "\"'"))
    assert "-5,-5" in text


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd", "_.._etc_passwd"),
        ('a"b\r\nX: y.txt', "a_b_X_ y.txt"),
        ("...", "result"),
        ("", "result"),
        ("ü.txt", "ü.txt"),
    ],
)
def test_a_file_has_a_name_without_a_path(name: str, kept: str) -> None:
    """No path, quote or line break of a workflow's file name reaches a header or a disk."""
    found = results.find_file({"type": "file", "name": name, "content_base64": base64.b64encode(b"x").decode()})
    assert found == (kept, b"x")


def test_a_broken_file_is_empty() -> None:
    """Content that is no base64 is no reason to fail."""
    assert results.find_file({"type": "file", "name": "x", "content_base64": "!!!"}) == ("x", b"")
