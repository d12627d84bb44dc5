"""The one thread that writes to SQLite: it takes all operations that wait and commits them together (group commit).

`SqliteStore` makes one. A durable commit costs one fsync; eight callers that wait at the same time pay for it once.
Each operation runs in its own savepoint: one that fails leaves nothing behind, and fails for its caller alone. It knows
no table and never reads for callers.
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlite_utils import Database

from bifrost_kernel import errors

T = TypeVar("T")

RETRY_AFTER_SECONDS = 1.0
_BATCH_LIMIT = 200


@dataclass(slots=True)
class _Job:
    operation: Callable[[Database], Any]
    scrub: bool
    future: Future[Any] = field(default_factory=Future)
    value: Any = None


class Writer:
    """Owns the write connection; `run` is called from any thread."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self._closing = threading.Lock()
        self._scrub_due = False
        self._thread = threading.Thread(target=self._work, name="bifrost-store-writer", daemon=True)
        self._thread.start()

    def run(self, operation: Callable[[Database], T], *, scrub: bool = False) -> T:
        """Run the operation in a transaction and return its result after the commit.

        Args:
            scrub: it replaced or deleted something that must not linger in the write-ahead log.

        Raises:
            Unavailable: the database is locked, full or broken, or the store is closed.
            BifrostError: what the operation itself raised; nothing of it was written.
        """
        value: T = self._post(operation, scrub=scrub).result()
        return value

    def post(self, operation: Callable[[Database], object]) -> None:
        """Run the operation some time soon; nobody waits for it and its failure concerns nobody."""
        self._post(operation, scrub=False)

    def close(self) -> None:
        """Commit what is queued and end the thread; closing twice is fine."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._jobs.put(None)
        self._thread.join()
        self._db.close()

    def _post(self, operation: Callable[[Database], object], *, scrub: bool) -> Future[Any]:
        job = _Job(operation, scrub)
        with self._closing:
            if self._closed:
                raise errors.Unavailable("the store is closed")
            self._jobs.put(job)
        return job.future

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            if batch:
                self._commit(batch)
                self._scrub()

    def _next_batch(self) -> list[_Job] | None:
        """All jobs that wait, at least one; None after `close`. Jobs before the closing mark still run."""
        job = self._jobs.get()
        if job is None:
            return None
        batch = [job]
        while len(batch) < _BATCH_LIMIT and not self._jobs.empty():
            following = self._jobs.get()
            if following is None:
                self._jobs.put(None)
                break
            batch.append(following)
        return batch

    def _commit(self, batch: list[_Job]) -> None:
        done: list[_Job] = []
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for job in batch:
                if self._run_one(job):
                    done.append(job)
            self._db.execute("COMMIT")
        except Exception as error:
            self._abandon(batch, error)
            return
        for job in done:
            self._scrub_due |= job.scrub
            job.future.set_result(job.value)

    def _run_one(self, job: _Job) -> bool:
        """Run one job in its savepoint; False when it failed and its caller was told.

        Raises:
            sqlite3.Error: the whole transaction is lost.
        """
        self._db.execute("SAVEPOINT job")
        try:
            job.value = job.operation(self._db)
        except Exception as error:
            if not self._db.conn.in_transaction:
                raise
            self._db.execute("ROLLBACK TO job")
            self._db.execute("RELEASE job")
            job.future.set_exception(public_error(error))
            return False
        self._db.execute("RELEASE job")
        return True

    def _abandon(self, batch: list[_Job], error: Exception) -> None:
        # The transaction is gone either way; the first error is the one to tell.
        with contextlib.suppress(sqlite3.Error):
            self._db.rollback()
        for job in batch:
            if not job.future.done():
                job.future.set_exception(public_error(error))

    def _scrub(self) -> None:
        """Empty the write-ahead log; while a reader still needs it, try again after the next commit."""
        if not self._scrub_due:
            return
        (timeout_ms,) = self._db.execute("PRAGMA busy_timeout").fetchone()
        try:
            self._db.execute("PRAGMA busy_timeout = 0")
            busy, _, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._scrub_due = bool(busy)
        except sqlite3.Error:
            pass  # Still due.
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {timeout_ms}")


def public_error(error: Exception) -> Exception:
    """What a caller of the store sees instead of an error of SQLite."""
    if isinstance(error, errors.BifrostError):
        return error
    if isinstance(error, UnicodeEncodeError | OverflowError):
        return errors.ValidationError(f"this cannot be stored: {error}")
    if isinstance(error, sqlite3.IntegrityError):
        return errors.Conflict(f"the store refused it: {error}")
    if isinstance(error, sqlite3.Error):
        return errors.Unavailable(f"the store does not answer: {error}", retry_after_seconds=RETRY_AFTER_SECONDS)
    return error
