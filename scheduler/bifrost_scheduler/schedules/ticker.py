"""One look at the clock: account for every due time that has come, and submit what is to run.

`clock` calls it with the time, as tests do with any time they like. However many tickers look at one store, each due
time gets one row: the step that writes it is a compare-and-set, in the transaction that submits the execution.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from bifrost_kernel import errors, models
from bifrost_scheduler.executions import Executions
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.schedules import authority, decisions, plans
from bifrost_scheduler.schedules.attendance import Attendance
from bifrost_scheduler.schedules.decisions import Step
from bifrost_scheduler.settings import Settings
from bifrost_scheduler.store import contract
from bifrost_scheduler.store.schedule_contract import (
    AccountedElsewhere,
    DueOutcome,
    DueTime,
    Firing,
    Schedule,
    Scheduled,
)

log = structlog.get_logger(__name__)

LOOK_AGAIN = timedelta(seconds=1)
MAX_RETRY_SECONDS = 3600


@dataclass
class _Waiting:
    """A due time that could not be acted on when it came."""

    due_at: datetime
    since: datetime
    look_at: datetime


@dataclass
class _Patience:
    """What waits, by schedule; forgotten with the process, since waiting costs nothing but time."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    waiting: dict[str, _Waiting] = field(default_factory=dict)

    def wait(self, schedule_id: str, due_at: datetime, now: datetime) -> timedelta:
        """Look again soon; returns for how long this due time has waited."""
        with self.lock:
            known = self.waiting.get(schedule_id)
            since = known.since if known and known.due_at == due_at else now
            self.waiting[schedule_id] = _Waiting(due_at, since, now + LOOK_AGAIN)
            return now - since

    def forget(self, schedule_id: str) -> bool:
        """True when it waited."""
        with self.lock:
            return self.waiting.pop(schedule_id, None) is not None

    def keep(self, schedule_ids: set[str]) -> None:
        """What is not due any more waits for nothing."""
        with self.lock:
            self.waiting = {id_: one for id_, one in self.waiting.items() if id_ in schedule_ids}

    def rests(self, schedule_id: str, now: datetime) -> bool:
        with self.lock:
            known = self.waiting.get(schedule_id)
            # A clock that was set back does not make it rest longer.
            return known is not None and now < known.look_at <= now + LOOK_AGAIN

    def next_look(self) -> datetime | None:
        with self.lock:
            return min((one.look_at for one in self.waiting.values()), default=None)


class Ticker:
    """`alone` is False where several schedulers look at one store."""

    def __init__(
        self, *, settings: Settings, store: contract.Store, executions: Executions, alone: bool = True
    ) -> None:
        self._settings = settings
        self._store = store
        self._executions = executions
        self._attendance = Attendance(store, secrets.token_hex(8), alone=alone)
        self._patience = _Patience()

    def tick(self, now: datetime) -> None:
        """Account for everything that is due at `now`, one schedule after the other.

        Raises:
            Unavailable: the store cannot be written; nothing is lost by it.
        """
        self.beat(now)
        for schedule in self.due(now):
            self.advance(schedule.id, now)
        self.retry(now)

    def beat(self, now: datetime) -> None:
        """Say that a scheduler is alive at `now`. Raises `Unavailable`."""
        self._attendance.beat(now)

    def due(self, now: datetime) -> list[Schedule]:
        """The schedules that have something to account for."""
        found = self._store.list_due_schedules(now)
        self._patience.keep({one.id for one in found})
        return [one for one in found if not self._patience.rests(one.id, now)]

    def find_next(self, now: datetime) -> datetime | None:
        """The instant at which the next look is worth it, after one at `now`."""
        wake, look = self._store.find_next_wake(after=now), self._patience.next_look()
        looks = (wake, look and max(look, now + LOOK_AGAIN / 4))
        return min((one for one in looks if one is not None), default=None)

    def look_soon(self, schedule_id: str) -> bool:
        """What this schedule waited for may be over; False when it waited for nothing."""
        return self._patience.forget(schedule_id)

    def advance(self, schedule_id: str, now: datetime, *, decided_at: datetime | None = None) -> None:
        """Account for the due times of one schedule until `now`; what has to wait stays without a row.

        Args:
            decided_at: when this really happens, if it took a while to come to it; lateness is counted to there.
        """
        try:
            while self._advance_once(schedule_id, now, decided_at or now):
                pass
        except AccountedElsewhere:
            pass  # Another loop did this very step; what is left is found at the next look.

    def close(self, schedule: Schedule, now: datetime, reason: str) -> Schedule:
        """Account for all that is due until `now` before the schedule changes; what waited is skipped with the reason.

        Raises:
            AccountedElsewhere: it is being accounted for at this moment; read it again.
        """
        self.advance(schedule.id, now)
        current = self._store.find_schedule_by_id(schedule.id) or schedule
        if rows := decisions.closing_rows(current, now, reason):
            self._store.account(_firing(current, Step(rows)))
        return self._store.find_schedule_by_id(schedule.id) or current

    # one step

    def _advance_once(self, schedule_id: str, now: datetime, decided_at: datetime) -> bool:
        """Take one step; False when there is nothing more to do at `now`."""
        schedule = self._store.find_schedule_by_id(schedule_id)
        if schedule is None or schedule.deleted_at is not None:
            return False
        step = decisions.next_step(schedule, self._known(schedule, now, decided_at))
        if step.fired is not None:
            return self._fire(schedule, step, step.fired, now)
        self._account(schedule, step)
        if step.waits:
            self._wait(schedule, step, now)
        else:
            self._patience.forget(schedule.id)
        return step.more

    def _known(self, schedule: Schedule, now: datetime, decided_at: datetime) -> decisions.Known:
        return decisions.Known(
            now=now,
            decided_at=decided_at,
            attended=self._attendance.attended,
            active=tuple(one.status for one in self._store.list_active_of(schedule.id)),
            horizon=timedelta(seconds=self._settings.schedule_horizon_seconds),
            most_waiting=self._settings.organization_queue_limit,
        )

    def _account(self, schedule: Schedule, step: Step) -> None:
        if step.rows:
            self._store.account(_firing(schedule, step))

    def _wait(self, schedule: Schedule, step: Step, now: datetime) -> None:
        self._patience.wait(schedule.id, step.rows[-1].due_at if step.rows else schedule.accounted_until, now)

    def _fire(self, schedule: Schedule, step: Step, fired: DueTime, now: datetime) -> bool:
        try:
            self._submit(schedule, _firing(schedule, step), now)
        except AccountedElsewhere:
            raise
        except errors.TemporaryError as error:
            reason = "queue full" if isinstance(error, errors.TooManyRequests) else f"unavailable: {error.message}"
            return self._skip_or_wait(schedule, step, fired, reason, now)
        except errors.BifrostError as error:
            return self._skip(schedule, step, fired, self._reason(schedule, error))
        except Exception as error:  # the edge of the clock: a due time always gets its outcome
            log.error("a schedule could not be run", schedule=schedule.id, exc_info=error)
            return self._skip_or_wait(schedule, step, fired, "internal error", now)
        self._patience.forget(schedule.id)
        return step.more

    def _submit(self, schedule: Schedule, firing: Firing, now: datetime) -> None:
        self._executions.submit(
            authority.principal_for(self._store, schedule, now),
            organization=schedule.organization,
            workflow=schedule.definition.workflow,
            parameters=schedule.definition.parameters,
            trigger=models.Trigger.SCHEDULE,
            scheduled=Scheduled(
                schedule_id=schedule.id,
                caller=authority.caller_of(schedule),
                acts_for=authority.acts_for(schedule),
                firing=firing,
            ),
        )

    def _skip_or_wait(self, schedule: Schedule, step: Step, fired: DueTime, reason: str, now: datetime) -> bool:
        """What may pass is tried again for a while before the due time is given up."""
        waited = self._patience.wait(schedule.id, fired.due_at, now)
        if waited < timedelta(seconds=self._settings.schedule_wait_seconds):
            self._account(schedule, Step(step.rows))
            return False
        return self._skip(schedule, step, fired, reason)

    def _skip(self, schedule: Schedule, step: Step, fired: DueTime, reason: str) -> bool:
        skipped = fired.model_copy(update={"outcome": DueOutcome.SKIPPED, "reason": reason})
        self._store.account(_firing(schedule, Step((*step.rows, skipped))))
        self._patience.forget(schedule.id)
        return True

    def _find_flaw(self, schedule: Schedule) -> str | None:
        if schedule.organization != models.GLOBAL:
            found = self._store.find_organization(schedule.organization)
            if found is None or not found.active:
                return "organization inactive"
        return self._executions.find_flaw(schedule.definition.workflow)

    def _reason(self, schedule: Schedule, error: errors.BifrostError) -> str:
        match error:
            case errors.NotFound() | errors.Conflict():
                return self._find_flaw(schedule) or error.message
            case errors.ValidationError():
                return f"invalid parameters: {error.message}"
            case errors.Forbidden():
                return f"not permitted: {error.message}"
            case errors.WorkflowError():
                return f"invalid parameters: their options could not be read: {error.message}"
            case _:
                return error.message

    # retries

    def retry(self, now: datetime) -> None:
        """Submit again what failed and may be tried again, when its time has come."""
        for failed in self._store.list_to_retry():
            if failed.completed_at is not None and failed.completed_at + self._pause_after(failed) <= now:
                self._retry(failed, now)

    def _pause_after(self, failed: contract.Execution) -> timedelta:
        seconds = self._settings.schedule_retry_seconds * 2**failed.attempt
        return timedelta(seconds=min(seconds, MAX_RETRY_SECONDS))

    def _retry(self, failed: contract.Execution, now: datetime) -> None:
        try:
            self._submit_retry(failed, now)
        except AccountedElsewhere:
            return
        except errors.TemporaryError as error:
            log.warning("a retry has to wait", execution=failed.id, reason=error.message)
        except errors.BifrostError as error:
            self._store.give_up_retry(failed.id, reason=f"not tried again: {error.message}")

    def _submit_retry(self, failed: contract.Execution, now: datetime) -> None:
        schedule = self._store.find_schedule_by_id(failed.schedule_id or "")
        principal = self._authority_to_retry(failed, schedule, now)
        assert schedule is not None
        self._executions.submit(
            principal,
            organization=failed.organization,
            workflow=failed.workflow,
            parameters={name: value for name, value in failed.parameters.items() if value is not None},
            trigger=models.Trigger.SCHEDULE,
            scheduled=Scheduled(
                schedule_id=schedule.id,
                caller=failed.caller,
                acts_for=failed.acts_for,
                retried=failed.id,
                retry_of=failed.retry_of or failed.id,
                attempt=failed.attempt + 1,
                retries_left=failed.retries_left - 1,
            ),
        )

    def _authority_to_retry(self, failed: contract.Execution, schedule: Schedule | None, now: datetime) -> Principal:
        if schedule is None or schedule.deleted_at is not None or schedule.paused_at is not None:
            raise errors.Conflict("the schedule was paused or deleted")
        if schedule.definition.overlap is not models.Overlap.PARALLEL and self._store.list_active_of(schedule.id):
            raise errors.Conflict("the next run has begun")
        return authority.principal_for(self._store, schedule, now)


def _firing(schedule: Schedule, step: Step) -> Firing:
    """The step as the store takes it: with what the schedule has to be like for it to count."""
    last = step.fired or step.rows[-1]
    return Firing(
        schedule_id=schedule.id,
        version=schedule.version,
        accounted_from=schedule.accounted_until,
        rows=step.rows,
        fired=step.fired,
        accounted_until=last.due_at,
        wake_at=plans.wake_after(schedule, last.due_at),
    )
