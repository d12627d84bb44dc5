"""When a schedule is due, and when each due time is planned to be acted on. Pure: the instants are arguments.

`decisions`, `ticker` and `service` ask it. It knows no store and decides nothing about overlap or lateness.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import takewhile
from typing import NamedTuple

from bifrost_kernel import cron
from bifrost_scheduler.store.schedule_contract import Definition, Schedule

_BEFORE = timedelta(microseconds=1)


class Due(NamedTuple):
    due_at: datetime
    planned_at: datetime


def due_after(schedule: Schedule, instant: datetime) -> Iterator[Due]:
    """Every due time after `instant`, ascending; none for a rule, which is due through the schedules that it makes."""
    if schedule.definition.for_all:
        return
    for due_at in _instants(schedule.definition, instant):
        yield Due(due_at, due_at + _jitter(schedule, due_at))


def due_now(schedule: Schedule, now: datetime) -> Iterator[Due]:
    """The due times without a row whose planned time has come, ascending."""
    return takewhile(lambda due: due.planned_at <= now, due_after(schedule, schedule.accounted_until))


def wake_after(schedule: Schedule, instant: datetime) -> datetime | None:
    """When the first due time after `instant` is planned; None when there is none."""
    following = next(due_after(schedule, instant), None)
    return None if following is None else following.planned_at


def is_blacked_out(definition: Definition, due_at: datetime) -> bool:
    return any(blackout.starts_at <= due_at < blackout.ends_at for blackout in definition.blackouts)


def describe(definition: Definition) -> str:
    """In plain words, e.g. `Mondays at 09:00, Europe/Zagreb`."""
    if definition.cron is not None:
        return f"{cron.parse(definition.cron).describe()}, {definition.timezone}"
    if definition.run_at is not None:
        shown = definition.run_at.astimezone(cron.get_zone(definition.timezone))
        return f"Once, on {shown:%Y-%m-%d at %H:%M}, {definition.timezone}"
    return "As the workflow says"


def _instants(definition: Definition, after: datetime) -> Iterator[datetime]:
    if definition.starts_at is not None:
        after = max(after, definition.starts_at - _BEFORE)
    found = _all(definition, after)
    if definition.ends_at is None:
        return found
    ends_at = definition.ends_at
    return takewhile(lambda due_at: due_at < ends_at, found)


def _all(definition: Definition, after: datetime) -> Iterator[datetime]:
    if definition.cron is not None:
        return cron.parse(definition.cron).due_after(after, cron.get_zone(definition.timezone))
    return iter([definition.run_at] if definition.run_at is not None and definition.run_at > after else [])


def _jitter(schedule: Schedule, due_at: datetime) -> timedelta:
    """The same for a schedule and due time whoever asks, and evenly spread over them."""
    if not schedule.definition.jitter_seconds:
        return timedelta()
    text = f"{schedule.id} {due_at.timestamp():.0f}"
    share = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64
    return timedelta(seconds=round(share * schedule.definition.jitter_seconds, 3))
