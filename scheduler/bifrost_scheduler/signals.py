"""In-process notice that an execution has something new, for those who wait: sync calls and live event streams.

`executions` and `broker` notify, `web` subscribes. The store is the truth: only the end of an execution carries data,
the row as it was committed. A notice may be sent more than once; it never blocks the one who sends it.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Callback = Callable[[object], None]


def over(execution_id: str) -> str:
    """The topic on which only the end of an execution is told, with the finished execution."""
    return f"{execution_id}/over"


class Signals:
    """Callbacks by topic: an execution's id, or `over(id)`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: dict[str, list[Callback]] = defaultdict(list)

    def notify(self, topic: str, news: object = None) -> None:
        """Call everyone who waits for this topic with the news, in the caller's thread."""
        with self._lock:
            callbacks = tuple(self._callbacks.get(topic, ()))
        for callback in callbacks:
            callback(news)

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
