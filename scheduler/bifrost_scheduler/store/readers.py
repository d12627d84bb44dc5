"""Read connections to SQLite: each read borrows one for one statement.

There are as many as ever read at once, but a few from the beginning. None is closed before all are: SQLite would keep
its files open, as long as another connection has a lock on them. `SqliteStore` makes one pool. Its connections cannot
write, and see every commit that was acknowledged before the read.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from sqlite_utils import Database

from bifrost_kernel import errors
from bifrost_scheduler.store.writer import public_error

Row = sqlite3.Row

OPEN_FROM_THE_BEGINNING = 8
"""Executions one after the other read by no more (by five, once in ten thousand), so that what the process holds does
not grow with them. One takes 0.3 ms to open."""


class Readers:
    """Called from any thread."""

    def __init__(self, connect: Callable[[], Database]) -> None:
        self._connect = connect
        self._closed = False
        self._idle = deque(self._open() for _ in range(OPEN_FROM_THE_BEGINNING))

    def fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """All rows of one SELECT.

        A parameter that SQLite cannot hold (a lone surrogate, a number over 64 bits) was never stored: it matches none.

        Raises:
            Unavailable: the database is locked or broken, or the store is closed.
        """
        db = self._borrow()
        try:
            return db.execute(sql, parameters).fetchall()
        except (UnicodeEncodeError, OverflowError):
            return []
        except sqlite3.Error as error:
            raise public_error(error) from error
        finally:
            self._give_back(db)

    def close(self) -> None:
        """Close what is idle; what is borrowed is closed when it comes back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _borrow(self) -> Database:
        if self._closed:
            raise errors.Unavailable("the store is closed")
        try:
            return self._idle.pop()
        except IndexError:
            return self._open()

    def _open(self) -> Database:
        try:
            db = self._connect()
            # SQLite opens the log of a connection when that reads for the first time.
            db.execute("PRAGMA schema_version").fetchone()
        except sqlite3.Error as error:
            raise public_error(error) from error
        return db

    def _give_back(self, db: Database) -> None:
        if self._closed:
            db.close()
            return
        self._idle.append(db)
        if self._closed:  # `close` may have looked just before.
            self.close()
