"""What commands print: tables for people, one JSON document for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

STATUS_STYLES = {
    "success": "green",
    "completed_with_errors": "yellow",
    "running": "cyan",
    "pending": "cyan",
    "awaiting_approval": "yellow",
    "broken": "red",
}


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Iterable[str], rows: Iterable[Iterable[Any]], *, empty: str) -> None:
    """A table, or one line that says why there is none."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "Id")
    for row in rows:
        table.add_row(*(cell(value) for value in row))
    if table.row_count:
        console().print(table)
    else:
        typer.echo(empty)


def print_fields(fields: Mapping[str, Any]) -> None:
    """Names and values below each other; what is None is left out."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in fields.items():
        if value is not None:
            table.add_row(name, cell(value))
    console().print(table)


def cell(value: Any) -> Text:
    """A value as text that cannot steer the terminal: it may come from a customer."""
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    visible = "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)
    return Text(visible, style=STATUS_STYLES.get(text, ""))


def console() -> Console:
    # What goes into a file or a pipe is not folded: other programs read it by lines.
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 500)
