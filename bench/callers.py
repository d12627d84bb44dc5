"""Callers at once, each a process of its own that takes little of the machine: plain HTTP over one connection."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from typing import NamedTuple
from urllib.parse import urlsplit

from bench import product


class Work(NamedTuple):
    """What each caller asks for, again and again."""

    url: str
    path: str
    body: bytes
    seconds: float | None = None
    """For how long; None counts calls instead."""
    calls: int = 0


class Answers(NamedTuple):
    """What one caller, or all of them, got."""

    seconds: list[float]
    errors: list[str]
    elapsed: float
    """Seconds from the beginning to the last answer."""


class Callers:
    """So many processes that begin together when `go` is called."""

    def __init__(self, number: int, work: Work) -> None:
        context = multiprocessing.get_context("spawn")
        self._start = context.Barrier(number + 1)
        self._queue: SimpleQueue[Answers] = context.SimpleQueue()
        self._processes = [context.Process(target=_call, args=(work, self._start, self._queue)) for _ in range(number)]
        for process in self._processes:
            process.start()

    def go(self) -> None:
        self._start.wait()

    def answers(self) -> Answers:
        """Wait until every caller is through."""
        found = [self._queue.get() for _ in self._processes]
        for process in self._processes:
            process.join()
        return Answers(
            seconds=[one for some in found for one in some.seconds],
            errors=[one for some in found for one in some.errors],
            elapsed=max(some.elapsed for some in found),
        )


def call_together(number: int, work: Work) -> Answers:
    """Begin, and wait for the end."""
    callers = Callers(number, work)
    callers.go()
    return callers.answers()


def hello(url: str, parameters: Mapping[str, object], *, seconds: float | None = None, calls: int = 0) -> Work:
    """Calls of the benchmarks' first workflow."""
    return Work(url, "/api/workflows/enclosed_hello", json.dumps(parameters).encode(), seconds, calls)


def _call(work: Work, start: Barrier, queue: SimpleQueue[Answers]) -> None:
    seconds: list[float] = []
    errors: list[str] = []
    with connected(work.url) as connection:
        start.wait()
        begin = time.monotonic()
        while not _is_over(work, time.monotonic() - begin, len(seconds) + len(errors)):
            started = time.perf_counter()
            error = _find_error(connection, work)
            seconds += [time.perf_counter() - started] if error is None else []
            errors += [] if error is None else [error]
    queue.put(Answers(seconds, errors, time.monotonic() - begin))


def _is_over(work: Work, elapsed: float, calls: int) -> bool:
    return calls >= work.calls if work.seconds is None else elapsed >= work.seconds


def _find_error(connection: http.client.HTTPConnection, work: Work) -> str | None:
    """Call once; None when it went well."""
    try:
        connection.request("POST", work.path, work.body, {**product.HEADERS, "Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return f"{type(error).__name__}: {error}"
    return (
        None if response.status == http.HTTPStatus.OK else f"{response.status}: {text[:200].decode(errors='replace')}"
    )


@contextmanager
def connected(url: str) -> Iterator[http.client.HTTPConnection]:
    """One connection, which ends with the block."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    try:
        yield connection
    finally:
        connection.close()


def different(errors: Sequence[str]) -> str:
    """Some of the errors, each once."""
    return "; ".join(sorted(set(errors))[:3])
