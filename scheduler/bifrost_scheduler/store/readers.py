"""Read connections to SQLite: each read borrows one for one statement, so there are as many as ever read at once.

`SqliteStore` makes one pool. Its connections cannot write, and see every commit that was acknowledged before the read.
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


class Readers:
    """Called from any thread."""

    def __init__(self, connect: Callable[[], Database]) -> None:
        self._connect = connect
        self._idle: deque[Database] = deque()
        self._closed = False

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
            return self._connect()
        except sqlite3.Error as error:
            raise public_error(error) from error

    def _give_back(self, db: Database) -> None:
        if self._closed:
            db.close()
            return
        self._idle.append(db)
        if self._closed:  # `close` may have looked just before.
            self.close()
