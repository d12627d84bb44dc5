"""Things to do later: one thread for all deadlines, where each execution would need a thread of its own.

The runner owns one. What is called is short, and its failure is its own.
"""

from __future__ import annotations

import contextlib
import math
import sched
import threading
import time
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)


class Alarms:
    """A thread that sleeps until the next thing is due."""

    def __init__(self) -> None:
        self._scheduler = sched.scheduler(time.monotonic)
        self._wakes_at = math.inf
        self._news = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, name="alarms", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Forget what is not due yet."""
        self._stopping = True
        self._news.set()
        if self._thread.is_alive():
            self._thread.join()

    def after(self, seconds: float, action: Callable[[], object]) -> sched.Event:
        """Call it once, so much later, in the thread of all alarms; `cancel` takes what this returns."""
        event = self._scheduler.enter(seconds, 0, self._call, (action,))
        if event.time < self._wakes_at:
            self._news.set()
        return event

    def cancel(self, event: sched.Event) -> None:
        """Nothing when it was called already."""
        with contextlib.suppress(ValueError):
            self._scheduler.cancel(event)

    def _serve(self) -> None:
        while not self._stopping:
            # Whatever is entered from here on wakes this thread, until it is known how long it may sleep.
            self._wakes_at = math.inf
            self._news.clear()
            seconds = self._scheduler.run(blocking=False)
            if seconds is not None:
                self._wakes_at = time.monotonic() + seconds
            self._news.wait(seconds)

    def _call(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # the edge of the thread: the alarms of all others come after it
            log.error("alarm.failed", exc_info=error)
