"""All writing to SQLite: whoever comes first writes for everybody who waits, in one transaction (group commit).

`SqliteStore` makes one. A durable commit costs one fsync; eight callers that wait at the same time pay for it once, and
one who comes alone pays for no change of threads. Each operation runs in its own savepoint: one that fails leaves
nothing behind, and fails for its caller alone. It knows no table and never reads for callers.
"""

from __future__ import annotations

import collections
import contextlib
import math
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlite_utils import Database

from bifrost_kernel import errors

T = TypeVar("T")

RETRY_AFTER_SECONDS = 1.0
_BATCH_LIMIT = 200


class _Job:
    """An operation, and what became of it; `woken` is released when it is done, or when its caller is to write."""

    __slots__ = ("error", "is_awaited", "is_done", "operation", "scrub", "value", "woken")

    def __init__(self, operation: Callable[[Database], Any], *, scrub: bool, is_awaited: bool) -> None:
        self.operation = operation
        self.scrub = scrub
        self.is_awaited = is_awaited
        self.is_done = False
        self.value: Any = None
        self.error: Exception | None = None
        self.woken = threading.Lock()
        self.woken.acquire()

    def end(self, error: Exception | None = None) -> None:
        if not self.is_done:
            self.error = error
            self.is_done = True
            self.woken.release()


class Writer:
    """Owns the write connection; `run` is called from any thread."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._jobs: collections.deque[_Job] = collections.deque()
        self._state = threading.Condition()
        """Guards the queue, and who writes."""
        self._is_writing = False
        self._closed = False
        self._scrub_due = False
        self._committed_at = -math.inf
        """By the monotonic clock."""

    def run(self, operation: Callable[[Database], T], *, scrub: bool = False) -> T:
        """Run the operation in a transaction and return its result after the commit.

        Args:
            scrub: it replaced or deleted something that must not linger in the write-ahead log.

        Raises:
            Unavailable: the database is locked, full or broken, or the store is closed.
            BifrostError: what the operation itself raised; nothing of it was written.
        """
        job = _Job(operation, scrub=scrub, is_awaited=True)
        if self._enqueue(job):
            self._write()
        while not job.is_done:
            self._wait(job)
            if not job.is_done:
                self._write()
        if job.error is not None:
            raise job.error
        value: T = job.value
        return value

    def post(self, operation: Callable[[Database], object]) -> None:
        """Run the operation some time soon; nobody waits for it and its failure concerns nobody.

        Raises:
            Unavailable: the store is closed.
        """
        if self._enqueue(_Job(operation, scrub=False, is_awaited=False)):
            threading.Thread(target=self._write, name="bifrost-store-writer").start()

    def has_committed_within(self, seconds: float) -> bool:
        """Whether something was written as lately as that, and more could be."""
        return not self._closed and time.monotonic() - self._committed_at < seconds

    def close(self) -> None:
        """Commit what is queued, then close the connection; closing twice is fine."""
        with self._state:
            if self._closed:
                return
            self._closed = True
            self._state.wait_for(lambda: not self._is_writing)
        self._db.close()

    def _enqueue(self, job: _Job) -> bool:
        """Is the caller the one to write now?"""
        with self._state:
            if self._closed:
                raise errors.Unavailable("the store is closed")
            self._jobs.append(job)
            is_first, self._is_writing = not self._is_writing, True
        return is_first

    def _wait(self, job: _Job) -> None:
        """Until it is done, or its caller is to write."""
        try:
            job.woken.acquire()
        except BaseException:  # an interrupt: the operation runs all the same, only that nobody waits for it any more
            with self._state:
                job.is_awaited = False
                is_to_write = job.woken.acquire(blocking=False) and not job.is_done
            if is_to_write:
                self._write()
            raise

    def _write(self) -> None:
        """Commit what waits; leave what came meanwhile to the first who waits for it."""
        while batch := self._take_batch():
            try:
                self._commit(batch)
                self._scrub()
            except BaseException:
                self._hand_over(steps_down=True)
                raise
            if self._hand_over():
                return

    def _take_batch(self) -> list[_Job]:
        """The longest waiting jobs; when there are none, nobody writes any more."""
        with self._state:
            batch = [self._jobs.popleft() for _ in range(min(len(self._jobs), _BATCH_LIMIT))]
            if not batch:
                self._step_down()
            return batch

    def _hand_over(self, *, steps_down: bool = False) -> bool:
        """Have the first who waits write; False when nobody does."""
        with self._state:
            heir = next((job for job in self._jobs if job.is_awaited), None)
            if heir is not None:
                heir.woken.release()
            elif steps_down:
                self._step_down()
            return heir is not None

    def _step_down(self) -> None:
        self._is_writing = False
        self._state.notify_all()

    def _commit(self, batch: list[_Job]) -> None:
        done: list[_Job] = []
        wrote = False
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for job in batch:
                before = self._db.conn.total_changes
                if self._run_one(job):
                    done.append(job)
                    wrote |= self._db.conn.total_changes > before
            self._db.execute("COMMIT")
        except Exception as error:
            self._abandon(batch, public_error(error))
            return
        except BaseException:  # the caller who writes was interrupted; the others shall not be, too
            self._abandon(batch, errors.Unavailable("the write was interrupted", retry_after_seconds=0))
            raise
        if wrote:  # else SQLite did not ask the disk
            self._committed_at = time.monotonic()
        for job in done:
            self._scrub_due |= job.scrub
            job.end()

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
            job.end(public_error(error))
            return False
        self._db.execute("RELEASE job")
        return True

    def _abandon(self, batch: list[_Job], error: Exception) -> None:
        # The transaction is gone either way; the first error is the one to tell.
        with contextlib.suppress(sqlite3.Error):
            self._db.rollback()
        for job in batch:
            job.end(error)

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
