"""The records on disk: one sealed notebook per finished execution, written all or not at all.

`executions.finish` writes them, `web` reads them. Paths are made of server-side facts only, never of names that a
person chose; a file that no longer has the bytes that were sealed is not handed out.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from pathlib import Path

from bifrost_kernel import errors
from bifrost_scheduler.store import contract


class Records:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def _unfinished(self) -> Path:
        return self._folder / "unfinished"

    def clear_unfinished(self) -> None:
        """Remove what a killed control plane had begun to write; to be called before anything is written."""
        shutil.rmtree(self._unfinished, ignore_errors=True)

    def path(self, execution: contract.NewExecution) -> Path:
        """Where its record lies or will lie."""
        return self._folder / execution.created_at.strftime("%Y-%m-%d") / f"{execution.id}.ipynb"

    def write(self, execution: contract.NewExecution, record: bytes) -> str:
        """Write durably (write, fsync, rename, fsync of the folder); returns the sha256.

        Raises:
            Unavailable: the disk does not take it.
        """
        try:
            # A name of its own: two who end one execution at once must not take each other's file away.
            _write_durably(self.path(execution), self._unfinished / f"{execution.id}-{secrets.token_hex(4)}", record)
        except OSError as error:
            raise errors.Unavailable(f"The record of {execution.id} cannot be written: {error.strerror}.") from error
        return hashlib.sha256(record).hexdigest()

    def read(self, execution: contract.Execution) -> bytes:
        """The sealed bytes.

        Raises:
            Conflict: it is not over yet, or its file is gone or was changed.
        """
        if execution.record_sha256 is None:
            raise errors.Conflict(f"The execution {execution.id} has no record yet: it is {execution.status}.")
        try:
            record = self.path(execution).read_bytes()
        except FileNotFoundError as error:
            raise errors.Conflict(f"The record of {execution.id} is gone from the disk.") from error
        if hashlib.sha256(record).hexdigest() != execution.record_sha256:
            raise errors.Conflict(f"The record of {execution.id} was changed after it was sealed.")
        return record


def _write_durably(path: Path, partial: Path, content: bytes) -> None:
    for folder in (path.parent, partial.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
