"""How the API answers while something else happens, asked from a process of its own."""

from __future__ import annotations

import http.client
import multiprocessing
import time
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event

from bench import callers
from bench.figures import Spread


class Health:
    """Asks the control plane all the time how it is, and notes how long each answer took.

    Args:
        every_seconds: how long it waits between two questions, which take from what is measured beside it.
    """

    def __init__(self, url: str, *, every_seconds: float = 0.02) -> None:
        context = multiprocessing.get_context("spawn")
        self._over, self._ready, self._answers = context.Event(), context.Event(), context.SimpleQueue()
        self._process = context.Process(target=_ask, args=(url, every_seconds, self._ready, self._over, self._answers))
        self.seconds: list[float] = []

    def __enter__(self) -> Health:
        self._process.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.seconds = self._answers.get()
        self._process.join()

    @property
    def spread(self) -> Spread:
        """Of all answers; after the block."""
        return Spread.of(self.seconds)

    def tell(self, what: str) -> None:
        spread = self.spread
        pairs = ("median", spread.median), ("p99", spread.p99), ("max", spread.slowest)
        figures = "  ".join(f"{name} {value * 1000:.0f} ms" for name, value in pairs)
        print(f"{what:<44} health of the control plane: {figures}  n={spread.count}")


def _ask(url: str, every_seconds: float, ready: Event, over: Event, answers: SimpleQueue[list[float]]) -> None:
    seconds: list[float] = []
    with callers.connected(url) as connection:
        _ask_once(connection)
        ready.set()
        while not over.wait(every_seconds):
            started = time.perf_counter()
            _ask_once(connection)
            seconds.append(time.perf_counter() - started)
    answers.put(seconds)


def _ask_once(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", "/api/health")
    response = connection.getresponse()
    text = response.read()
    assert response.status == http.HTTPStatus.OK, text
