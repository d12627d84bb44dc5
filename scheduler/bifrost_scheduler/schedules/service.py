"""What people do with schedules: save, pause, resume, run now, delete, and look at what was and will be.

`web` calls it. Each act is authorized here, checked as an execution would be, and written with its audit entry. It
moves no schedule on by itself: what was due before a change is accounted for by the `ticker`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import ValidationError as ShapeError

from bifrost_kernel import cron, errors, models
from bifrost_scheduler import identity, ledger
from bifrost_scheduler.executions import Executions
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.schedules import plans
from bifrost_scheduler.schedules.derivation import changed_schedule, followed, new_schedule
from bifrost_scheduler.schedules.plans import Due
from bifrost_scheduler.schedules.ticker import Ticker
from bifrost_scheduler.store import contract
from bifrost_scheduler.store.schedule_contract import (
    AccountedElsewhere,
    CalendarRow,
    Definition,
    DueTime,
    Schedule,
    Scheduled,
    ScheduleVersion,
)

MAX_BLACKOUTS = 100
MAX_JITTER_SECONDS = 3600
MAX_CALENDAR = timedelta(days=92)
MAX_CALENDAR_ROWS = 5000
ATTEMPTS = 5

Permission = models.Permission
T = TypeVar("T")


class Calendar(NamedTuple):
    """`past` is what became of due times, `coming` what is still to come; `complete` False when there were too many."""

    past: list[CalendarRow]
    coming: list[tuple[Schedule, Due]]
    complete: bool


class Schedules:
    def __init__(self, *, store: contract.Store, executions: Executions, ticker: Ticker) -> None:
        self._store = store
        self._executions = executions
        self._ticker = ticker
        self.on_change: Callable[[], None] = lambda: None
        """Called when a schedule may be due earlier than before; the clock puts its wake-up here."""

    # writing

    def save(self, principal: Principal, scope: str, name: str, given: Mapping[str, Any]) -> Schedule:
        """Create the schedule, or replace its definition; it is due for the first time after now.

        Raises:
            NotFound, Forbidden: not this principal's to manage, or not his to execute.
            ValidationError: with every reason that can be told at once.
            Conflict: the workflow is broken; the schedule comes from code or from a rule.
        """
        self._authorize(principal, Permission.MANAGE_SCHEDULES, scope)
        definition = self._checked(principal, scope, given)
        return self._retried(lambda: self._save(principal, scope, name, definition))

    def change(self, principal: Principal, scope: str, name: str, given: Mapping[str, Any]) -> Schedule:
        """Replace the fields that are given. Raises as `save` and `get` do."""
        schedule = self._managed(principal, scope, name)
        kept = {field: value for field, value in schedule.definition if field in schedule.definition.model_fields_set}
        if schedule.definition.from_code:
            kept = {field: value for field, value in kept.items() if field not in ("cron", "timezone", "overlap")}
        if "cron" in given or "run_at" in given:
            kept = {field: value for field, value in kept.items() if field not in ("cron", "run_at")}
        kept.pop("from_code", None)
        return self.save(principal, scope, name, {**kept, **given})

    def delete(self, principal: Principal, scope: str, name: str) -> None:
        """Its history stays. Raises as `get` does, and `Conflict`: it comes from code or from a rule."""

        def act() -> None:
            schedule = _own(self._managed(principal, scope, name))
            now = datetime.now(UTC)
            closed = self._ticker.close(schedule, now, "deleted")
            self._change(principal, changed_schedule(closed, now, deleted_at=now), "deleted")

        self._retried(act)

    def pause(self, principal: Principal, scope: str, name: str) -> Schedule:
        """Skip what comes due from now on. Raises as `get` does; a paused one stays as it is."""

        def act() -> Schedule:
            schedule = self._managed(principal, scope, name)
            if schedule.paused_at is not None:
                return schedule
            update = {"paused_at": datetime.now(UTC), "paused_by": principal.subject, "version": schedule.version + 1}
            return self._change(principal, schedule.model_copy(update=update), "paused")

        return self._retried(act)

    def resume(self, principal: Principal, scope: str, name: str) -> Schedule:
        """Go on; what came due meanwhile stays skipped. Raises as `get` does."""

        def act() -> Schedule:
            schedule = self._managed(principal, scope, name)
            if schedule.paused_at is None:
                return schedule
            now = datetime.now(UTC)
            closed = self._ticker.close(schedule, now, "paused")
            resumed = changed_schedule(closed, now, paused_at=None, paused_by=None, saved_at=closed.saved_at)
            return self._change(principal, resumed, "resumed")

        return self._retried(act)

    def run(self, principal: Principal, scope: str, name: str) -> contract.Execution:
        """Run it now, with its parameters and the rights of whoever asks; no due time is touched by it.

        Raises:
            Conflict: it still runs and must not overlap; it is a rule for all organizations.
            and as `get` and `Executions.submit` do.
        """
        schedule = self._managed(principal, scope, name)
        if schedule.definition.for_all:
            raise errors.Conflict(f"{name!r} is a rule: run the schedule of one organization.")
        if schedule.definition.overlap is not models.Overlap.PARALLEL and self._store.list_active_of(schedule.id):
            raise errors.Conflict(f"An execution of the schedule {name!r} is not over yet.")
        self._audit_act(principal, "schedule.run", schedule)
        submitted = self._executions.submit(
            principal,
            organization=schedule.organization,
            workflow=schedule.definition.workflow,
            parameters=schedule.definition.parameters,
            trigger=models.Trigger.SCHEDULE,
            scheduled=Scheduled(schedule_id=schedule.id, caller=principal.caller, retries_left=0),
        )
        return submitted.execution

    # reading

    def get(self, principal: Principal, scope: str, name: str) -> Schedule:
        """
        Raises:
            NotFound: unknown, or another organization's.
            Forbidden: the history is not the principal's to see.
        """
        self._authorize(principal, Permission.VIEW_HISTORY, scope)
        return self._find(scope, name)

    def list_schedules(
        self, principal: Principal, organization: str | None, *, after: tuple[str, str] | None, limit: int
    ) -> list[Schedule]:
        """By organization and name, of one organization or of all that the principal may see."""
        visible = self._executions.visible_organizations(principal, organization)
        if visible is None:
            self._store.append_audit(ledger.audit(principal, "schedules.list_all"))
        return self._store.list_schedules(visible, after=after, limit=limit)

    def next_times(self, schedule: Schedule, count: int) -> list[Due]:
        """The next due times from now, as far as its pause and blackouts let them run."""
        if schedule.paused_at is not None:
            return []
        coming = (
            due
            for due in plans.due_after(schedule, max(datetime.now(UTC), schedule.accounted_until))
            if not plans.is_blacked_out(schedule.definition, due.due_at)
        )
        return list(islice(coming, count))

    def history(
        self, principal: Principal, scope: str, name: str, *, before: datetime | None, limit: int
    ) -> list[DueTime]:
        """What became of its due times, newest first. Raises as `get` does."""
        return self._store.list_due_times(self.get(principal, scope, name).id, before=before, limit=limit)

    def versions(
        self, principal: Principal, scope: str, name: str, *, before: int | None, limit: int
    ) -> list[ScheduleVersion]:
        """Who changed what, newest first. Raises as `get` does."""
        schedule = self.get(principal, scope, name)
        return self._store.list_schedule_versions(schedule.id, before=before, limit=limit)

    def calendar(self, principal: Principal, organization: str | None, *, since: datetime, until: datetime) -> Calendar:
        """All due times in [since, until): what became of the past ones, and the coming ones.

        Raises:
            ValidationError: the time is empty or too long.
            NotFound, Forbidden: the organization, or its history, is not the principal's.
        """
        if not since < until <= since + MAX_CALENDAR:
            message = f"until has to lie after since, {MAX_CALENDAR.days} days at most."
            raise errors.ValidationError(message, [errors.FieldError("until", "range", message)])
        visible = self._executions.visible_organizations(principal, organization)
        if visible is None:
            self._store.append_audit(ledger.audit(principal, "schedules.list_all"))
        past = self._store.list_calendar(visible, since=since, until=until, limit=MAX_CALENDAR_ROWS + 1)
        coming = self._coming(visible, since, until)
        complete = max(len(past), len(coming)) <= MAX_CALENDAR_ROWS
        return Calendar(past[:MAX_CALENDAR_ROWS], coming[:MAX_CALENDAR_ROWS], complete)

    def may_manage(self, principal: Principal, organization: str) -> bool:
        """Whether the parameters of its schedules are the principal's to see."""
        return Permission.MANAGE_SCHEDULES in principal.permissions_in(organization)

    # inside

    def _coming(self, visible: tuple[str, ...] | None, since: datetime, until: datetime) -> list[tuple[Schedule, Due]]:
        """The first of all that is to come; only these are computed, however many schedules there are."""
        each: list[Iterator[tuple[Schedule, Due]]] = []
        after: tuple[str, str] | None = None
        while page := self._store.list_schedules(visible, after=after, limit=500):
            after = (page[-1].organization, page[-1].name)
            each += [_coming_of(schedule, since, until) for schedule in page if schedule.paused_at is None]
        merged = heapq.merge(*each, key=lambda one: one[1].due_at)
        return list(islice(merged, MAX_CALENDAR_ROWS + 1))

    def _save(self, principal: Principal, scope: str, name: str, definition: Definition) -> Schedule:
        now = datetime.now(UTC)
        known = self._store.find_schedule(scope, name)
        if known is None:
            made = new_schedule(scope, name, definition, saved_by=principal.subject, now=now)
            self._store.create_schedule(_require_due(made), audit=_audit(principal, "schedule.create", made))
            self.on_change()
            return made
        closed = self._ticker.close(_own(known), now, "edited")
        changed = changed_schedule(closed, now, definition=definition, saved_by=principal.subject)
        return self._change(principal, _require_due(changed), "edited")

    def _change(
        self, principal: Principal, changed: Schedule, change: Literal["edited", "paused", "resumed", "deleted"]
    ) -> Schedule:
        verbs = {"edited": "change", "paused": "pause", "resumed": "resume", "deleted": "delete"}
        entry = _audit(principal, f"schedule.{verbs[change]}", changed)
        self._store.change_schedule(changed, change=change, audit=entry)
        self.on_change()
        return changed

    @staticmethod
    def _retried(act: Callable[[], T]) -> T:
        """A due time may be accounted for between reading and writing: then it is read again."""
        for _ in range(ATTEMPTS):
            try:
                return act()
            except AccountedElsewhere:
                continue
        raise errors.Unavailable("This schedule is being changed by others at this moment; try again.")

    def _managed(self, principal: Principal, scope: str, name: str) -> Schedule:
        self._authorize(principal, Permission.MANAGE_SCHEDULES, scope)
        return self._find(scope, name)

    def _find(self, scope: str, name: str) -> Schedule:
        found = self._store.find_schedule(scope, name)
        if found is None:
            raise errors.NotFound(f"There is no schedule {name!r} in {scope}.")
        return found

    def _authorize(self, principal: Principal, permission: Permission, scope: str) -> None:
        self._executions.get_organization(principal, scope)
        identity.authorize(principal, permission, scope)

    def _audit_act(self, principal: Principal, action: str, schedule: Schedule) -> None:
        self._store.append_audit(_audit(principal, action, schedule))

    # checking what is saved

    def _checked(self, principal: Principal, scope: str, given: Mapping[str, Any]) -> Definition:
        definition = _shaped(given)
        if definition.for_all and scope != models.GLOBAL:
            raise _wrong("for_all", "A rule for all organizations is saved with ?scope=GLOBAL.")
        workflow = self._executions.check_schedulable(
            principal, scope, definition.workflow, definition.parameters, for_all=definition.for_all
        )
        if given.get("overlap") is None:
            definition = definition.model_copy(update={"overlap": workflow.overlap})
        if definition.cron is None and definition.run_at is None:
            if workflow.schedule is None:
                raise _wrong("cron", f"The workflow {workflow.name!r} declares no schedule: give cron or run_at.")
            definition = followed(definition, workflow)
        _check_times(definition, datetime.now(UTC))
        return definition


def _shaped(given: Mapping[str, Any]) -> Definition:
    try:
        return Definition(**{field: value for field, value in given.items() if value is not None})
    except ShapeError as error:
        fields = [errors.FieldError(str(one["loc"][0]), one["type"], one["msg"]) for one in error.errors()]
        raise errors.ValidationError("The schedule is refused.", fields) from None


def _check_times(definition: Definition, now: datetime) -> None:
    if definition.cron is not None and definition.run_at is not None:
        raise _wrong("run_at", "Give either cron or run_at, not both.")
    cron.get_zone(definition.timezone)
    if definition.cron is not None:
        cron.parse(definition.cron)
    if definition.run_at is not None and definition.run_at <= now:
        raise _wrong("run_at", "run_at has passed already.")
    if not 0 <= definition.jitter_seconds <= MAX_JITTER_SECONDS:
        raise _wrong("jitter_seconds", f"jitter_seconds is 0 to {MAX_JITTER_SECONDS}.")
    if definition.starts_at and definition.ends_at and definition.starts_at >= definition.ends_at:
        raise _wrong("ends_at", "ends_at has to lie after starts_at.")
    if len(definition.blackouts) > MAX_BLACKOUTS:
        raise _wrong("blackouts", f"There are at most {MAX_BLACKOUTS} blackouts.")
    if any(blackout.starts_at >= blackout.ends_at for blackout in definition.blackouts):
        raise _wrong("blackouts", "A blackout has to end after it starts.")


def _require_due(schedule: Schedule) -> Schedule:
    if schedule.wake_at is None and not schedule.definition.for_all:
        raise _wrong("ends_at", "It would never come due: see starts_at, ends_at and run_at.")
    return schedule


def _own(schedule: Schedule) -> Schedule:
    """Only what a person saved is edited or deleted; what follows from something else is changed there."""
    if schedule.origin == "code":
        raise errors.Conflict(f"The schedule {schedule.name!r} is declared by its workflow: change it there, or pause.")
    if schedule.origin == "all":
        raise errors.Conflict(f"The schedule {schedule.name!r} follows a rule in GLOBAL: change it there, or pause.")
    return schedule


def _coming_of(schedule: Schedule, since: datetime, until: datetime) -> Iterator[tuple[Schedule, Due]]:
    start = max(since - timedelta(microseconds=1), schedule.accounted_until)
    for due in takewhile(lambda due: due.due_at < until, plans.due_after(schedule, start)):
        if not plans.is_blacked_out(schedule.definition, due.due_at):
            yield schedule, due


def _wrong(field: str, message: str) -> errors.ValidationError:
    return errors.ValidationError(message, [errors.FieldError(field, "value", message)])


def _audit(principal: Principal, action: str, schedule: Schedule) -> contract.AuditEntry:
    definition = schedule.definition
    details = {"version": schedule.version, "workflow": definition.workflow, "when": plans.describe(definition)}
    return ledger.audit(principal, action, organization=schedule.organization, target=schedule.name, details=details)
