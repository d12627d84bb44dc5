"""In-process notice that an execution has something new, for those who wait: sync calls and live event streams.

`executions` and `broker` notify, `web` subscribes. A notice carries no data (the store is the truth) and may be
sent more than once; it never blocks the one who sends it.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Callback = Callable[[], None]


def over(execution_id: str) -> str:
    """The topic on which only the end of an execution is told."""
    return f"{execution_id}/over"


class Signals:
    """Callbacks by topic: an execution's id, or `over(id)`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: dict[str, list[Callback]] = defaultdict(list)

    def notify(self, topic: str) -> None:
        """Call everyone who waits for this topic, in the caller's thread."""
        with self._lock:
            callbacks = tuple(self._callbacks.get(topic, ()))
        for callback in callbacks:
            callback()

    @contextmanager
    def subscribed(self, topic: str, callback: Callback) -> Iterator[None]:
        """Have `callback` called at every notice while the block runs."""
        with self._lock:
            self._callbacks[topic].append(callback)
        try:
            yield
        finally:
            self._forget(topic, callback)

    def _forget(self, topic: str, callback: Callback) -> None:
        with self._lock:
            self._callbacks[topic].remove(callback)
            if not self._callbacks[topic]:
                del self._callbacks[topic]
