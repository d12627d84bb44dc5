"""The two shapes of a write statement that the SQLite store uses, inside a transaction that the writer holds open."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from sqlite_utils import Database


def returned(db: Database, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[sqlite3.Row]:
    """All rows that a statement gives back."""
    # Fetched to the end: a savepoint cannot be released while a statement is still running.
    return db.execute(sql, parameters).fetchall()


def insert(db: Database, table: str, columns: dict[str, Any], *, verb: str = "INSERT") -> int:
    """Insert one row (or `INSERT OR REPLACE`, `INSERT OR IGNORE`); returns how many rows that changed."""
    names = ", ".join(columns)
    values = ", ".join(f":{name}" for name in columns)
    return db.execute(f"{verb} INTO {table} ({names}) VALUES ({values})", columns).rowcount
