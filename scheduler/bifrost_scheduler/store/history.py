"""Which executions stand on one page of the history, found without sorting or counting. `SqliteStore` calls it.

Every organization and filter has an index that ends in the id, so a page is a short walk backwards; several of them
are merged. Only the search in texts reads rows that it does not return.
"""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from bifrost_scheduler.store import contract, rows
from bifrost_scheduler.store.readers import Row

Fetch = Callable[[str, Sequence[Any]], list[Row]]
Condition = tuple[str, tuple[Any, ...]]

_CLOCK_MARGIN = timedelta(minutes=1)
"""How far the instant in a UUIDv7 may be from `created_at`."""

_ORGANIZATIONS = """
    WITH RECURSIVE known (organization) AS (
        SELECT min(organization) FROM executions
        UNION ALL
        SELECT (SELECT min(organization) FROM executions WHERE organization > known.organization)
            FROM known WHERE organization IS NOT NULL
    )
    SELECT organization FROM known WHERE organization IS NOT NULL
"""


def newest_ids(wanted: contract.ExecutionFilter, fetch: Fetch) -> list[str]:
    """The ids of the page, newest first."""
    walks = [
        [row["id"] for row in fetch(*_walk(wanted, organization, filtered))]
        for organization in _organizations(wanted, fetch)
        for filtered in _indexed_filters(wanted)
    ]
    merged = (identity for identity, _ in itertools.groupby(heapq.merge(*walks, reverse=True)))
    return list(itertools.islice(merged, wanted.limit))


def _organizations(wanted: contract.ExecutionFilter, fetch: Fetch) -> Sequence[str | None]:
    """The organizations to walk through; None is a walk through all rows, which only an unfiltered list can afford."""
    if wanted.organizations is not None:
        return sorted(set(wanted.organizations))
    if wanted.workflow is None and wanted.status is None and wanted.caller is None:
        return [None]
    return [row["organization"] for row in fetch(_ORGANIZATIONS, ())]


def _indexed_filters(wanted: contract.ExecutionFilter) -> list[tuple[str, list[Condition]]]:
    """The index that serves the narrowest filter, with the conditions that it serves; two for a caller."""
    workflow: list[Condition] = [("workflow = ?", (wanted.workflow,))] if wanted.workflow is not None else []
    status: list[Condition] = [("status = ?", (wanted.status,))] if wanted.status is not None else []
    if wanted.caller is not None:
        return [
            (f"executions_by_{column}", [(f"caller_{column} = ?", (wanted.caller,)), *workflow, *status])
            for column in ("subject", "email")
        ]
    if workflow and status:
        return [("executions_by_workflow_status", [*workflow, *status])]
    if workflow:
        return [("executions_by_workflow", workflow)]
    return [("executions_by_status", status)] if status else [("executions_by_organization", [])]


def _walk(
    wanted: contract.ExecutionFilter, organization: str | None, filtered: tuple[str, list[Condition]]
) -> tuple[str, list[Any]]:
    index, conditions = filtered
    conditions = [*conditions, *_window(wanted), *_text(wanted)]
    table = "executions"
    if organization is not None:
        table = f"executions INDEXED BY {index}"
        conditions.insert(0, ("organization = ?", (organization,)))
    where = " AND ".join(text for text, _ in conditions) or "1"
    parameters = [value for _, values in conditions for value in values]
    # Everything interpolated is a literal of this module; values are parameters.
    return f"SELECT id FROM {table} WHERE {where} ORDER BY id DESC LIMIT ?", [*parameters, wanted.limit]  # noqa: S608


def _window(wanted: contract.ExecutionFilter) -> list[Condition]:
    conditions: list[Condition] = []
    if wanted.before is not None:
        conditions.append(("id < ?", (wanted.before,)))
    if wanted.since is not None:
        conditions.append(("id >= ?", (_first_id(wanted.since - _CLOCK_MARGIN),)))
        conditions.append(("created_at >= ?", (rows.to_text(wanted.since),)))
    if wanted.until is not None:
        conditions.append(("id < ?", (_first_id(wanted.until + _CLOCK_MARGIN),)))
        conditions.append(("created_at < ?", (rows.to_text(wanted.until),)))
    return conditions


def _first_id(instant: datetime) -> str:
    """The text before which every UUIDv7 is older: 48 bits of milliseconds (RFC 9562 §5.7)."""
    milliseconds = max(0, int(instant.timestamp() * 1000))
    return f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}"


def _text(wanted: contract.ExecutionFilter) -> list[Condition]:
    if not wanted.text:
        return []
    plain = _like(wanted.text)
    in_json = _like(json.dumps(wanted.text, ensure_ascii=False)[1:-1])
    columns = "workflow LIKE ? ESCAPE '!' OR error LIKE ? ESCAPE '!'"
    columns += " OR (hidden_inputs = '[]' AND parameters LIKE ? ESCAPE '!')"
    return [(f"({columns})", (plain, plain, in_json))]


def _like(text: str) -> str:
    escaped = text.replace("!", "!!").replace("%", "!%").replace("_", "!_")
    return f"%{escaped}%"
