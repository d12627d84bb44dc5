"""Schedules in SQLite: their rows, their due times, and who was alive to see them. `SqliteStore` is made of it.

The statements that move a schedule on are compare-and-sets; what `account` does inside a transaction also runs in the
one that submits an execution.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlite_utils import Database

from bifrost_kernel import errors, models
from bifrost_scheduler.store import contract, rows
from bifrost_scheduler.store.readers import Readers, Row
from bifrost_scheduler.store.schedule_contract import (
    AccountedElsewhere,
    CalendarRow,
    DueTime,
    Firing,
    Schedule,
    ScheduleStore,
    ScheduleVersion,
    Stretch,
)
from bifrost_scheduler.store.statements import insert
from bifrost_scheduler.store.writer import Writer

STRETCHES_KEPT = timedelta(days=7)

_RETRYABLE = "retries_left > 0 AND status IN ('failed', 'timeout', 'crashed')"

_MOVE_ON = """
    UPDATE schedules SET accounted_until = ?, wake_at = ?
    WHERE id = ? AND version = ? AND accounted_until = ? AND deleted_at IS NULL
"""
_ACTIVE = """
    SELECT * FROM executions INDEXED BY executions_of_schedule
    WHERE completed_at IS NULL AND schedule_id = ? ORDER BY id
"""
_BEAT = """
    INSERT INTO stretches (owner, started_at, until_at) VALUES (?, ?, ?)
    ON CONFLICT (owner, started_at) DO UPDATE SET until_at = max(until_at, excluded.until_at)
"""
_CALENDAR = """
    SELECT due_times.*, executions.status FROM due_times INDEXED BY due_times_by_organization
    LEFT JOIN executions ON executions.id = due_times.execution_id
    WHERE due_times.organization = ? AND due_at >= ? AND due_at < ? ORDER BY due_at LIMIT ?
"""
_ORGANIZATIONS_WITH_DUE_TIMES = """
    WITH RECURSIVE known (organization) AS (
        SELECT min(organization) FROM due_times
        UNION ALL
        SELECT (SELECT min(organization) FROM due_times WHERE organization > known.organization)
            FROM known WHERE organization IS NOT NULL
    )
    SELECT organization FROM known WHERE organization IS NOT NULL
"""


class SqliteSchedules(ScheduleStore):
    """The schedules' part of `SqliteStore`, which opens the database."""

    _writer: Writer
    _readers: Readers

    def _audit(self, db: Database, entry: contract.AuditEntry) -> None:
        raise NotImplementedError

    def create_schedule(self, schedule: Schedule, *, audit: contract.AuditEntry) -> None:
        def operation(db: Database) -> None:
            if insert(db, "schedules", _columns(schedule), verb="INSERT OR IGNORE") == 0:
                raise errors.Conflict(f"{schedule.organization} has a schedule {schedule.name!r} already")
            _keep_version(db, schedule, "created", audit.at, audit.actor)
            self._audit(db, audit)

        self._writer.run(operation)

    def change_schedule(
        self,
        schedule: Schedule,
        *,
        change: Literal["edited", "paused", "resumed", "deleted"],
        audit: contract.AuditEntry,
    ) -> None:
        columns = _columns(schedule)
        changes = ", ".join(f"{name} = :{name}" for name in columns)
        condition = "id = :id AND version = :version - 1 AND accounted_until <= :accounted_until AND deleted_at IS NULL"

        def operation(db: Database) -> None:
            # Every name is a field of a shape.
            if db.execute(f"UPDATE schedules SET {changes} WHERE {condition}", columns).rowcount == 0:  # noqa: S608
                raise AccountedElsewhere(f"the schedule {schedule.name!r} has changed meanwhile; read it again")
            _keep_version(db, schedule, change, audit.at, audit.actor)
            self._audit(db, audit)

        self._writer.run(operation)

    def find_schedule(self, organization: str, name: str) -> Schedule | None:
        sql = "SELECT * FROM schedules WHERE organization = ? AND name = ? AND deleted_at IS NULL"
        return _first(self._readers.fetch(sql, (organization, name)))

    def find_schedule_by_id(self, schedule_id: str) -> Schedule | None:
        return _first(self._readers.fetch("SELECT * FROM schedules WHERE id = ?", (schedule_id,)))

    def list_schedules(
        self, organizations: Sequence[str] | None, *, after: tuple[str, str] | None = None, limit: int = 50
    ) -> list[Schedule]:
        sql = (
            "SELECT * FROM schedules WHERE deleted_at IS NULL AND (organization, name) > (?, ?) "
            "AND (? IS NULL OR organization IN (SELECT value FROM json_each(?))) ORDER BY organization, name LIMIT ?"
        )
        wanted = None if organizations is None else json.dumps(list(organizations))
        found = self._readers.fetch(sql, (*(after or ("", "")), wanted, wanted, limit))
        return [_schedule(row) for row in found]

    def list_derived(self) -> list[Schedule]:
        sql = "SELECT * FROM schedules WHERE derived = 1 AND deleted_at IS NULL ORDER BY id"
        return [_schedule(row) for row in self._readers.fetch(sql)]

    def list_schedule_versions(
        self, schedule_id: str, *, before: int | None = None, limit: int = 50
    ) -> list[ScheduleVersion]:
        sql = "SELECT * FROM schedule_versions WHERE schedule_id = ? AND version < ? ORDER BY version DESC LIMIT ?"
        found = self._readers.fetch(sql, (schedule_id, 2**62 if before is None else before, limit))
        return [ScheduleVersion(**rows.fields_of(row)) for row in found]

    def list_due_schedules(self, now: datetime, *, limit: int = 10_000) -> list[Schedule]:
        sql = "SELECT * FROM schedules WHERE wake_at <= ? AND deleted_at IS NULL ORDER BY wake_at, id LIMIT ?"
        return [_schedule(row) for row in self._readers.fetch(sql, (rows.to_text(now), limit))]

    def find_next_wake(self, *, after: datetime) -> datetime | None:
        sql = "SELECT wake_at FROM schedules WHERE wake_at > ? AND deleted_at IS NULL ORDER BY wake_at LIMIT 1"
        found = self._readers.fetch(sql, (rows.to_text(after),))
        return datetime.fromisoformat(found[0]["wake_at"]) if found else None

    def account(self, firing: Firing) -> None:
        self._writer.run(lambda db: account(db, firing, None))

    def list_due_times(self, schedule_id: str, *, before: datetime | None = None, limit: int = 50) -> list[DueTime]:
        sql = "SELECT * FROM due_times WHERE schedule_id = ? AND due_at < ? ORDER BY due_at DESC LIMIT ?"
        found = self._readers.fetch(sql, (schedule_id, rows.to_text(before) or "9", limit))
        return [DueTime(**rows.fields_of(row)) for row in found]

    def list_calendar(
        self, organizations: Sequence[str] | None, *, since: datetime, until: datetime, limit: int
    ) -> list[CalendarRow]:
        if organizations is None:
            organizations = [row["organization"] for row in self._readers.fetch(_ORGANIZATIONS_WITH_DUE_TIMES)]
        window = (rows.to_text(since), rows.to_text(until), limit)
        found = [row for one in organizations for row in self._readers.fetch(_CALENDAR, (one, *window))]
        found = sorted(found, key=lambda row: str(row["due_at"]))[:limit]
        schedules = self._schedules_of({row["schedule_id"] for row in found})
        return [_calendar_row(row, schedules[row["schedule_id"]]) for row in found]

    def list_active_of(self, schedule_id: str) -> list[contract.Execution]:
        return [rows.execution_of(row) for row in self._readers.fetch(_ACTIVE, (schedule_id,))]

    def list_to_retry(self, *, limit: int = 200) -> list[contract.Execution]:
        sql = (
            f"SELECT * FROM executions INDEXED BY executions_to_retry WHERE {_RETRYABLE} "  # noqa: S608  a literal
            "AND coalesce(error_type, '') <> 'UserError' ORDER BY completed_at LIMIT ?"
        )
        return [rows.execution_of(row) for row in self._readers.fetch(sql, (limit,))]

    def give_up_retry(self, execution_id: str, *, reason: str) -> None:
        def operation(db: Database) -> None:
            take_retry(db, execution_id)
            first = "SELECT coalesce(retry_of, id) FROM executions WHERE id = ?"
            sql = f"UPDATE due_times SET reason = ? WHERE execution_id = ({first})"  # noqa: S608  a literal
            db.execute(sql, (reason, execution_id))

        self._writer.run(operation)

    def beat(self, stretch: Stretch) -> None:
        values = tuple(rows.columns_of(stretch).values())
        oldest = rows.to_text(stretch.until_at - STRETCHES_KEPT)

        def operation(db: Database) -> None:
            db.execute("DELETE FROM stretches WHERE until_at < ?", (oldest,))
            db.execute(_BEAT, values)

        self._writer.run(operation)

    def list_stretches(self, *, since: datetime) -> list[Stretch]:
        sql = "SELECT * FROM stretches WHERE until_at >= ? ORDER BY started_at"
        return [Stretch(**rows.fields_of(row)) for row in self._readers.fetch(sql, (rows.to_text(since),))]

    def mark_organizations(self) -> str:
        (row,) = self._readers.fetch("SELECT count(*) AS there, total(active) AS active FROM organizations")
        return f"{row['there']}/{row['active']}"

    def _schedules_of(self, ids: set[str]) -> dict[str, Schedule]:
        sql = "SELECT * FROM schedules WHERE id IN (SELECT value FROM json_each(?))"
        return {row["id"]: _schedule(row) for row in self._readers.fetch(sql, (json.dumps(sorted(ids)),))}


def account(db: Database, firing: Firing, execution_id: str | None) -> None:
    """Write the due times of a step and move the schedule on, inside the transaction of whoever calls.

    Raises:
        AccountedElsewhere: the schedule is not as it was when the step was decided.
    """
    expected = (firing.schedule_id, firing.version, rows.to_text(firing.accounted_from))
    moved = (rows.to_text(firing.accounted_until), rows.to_text(firing.wake_at), *expected)
    if db.execute(_MOVE_ON, moved).rowcount == 0:
        raise AccountedElsewhere("this due time is accounted for already")
    for row in firing.rows_with(execution_id):
        if insert(db, "due_times", rows.columns_of(row), verb="INSERT OR IGNORE") == 0:
            raise AccountedElsewhere(f"the due time {models.isoformat(row.due_at)} is accounted for already")


def take_retry(db: Database, execution_id: str) -> None:
    """Use up what retries this execution has left; its successor carries on with them.

    Raises:
        AccountedElsewhere: somebody else took it.
    """
    sql = f"UPDATE executions SET retries_left = 0 WHERE id = ? AND {_RETRYABLE}"  # noqa: S608  a literal
    if db.execute(sql, (execution_id,)).rowcount == 0:
        raise AccountedElsewhere(f"the execution {execution_id} is not to be retried any more")


def _columns(schedule: Schedule) -> dict[str, Any]:
    derived = schedule.origin != "saved" or schedule.definition.from_code or schedule.definition.for_all
    return rows.columns_of(schedule) | {"derived": int(derived)}


def _keep_version(db: Database, schedule: Schedule, change: str, at: datetime, by: str) -> None:
    kept = {"schedule_id": schedule.id, "version": schedule.version, "change": change, "at": rows.to_text(at), "by": by}
    insert(db, "schedule_versions", kept | {"definition": _columns(schedule)["definition"]})


def _schedule(row: Row) -> Schedule:
    return Schedule(**{name: value for name, value in rows.fields_of(row).items() if name != "derived"})


def _first(found: list[Row]) -> Schedule | None:
    return _schedule(found[0]) if found else None


def _calendar_row(row: Row, schedule: Schedule) -> CalendarRow:
    fields = rows.fields_of(row)
    status = fields.pop("status")
    return CalendarRow(due=DueTime(**fields), schedule=schedule, execution_status=status)
