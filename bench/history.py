"""A page of the history over a million executions against the same page over a thousand, and searches in texts.

`python -m bench.history [--rows N] [--rounds N]`. Both stores stand side by side, and the pages alternate between them
within each round. The rows are inserted in bulk into the store's own schema; the pages are the store's own.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from bifrost_kernel import models
from bifrost_scheduler.store import contract, text_index
from bifrost_scheduler.store.sqlite import SqliteStore

FEW = 1_000
MOST_RATIO = 5.0
MOST_SEARCH_SECONDS = 0.2

NEWEST = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
YEAR = timedelta(days=365)
ORGANIZATIONS = [f"org-{number:02}" for number in range(50)]
WORKFLOWS = ["create_user", "reset_password", "sync_licences", "report_usage", "onboard_customer", "hello_world"]
ENDINGS = ["success"] * 90 + ["completed_with_errors"] * 3 + ["failed"] * 5 + ["timeout", "cancelled"]
PEOPLE = 200

LARGEST = ORGANIZATIONS[0]
Fields = dict[str, Any]

PAGES: dict[str, Fields] = {
    "newest": {},
    "workflow": {"workflow": "reset_password"},
    "status": {"status": models.ExecutionStatus.FAILED},
    "workflow, status": {"workflow": "reset_password", "status": models.ExecutionStatus.FAILED},
    "caller": {"caller": "user:7@example.com"},
    "caller, status": {"caller": "user:7@example.com", "status": models.ExecutionStatus.FAILED},
    "since, until": {"since": NEWEST - YEAR * 0.6, "until": NEWEST - YEAR * 0.4},
    "workflow, since": {"workflow": "reset_password", "since": NEWEST - YEAR * 0.5},
    "common text": {"text": "contoso"},
}
SEARCHES: dict[str, Fields] = {
    "one execution": {"text": "Customer 500000"},
    "a few": {"text": "srv4321.example"},
    "nothing": {"text": "no such text"},
    "old and many": {"text": "legacy tenant"},
    "some, in failed": {"text": "refused after 29 s", "status": models.ExecutionStatus.FAILED},
    "some, of a caller": {"text": "user77", "caller": "user:7@example.com"},
    "two characters": {"text": "§§"},
}
SCOPES: dict[str, tuple[str, ...] | None] = {
    "largest": (LARGEST,),
    "three": (LARGEST, ORGANIZATIONS[7], ORGANIZATIONS[49]),
    "all": None,
}


def fill(path: Path, count: int) -> None:
    """A store of so many ended executions, spread over a year; the largest organization has a fifth of them."""
    SqliteStore(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -500000")
    connection.execute("BEGIN")
    columns = list(next(rows(1)))
    values = ", ".join(f":{column}" for column in columns)
    connection.executemany(f"INSERT INTO executions ({', '.join(columns)}) VALUES ({values})", rows(count))
    connection.execute("INSERT INTO search_waiting SELECT 0, id FROM executions")
    db = Database(connection, execute_plugins=False)
    while text_index.add_waiting(db, limit=10_000):
        pass
    connection.execute("COMMIT")
    connection.close()


def rows(count: int) -> Iterator[Fields]:
    chance = random.Random(count)
    for number in range(count):
        yield row(number, NEWEST - YEAR * (1 - number / count), number < count * 0.3, chance)


def row(number: int, at: datetime, is_old: bool, chance: random.Random) -> Fields:
    status = chance.choice(ENDINGS)
    milliseconds, bits = int(at.timestamp() * 1000), chance.getrandbits(74)
    identity = f"{milliseconds:012x}7{bits >> 62:03x}{0x8000000000000000 | bits & (1 << 62) - 1:016x}"
    person = chance.randrange(PEOPLE)
    instant = models.isoformat(at)
    inputs = {"name": f"Customer {number}", "mailbox": f"user{chance.randrange(100_000)}@contoso.example"}
    return {
        "id": "-".join((identity[:8], identity[8:12], identity[12:16], identity[16:20], identity[20:])),
        "organization": LARGEST if chance.random() < 0.2 else chance.choice(ORGANIZATIONS),
        "workflow": chance.choice(WORKFLOWS),
        "status": status,
        "trigger": "api",
        "caller_subject": f"user:{person}@example.com",
        "caller_email": f"{person}@example.com",
        "code_hash": "c0de" * 16,
        "timeout_seconds": 300,
        "created_at": instant,
        "started_at": instant,
        "completed_at": instant,
        "record_sha256": "5ea1" * 16,
        "error": _error(chance) if status == "failed" else None,
        "parameters": json.dumps(inputs | ({"kind": "legacy tenant"} if is_old else {}), separators=(",", ":")),
        "result": json.dumps({"success": True, "detail": "x" * chance.randrange(300)}),
    }


def _error(chance: random.Random) -> str:
    return f"host srv{chance.randrange(5000)}.example refused after {chance.randrange(30)} s"


def measure(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way, in turns, after one that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if number:
                taken[name].append(time.perf_counter() - started)
    return taken


def wanted(scope: str, fields: Fields) -> contract.ExecutionFilter:
    return contract.ExecutionFilter(organizations=SCOPES[scope], **fields)


def page(store: contract.Store, scope: str, fields: Fields) -> Callable[[], object]:
    chosen = wanted(scope, fields)
    return lambda: store.list_executions(chosen)


def ratio(few: contract.Store, many: contract.Store, scope: str, name: str, rounds: int) -> tuple[float, str]:
    """How many times as long the page takes over many rows, and the line that says so.

    Where a thousand rows do not fill the page, both stores are asked for as many as there are: what a row costs on its
    way into the answer is not what is compared.
    """
    limit = max(1, len(few.list_executions(wanted(scope, PAGES[name]))))
    ways = {
        label: page(store, scope, PAGES[name] | {"limit": limit}) for label, store in (("few", few), ("many", many))
    }
    taken = measure(ways, rounds)
    times = statistics.median(taken["many"]) / statistics.median(taken["few"])
    return times, f"{name:18} {scope:8} {limit:3} {_spread(taken['few']):>24} {_spread(taken['many']):>24} {times:6.2f}"


def _spread(seconds: list[float]) -> str:
    ordered = sorted(second * 1000 for second in seconds)
    return f"{statistics.median(ordered):.2f} ({ordered[0]:.2f}-{ordered[-1]:.2f}) ms"


def _openings(folder: Path, rounds: int) -> str:
    ways = {name: (lambda path=folder / name: SqliteStore(path).close()) for name in ("few.db", "many.db")}
    taken = measure(ways, rounds)
    return f"{'opening the store':31} {_spread(taken['few.db']):>24} {_spread(taken['many.db']):>24}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="twenty thousand rows, five rounds")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rows, chosen.rounds = 20_000, 5
    with tempfile.TemporaryDirectory(prefix="bifrost-bench-") as folder:
        missed = compare(Path(folder), chosen.rows, chosen.rounds)
    raise SystemExit(f"missed: {', '.join(missed)}" if missed else 0)


def compare(folder: Path, count: int, rounds: int) -> list[str]:
    """Print every figure; returns what missed its bound."""
    for name, size in (("few.db", FEW), ("many.db", count)):
        started = time.perf_counter()
        fill(folder / name, size)
        megabytes = (folder / name).stat().st_size / 1e6
        print(f"{size} executions made in {time.perf_counter() - started:.0f} s, {megabytes:.0f} MB")
    print(_openings(folder, rounds))
    few, many = SqliteStore(folder / "few.db"), SqliteStore(folder / "many.db")
    missed = []
    for scope in SCOPES:
        for name in PAGES:
            times, line = ratio(few, many, scope, name, rounds)
            print(line)
            missed += [f"{name} in {scope}"] if times > MOST_RATIO else []
        for name, fields in SEARCHES.items():
            (taken,) = measure({name: page(many, scope, fields)}, rounds).values()
            print(f"search: {name:18} {scope:8} {'':20} {_spread(taken):>24}")
            missed += [f"search {name} in {scope}"] if statistics.median(taken) > MOST_SEARCH_SECONDS else []
    few.close(), many.close()
    return missed


if __name__ == "__main__":
    main()
