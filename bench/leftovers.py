"""What ten thousand executions leave behind: processes, threads, descriptors, files, memory and rows, before and after.

`python -m bench.leftovers [--executions N] [--quick]`. Both times the product is at rest. Nothing may grow but the
history itself.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from bench import callers, notebook, processes, product, results
from bench.figures import Frozen, Table, Target, shown

CALLERS = 8
WARM_UP_CALLS = 200
REST_SECONDS = 12
"""Without a change; idle threads of the web server end after ten."""
REST_TRIES = 60
HISTORY = ("execution", "events", "ledger", "search_")
"""What the names of the history's tables begin with."""
TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'"
MOST_GROWTH_PERCENT = 5
BOUNDS = {"threads": CALLERS}
"""A pool of threads keeps as many as were ever busy at once, which the warm-up need not have reached."""


class Count(Frozen):
    """Everything that could be left behind, at one moment; keys are `<role> <what>`."""

    processes: Counter[str]
    threads: Counter[str]
    descriptors: Counter[str]
    files: Counter[str]
    mounts: Counter[str]
    rows: Counter[str]
    megabytes: dict[str, float]
    """Memory by role, what is shared counted once."""
    resident: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="400 executions")
    options = parser.parse_args()
    number = 400 if options.quick else options.executions
    with product.started() as running:
        run(running, WARM_UP_CALLS)
        before = at_rest(running)
        answers = run(running, number)
        after = at_rest(running)
    results.save("leftovers", judge(before, after, answers), is_quick=options.quick)


def run(running: product.Product, number: int) -> callers.Answers:
    """So many executions, one after the other for each caller."""
    work = callers.hello(str(running.client.base_url), notebook.PARAMETERS, calls=number // CALLERS)
    return callers.call_together(CALLERS, work)


def at_rest(running: product.Product) -> Count:
    """What there is when nothing changes any more.

    Raises:
        RuntimeError: it does not come to rest.
    """
    last, unchanged = count(running), 0
    for _ in range(REST_TRIES):
        time.sleep(1)
        now = count(running)
        unchanged = unchanged + 1 if _things(now) == _things(last) else 0
        last = now
        if unchanged == REST_SECONDS:
            return now
    raise RuntimeError(f"the product does not come to rest: {_things(last)}")


def count(running: product.Product) -> Count:
    holdings = processes.holdings(running.pid)
    return Count(
        processes=Counter(holding.role for holding in holdings),
        threads=_sums((holding.role, holding.threads) for holding in holdings),
        descriptors=_sums(
            (f"{holding.role}: {kind}", number) for holding in holdings for kind, number in holding.descriptors.items()
        ),
        files=_sums(_files(running)),
        mounts=_sums((holding.role, processes.mounts(holding.pid)) for holding in holdings),
        rows=rows(running.home / "bifrost.db"),
        megabytes=_megabytes((holding.role, holding.pss) for holding in holdings),
        resident=_megabytes((holding.role, holding.rss) for holding in holdings),
    )


def rows(database: Path) -> Counter[str]:
    """Rows of every table."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        listed = connection.execute(TABLES).fetchall()
        return _sums((name, connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]) for (name,) in listed)


def judge(before: Count, after: Count, answers: callers.Answers) -> results.Results:
    """The figures, and what they are held to."""
    done = len(answers.seconds)
    growth = (sum(after.megabytes.values()) / sum(before.megabytes.values()) - 1) * 100
    nothing = {
        "processes": grown(before.processes, after.processes),
        "threads": grown(before.threads, after.threads),
        "sockets and other descriptors": grown(before.descriptors, after.descriptors),
        "files and folders, temporary and of the home": grown(before.files, after.files),
        "mounts": grown(before.mounts, after.mounts),
        "rows outside of the history": grown(_outside_history(before.rows), _outside_history(after.rows)),
    }
    targets = [
        Target(what=f"{name}: more than before", figure=number, bound=BOUNDS.get(name, 0), sense="at most")
        for name, number in nothing.items()
    ]
    memory = Target(what="growth of memory", figure=growth, bound=MOST_GROWTH_PERCENT, sense="at most", unit="%")
    errors = Target(what="errors", figure=len(answers.errors), bound=0, sense="at most")
    notes = (f"{done:,} executions in {answers.elapsed:.0f} s. {callers.different(answers.errors)}".strip(),)
    return results.Results(tables=tuple(_tables(before, after)), targets=(*targets, memory, errors), notes=notes)


def grown(before: Counter[str], after: Counter[str]) -> int:
    """How many more there are of anything; what became less does not make up for it."""
    return sum((after - before).values())


def _tables(before: Count, after: Count) -> Iterable[Table]:
    columns = ("", "before", "after")
    things, later = _things(before), _things(after)
    counted = [(name, str(things[name]), str(later[name])) for name in sorted(things | later)]
    yield Table(title="Things at rest", columns=columns, rows=tuple(counted))
    memory = [
        (
            name,
            *(
                f"{shown(one.megabytes.get(name, 0))} / {shown(one.resident.get(name, 0))} MB"
                for one in (before, after)
            ),
        )
        for name in before.megabytes | after.megabytes
    ]
    yield Table(title="Memory, PSS / RSS", columns=columns, rows=tuple(memory))
    kept = [(name, f"{before.rows[name]:,}", f"{after.rows[name]:,}") for name in sorted(before.rows | after.rows)]
    changed = [row for row in kept if row[1] != row[2]]
    yield Table(title="Rows of the tables that changed", columns=columns, rows=tuple(changed))


def _things(one: Count) -> Counter[str]:
    named = {
        "processes": one.processes,
        "threads": one.threads,
        "descriptors": one.descriptors,
        "mounts": one.mounts,
        "files": one.files,
    }
    return Counter({f"{kind} · {name}": number for kind, those in named.items() for name, number in those.items()})


def _files(running: product.Product) -> Iterable[tuple[str, int]]:
    """Of the temporary folder all, of the home all but the records; a log grows, but is one file."""
    yield "temporary", sum(len(folders) + len(files) for _, folders, files in os.walk(running.temporary))
    for folder, folders, files in os.walk(running.home):
        if Path(folder).parent.name != "records" or Path(folder).name == "unfinished":
            yield "home, without records", len(folders) + len(files)


def _outside_history(rows: Counter[str]) -> Counter[str]:
    return Counter({name: number for name, number in rows.items() if not name.startswith(HISTORY)})


def _sums(pairs: Iterable[tuple[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for name, number in pairs:
        total[name] += number
    return total


def _megabytes(pairs: Iterable[tuple[str, int]]) -> dict[str, float]:
    return {name: number / 1e6 for name, number in _sums(pairs).items()}


if __name__ == "__main__":
    main()
