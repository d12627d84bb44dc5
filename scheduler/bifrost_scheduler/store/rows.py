"""From shapes to columns and back, for the SQLite store; pure, and alone in knowing how a value is spelt there.

Instants are RFC 3339 text of one width, so that text order is time order; everything nested is JSON text.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bifrost_kernel import models
from bifrost_scheduler.store import contract

Columns = dict[str, Any]

_JSON_COLUMNS = frozenset(
    {"roles", "organizations", "workflows", "permissions", "scopes", "parameters", "result", "error_details", "options"}
    | {"definition", "hidden_inputs", "egress"}
)
_CALLER_COLUMNS = {"caller_subject": "subject", "caller_email": "email", "caller_name": "name"}


def to_json(value: Any) -> str:
    """JSON text that SQLite can hold; lone surrogates become `?`, since UTF-8 has no form for them."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def to_text(instant: datetime | None) -> str | None:
    return None if instant is None else models.isoformat(instant)


def columns_of(shape: models.Frozen) -> Columns:
    """The columns of one row, for shapes whose fields are named like their columns."""
    return {name: _to_column(name, value) for name, value in shape}


def columns_of_execution(new: contract.NewExecution) -> Columns:
    columns = {name: _to_column(name, value) for name, value in new if name != "caller"}
    return columns | {column: getattr(new.caller, field) for column, field in _CALLER_COLUMNS.items()}


def fields_of(row: sqlite3.Row) -> dict[str, Any]:
    """The fields of a shape, for `Shape(**fields)`."""
    return {name: _from_column(name, row[name]) for name in row.keys()}  # noqa: SIM118  a Row iterates over values


def execution_of(row: sqlite3.Row) -> contract.Execution:
    fields = fields_of(row)
    caller = {field: fields.pop(column) for column, field in _CALLER_COLUMNS.items()}
    return contract.Execution(caller=models.Caller(**caller), **fields)


def event_of(row: sqlite3.Row) -> models.Event:
    return models.Event(seq=row["seq"], at=row["at"], type=row["type"], body=json.loads(row["body"]))


def audit_body(entry: contract.AuditEntry) -> dict[str, Any]:
    """What the ledger keeps of an administrative act."""
    return {"kind": "audit"} | entry.model_dump(mode="json") | {"at": models.isoformat(entry.at)}


def execution_body(execution: contract.Execution) -> dict[str, Any]:
    """What the ledger keeps of a finished execution."""
    return {
        "kind": "execution",
        "execution_id": execution.id,
        "organization": execution.organization,
        "workflow": execution.workflow,
        "caller": execution.caller.subject,
        "status": execution.status.value,
        "completed_at": to_text(execution.completed_at),
        "record_sha256": execution.record_sha256,
    }


def _to_column(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in _JSON_COLUMNS:
        return to_json(_plain(value))
    if isinstance(value, datetime):
        return models.isoformat(value)
    return int(value) if isinstance(value, bool) else value


def _plain(value: Any) -> Any:
    if isinstance(value, models.Frozen):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _from_column(name: str, value: Any) -> Any:
    return json.loads(value) if name in _JSON_COLUMNS and value is not None else value
