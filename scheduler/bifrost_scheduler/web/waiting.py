"""Waiting for an execution without holding a thread: sync calls and live streams stand here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from starlette.concurrency import run_in_threadpool

from bifrost_kernel import models
from bifrost_scheduler import signals
from bifrost_scheduler.services import Services
from bifrost_scheduler.store import contract

RECHECK_SECONDS = 5.0
"""A notice cannot be lost, but a look at the store costs nothing beside a call that would never end."""
FIRST_LOOK_SECONDS = 0.5
"""What ended before anybody listened is found so; looking at once would only hinder what just begins."""


class News:
    """Whether there may be something new since the last look."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def tell(self, _: object = None) -> None:
        """Called from any thread."""
        self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, seconds: float = RECHECK_SECONDS) -> bool:
        """Until there is news, or that long; tells which. What comes while the caller looks is not missed."""
        try:
            await asyncio.wait_for(self._event.wait(), seconds)
        except TimeoutError:
            return False
        self._event.clear()
        return True


@contextmanager
def listening(notices: signals.Signals, topic: str) -> Iterator[News]:
    """News of a topic while the block runs; to be entered before the first look at the store."""
    news = News()
    with notices.subscribed(topic, news.tell):
        yield news


async def wait_until_final(services: Services, execution: contract.Execution) -> contract.Execution:
    """The execution when it is over; while it still waits in the queue after `sync_wait_seconds`, as it is then."""
    if execution.status.is_final:
        return execution
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + services.settings.sync_wait_seconds
    pause = min(FIRST_LOOK_SECONDS, services.settings.sync_wait_seconds)
    ended: asyncio.Future[contract.Execution] = loop.create_future()
    with services.signals.subscribed(signals.over(execution.id), partial(_tell_end, loop, ended)):
        while True:
            await asyncio.wait((ended,), timeout=pause)
            if ended.done():
                return ended.result()
            current = await run_in_threadpool(services.executions.reload, execution.id)
            left = give_up_at - loop.time() if current.status is models.ExecutionStatus.PENDING else RECHECK_SECONDS
            if current.status.is_final or left <= 0:
                return current
            pause = min(left, RECHECK_SECONDS)


def _tell_end(loop: asyncio.AbstractEventLoop, ended: asyncio.Future[contract.Execution], finished: object) -> None:
    """Called in the thread that ended the execution."""
    assert isinstance(finished, contract.Execution)
    loop.call_soon_threadsafe(_settle, ended, finished)


def _settle(ended: asyncio.Future[contract.Execution], finished: contract.Execution) -> None:
    if not ended.done():
        ended.set_result(finished)
