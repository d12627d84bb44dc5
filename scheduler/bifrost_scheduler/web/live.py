"""Live streams of events: what a hundred people who watch one execution see costs little more than what one sees.

The events route hands streams out. All that wake at the same notice share one look at the store, with the text that
goes out; whether a reader may still see it is asked for each of them, in a rhythm of its own.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from sse_starlette import ServerSentEvent
from starlette.concurrency import run_in_threadpool

from bifrost_scheduler.store import contract
from bifrost_scheduler.web.waiting import RECHECK_SECONDS, News

RENEW_SECONDS = 1.0
"""A stream asks this often whether its reader may still see it."""
EVENTS_AT_ONCE = 1000
GATHER_SECONDS = 0.005
"""Whoever wants the same look within this time shares it."""


class Line(NamedTuple):
    """One event as it goes out."""

    seq: int
    type: str
    text: str


class Look(NamedTuple):
    is_over: bool
    """The execution is final, and so are its events."""
    lines: tuple[Line, ...]


class Looks:
    """The looks at the store that are about to be taken; one object for all streams of a server."""

    def __init__(self, store: contract.Store) -> None:
        self._store = store
        self._gathering: dict[tuple[str, int], asyncio.Task[Look]] = {}

    async def take(self, execution_id: str, after: int) -> Look:
        """What comes after this event, read from the store after this call began."""
        wanted = execution_id, after
        task = self._gathering.get(wanted)
        if task is None:
            task = self._gathering[wanted] = asyncio.create_task(self._take(wanted))
        # One reader who leaves does not end the look of the others.
        return await asyncio.shield(task)

    async def _take(self, wanted: tuple[str, int]) -> Look:
        await asyncio.sleep(GATHER_SECONDS)
        # Whoever comes from here on may want what is not written yet.
        del self._gathering[wanted]
        return await run_in_threadpool(self._look, *wanted)

    def _look(self, execution_id: str, after: int) -> Look:
        # The status first: what is over has all its events when they are listed.
        current = self._store.find_execution(execution_id)
        events = self._store.list_events(execution_id, after=after, limit=EVENTS_AT_ONCE)
        lines = tuple(Line(event.seq, event.type.value, json.dumps(event.flat())) for event in events)
        return Look((current is None or current.status.is_final) and len(events) < EVENTS_AT_ONCE, lines)


async def follow(
    looks: Looks, news: News, execution_id: str, after: int, may_see: Callable[[], bool]
) -> AsyncIterator[ServerSentEvent]:
    """The events after this one, until the execution is over or `may_see`, which is called in a thread, says no.

    Args:
        news: of this execution, and already listening.
    """
    clock = asyncio.get_running_loop().time
    renew_at = look_at = clock()
    while True:
        if clock() >= renew_at:
            if not await run_in_threadpool(may_see):
                return
            # Not all at the same time: who came together would ask together for ever.
            renew_at = clock() + RENEW_SECONDS * random.uniform(0.75, 1.0)  # noqa: S311
        if clock() >= look_at:
            look = await looks.take(execution_id, after)
            for line in look.lines:
                after = line.seq
                yield ServerSentEvent(line.text, event=line.type, id=str(line.seq))
            if look.is_over:
                return
            look_at = clock() + (0.0 if len(look.lines) == EVENTS_AT_ONCE else RECHECK_SECONDS)
        if await news.wait(max(min(renew_at, look_at) - clock(), 0.0)):
            look_at = clock()
