"""Cron: what is refused, what expressions mean in words, and when they come due over every change of the clock.

The suite compares a sample with an independent oracle; `BIFROST_SOAK=1 pytest tests/kernel/test_cron.py`
(`make soak`) compares 40 expressions in 40 zones over 20 years.
"""

from __future__ import annotations

import itertools
import os
import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from bifrost_kernel import cron, errors
from tests.kernel import cron_oracle as oracle

SOAK = bool(os.environ.get("BIFROST_SOAK"))

EXPRESSIONS = (
    "0 9 * * 1",
    "30 2 * * *",
    "0,30 2 * * *",
    "15 0 * * *",
    "0 0 * * *",
    "59 23 * * *",
    "*/30 2 * * *",
    "30 * * * *",
    "0 */2 * * *",
    "0 9 1 * 1",
    "0 9 */2 * 1",
    "15 1-3 * * 0",
    "0 2 L * *",
    "0 9 * * TUE#2",
    "45 1 * * 7",
    "30 0 1 1 *",
    "0 12 29 2 *",
    "5 4 1,15 * *",
    "0 8-18/2 * * 1-5",
    "10 2 * 3,10,11 SUN",
    "0 1 * * SAT,SUN",
    "0 0 1 */3 *",
    "0 3 * * 5L",
    "1 2 3 4 *",
    "0 0-23 * * 0",
    "20 2-3 * * *",
    "5/20 2 * * *",
    "0 0 31 * *",
    "0 22 * * 1-5",
    "30 1 * * *",
    "*/20 1 * * *",
    "0 */6 * * *",
    "30 4 10-20 * *",
    "0 9 1-7 * 1",
    "0 0 * 2 *",
    "0 5 * JAN,JUL MON-FRI",
    "45 23 28-31 * *",
    "0 1,2,3 * * *",
    "17 3 */10 * *",
    "0 0 * * 0,7",
)
ZONES = (
    "Europe/Zagreb",
    "America/New_York",
    "Australia/Lord_Howe",  # half an hour
    "Asia/Beirut",  # changes at midnight
    "America/Havana",  # midnight, too
    "Africa/Casablanca",  # goes back for Ramadan
    "Asia/Pyongyang",  # changed its rules in 2015 and 2018
    "Pacific/Apia",  # left out the 30th of December 2011
    "UTC",
    "Asia/Kathmandu",
    "Europe/London",
    "Europe/Dublin",
    "Europe/Istanbul",
    "Europe/Moscow",
    "Europe/Chisinau",
    "Africa/Cairo",
    "Africa/Juba",
    "Africa/Tripoli",
    "America/Sao_Paulo",
    "America/Santiago",
    "America/Caracas",
    "America/Asuncion",
    "America/St_Johns",
    "America/Mexico_City",
    "America/Nuuk",
    "America/Los_Angeles",
    "America/Phoenix",
    "Antarctica/Troll",  # two hours
    "Antarctica/Casey",
    "Asia/Amman",
    "Asia/Gaza",
    "Asia/Kolkata",
    "Asia/Tehran",
    "Asia/Tokyo",
    "Australia/Adelaide",
    "Australia/Sydney",
    "Pacific/Auckland",
    "Pacific/Chatham",
    "Pacific/Norfolk",
    "Pacific/Fiji",
)
YEARS = (2007, 2027)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type,misc]


def between(expression: str, zone: ZoneInfo, start: datetime, end: datetime) -> list[datetime]:
    """Our due times in [start, end)."""
    found = cron.parse(expression).due_after(start - timedelta(microseconds=1), zone)
    return list(itertools.takewhile(lambda due: due < end, found))


def local(expression: str, zone: str, start: datetime, count: int) -> list[str]:
    """The next due times as the clocks there show them."""
    place = ZoneInfo(zone)
    found = itertools.islice(cron.parse(expression).due_after(start, place), count)
    return [f"{due.astimezone(place):%d %H:%M %z}" for due in found]


# what is refused


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("* * * * * *", "it has 6"),
        ("0 9 * *", "it has 4"),
        ("", "it has 0"),
        ("*/0 * * * *", "1 to 59"),
        ("*/90 * * * *", "1 to 59"),
        ("61 * * * *", "minute field '61' takes 0-59"),
        ("0 24 * * *", "hour field '24' takes 0-23"),
        ("0 9 0 * *", "day of month field '0' takes 1-31"),
        ("0 9 * 13 *", "month field '13' takes 1-12"),
        ("0 9 * * 8", "weekday field '8' takes 0-7"),
        ("0 9 * * FRI-SUN", "go upwards"),
        ("0 9 1W * *", "day of month field"),
        ("0 9 L/2 * *", "day of month field"),
        ("0 0 31 2 *", "never comes due"),
        ("0 0 31 4,6,9,11 *", "never comes due"),
        ("٣ * * * *", "minute field"),
        ("@reboot", "there are @yearly"),
        pytest.param("9" * 1_000_000, "five cron fields", id="a megabyte"),
        (None, "five cron fields"),
        (5, "five cron fields"),
    ],
)
def test_refused(expression: object, told: str) -> None:
    """What is no expression, or never comes due, is refused with the field and the reason, in a short text."""
    with pytest.raises(errors.ValidationError) as caught:
        cron.parse(expression)
    assert told in caught.value.message
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("name", ["Europe/Atlantis", "", "../etc/passwd", "/etc/passwd", "x" * 300, None, "Europe"])
def test_unknown_zones(name: object) -> None:
    """A zone that is none is refused in a short text."""
    with pytest.raises(errors.ValidationError, match="IANA"):
        cron.get_zone(name)


# words


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("0 9 * * 1", "Mondays at 09:00"),
        ("0 9 * * 0", "Sundays at 09:00"),
        ("0 9 * * 7", "Sundays at 09:00"),
        ("0 9 * * 1-5", "Mondays to Fridays at 09:00"),
        ("0 9 * * SUN,SAT", "Saturdays and Sundays at 09:00"),
        ("0 9,17 * * *", "Every day at 09:00 and 17:00"),
        ("0 9 * * 1-7", "Every day at 09:00"),
        ("@daily", "Every day at 00:00"),
        ("@hourly", "Every hour"),
        ("* * * * *", "Every minute"),
        ("*/15 * * * *", "Every 15 minutes"),
        ("*/15 * * * 1-5", "Every 15 minutes, Mondays to Fridays"),
        ("5 * * * *", "Every hour at minute 5"),
        ("30 2 1,15 * *", "On the 1st and 15th of every month at 02:30"),
        ("0 0 24 12 *", "On 24 December at 00:00"),
        ("0 9 1 * 1", "At 09:00 on the first day of month or on Monday"),
        ("0 9 */2 * 1", "At 09:00 on every second day of month if it's on Monday"),
        ("0 0 L * *", "At 00:00 on the last day of every month"),
        ("0 9 * * TUE#2", "At 09:00 on the second Tuesday of the month"),
        ("*/7 * * * *", "Every seventh minute of every hour"),
    ],
)
def test_words(expression: str, words: str) -> None:
    """An expression reads as what it does: also where it would be misread."""
    assert cron.parse(expression).describe() == words


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_expression_has_words(expression: str) -> None:
    """No expression is without words, and none of them repeats the cron fields."""
    words = cron.parse(expression).describe()
    assert words[0].isupper()
    assert "*" not in words


# due times


def test_mondays_at_nine() -> None:
    """`0 9 * * 1` is Mondays at 9 by the clocks of the zone, in winter and in summer."""
    for due in itertools.islice(cron.parse("0 9 * * 1").due_after(utc(2026, 1, 1), ZoneInfo("Europe/Zagreb")), 60):
        shown = due.astimezone(ZoneInfo("Europe/Zagreb"))
        assert (shown.isoweekday(), shown.hour, shown.minute) == (1, 9, 0)


@pytest.mark.parametrize("sunday", ["0", "7", "SUN", "sun"])
def test_sunday(sunday: str) -> None:
    """0 and 7 are Sunday, and so is its name."""
    (due,) = itertools.islice(cron.parse(f"0 9 * * {sunday}").due_after(utc(2026, 3, 2), ZoneInfo("UTC")), 1)
    assert due == utc(2026, 3, 8, 9)


def test_day_of_month_or_weekday() -> None:
    """With both day fields restricted, either is enough."""
    assert local("0 9 13 * FRI", "UTC", utc(2026, 3, 9), 3) == ["13 09:00 +0000", "20 09:00 +0000", "27 09:00 +0000"]
    assert local("0 9 11 * FRI", "UTC", utc(2026, 3, 9), 2) == ["11 09:00 +0000", "13 09:00 +0000"]


def test_skipped_hour() -> None:
    """A fixed time in the skipped hour comes due right after it, once; an interval goes on as if nothing were."""
    eve = utc(2026, 3, 28, 12)
    assert local("30 2 * * *", "Europe/Zagreb", eve, 2) == ["29 03:00 +0200", "30 02:30 +0200"]
    assert local("0,30 2 * * *", "Europe/Zagreb", eve, 2) == ["29 03:00 +0200", "30 02:00 +0200"]
    assert local("*/30 * * * *", "Europe/Zagreb", utc(2026, 3, 29, 0, 15), 2) == ["29 01:30 +0100", "29 03:00 +0200"]


def test_repeated_hour() -> None:
    """A fixed time in the repeated hour comes due once, the first time; an interval goes on through both."""
    eve = utc(2026, 10, 24, 22)
    assert local("30 2 * * *", "Europe/Zagreb", eve, 2) == ["25 02:30 +0200", "26 02:30 +0100"]
    assert local("30 * * * *", "Europe/Zagreb", eve, 4)[2:] == ["25 02:30 +0200", "25 02:30 +0100"]


def test_half_an_hour() -> None:
    """Lord Howe changes its clocks by half an hour, and its schedules with them."""
    assert local("15 2 * * *", "Australia/Lord_Howe", utc(2026, 10, 3, 0), 2) == ["04 02:30 +1100", "05 02:15 +1100"]
    assert local("45 1 * * *", "Australia/Lord_Howe", utc(2026, 4, 4, 0), 2) == ["05 01:45 +1100", "06 01:45 +1030"]


def test_a_day_that_never_was() -> None:
    """Samoa left out a whole day: what was due on it came due when the day was skipped."""
    found = local("0 9 * * *", "Pacific/Apia", utc(2011, 12, 29, 12), 3)
    assert found == ["29 09:00 -1000", "31 00:00 +1400", "31 09:00 +1400"]


def test_it_goes_on_from_where_one_stopped() -> None:
    """Asking again from each due time gives the same times as going on."""
    zone, fields = ZoneInfo("Europe/Zagreb"), cron.parse("*/20 1-3 * * *")
    at = utc(2026, 10, 24, 20)
    for due in itertools.islice(fields.due_after(at, zone), 40):
        assert next(fields.due_after(at, zone)) == due
        at = due


@pytest.mark.parametrize("zone", ZONES[:8])
def test_against_every_minute(zone: str) -> None:
    """Around each change of the clock, an interval is due at exactly the minutes whose local time it names."""
    place = ZoneInfo(zone)
    for change, _ in oracle.changes(place, utc(2011, 1, 1), utc(2020, 1, 1))[1:]:
        start, end = change - timedelta(hours=27), change + timedelta(hours=27)
        walked = [one for one in oracle.minutes(start, end) if _named(one.astimezone(place))]
        assert between("*/15 0-3,23 * * *", place, start, end) == walked


def _named(clock: datetime) -> bool:
    return clock.minute % 15 == 0 and clock.hour in (0, 1, 2, 3, 23) and clock.second == 0


@pytest.mark.parametrize("zone", ZONES if SOAK else ZONES[:8])
def test_against_the_oracle(zone: str) -> None:
    """Due times equal those of an independent reading, expression by expression, over years of changing rules."""
    place = ZoneInfo(zone)
    chosen = EXPRESSIONS if SOAK else random.Random(zone).sample(EXPRESSIONS, 4)
    years = YEARS if SOAK else (2010, 2013)
    start, end = utc(years[0], 1, 1), utc(years[1], 1, 1)
    for expression in chosen:
        expected = oracle.due(expression, place, start, end, fixed=cron.parse(expression).is_fixed)
        assert between(expression, place, start, end) == expected, (expression, zone)
