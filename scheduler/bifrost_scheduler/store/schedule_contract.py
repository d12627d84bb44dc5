"""What the control plane asks of its database for schedules: shapes of rows, and their part of the `Store` contract.

`contract.Store` inherits it, with its rules. The truth about a schedule is here and nowhere else: when it is due next
(`wake_at`), up to when all its due times have a row (`accounted_until`), and the rows themselves, one per due time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from pydantic import AwareDatetime, Field

from bifrost_kernel import errors, models

if TYPE_CHECKING:
    from bifrost_scheduler.store.contract import AuditEntry, Execution

Frozen = models.Frozen


class DueOutcome(StrEnum):
    RAN = "ran"
    CAUGHT_UP = "caught_up"
    COALESCED = "coalesced"
    SKIPPED = "skipped"
    MISSED = "missed"


class CatchUp(StrEnum):
    ONE = "one"
    ALL = "all"
    NONE = "none"


class AccountedElsewhere(errors.Conflict):
    """Another loop has accounted for this due time, or somebody has just changed the schedule: nothing was written."""


class Blackout(Frozen):
    """A time in which nothing is to run: from `starts_at` until just before `ends_at`."""

    starts_at: AwareDatetime
    ends_at: AwareDatetime


class Definition(Frozen):
    """What a schedule says: either `cron` in `timezone`, or once at `run_at`."""

    workflow: str
    cron: str | None = None
    run_at: AwareDatetime | None = None
    timezone: str = "UTC"
    parameters: dict[str, Any] = Field(default_factory=dict)
    overlap: models.Overlap = models.Overlap.SKIP
    catch_up: CatchUp = CatchUp.ONE
    starts_at: AwareDatetime | None = None
    ends_at: AwareDatetime | None = None
    blackouts: tuple[Blackout, ...] = ()
    jitter_seconds: int = 0
    from_code: bool = False
    """`cron`, `timezone` and `overlap` are the workflow's own, and change with its code."""
    for_all: bool = False
    """A rule in `GLOBAL` that gives every active organization a schedule; it never comes due itself."""


class Schedule(Frozen):
    """`organization` and `name` are unique among those that are not deleted; `id` is never used again."""

    id: str
    organization: str
    name: str
    origin: Literal["saved", "code", "all"]
    """Who made it: a person, the declaration of a workflow, or a rule for all organizations (`rule_id`)."""
    rule_id: str | None = None
    definition: Definition
    version: int
    """Counts every change: edits, pauses, resumptions."""
    saved_by: str
    """The subject whose rights it acts with: who saved its definition last."""
    saved_at: AwareDatetime
    paused_at: AwareDatetime | None = None
    paused_by: str | None = None
    accounted_until: AwareDatetime
    """Every due time up to and including this instant has its row."""
    wake_at: AwareDatetime | None = None
    """When the next due time is planned; None when there is none."""
    created_at: AwareDatetime
    deleted_at: AwareDatetime | None = None


class ScheduleVersion(Frozen):
    schedule_id: str
    version: int
    change: Literal["created", "edited", "paused", "resumed", "deleted"]
    at: AwareDatetime
    by: str
    definition: Definition


class DueTime(Frozen):
    """One due time and what became of it; unique by schedule and `due_at`."""

    schedule_id: str
    organization: str
    due_at: AwareDatetime
    planned_at: AwareDatetime
    """`due_at` and its jitter."""
    outcome: DueOutcome
    reason: str | None = None
    execution_id: str | None = None
    decided_at: AwareDatetime

    @property
    def late_seconds(self) -> float | None:
        """From the planned to the real start of what it submitted; None where nothing was."""
        if self.execution_id is None:
            return None
        return max(0.0, (self.decided_at - self.planned_at).total_seconds())


class Firing(Frozen):
    """Due times to be written for a schedule that is still as it was read: one step of the ledger.

    `fired` is the last of them, the one that an execution is submitted for.
    """

    schedule_id: str
    version: int
    accounted_from: AwareDatetime
    rows: tuple[DueTime, ...] = ()
    fired: DueTime | None = None
    accounted_until: AwareDatetime
    wake_at: AwareDatetime | None

    def rows_with(self, execution_id: str | None) -> tuple[DueTime, ...]:
        if self.fired is None:
            return self.rows
        return (*self.rows, self.fired.model_copy(update={"execution_id": execution_id}))


class Scheduled(Frozen):
    """What a schedule adds to an execution that is submitted for it."""

    schedule_id: str
    caller: models.Caller
    acts_for: str | None = None
    firing: Firing | None = None
    """None for a run by hand and for a retry."""
    retried: str | None = None
    """The failed execution that this one is the retry of."""
    retry_of: str | None = None
    """The first execution of its due time."""
    attempt: int = 0
    retries_left: int | None = None
    """None is what the workflow declares."""


class Stretch(Frozen):
    """A time through which one scheduler was alive."""

    owner: str
    started_at: AwareDatetime
    until_at: AwareDatetime


class CalendarRow(Frozen):
    """A due time with the schedule that it belongs to and the status of its execution."""

    due: DueTime
    schedule: Schedule
    execution_status: models.ExecutionStatus | None = None


class ScheduleStore(ABC):
    """The part of `Store` that knows schedules."""

    @abstractmethod
    def create_schedule(self, schedule: Schedule, *, audit: AuditEntry) -> None:
        """Raises `Conflict` when the organization has one of that name."""

    @abstractmethod
    def change_schedule(
        self,
        schedule: Schedule,
        *,
        change: Literal["edited", "paused", "resumed", "deleted"],
        audit: AuditEntry,
    ) -> None:
        """Replace the row by this one, whose `version` is one higher, and keep the version.

        Raises:
            AccountedElsewhere: its version, or what it has accounted for, is not what it was when this was read.
        """

    @abstractmethod
    def find_schedule(self, organization: str, name: str) -> Schedule | None:
        """The one that is not deleted."""

    @abstractmethod
    def find_schedule_by_id(self, schedule_id: str) -> Schedule | None:
        """Also a deleted one."""

    @abstractmethod
    def list_schedules(
        self, organizations: Sequence[str] | None, *, after: tuple[str, str] | None = None, limit: int = 50
    ) -> list[Schedule]:
        """By organization and name, ascending; `organizations` None means all."""

    @abstractmethod
    def list_derived(self) -> list[Schedule]:
        """Those that follow code or a rule, and the rules themselves; not the deleted ones."""

    @abstractmethod
    def list_schedule_versions(
        self, schedule_id: str, *, before: int | None = None, limit: int = 50
    ) -> list[ScheduleVersion]:
        """Newest first."""

    @abstractmethod
    def list_due_schedules(self, now: datetime, *, limit: int = 10_000) -> list[Schedule]:
        """Those whose `wake_at` has come, earliest first."""

    @abstractmethod
    def find_next_wake(self, *, after: datetime) -> datetime | None:
        """The earliest `wake_at` after this instant."""

    @abstractmethod
    def account(self, firing: Firing) -> None:
        """Write due times that submit nothing, and move the schedule on, in one transaction.

        Raises:
            AccountedElsewhere: the schedule is not as it was when the step was decided; nothing is written.
        """

    @abstractmethod
    def list_due_times(self, schedule_id: str, *, before: datetime | None = None, limit: int = 50) -> list[DueTime]:
        """Newest first."""

    @abstractmethod
    def list_calendar(
        self, organizations: Sequence[str] | None, *, since: datetime, until: datetime, limit: int
    ) -> list[CalendarRow]:
        """Due times in [since, until), ascending by time; `organizations` None means all."""

    @abstractmethod
    def list_active_of(self, schedule_id: str) -> list[Execution]:
        """The executions of a schedule that are not over, oldest first."""

    @abstractmethod
    def list_to_retry(self, *, limit: int = 200) -> list[Execution]:
        """Failed executions that have retries left, the one that ended first first."""

    @abstractmethod
    def give_up_retry(self, execution_id: str, *, reason: str) -> None:
        """No retry follows; the due time says why."""

    @abstractmethod
    def beat(self, stretch: Stretch) -> None:
        """Remember that a scheduler is alive: `until_at` of its stretch only ever grows."""

    @abstractmethod
    def list_stretches(self, *, since: datetime) -> list[Stretch]:
        """Those that were alive at `since` or later."""

    @abstractmethod
    def mark_organizations(self) -> str:
        """A text that changes when an organization is made, or switched off or on."""
