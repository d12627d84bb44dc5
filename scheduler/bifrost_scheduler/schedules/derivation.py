"""Schedules that nobody saved one by one: those that workflows declare, and those that a rule gives every organization.

`clock` refreshes it; it does something only when the workspace, the rules or the organizations have changed. It changes
definitions and nothing else: who paused such a schedule finds it paused.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import UTC, datetime

import structlog
import uuid_utils

from bifrost_kernel import errors, models
from bifrost_scheduler import ledger
from bifrost_scheduler.catalog import Catalog, Snapshot
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.schedules import plans
from bifrost_scheduler.schedules.authority import CODE_SUBJECT
from bifrost_scheduler.schedules.ticker import Ticker
from bifrost_scheduler.store import contract
from bifrost_scheduler.store.schedule_contract import AccountedElsewhere, Definition, Schedule

log = structlog.get_logger(__name__)

PLATFORM = Principal(subject=CODE_SUBJECT, kind="operator", name="The code", platform_admin=True)


class Derivation:
    def __init__(self, *, store: contract.Store, catalog: Catalog, ticker: Ticker) -> None:
        self._store = store
        self._catalog = catalog
        self._ticker = ticker
        self._lock = threading.Lock()
        self._seen: tuple[str, ...] | None = None
        self._unfinished = False

    def forget(self) -> None:
        """A rule has changed: look again at the next refresh."""
        self._unfinished = True

    def refresh(self, now: datetime) -> None:
        """Bring the schedules that follow something up to date with it. Raises `Unavailable`."""
        with self._lock:
            snapshot = self._catalog.current()
            seen = (snapshot.tree_hash, self._store.mark_organizations())
            if seen == self._seen and not self._unfinished:
                return
            self._unfinished = False
            known = self._store.list_derived()
            self._follow_declarations(known, snapshot, now)
            self._follow_rules(known, now)
            self._follow_code(known, snapshot, now)
            self._seen = seen

    # what workflows declare for GLOBAL

    def _follow_declarations(self, known: list[Schedule], snapshot: Snapshot, now: datetime) -> None:
        declared = {
            workflow.name: workflow
            for workflow in snapshot.description.workflows
            if workflow.schedule is not None and not workflow.requires_org
        }
        there = {schedule.name: schedule for schedule in known if schedule.origin == "code"}
        for name, workflow in declared.items():
            if name not in there:
                self._create(models.GLOBAL, name, "code", followed(Definition(workflow=name), workflow), now)
        for name, schedule in there.items():
            if name not in declared and not _may_come_back(name, snapshot):
                self._delete(schedule, now, "no longer declared")

    # what rules give to everybody

    def _follow_rules(self, known: list[Schedule], now: datetime) -> None:
        rules = {schedule.id: schedule for schedule in known if schedule.definition.for_all}
        there = [schedule for schedule in known if schedule.origin == "all"]
        for schedule in there:
            rule = rules.get(schedule.rule_id or "")
            if rule is None:
                self._delete(schedule, now, "the rule for all organizations was deleted")
            else:
                self._redefine(schedule, _for_one(rule), now, saved_by=rule.saved_by)
        for rule in rules.values():
            has = {schedule.organization for schedule in there if schedule.rule_id == rule.id}
            for organization in self._active_organizations():
                if organization not in has:
                    self._create(organization, rule.name, "all", _for_one(rule), now, rule)

    def _active_organizations(self) -> Iterable[str]:
        after: str | None = None
        while page := self._store.list_organizations(after=after, limit=200):
            yield from (organization.id for organization in page if organization.active)
            after = page[-1].id

    # what follows the code of its workflow

    def _follow_code(self, known: list[Schedule], snapshot: Snapshot, now: datetime) -> None:
        workflows = {workflow.name: workflow for workflow in snapshot.description.workflows}
        for schedule in known:
            workflow = workflows.get(schedule.definition.workflow)
            # While the workflow is broken, or declares nothing any more, what was last declared stays.
            if schedule.definition.from_code and workflow is not None and workflow.schedule is not None:
                self._redefine(schedule, followed(schedule.definition, workflow), now)

    # changes

    def _create(
        self,
        organization: str,
        name: str,
        origin: str,
        definition: Definition,
        now: datetime,
        rule: Schedule | None = None,
    ) -> None:
        made = new_schedule(
            organization,
            name,
            definition,
            saved_by=rule.saved_by if rule else CODE_SUBJECT,
            now=now,
            origin=origin,
            rule_id=rule.id if rule else None,
        )
        try:
            self._store.create_schedule(made, audit=_audit("schedule.create", made))
        except errors.Conflict:
            log.info("a schedule of that name is there already", organization=organization, name=name)

    def _redefine(self, schedule: Schedule, definition: Definition, now: datetime, saved_by: str | None = None) -> None:
        current = self._store.find_schedule_by_id(schedule.id)
        if current is None or current.deleted_at is not None or current.definition == definition:
            return
        self._replace(current, now, "edited", {"definition": definition, "saved_by": saved_by or current.saved_by})

    def _delete(self, schedule: Schedule, now: datetime, reason: str) -> None:
        self._replace(schedule, now, "deleted", {"deleted_at": now}, reason)

    def _replace(
        self, schedule: Schedule, now: datetime, change: str, update: dict[str, object], reason: str = "edited"
    ) -> None:
        try:
            closed = self._ticker.close(schedule, now, reason)
            changed = changed_schedule(closed, now, **update)
            verb = "schedule.delete" if change == "deleted" else "schedule.change"
            self._store.change_schedule(changed, change=change, audit=_audit(verb, changed))  # type: ignore[arg-type]
        except AccountedElsewhere:
            self.forget()


def followed(definition: Definition, workflow: models.WorkflowMetadata) -> Definition:
    """The definition with what the workflow declares."""
    declared = {
        "cron": workflow.schedule,
        "timezone": workflow.timezone,
        "overlap": workflow.overlap,
        "from_code": True,
    }
    return definition.model_copy(update=declared)


def new_schedule(
    organization: str,
    name: str,
    definition: Definition,
    *,
    saved_by: str,
    now: datetime,
    origin: str = "saved",
    rule_id: str | None = None,
) -> Schedule:
    """A schedule that is due for the first time after `now`."""
    made = Schedule(
        id=str(uuid_utils.uuid7()),
        organization=organization,
        name=name,
        origin=origin,  # type: ignore[arg-type]
        rule_id=rule_id,
        definition=definition,
        version=1,
        saved_by=saved_by,
        saved_at=now,
        accounted_until=now,
        created_at=now,
    )
    return made.model_copy(update={"wake_at": plans.wake_after(made, now)})


def changed_schedule(schedule: Schedule, now: datetime, **update: object) -> Schedule:
    """The next version, due again after `now`: what was due before is accounted for."""
    until = max(now, schedule.accounted_until)
    changed = schedule.model_copy(
        update={"version": schedule.version + 1, "saved_at": now, "accounted_until": until, **update}
    )
    return changed.model_copy(update={"wake_at": plans.wake_after(changed, until)})


def _for_one(rule: Schedule) -> Definition:
    return rule.definition.model_copy(update={"for_all": False})


def _may_come_back(name: str, snapshot: Snapshot) -> bool:
    """It is broken, or may stand in a module that cannot be loaded: a typing error deletes no schedule."""
    return any(broken.name == name or broken.kind == "module" for broken in snapshot.description.broken)


def _audit(action: str, schedule: Schedule) -> contract.AuditEntry:
    entry = ledger.audit(PLATFORM, action, organization=schedule.organization, target=schedule.name)
    return entry.model_copy(update={"at": datetime.now(UTC)})
