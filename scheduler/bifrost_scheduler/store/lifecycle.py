"""The state changes of an execution in SQLite, each a compare-and-set inside the transaction that it is given.

`SqliteStore` runs them on its writer and adds what belongs to the ledger. Nothing here commits, signs or reads a clock.
"""

from __future__ import annotations

import secrets
import sqlite3
from datetime import datetime, timedelta
from typing import Any

from sqlite_utils import Database

from bifrost_kernel import errors, models
from bifrost_scheduler.store import contract, rows, text_index
from bifrost_scheduler.store.statements import insert, returned

Status = models.ExecutionStatus

IDEMPOTENCY_KEPT = timedelta(hours=24)

FIND_REPLAY = """
    SELECT body_sha256, execution_id FROM idempotency
    WHERE credential = ? AND organization = ? AND workflow = ? AND key = ? AND created_at > ?
"""

_COUNT_PENDING = """
    SELECT count(*) AS n FROM executions INDEXED BY executions_active
    WHERE completed_at IS NULL AND status = 'pending' AND organization = ?
"""

# A walk over the organizations that wait (one index probe each), so that a long queue of one costs nothing.
_FIND_FAIREST = """
    WITH RECURSIVE waiting (organization) AS (
        SELECT min(organization) FROM executions INDEXED BY executions_active
            WHERE completed_at IS NULL AND status = 'pending'
        UNION ALL
        SELECT (SELECT min(organization) FROM executions INDEXED BY executions_active
                WHERE completed_at IS NULL AND status = 'pending' AND organization > waiting.organization)
            FROM waiting WHERE organization IS NOT NULL
    )
    SELECT
        (SELECT min(id) FROM executions INDEXED BY executions_active
            WHERE completed_at IS NULL AND status = 'pending' AND organization = waiting.organization) AS id,
        (SELECT count(*) FROM executions INDEXED BY executions_active
            WHERE completed_at IS NULL AND status = 'running' AND organization = waiting.organization) AS running
    FROM waiting WHERE organization IS NOT NULL AND running < ? ORDER BY running, id LIMIT 1
"""

_CLAIM = """
    UPDATE executions SET status = 'running', fence = ?, owner = ?, lease_until = ?, started_at = ?
    WHERE id = ? AND status = 'pending' RETURNING *
"""

_FINISH = """
    UPDATE executions SET status = :status, result = :result, error = :error, error_type = :error_type,
        error_details = :error_details, completed_at = :completed_at, record_sha256 = :record_sha256, lease_until = NULL
    WHERE id = :id AND CASE WHEN :fence IS NULL THEN status IN ('pending', 'awaiting_approval')
        ELSE status = 'running' AND fence = :fence END
    RETURNING *
"""

_REQUEST_CANCEL = """
    UPDATE executions SET cancel_requested_by = coalesce(cancel_requested_by, ?)
    WHERE id = ? AND completed_at IS NULL RETURNING *
"""

_APPROVE = """
    UPDATE executions SET status = 'pending', approved_by = ?
    WHERE id = ? AND status = 'awaiting_approval' AND approval_hash = ? RETURNING *
"""

# The next number comes from the index: counting in the execution's row would rewrite its parameters with every event.
_APPEND = """
    INSERT INTO events (execution_id, seq, at, type, body)
    SELECT id, coalesce((SELECT max(seq) FROM events WHERE execution_id = executions.id), 0) + 1, ?, ?, ?
    FROM executions WHERE id = ?
"""
_APPEND_FENCED = f"{_APPEND} AND fence = ? AND status = 'running' RETURNING seq"


def submit(
    db: Database, new: contract.NewExecution, idempotency: contract.Idempotency | None, *, queue_limit: int
) -> contract.Submitted:
    if idempotency:
        known = returned(
            db, FIND_REPLAY, replay_parameters(new.organization, new.workflow, idempotency, new.created_at)
        )
        if replay := replayed_id(known, idempotency):
            return contract.Submitted(execution=get(db, replay), replayed=True)
    _require_room(db, new, queue_limit)
    insert(db, "executions", rows.columns_of_execution(new))
    _append_status(db, new.id, new.status, new.created_at)
    if idempotency:
        _remember(db, new, idempotency)
    return contract.Submitted(execution=contract.Execution(**dict(new)), replayed=False)


def claim(
    db: Database, *, owner: str, now: datetime, lease_until: datetime, organization_limit: int
) -> contract.Execution | None:
    fairest = returned(db, _FIND_FAIREST, (organization_limit,))
    if not fairest:
        return None
    fence = secrets.token_hex(16)
    parameters = (fence, owner, rows.to_text(lease_until), rows.to_text(now), fairest[0]["id"])
    (row,) = returned(db, _CLAIM, parameters)
    _append_status(db, row["id"], Status.RUNNING, now)
    return rows.execution_of(row)


def finish(
    db: Database, execution_id: str, *, fence: str | None, outcome: contract.Outcome, record_sha256: str | None
) -> contract.Execution:
    named = {"record_sha256": record_sha256, "id": execution_id, "fence": fence}
    done = returned(db, _FINISH, rows.columns_of(outcome) | named)
    if not done:
        raise _not_in_state(db, execution_id, "is final already, or runs under another claim")
    _append_status(db, execution_id, outcome.status, outcome.completed_at)
    text_index.enqueue(db, execution_id)
    return rows.execution_of(done[0])


def request_cancel(db: Database, execution_id: str, *, by: str) -> contract.Execution | None:
    """None when it is final already."""
    asked = returned(db, _REQUEST_CANCEL, (by, execution_id))
    return rows.execution_of(asked[0]) if asked else None


def approve(db: Database, execution_id: str, *, by: str, approval_hash: str, at: datetime) -> contract.Execution:
    approved = returned(db, _APPROVE, (by, execution_id, approval_hash))
    if not approved:
        raise _not_in_state(db, execution_id, "does not wait for this approval")
    _append_status(db, execution_id, Status.PENDING, at)
    return rows.execution_of(approved[0])


def append_event(db: Database, execution_id: str, fence: str, columns: tuple[Any, ...]) -> int:
    appended = returned(db, _APPEND_FENCED, (*columns, execution_id, fence))
    if not appended:
        raise errors.Conflict(f"execution {execution_id} does not run under this claim any more")
    return int(appended[0]["seq"])


def get(db: Database, execution_id: str) -> contract.Execution:
    """
    Raises:
        NotFound: there is no such execution.
    """
    found = returned(db, "SELECT * FROM executions WHERE id = ?", (execution_id,))
    if not found:
        raise errors.NotFound(f"there is no execution {execution_id!r}")
    return rows.execution_of(found[0])


def replay_parameters(
    organization: str, workflow: str, idempotency: contract.Idempotency, now: datetime
) -> tuple[str | None, ...]:
    """The parameters of `FIND_REPLAY`."""
    return idempotency.credential, organization, workflow, idempotency.key, rows.to_text(now - IDEMPOTENCY_KEPT)


def replayed_id(found: list[sqlite3.Row], idempotency: contract.Idempotency) -> str | None:
    """Which execution the key made, out of the row of `FIND_REPLAY`.

    Raises:
        Conflict: the key is known with another body.
    """
    if not found:
        return None
    if found[0]["body_sha256"] != idempotency.body_sha256:
        raise errors.Conflict("this Idempotency-Key was used with another body")
    return str(found[0]["execution_id"])


def _require_room(db: Database, new: contract.NewExecution, queue_limit: int) -> None:
    if new.status is Status.PENDING and returned(db, _COUNT_PENDING, (new.organization,))[0]["n"] >= queue_limit:
        raise errors.TooManyRequests(
            f"{queue_limit} executions of {new.organization} wait already (organization_queue_limit)"
        )


def _remember(db: Database, new: contract.NewExecution, idempotency: contract.Idempotency) -> None:
    db.execute("DELETE FROM idempotency WHERE created_at <= ?", (rows.to_text(new.created_at - IDEMPOTENCY_KEPT),))
    made = {
        "organization": new.organization,
        "workflow": new.workflow,
        "execution_id": new.id,
        "created_at": rows.to_text(new.created_at),
    }
    insert(db, "idempotency", rows.columns_of(idempotency) | made)


def _append_status(db: Database, execution_id: str, status: Status, at: datetime) -> None:
    body = rows.to_json({"status": status.value})
    db.execute(_APPEND, (rows.to_text(at), models.EventType.STATUS, body, execution_id))


def _not_in_state(db: Database, execution_id: str, why: str) -> errors.BifrostError:
    return errors.Conflict(f"execution {execution_id} {why} (it is {get(db, execution_id).status})")
