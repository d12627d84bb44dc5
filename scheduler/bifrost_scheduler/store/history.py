"""Which executions stand on one page of the history, found without sorting or counting. `SqliteStore` calls it.

Every organization and filter has an index that ends in the id, so a page is a short walk backwards; several of them
are merged. Only the search in texts reads rows that it does not return, and asks the index of texts which.
"""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from bifrost_scheduler.store import contract, rows, text_index
from bifrost_scheduler.store.readers import Row

Fetch = Callable[[str, Sequence[Any]], list[Row]]
Condition = tuple[str, tuple[Any, ...]]

_CLOCK_MARGIN = timedelta(minutes=1)
"""How far the instant in a UUIDv7 may be from `created_at`."""

_NEAR = 500
"""How many of the newest rows are compared before the index is asked; a common text fills its page among them."""

_SHORT_TEXTS_REACH = 5_000
"""The index knows no text of fewer than three characters: those are found among so many of the newest rows alone."""

_CANDIDATES = (500, 2_000, 8_000)
"""How many documents of the index are looked into at a time; more would cost more than reading all rows."""

_NARROW = 2_000
"""A caller with more executions than this in one organization does not narrow a search."""

_WITHIN = """
    WITH spans AS (SELECT value AS start FROM json_each(?))
    SELECT id FROM spans CROSS JOIN executions ON id >= start AND id < start || '~' WHERE
"""

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
    return _search(wanted, wanted.text, fetch) if wanted.text else _walk_all(wanted, fetch)


def _walk_all(wanted: contract.ExecutionFilter, fetch: Fetch) -> list[str]:
    walks = [
        [row["id"] for row in fetch(*_walk(wanted, organization, filtered))]
        for organization in _organizations(wanted, fetch)
        for filtered in _indexed_filters(wanted)
    ]
    merged = (identity for identity, _ in itertools.groupby(heapq.merge(*walks, reverse=True)))
    return list(itertools.islice(merged, wanted.limit))


def _search(wanted: contract.ExecutionFilter, text: str, fetch: Fetch) -> list[str]:
    """A common text is found among the newest rows, a rare one by the index, and what is neither by reading all."""
    reach = _NEAR if len(text) >= text_index.LEAST_CHARACTERS else _SHORT_TEXTS_REACH
    near = _walk_all(wanted.model_copy(update={"text": None, "limit": reach}), fetch)
    found = _containing(wanted, near, fetch)[: wanted.limit]
    if len(found) == wanted.limit or len(near) < reach or reach == _SHORT_TEXTS_REACH:
        return found
    further = wanted.model_copy(update={"before": near[-1], "limit": wanted.limit - len(found)})
    by_index = _search_index(further, text, fetch)
    return found + (_walk_all(further, fetch) if by_index is None else by_index)


def _search_index(wanted: contract.ExecutionFilter, text: str, fetch: Fetch) -> list[str] | None:
    """The ids, newest first; None when the index cannot tell them, or only through too many candidates."""
    newest = text_index.millisecond_of(wanted.before or "")
    if newest is None or not text_index.is_indexable(text):
        return None
    expression = text_index.expression(text, _in_json(text))
    oldest = _milliseconds(wanted.since - _CLOCK_MARGIN) * text_index.PLACES if wanted.since else 0
    above = (newest + 1) * text_index.PLACES
    found = _found_outside(wanted, fetch)
    for size in _CANDIDATES:
        documents = [row["document"] for row in fetch(text_index.CANDIDATES, (expression, oldest, above, size))]
        found |= _found_within(wanted, documents, fetch)
        reached = documents[-1] // text_index.PLACES if len(documents) == size else 0
        certain = [identity for identity in sorted(found, reverse=True) if identity >= text_index.first_id(reached)]
        if not reached or len(certain) >= wanted.limit:
            return certain[: wanted.limit]
        above = reached * text_index.PLACES
    return None


def _found_outside(wanted: contract.ExecutionFilter, fetch: Fetch) -> set[str]:
    where, parameters = _where(_every_condition(wanted))
    sql = " UNION ".join(f"SELECT id FROM {outside} AND {where}" for outside in text_index.OUTSIDE)  # noqa: S608
    return {row["id"] for row in fetch(sql, parameters * len(text_index.OUTSIDE))}


def _found_within(wanted: contract.ExecutionFilter, documents: Sequence[int], fetch: Fetch) -> set[str]:
    starts: Sequence[str] = sorted({text_index.first_id(document // text_index.PLACES) for document in documents})
    if wanted.caller is not None and starts:
        starts = _of_caller(wanted, starts, fetch)
    where, parameters = _where(_every_condition(wanted))
    return {row["id"] for row in fetch(f"{_WITHIN} {where}", [json.dumps(starts), *parameters])}


def _of_caller(wanted: contract.ExecutionFilter, starts: Sequence[str], fetch: Fetch) -> Sequence[str]:
    """Those at which this caller has a row, by the index alone; all of them for a caller who has very many."""
    own: set[str] = set()
    window = (starts[0], starts[-1] + "~", _NARROW)
    for organization in _organizations(wanted, fetch):
        for index, conditions in _indexed_filters(wanted):
            where, parameters = _where([("organization = ?", (organization,)), *conditions])
            sql = f"SELECT id FROM executions INDEXED BY {index} WHERE {where} AND id >= ? AND id < ? LIMIT ?"  # noqa: S608
            found = fetch(sql, [*parameters, *window])
            if len(found) == _NARROW:
                return starts
            own.update(row["id"][: len(starts[0])] for row in found)
    return [start for start in starts if start in own]


def _containing(wanted: contract.ExecutionFilter, ids: Sequence[str], fetch: Fetch) -> list[str]:
    where, parameters = _where([("id IN (SELECT value FROM json_each(?))", (json.dumps(ids),)), *_text(wanted)])
    # Everything interpolated is a literal of this module; values are parameters.
    return [row["id"] for row in fetch(f"SELECT id FROM executions WHERE {where} ORDER BY id DESC", parameters)]  # noqa: S608


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
    where, parameters = _where(conditions)
    return f"SELECT id FROM {table} WHERE {where} ORDER BY id DESC LIMIT ?", [*parameters, wanted.limit]  # noqa: S608


def _every_condition(wanted: contract.ExecutionFilter) -> list[Condition]:
    # The plus keeps SQLite from walking the window instead of going to each row (https://sqlite.org/optoverview.html).
    conditions: list[Condition] = [*_window(wanted, column="+id"), *_text(wanted)]
    if wanted.organizations is not None:
        organizations = json.dumps(wanted.organizations)
        conditions.append(("organization IN (SELECT value FROM json_each(?))", (organizations,)))
    if wanted.caller is not None:
        conditions.append(("(caller_subject = ? OR caller_email = ?)", (wanted.caller, wanted.caller)))
    if wanted.workflow is not None:
        conditions.append(("workflow = ?", (wanted.workflow,)))
    if wanted.status is not None:
        conditions.append(("status = ?", (wanted.status,)))
    return conditions


def _where(conditions: Sequence[Condition]) -> tuple[str, list[Any]]:
    where = " AND ".join(text for text, _ in conditions) or "1"
    return where, [value for _, values in conditions for value in values]


def _window(wanted: contract.ExecutionFilter, *, column: str = "id") -> list[Condition]:
    conditions: list[Condition] = []
    if wanted.before is not None:
        conditions.append((f"{column} < ?", (wanted.before,)))
    if wanted.since is not None:
        conditions.append((f"{column} >= ?", (_first_id(wanted.since - _CLOCK_MARGIN),)))
        conditions.append(("created_at >= ?", (rows.to_text(wanted.since),)))
    if wanted.until is not None:
        conditions.append((f"{column} < ?", (_first_id(wanted.until + _CLOCK_MARGIN),)))
        conditions.append(("created_at < ?", (rows.to_text(wanted.until),)))
    return conditions


def _first_id(instant: datetime) -> str:
    return text_index.first_id(_milliseconds(instant))


def _milliseconds(instant: datetime) -> int:
    return max(0, int(instant.timestamp() * 1000))


def _text(wanted: contract.ExecutionFilter) -> list[Condition]:
    if not wanted.text:
        return []
    plain = _like(wanted.text)
    in_json = _like(_in_json(wanted.text))
    columns = "workflow LIKE ? ESCAPE '!' OR error LIKE ? ESCAPE '!'"
    columns += " OR (hidden_inputs = '[]' AND parameters LIKE ? ESCAPE '!')"
    return [(f"({columns})", (plain, plain, in_json))]


def _in_json(text: str) -> str:
    """How the text stands in the column of the parameters."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _like(text: str) -> str:
    escaped = text.replace("!", "!!").replace("%", "!%").replace("_", "!_")
    return f"%{escaped}%"
