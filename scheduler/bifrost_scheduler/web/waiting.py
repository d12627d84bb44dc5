"""Waiting for an execution without holding a thread: sync calls and live streams stand here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool

from bifrost_kernel import models
from bifrost_scheduler import signals
from bifrost_scheduler.services import Services
from bifrost_scheduler.store import contract

RECHECK_SECONDS = 5.0
"""A notice cannot be lost, but a look at the store costs nothing beside a call that would never end."""


async def wait_for_news(notices: signals.Signals, topic: str) -> AsyncIterator[None]:
    """Yield once at the start and again whenever there may be something new."""
    loop = asyncio.get_running_loop()
    news = asyncio.Event()

    def tell() -> None:
        loop.call_soon_threadsafe(news.set)

    with notices.subscribed(topic, tell):
        while True:
            news.clear()
            yield
            try:
                await asyncio.wait_for(news.wait(), RECHECK_SECONDS)
            except TimeoutError:
                continue


async def wait_until_final(services: Services, execution: contract.Execution) -> contract.Execution:
    """The execution when it is over; while it still waits in the queue after `sync_wait_seconds`, as it is then."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + services.settings.sync_wait_seconds
    current = execution
    async for _ in wait_for_news(services.signals, signals.over(execution.id)):
        current = await run_in_threadpool(services.executions.reload, execution.id)
        waits = current.status is models.ExecutionStatus.PENDING and loop.time() >= give_up_at
        if current.status.is_final or waits:
            break
    return current
