"""Routes for schedules: what is to run when, what became of every due time, and the calendar of both."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from bifrost_kernel import models
from bifrost_scheduler.envelopes import Envelope, envelope
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.services import Services
from bifrost_scheduler.store.schedule_contract import Schedule
from bifrost_scheduler.web.answers import (
    Cursor,
    Limit,
    TheScope,
    decode_cursor,
    decode_instant,
    decode_position,
    list_name,
    page,
    problems,
)
from bifrost_scheduler.web.authentication import OrganizationHeader, ThePrincipal, TheServices
from bifrost_scheduler.web.bodies import StrictRoute
from bifrost_scheduler.web.schedule_schemas import (
    CalendarShape,
    DueTimeShape,
    NextTimes,
    ScheduleChange,
    ScheduleInput,
    ScheduleShape,
    VersionShape,
    coming_entry,
    due_time_shape,
    past_entry,
    schedule_shape,
    version_shape,
)
from bifrost_scheduler.web.schemas import Instant, Page

router = APIRouter(prefix="/api", tags=["schedules"], route_class=StrictRoute)

NewName = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]
SHOWN_NEXT = 5


def _shape(services: Services, principal: Principal, schedule: Schedule) -> ScheduleShape:
    return schedule_shape(
        schedule,
        services.schedules.next_times(schedule, SHOWN_NEXT),
        with_parameters=services.schedules.may_manage(principal, schedule.organization),
    )


@router.get("/schedules", operation_id="list_schedules", responses=problems())
def list_schedules(
    services: TheServices,
    principal: ThePrincipal,
    organization: OrganizationHeader = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[ScheduleShape]:
    """The schedules by organization and name, with their plain words and next times."""
    of = list_name(principal, "schedules", organization)
    last = decode_cursor(cursor, of)
    after = None if last is None else (last.partition(" ")[0], last.partition(" ")[2])
    rows = services.schedules.list_schedules(principal, organization, after=after, limit=limit + 1)
    return page(
        rows,
        limit=limit,
        key=lambda row: f"{row.organization} {row.name}",
        item=lambda row: _shape(services, principal, row),
        of=of,
    )


@router.put("/schedules/{name}", operation_id="put_schedule", responses=problems(409, 415, 500))
def put_schedule(
    name: NewName, new: ScheduleInput, scope: TheScope, services: TheServices, principal: ThePrincipal
) -> ScheduleShape:
    """Save a schedule; it acts with the rights of who saves it, checked anew at every due time."""
    saved = services.schedules.save(principal, scope, name, new.model_dump(exclude_none=True))
    return _shape(services, principal, saved)


@router.patch("/schedules/{name}", operation_id="change_schedule", responses=problems(409, 415, 500))
def change_schedule(
    name: str, change: ScheduleChange, scope: TheScope, services: TheServices, principal: ThePrincipal
) -> ScheduleShape:
    """Replace some fields of a schedule."""
    changed = services.schedules.change(principal, scope, name, change.model_dump(exclude_unset=True))
    return _shape(services, principal, changed)


@router.get("/schedules/{name}", operation_id="get_schedule", responses=problems())
def get_schedule(name: str, scope: TheScope, services: TheServices, principal: ThePrincipal) -> ScheduleShape:
    """One schedule."""
    return _shape(services, principal, services.schedules.get(principal, scope, name))


@router.delete(
    "/schedules/{name}",
    operation_id="delete_schedule",
    status_code=204,
    response_class=Response,
    responses=problems(409),
)
def delete_schedule(name: str, scope: TheScope, services: TheServices, principal: ThePrincipal) -> Response:
    """End a schedule; what became of its due times stays in the calendar."""
    services.schedules.delete(principal, scope, name)
    return Response(status_code=204)


@router.get("/schedules/{name}/next", operation_id="list_next_times", responses=problems())
def list_next_times(
    name: str,
    scope: TheScope,
    services: TheServices,
    principal: ThePrincipal,
    count: Annotated[int, Query(ge=1, le=100)] = SHOWN_NEXT,
) -> NextTimes:
    """The next due times; none while it is paused."""
    schedule = services.schedules.get(principal, scope, name)
    shape = _shape(services, principal, schedule)
    coming = services.schedules.next_times(schedule, count)
    return NextTimes(description=shape.description, timezone=shape.timezone, items=[due.due_at for due in coming])


@router.get("/schedules/{name}/history", operation_id="list_due_times", responses=problems())
def list_due_times(
    name: str,
    scope: TheScope,
    services: TheServices,
    principal: ThePrincipal,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[DueTimeShape]:
    """What became of every due time, newest first."""
    of = list_name(principal, "due-times", scope, name)
    before = decode_instant(cursor, of)
    rows = services.schedules.history(principal, scope, name, before=before, limit=limit + 1)
    return page(rows, limit=limit, key=lambda row: models.isoformat(row.due_at), item=due_time_shape, of=of)


@router.get("/schedules/{name}/versions", operation_id="list_schedule_versions", responses=problems())
def list_schedule_versions(
    name: str,
    scope: TheScope,
    services: TheServices,
    principal: ThePrincipal,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[VersionShape]:
    """Who changed what and when, newest first."""
    of = list_name(principal, "schedule-versions", scope, name)
    before = decode_position(cursor, of) or None
    rows = services.schedules.versions(principal, scope, name, before=before, limit=limit + 1)
    shown = services.schedules.may_manage(principal, scope)
    return page(
        rows,
        limit=limit,
        key=lambda row: str(row.version),
        item=lambda row: version_shape(row, with_parameters=shown),
        of=of,
    )


@router.post("/schedules/{name}/pause", operation_id="pause_schedule", responses=problems(409))
def pause_schedule(name: str, scope: TheScope, services: TheServices, principal: ThePrincipal) -> ScheduleShape:
    """Skip what comes due from now on; the skipped times stand in the history."""
    return _shape(services, principal, services.schedules.pause(principal, scope, name))


@router.post("/schedules/{name}/resume", operation_id="resume_schedule", responses=problems(409))
def resume_schedule(name: str, scope: TheScope, services: TheServices, principal: ThePrincipal) -> ScheduleShape:
    """Go on; what came due meanwhile stays skipped."""
    return _shape(services, principal, services.schedules.resume(principal, scope, name))


@router.post("/schedules/{name}/run", operation_id="run_schedule", status_code=202, responses=problems(409, 429, 500))
def run_schedule(
    response: Response, name: str, scope: TheScope, services: TheServices, principal: ThePrincipal
) -> Envelope:
    """Run it now, with its parameters, as oneself; follow Location."""
    shown = envelope(services.schedules.run(principal, scope, name))
    response.headers["Location"] = f"/api/executions/{shown.execution_id}"
    return shown


@router.get("/schedule-calendar", operation_id="get_calendar", responses=problems())
def get_calendar(
    since: Instant,
    until: Instant,
    services: TheServices,
    principal: ThePrincipal,
    organization: OrganizationHeader = None,
) -> CalendarShape:
    """Every due time in [since, until), past ones with what became of them, coming ones without."""
    found = services.schedules.calendar(principal, organization, since=since, until=until)
    entries = [*map(past_entry, found.past), *map(coming_entry, found.coming)]
    return CalendarShape(items=sorted(entries, key=lambda entry: entry.due_at), complete=found.complete)
