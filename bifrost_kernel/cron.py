"""Cron expressions: what they mean, when they come due in a time zone, and how they read in plain words.

`declarations` checks the `schedule` of a workflow with it, the control plane computes due times, and the command line
shows them: one truth for all. Pure: it reads no clock and keeps nothing.

The fields are POSIX's (weekday 0 and 7 are Sunday; names, lists, ranges, steps), read by cronsim. When day of month and
weekday are both restricted, either is enough; a field that begins with `*` restricts nothing by itself, as in Vixie's
cron. Beyond POSIX: `L` (last day of the month), `5L` (its last Friday), `TUE#2` (its second Tuesday), `@daily` and kin.
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import cronsim
from cronsim.cronsim import RANGES, Field

from bifrost_kernel import errors

MAX_CHARS = 200

MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS = (Field.MINUTE, Field.HOUR, Field.DAY, Field.MONTH, Field.DOW)
_NAMES = ("minute", "hour", "day of month", "month", "weekday")
_TERM = re.compile(r"(\*|\w+(-\w+)?)(/(?P<step>[0-9]+))?|\w+#[1-5]", re.ASCII)
_SEARCH_START = datetime(2024, 1, 1)  # noqa: DTZ001  local time of no zone
_DAYS = ("Sundays", "Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays")
_MONTHS = "January February March April May June July August September October November December"
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Cron:
    """A checked expression; `fields` are its five fields, macros replaced."""

    text: str
    fields: tuple[str, str, str, str, str]

    @property
    def is_fixed(self) -> bool:
        """Minute and hour are named, without wildcard or step: due once per matching local time, whatever the clock."""
        return not any(mark in field for field in self.fields[:2] for mark in "*/")

    def due_after(self, instant: datetime, zone: ZoneInfo) -> Iterator[datetime]:
        """Every due time after `instant`, ascending, in UTC.

        A fixed time in a skipped hour comes due when that hour is skipped, in a repeated hour the first time. Other
        expressions come due at every instant whose local time matches: both times, or not at all.
        """
        return self._fixed_after(instant, zone) if self.is_fixed else self._matching_after(instant, zone)

    def describe(self) -> str:
        """In plain words, e.g. `Mondays at 09:00`."""
        return _describe(self)

    def _fixed_after(self, instant: datetime, zone: ZoneInfo) -> Iterator[datetime]:
        last = instant
        for local in self._local_after(_local(instant, zone)):
            due = _instant_of(local, zone)
            # Several times of one skipped hour are one due time.
            if due > last:
                yield due
                last = due

    def _matching_after(self, instant: datetime, zone: ZoneInfo) -> Iterator[datetime]:
        """Walks through stretches of one offset each: within them local time is as even as UTC."""
        start: datetime | None = instant
        since = _local(instant, zone)
        while start is not None:
            offset = _offset(start, zone)
            stretch, start = start, None
            for local in self._local_after(since):
                due = (local - offset).replace(tzinfo=UTC)
                if start := _first_change(zone, stretch, due):
                    # The first second of the next stretch may itself be due.
                    since = _local(start, zone) - _SECOND
                    break
                yield due
                stretch = due

    def _local_after(self, local: datetime) -> Iterator[datetime]:
        return iter(cronsim.CronSim(" ".join(self.fields), local))


def parse(text: object) -> Cron:
    """
    Raises:
        ValidationError: it is no cron expression, or never comes due; says which field and why.
    """
    if not isinstance(text, str) or len(text) > MAX_CHARS:
        raise _refused(text, "is not five cron fields: minute hour day month weekday, e.g. 0 9 * * 1")
    fields = _expanded(text).split()
    if len(fields) != len(_FIELDS):
        raise _refused(text, f"is not five cron fields (it has {len(fields)}): minute hour day month weekday")
    for field, name, value in zip(_FIELDS, _NAMES, fields, strict=True):
        _check_field(text, field, name, value)
    minute, hour, day, month, weekday = fields
    cron = Cron(text, (minute, hour, day, month, weekday))
    _check_comes_due(cron)
    return cron


def get_zone(name: object) -> ZoneInfo:
    """
    Raises:
        ValidationError: there is no such IANA time zone.
    """
    try:
        return ZoneInfo(name)  # type: ignore[arg-type]
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        message = f'{_shown(name)} is unknown; allowed are IANA names, e.g. "UTC", "Europe/Berlin", "America/New_York"'
        raise errors.ValidationError(message, [errors.FieldError("timezone", "timezone", message)]) from None


def _expanded(text: str) -> str:
    word = text.strip().lower()
    if not word.startswith("@"):
        return text
    if word not in MACROS:
        raise _refused(text, f"is unknown; there are {', '.join(MACROS)}")
    return MACROS[word]


def _check_field(text: str, field: Field, name: str, value: str) -> None:
    for term in value.split(","):
        match, most = _TERM.fullmatch(term), max(RANGES[field])
        if match and match["step"] and not 0 < int(match["step"]) <= most:
            reason = f"a step of the {name} field is 1 to {most}; it starts anew with each round"
            raise _refused(text, f"is no cron expression: {reason}")
        if match is None or not _is_allowed(field, term.upper()):
            raise _refused(text, f"is no cron expression: the {name} field {_shown(value)} {_allowed(field)}")


def _is_allowed(field: Field, term: str) -> bool:
    try:
        found = field.parse(term)
    except cronsim.CronSimError:
        return False
    # A step over something that is no number has no meaning that two programs agree on.
    return "/" not in term or all(isinstance(one, int) and one >= 0 for one in found)


def _allowed(field: Field) -> str:
    low, high = min(RANGES[field]), max(RANGES[field])
    return f"takes {low}-{high}, lists a,b, ranges a-b that go upwards, steps */n"


def _check_comes_due(cron: Cron) -> None:
    try:
        next(cron._local_after(_SEARCH_START))
    except (cronsim.CronSimError, StopIteration):
        raise _refused(cron.text, "never comes due: no month has such a day") from None


def _refused(text: object, reason: str) -> errors.ValidationError:
    message = f"{_shown(text)} {reason}"
    return errors.ValidationError(message, [errors.FieldError("cron", "cron", message)])


def _shown(text: object) -> str:
    shown = repr(text)
    return shown if len(shown) <= 100 else shown[:100] + "…"


# local time


def _local(instant: datetime, zone: ZoneInfo) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None)


def _offset(instant: datetime, zone: ZoneInfo) -> timedelta:
    offset = instant.astimezone(zone).utcoffset()
    assert offset is not None
    return offset


def _instant_of(local: datetime, zone: ZoneInfo) -> datetime:
    """The first instant of this local time; of one that is skipped, the instant at which the clock goes forward."""
    first, second = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if _local(first, zone) == local:
        return first
    # In a gap the two folds are its offsets before and after (PEP 495): the change lies between.
    change = _first_change(zone, second, first)
    assert change is not None
    return change


def _first_change(zone: ZoneInfo, start: datetime, end: datetime) -> datetime | None:
    """The first instant in (start, end] at which the zone's offset is another than at `start`."""
    offset = _offset(start, zone)
    low, high = start, min(start + _DAY, end)
    while _offset(high, zone) == offset:
        if high >= end:
            return None
        low, high = high, min(high + _DAY, end)
    low = low.replace(microsecond=0)
    while high - low > _SECOND:
        middle = low + (high - low) // 2
        middle = middle.replace(microsecond=0)
        if _offset(middle, zone) == offset:
            low = middle
        else:
            high = middle
    return high


# words


def _describe(cron: Cron) -> str:
    minute, hour, day, month, weekday = cron.fields
    when, days = _times(minute, hour), _days(day, month, weekday)
    if when is None or days is None:
        return _explained(cron)
    if when.startswith("every"):
        return _sentence(when if days == "every day" else f"{when}, {days}")
    return _sentence(f"{days} {when}")


def _times(minute: str, hour: str) -> str | None:
    minutes, hours = _numbers(Field.MINUTE, minute), _numbers(Field.HOUR, hour)
    if minutes is None or hours is None:
        return None
    if len(hours) == 24:
        return _every(minutes)
    if len(minutes) * len(hours) > 4:
        return None
    return f"at {_and([f'{at:02d}:{of:02d}' for at in hours for of in minutes])}"


def _every(minutes: list[int]) -> str | None:
    if len(minutes) == 1:
        return "every hour" if minutes == [0] else f"every hour at minute {minutes[0]}"
    step = 60 // len(minutes)
    if minutes != list(range(0, 60, step)):
        return None
    return "every minute" if step == 1 else f"every {step} minutes"


def _days(day: str, month: str, weekday: str) -> str | None:
    days, months = _numbers(Field.DAY, day), _numbers(Field.MONTH, month)
    weekdays = _numbers(Field.DOW, weekday)
    if days is None or months is None or weekdays is None:
        return None
    weekdays = sorted({number % 7 for number in weekdays})
    if (len(days), len(months)) == (31, 12):
        return _weekdays(weekdays)
    if weekday != "*" or len(days) > 4:
        return None
    if len(months) == 12:
        return f"on the {_and([_ordinal(number) for number in days])} of every month"
    if len(months) > 4:
        return None
    return f"on {_and([f'{number} {_MONTHS.split()[one - 1]}' for one in months for number in days])}"


def _weekdays(numbers: list[int]) -> str:
    if len(numbers) == 7:
        return "every day"
    if numbers == [1, 2, 3, 4, 5]:
        return "Mondays to Fridays"
    return _and([_DAYS[number] for number in sorted(numbers, key=lambda number: number or 7)])


def _numbers(field: Field, value: str) -> list[int] | None:
    """What a field stands for; None where it is no set of numbers (`L`, `TUE#2`)."""
    found = field.parse(value.upper())
    numbers = sorted(one for one in found if isinstance(one, int) and one >= 0)
    return numbers if len(numbers) == len(found) else None


def _explained(cron: Cron) -> str:
    text = str(cronsim.CronSim(" ".join(cron.fields), _SEARCH_START).explain())
    either = not cron.fields[2].startswith("*") and not cron.fields[4].startswith("*")
    return _sentence(text.replace(" and on ", " or on ") if either else text)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _ordinal(number: int) -> str:
    suffix = "th" if 10 < number < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"
