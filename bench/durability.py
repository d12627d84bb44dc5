"""What an acknowledged call costs against the least that makes anything durable: one commit of SQLite on the same disk.

`python -m bench.durability [--rounds N] [--quick]`. Both take turns; the calls are measured inside the workflow.
"""

from __future__ import annotations

import argparse
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx

from bench import product, results
from bench.figures import Spread, Table, Target, milliseconds
from bench.turns import Way, seconds_of

COMMITS = 100
"""Of each kind in a round."""
CHECKPOINTS = 1000
MOST_TIMES_COMMIT = 4
MOST_CHECKPOINT_SECONDS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="three rounds")
    options = parser.parse_args()
    rounds = 3 if options.quick else options.rounds
    with product.started() as running, commits(running.home.parent / "bare.db") as commit:
        log_lines(running.client)
        bare, lines, checkpoints = [], [], []
        for _ in range(rounds):
            bare += [seconds_of(commit) for _ in range(COMMITS)]
            lines += log_lines(running.client)
            checkpoints.append(seconds_of(lambda: save_checkpoints(running.client)))
    results.save("durability", judge(Spread.of(bare), Spread.of(lines), Spread.of(checkpoints)), is_quick=options.quick)


@contextmanager
def commits(path: Path) -> Iterator[Way]:
    """A function that writes one row of an event's size and returns when it is on the disk."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE events (seq INTEGER PRIMARY KEY, at TEXT, text TEXT)")
        row = ("2026-01-01T00:00:00.000000Z", '{"level":"info","message":"a line that is on the disk"}')
        yield lambda: connection.execute("INSERT INTO events (at, text) VALUES (?, ?)", row)


def log_lines(client: httpx.Client) -> list[float]:
    """Seconds of each `context.log`, as the workflow measured them."""
    answer = client.post("/api/workflows/log_often", json={"lines": COMMITS})
    return [float(seconds) for seconds in answer.raise_for_status().json()]


def save_checkpoints(client: httpx.Client) -> None:
    answer = client.post("/api/workflows/checkpoint_often", json={"checkpoints": CHECKPOINTS})
    answer.raise_for_status()


def judge(bare: Spread, lines: Spread, checkpoints: Spread) -> results.Results:
    """The figures, and what they are held to."""
    named = {
        "one commit of SQLite, synchronous=FULL": bare,
        "context.log, acknowledged": lines,
        f"an execution with {CHECKPOINTS:,} checkpoints of 1 kB": checkpoints,
    }
    rows = [
        (name, *map(milliseconds, (spread.median, spread.p5, spread.p95)), str(spread.count))
        for name, spread in named.items()
    ]
    targets = (
        Target(
            what="context.log, times one commit",
            figure=lines.median / bare.median,
            bound=MOST_TIMES_COMMIT,
            sense="at most",
            unit="×",
        ),
        Target(
            what=f"{CHECKPOINTS:,} checkpoints of 1 kB",
            figure=checkpoints.median,
            bound=MOST_CHECKPOINT_SECONDS,
            sense="at most",
            unit="s",
        ),
    )
    title, columns = "What is durable when a call returns", ("", "median", "p5", "p95", "n")
    return results.Results(tables=(Table(title=title, columns=columns, rows=tuple(rows)),), targets=targets)


if __name__ == "__main__":
    main()
