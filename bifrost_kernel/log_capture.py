"""Standard `logging` as lines of the execution's history, beside `context.log`.

`entry` wraps each execution in it. It leaves handlers that others installed alone and restores what it changed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from bifrost_kernel import models

NOISY = ("aiohttp", "asyncio", "azure", "botocore", "httpcore", "httpx", "msal", "urllib3")
"""Libraries that log every request; their warnings are enough. An author who sets such a level keeps it."""


class Log(Protocol):
    """What a line is written with: `OrganizationContext.log`."""

    def __call__(self, level: str, message: str, data: object = None) -> None: ...


@contextmanager
def capture(log: Log) -> Iterator[None]:
    """Send records of the root logger, from INFO upwards, to `log` while the block runs."""
    root = logging.getLogger()
    handler = _Handler(log)
    level_before = root.level
    root.setLevel(min(level_before, logging.INFO))
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level_before)


class _Handler(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log
        self._busy = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        return super().filter(record) and not _is_noise(record)

    def emit(self, record: logging.LogRecord) -> None:
        # Whatever logs while a line is being sent would send a line for it, and so on.
        if getattr(self._busy, "now", False):
            return
        self._busy.now = True
        try:
            self._log(_level(record.levelno), self.format(record), {"logger": record.name})
        except Exception:  # logging's contract: a handler reports its trouble and never raises into its caller
            self.handleError(record)
        finally:
            self._busy.now = False


def _is_noise(record: logging.LogRecord) -> bool:
    library = record.name.partition(".")[0]
    if record.levelno >= logging.WARNING or library not in NOISY:
        return False
    name = record.name
    while name:
        if logging.getLogger(name).level != logging.NOTSET:
            return False
        name = name.rpartition(".")[0]
    return True


def _level(number: int) -> str:
    steps = (
        (logging.CRITICAL, models.LogLevel.CRITICAL),
        (logging.ERROR, models.LogLevel.ERROR),
        (logging.WARNING, models.LogLevel.WARNING),
        (logging.INFO, models.LogLevel.INFO),
    )
    return next((level for threshold, level in steps if number >= threshold), models.LogLevel.DEBUG).value
