"""Pages of a long history: the rows that a reading of all of them would give, without reading all of them."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bench import history as bench
from bifrost_kernel import models
from bifrost_scheduler.store import contract, history, text_index
from bifrost_scheduler.store.sqlite import SqliteStore

Status = models.ExecutionStatus

MANY = 20_000
MOST_RATIO = 10
"""Of a page over twenty times as many rows; generous, because the machine has other work."""

TEXTS = ["contoso", "legacy tenant", "Customer 77", "srv43", "REFUSED after 2", "user77", "no such text"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("history")
    bench.fill(made / "few.db", bench.FEW)
    bench.fill(made / "many.db", MANY)
    return made


@pytest.fixture(scope="module")
def few(folder: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(folder / "few.db")
    yield store
    store.close()


@pytest.fixture(scope="module")
def many(folder: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(folder / "many.db")
    yield store
    store.close()


@pytest.fixture
def ended(submit: Callable[..., contract.Execution], store: contract.Store) -> Callable[..., contract.Execution]:
    """Makes an execution that has ended; `error` is its text."""

    def make(error: str | None = None, **fields: Any) -> contract.Execution:
        made = submit(**fields)
        outcome = contract.Outcome(status=Status.CANCELLED, error=error, completed_at=made.created_at)
        return store.finish_execution(made.id, fence=None, outcome=outcome, record_sha256=None)

    return make


@pytest.fixture
def found(store: contract.Store) -> Callable[..., list[str]]:
    """The ids on the page of a text."""

    def search(text: str, **fields: Any) -> list[str]:
        wanted = contract.ExecutionFilter(organizations=("acme",), text=text, **fields)
        return [one.id for one in store.list_executions(wanted)]

    return search


def is_on(wanted: contract.ExecutionFilter, row: sqlite3.Row) -> bool:
    """The contract of a page, row by row."""
    texts = (row["workflow"], row["error"] or "", row["parameters"])
    return (
        (wanted.organizations is None or row["organization"] in wanted.organizations)
        and (wanted.workflow in (None, row["workflow"]))
        and (wanted.status in (None, row["status"]))
        and (wanted.caller in (None, row["caller_subject"], row["caller_email"]))
        and (wanted.since is None or row["created_at"] >= models.isoformat(wanted.since))
        and (wanted.until is None or row["created_at"] < models.isoformat(wanted.until))
        and (wanted.before is None or row["id"] < wanted.before)
        and (wanted.text is None or any(wanted.text.lower() in text.lower() for text in texts))
    )


def any_filter(chance: random.Random, ids: list[str]) -> contract.ExecutionFilter:
    choices: dict[str, list[Any]] = {
        "organizations": [None, (bench.LARGEST,), ("org-07",), ("org-07", "org-49", "nobody")],
        "workflow": [None, None, "create_user"],
        "status": [None, None, Status.FAILED],
        "caller": [None, None, "user:7@example.com", "7@example.com"],
        "since": [None, None, bench.NEWEST - bench.YEAR * 0.8],
        "until": [None, None, bench.NEWEST - bench.YEAR * 0.2],
        "text": [None, *TEXTS],
        "before": [None, chance.choice(ids), "no id"],
        "limit": [3, 50],
    }
    return contract.ExecutionFilter(**{name: chance.choice(of) for name, of in choices.items()})


@pytest.mark.parametrize("seed", range(4))
def test_every_page_has_the_rows_that_reading_all_would_give(many: SqliteStore, folder: Path, seed: int) -> None:
    """Whatever filters, texts, organizations and cursors come together."""
    connection = sqlite3.connect(folder / "many.db")
    connection.row_factory = sqlite3.Row
    rows = connection.execute("SELECT * FROM executions ORDER BY id DESC").fetchall()
    connection.close()
    chance = random.Random(seed)
    for _ in range(20):
        wanted = any_filter(chance, [row["id"] for row in rows])
        expected = [row["id"] for row in rows if is_on(wanted, row)][: wanted.limit]
        assert [one.id for one in many.list_executions(wanted)] == expected, wanted


@pytest.mark.parametrize("scope", bench.SCOPES)
@pytest.mark.parametrize("name", [name for name, fields in bench.PAGES.items() if "text" not in fields])
def test_no_page_scans_or_sorts(many: SqliteStore, folder: Path, scope: str, name: str) -> None:
    """Each statement of each combination of filters walks an index; of all organizations the newest walk the rows."""
    connection = sqlite3.connect(folder / "many.db")
    connection.row_factory = sqlite3.Row
    plans = []

    def fetch(sql: str, parameters: Any = ()) -> list[sqlite3.Row]:
        plans.extend(row["detail"] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters))
        return connection.execute(sql, parameters).fetchall()

    history.newest_ids(bench.wanted(scope, bench.PAGES[name]), fetch)
    connection.close()
    assert not [plan for plan in plans if "TEMP B-TREE" in plan]
    scans = {plan for plan in plans if "SCAN" in plan} - {"SCAN known", "SCAN CONSTANT ROW"}
    assert scope == "all" or not scans
    assert all(plan.endswith("INDEX sqlite_autoindex_executions_1") for plan in scans)


@pytest.mark.parametrize("scope", bench.SCOPES)
def test_a_page_costs_the_same_however_long_the_history_is(few: SqliteStore, many: SqliteStore, scope: str) -> None:
    """Every filter over twenty times the rows, measured in turns."""
    slow = {name: bench.ratio(few, many, scope, name, 7) for name in bench.PAGES}
    assert not {name: line for name, (times, line) in slow.items() if times > MOST_RATIO}


def test_a_text_is_found_before_and_after_the_index_has_it(ended, submit, found) -> None:
    """Pending, just ended, and long since in the index: the same text, in the order of the list."""
    texts = [ended(error=f"Needle {number}").id for number in range(3 * text_index.BATCH)]
    waiting = submit(parameters={"q": "a needle"}).id
    assert found("nEEDLE", limit=1000) == [waiting, *reversed(texts)]
    assert found("needle 7\n") == []


def test_a_text_of_another_organization_is_not_found(ended, found) -> None:
    """The twin in the other organization has it."""
    theirs, ours = (ended(error="Needle", organization=one).id for one in ("beta", "acme"))
    assert found("needle") == [ours]
    assert theirs != ours


def test_hidden_inputs_are_not_in_the_index(ended, found, store) -> None:
    """Neither as long as they wait for it nor afterwards."""
    hidden = [ended(parameters={"q": "needle"}, hidden_inputs=("q",)) for _ in range(2 * text_index.BATCH)]
    assert found("needle") == []
    assert len(found("hello_world", limit=1000)) == len(hidden)


def test_two_of_one_millisecond_are_both_found(ended, found) -> None:
    """A document's number is a millisecond and a place in it; who finds no place is found as well."""
    same = [ended(error="needle").id for _ in range(text_index.PLACES * 3)]
    rest = [ended().id for _ in range(text_index.BATCH)]
    assert found("needle", limit=1000) == same[::-1]
    assert len(rest) == text_index.BATCH


@pytest.mark.parametrize("text", ['"', "a\x00b", "needle\x00", "x" * 5000, 'ne"ed', "%", "ünd", "\\", "()*:^ AND NOT"])
def test_any_text_can_be_asked_for(ended, found, store, text: str) -> None:
    """Words of the index's own language are text like other text; a NUL and a long text, too."""
    for number in range(2 * text_index.BATCH):
        ended(error=f"say {text}" if number == 3 else None, parameters={})
    assert len(found(text)) == 1


def test_a_long_text_stands_apart_and_is_found(ended, found) -> None:
    """A body of the greatest size costs no time of the writer."""
    long = ended(parameters={"q": "x" * 100_000 + "needle"}).id
    for _ in range(text_index.BATCH):
        ended()
    assert found("needle") == [long]


def test_a_store_without_the_index_gets_it_at_start(open_store, store, ended, tmp_path: Path) -> None:
    """What ended under an older version is found, too."""
    old = ended(error="needle").id
    for _ in range(600):
        ended()
    with sqlite3.connect(tmp_path / "bifrost.db") as other:
        for table in ("execution_texts", "search_documents", "search_waiting"):
            other.execute(f"DROP TABLE {table}")
        other.execute("DELETE FROM _sqlite_migrations WHERE name = 'search'")
    other.close()
    later = open_store()
    wanted = contract.ExecutionFilter(organizations=None, text="needle")
    assert [one.id for one in later.list_executions(wanted)] == [old]
    later.close()


def test_short_texts_are_looked_for_among_the_newest(few: SqliteStore) -> None:
    """One or two characters are found, without an index."""
    wanted = contract.ExecutionFilter(organizations=None, text="99", until=bench.NEWEST + timedelta(days=1))
    assert len(few.list_executions(wanted)) == 50
