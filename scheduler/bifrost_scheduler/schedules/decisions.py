"""What becomes of a schedule's due times: one step at a time, decided from what is known. Pure.

`ticker` gathers what is known, asks for the next step and takes it. A step is a run of due times that submit nothing,
then at most one that does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from bifrost_kernel import models
from bifrost_scheduler.schedules import plans
from bifrost_scheduler.schedules.plans import Due
from bifrost_scheduler.store.schedule_contract import CatchUp, DueOutcome, DueTime, Schedule

MAX_ROWS = 1000
"""Due times of one step: a transaction does not get longer than this."""

NO_SCHEDULER = "no scheduler ran"

Status = models.ExecutionStatus


@dataclass(frozen=True)
class Known:
    """What a step depends on besides the schedule."""

    now: datetime
    decided_at: datetime
    attended: Callable[[datetime], bool | None]
    """Whether a scheduler that is alive now was alive at that instant; None while that is open."""
    active: tuple[Status, ...]
    """Of the executions of this schedule that are not over."""
    horizon: timedelta
    """How far back a due time is caught up."""
    most_waiting: int
    """How many due times wait for the last run before the oldest gives way."""


@dataclass(frozen=True)
class Step:
    rows: tuple[DueTime, ...] = ()
    fired: DueTime | None = None
    waits: bool = False
    """The next due time has to wait for something; ask again later."""
    more: bool = False
    """There may be further due times."""


@dataclass(frozen=True)
class _Passive:
    outcome: DueOutcome
    reason: str


_WAIT = object()


def next_step(schedule: Schedule, known: Known) -> Step:
    """The due times that can be accounted for now."""
    caught_up = _last_to_catch_up(schedule, known)
    rows: list[DueTime] = []
    for due in islice(plans.due_now(schedule, known.now), MAX_ROWS):
        verdict = _judge(schedule, due, known, caught_up)
        if isinstance(verdict, _Passive):
            rows.append(_row(schedule, due, known.decided_at, verdict.outcome, verdict.reason))
        elif isinstance(verdict, DueOutcome):
            return Step(tuple(rows), fired=_row(schedule, due, known.decided_at, verdict), more=True)
        else:
            return Step(tuple(rows), waits=True)
    return Step(tuple(rows), more=len(rows) == MAX_ROWS)


def closing_rows(schedule: Schedule, now: datetime, reason: str) -> tuple[DueTime, ...]:
    """Rows for all that is due until `now` and still has none: nothing of it will run any more."""
    found: list[DueTime] = []
    for due in plans.due_after(schedule, schedule.accounted_until):
        if due.due_at > now:
            break
        found.append(_row(schedule, due, now, DueOutcome.SKIPPED, reason))
    return tuple(found)


def _judge(schedule: Schedule, due: Due, known: Known, caught_up: datetime | None) -> _Passive | DueOutcome | object:
    if reason := _held(schedule, due):
        return _Passive(DueOutcome.SKIPPED, reason)
    attended = known.attended(due.planned_at)
    if attended is None:
        return _WAIT
    if not attended and (passed := _passed_over(schedule, due, known, caught_up)):
        return passed
    if Status.AWAITING_APPROVAL in known.active:
        return _Passive(DueOutcome.SKIPPED, "approval pending")
    overlap = schedule.definition.overlap
    if known.active and overlap is not models.Overlap.PARALLEL:
        in_turn = overlap is models.Overlap.QUEUE or (not attended and schedule.definition.catch_up is CatchUp.ALL)
        if not in_turn:
            return _Passive(DueOutcome.SKIPPED, "overlap")
        return _Passive(DueOutcome.SKIPPED, "queue full") if _is_crowded(schedule, due, known) else _WAIT
    return DueOutcome.RAN if attended else DueOutcome.CAUGHT_UP


def _held(schedule: Schedule, due: Due) -> str | None:
    if schedule.paused_at is not None and due.due_at >= schedule.paused_at:
        return "paused"
    return "blackout" if plans.is_blacked_out(schedule.definition, due.due_at) else None


def _passed_over(schedule: Schedule, due: Due, known: Known, caught_up: datetime | None) -> _Passive | None:
    """What becomes of a due time at which no scheduler ran, unless it is caught up."""
    if schedule.definition.catch_up is CatchUp.NONE:
        return _Passive(DueOutcome.MISSED, NO_SCHEDULER)
    if known.now - due.due_at > known.horizon:
        return _Passive(DueOutcome.MISSED, f"{NO_SCHEDULER}, and it is too long ago to catch up")
    if schedule.definition.catch_up is CatchUp.ONE and due.due_at != caught_up:
        at = models.isoformat(caught_up) if caught_up else "a later time"
        return _Passive(DueOutcome.COALESCED, f"{NO_SCHEDULER}; the run of {at} stands for it")
    return None


def _last_to_catch_up(schedule: Schedule, known: Known) -> datetime | None:
    """The due time that stands for those before it; only the ones within the horizon are looked at."""
    if schedule.definition.catch_up is not CatchUp.ONE:
        return None
    return max((due.due_at for due in _recent(schedule, known) if _may_run_late(schedule, due, known)), default=None)


def _may_run_late(schedule: Schedule, due: Due, known: Known) -> bool:
    return known.attended(due.planned_at) is False and _held(schedule, due) is None


def _recent(schedule: Schedule, known: Known) -> Iterator[Due]:
    start = max(schedule.accounted_until, known.now - known.horizon - timedelta(microseconds=1))
    return plans.due_now(schedule.model_copy(update={"accounted_until": start}), known.now)


def _is_crowded(schedule: Schedule, due: Due, known: Known) -> bool:
    """More due times wait behind this one than may."""
    behind = plans.due_now(schedule.model_copy(update={"accounted_until": due.due_at}), known.now)
    return sum(1 for _ in islice(behind, known.most_waiting)) == known.most_waiting


def _row(schedule: Schedule, due: Due, decided_at: datetime, outcome: DueOutcome, reason: str | None = None) -> DueTime:
    return DueTime(
        schedule_id=schedule.id,
        organization=schedule.organization,
        due_at=due.due_at,
        planned_at=due.planned_at,
        outcome=outcome,
        reason=reason,
        decided_at=decided_at,
    )
