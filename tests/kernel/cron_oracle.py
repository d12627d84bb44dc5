"""A second opinion on due times: croniter reads the expressions, and every zone is looked at hour by hour.

It shares nothing with `bifrost_kernel.cron` but the zone data. It counts on local times only: which of them an
expression names is croniter's answer for a clock that never changes; where that clock goes in a zone is walked through.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo

from croniter import croniter

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@cache
def walls(expression: str, start: datetime, end: datetime) -> Sequence[datetime]:
    """Every local time in [start, end) that the expression names, naive."""
    # Vixie's rule for a day field that begins with `*` is a "bug" to croniter, and what everybody's cron does.
    # So is that it writes the last Friday the other way round.
    found = croniter(re.sub(r"\b(\d)L$", r"L\1", expression), start - MINUTE, implement_cron_bug=True)
    named = []
    while (one := found.get_next(datetime)) < end:
        named.append(one)
    return named


@cache
def changes(zone: ZoneInfo, start: datetime, end: datetime) -> Sequence[tuple[datetime, timedelta]]:
    """The stretches of one offset in [start, end): their first instants, with the offset."""
    found = [(start, offset(start, zone))]
    at = start
    while at < end:
        if offset(at + HOUR, zone) != found[-1][1]:
            at += next(step * MINUTE for step in range(61) if offset(at + step * MINUTE, zone) != found[-1][1])
            found.append((at, offset(at, zone)))
        else:
            at += HOUR
    return found


def due(expression: str, zone: ZoneInfo, start: datetime, end: datetime, *, fixed: bool) -> list[datetime]:
    """The instants in [start, end) at which the expression is due in the zone."""
    begin = start.replace(minute=0, second=0, microsecond=0) - 2 * 24 * HOUR
    stretches = [*changes(zone, begin, end + 2 * 24 * HOUR)]
    instants = set()
    for wall in walls(expression, _day(start, -2), _day(end, 3)):
        instants.update(_instants(wall, stretches, fixed=fixed))
    return sorted(one for one in instants if start <= one < end)


def _instants(wall: datetime, stretches: Sequence[tuple[datetime, timedelta]], *, fixed: bool) -> list[datetime]:
    found, skipped = [], []
    for number, (since, ahead) in enumerate(stretches):
        until = stretches[number + 1][0] if number + 1 < len(stretches) else None
        instant = (wall - ahead).replace(tzinfo=UTC)
        if since <= instant and (until is None or instant < until):
            found.append(instant)
        if until is not None and instant >= until and (wall - stretches[number + 1][1]).replace(tzinfo=UTC) < until:
            skipped.append(until)
    if not fixed:
        return found
    return (found or skipped)[:1]


def offset(instant: datetime, zone: ZoneInfo) -> timedelta:
    ahead = instant.astimezone(zone).utcoffset()
    assert ahead is not None
    return ahead


def _day(instant: datetime, days: int) -> datetime:
    return datetime.combine(instant.date(), time()) + timedelta(days=days)


def minutes(start: datetime, end: datetime) -> Iterator[datetime]:
    """Every minute of [start, end)."""
    while start < end:
        yield start
        start += MINUTE
