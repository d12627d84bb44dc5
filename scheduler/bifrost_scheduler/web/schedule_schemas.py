"""The shapes of schedules over HTTP, as OpenAPI shows them (contract §7)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from bifrost_kernel import cron, models
from bifrost_scheduler.schedules import plans
from bifrost_scheduler.schedules.plans import Due
from bifrost_scheduler.store.schedule_contract import (
    CalendarRow,
    CatchUp,
    DueOutcome,
    DueTime,
    Schedule,
    ScheduleVersion,
)
from bifrost_scheduler.web.schemas import Input, Instant, Name, Shape

CronText = Annotated[str, Field(min_length=1, max_length=cron.MAX_CHARS)]
ZoneText = Annotated[str, Field(min_length=1, max_length=100)]


class BlackoutInput(Input):
    starts_at: Instant
    ends_at: Instant


class ScheduleChange(Input):
    """The fields to replace; null takes an optional one away."""

    workflow: Name | None = None
    cron: CronText | None = None
    """Five cron fields, or `@daily` and kin; without it, and without `run_at`, the workflow's own schedule."""
    run_at: Instant | None = None
    """Once, instead of `cron`."""
    timezone: ZoneText | None = None
    """An IANA name; UTC without it."""
    parameters: dict[str, Any] | None = None
    overlap: models.Overlap | None = None
    catch_up: CatchUp | None = None
    starts_at: Instant | None = None
    ends_at: Instant | None = None
    blackouts: Annotated[list[BlackoutInput], Field(max_length=100)] | None = None
    jitter_seconds: Annotated[int, Field(ge=0, le=3600)] | None = None
    for_all: bool | None = None
    """With `?scope=GLOBAL`: every active organization gets this schedule."""


class ScheduleInput(ScheduleChange):
    """A schedule, whole: what is not given has its default."""

    workflow: Name


class BlackoutShape(Shape):
    starts_at: datetime
    ends_at: datetime


class ScheduleShape(Shape):
    name: str
    organization: str
    workflow: str
    description: str
    """When it is due, in plain words."""
    cron: str | None
    run_at: datetime | None
    timezone: str
    parameters: dict[str, Any] | None
    """Null for those who do not manage schedules: they may hold a customer's data."""
    overlap: models.Overlap
    catch_up: CatchUp
    starts_at: datetime | None
    ends_at: datetime | None
    blackouts: list[BlackoutShape]
    jitter_seconds: int
    from_code: bool
    for_all: bool
    origin: Literal["saved", "code", "all"]
    paused_at: datetime | None
    paused_by: str | None
    version: int
    saved_by: str
    saved_at: datetime
    next: list[datetime]
    """The next five due times, unless it is paused."""


def schedule_shape(schedule: Schedule, coming: list[Due], *, with_parameters: bool) -> ScheduleShape:
    definition = schedule.definition.model_dump()
    if not with_parameters:
        definition["parameters"] = None
    kept = schedule.model_dump(include=set(ScheduleShape.model_fields) - {"definition"})
    return ScheduleShape(
        **definition, **kept, description=plans.describe(schedule.definition), next=[due.due_at for due in coming]
    )


class NextTimes(Shape):
    description: str
    timezone: str
    items: list[datetime]


class DueTimeShape(Shape):
    """What became of one due time."""

    due_at: datetime
    planned_at: datetime
    """`due_at` and its jitter."""
    outcome: DueOutcome
    late_seconds: float | None
    """From `planned_at` to the submission; null where nothing was submitted."""
    execution_id: str | None
    reason: str | None


def due_time_shape(due: DueTime) -> DueTimeShape:
    return DueTimeShape(**{name: getattr(due, name) for name in DueTimeShape.model_fields})


class VersionShape(Shape):
    """One change of a schedule."""

    version: int
    change: str
    at: datetime
    by: str
    description: str
    workflow: str
    parameters: dict[str, Any] | None


def version_shape(version: ScheduleVersion, *, with_parameters: bool) -> VersionShape:
    definition = version.definition
    return VersionShape(
        version=version.version,
        change=version.change,
        at=version.at,
        by=version.by,
        description=plans.describe(definition),
        workflow=definition.workflow,
        parameters=definition.parameters if with_parameters else None,
    )


class CalendarEntry(Shape):
    """A due time of any schedule; `outcome` is null for one that is still to come."""

    organization: str
    schedule: str
    workflow: str
    due_at: datetime
    outcome: DueOutcome | None
    late_seconds: float | None
    execution_id: str | None
    execution_status: models.ExecutionStatus | None
    reason: str | None


def past_entry(row: CalendarRow) -> CalendarEntry:
    return _entry(row.schedule, row.due.due_at, row.due, row.execution_status)


def coming_entry(coming: tuple[Schedule, Due]) -> CalendarEntry:
    schedule, due = coming
    return _entry(schedule, due.due_at, None, None)


def _entry(
    schedule: Schedule, due_at: datetime, due: DueTime | None, status: models.ExecutionStatus | None
) -> CalendarEntry:
    return CalendarEntry(
        organization=schedule.organization,
        schedule=schedule.name,
        workflow=schedule.definition.workflow,
        due_at=due_at,
        outcome=due.outcome if due else None,
        late_seconds=due.late_seconds if due else None,
        execution_id=due.execution_id if due else None,
        execution_status=status,
        reason=due.reason if due else None,
    )


class CalendarShape(Shape):
    items: list[CalendarEntry]
    complete: bool
    """False when there were more than could be shown: ask for a shorter time."""
