"""Where the time of an execution goes: each part by clocks at the stations it passes, against the least it could take.

`python -m bench.parts [--rounds N] [--quick]`. Times come from the control plane's own stations (`bench.traced`) and,
for what happens in the kernel, from the marks that papermill left in the record.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from bench import floors, notebook, product, results, turns
from bench.figures import Table, milliseconds
from bench.turns import Turn

CALLS = 10
"""In a round."""

PARTS = {
    "HTTP, key, body": floors.HTTP,
    "submit: inputs, options, row": floors.COMMIT,
    "claim": "",
    "a fresh kernel, enclosed": floors.FORK,
    "token, door, set-up": "",
    "papermill and the way to the worker": floors.PAPERMILL,
    "cells: parameters": floors.CELLS,
    "cell: module, workflow, four durable calls": "",
    "end of the kernel, outcome": "",
    "record: events, masking, JSON": "",
    "record on the disk": floors.FILE,
    "status, ledger, event: one transaction": floors.COMMIT,
    "answer": "",
}
"""Every part in the order in which they come, and the floor that it stands on, if there is one."""


class Call(NamedTuple):
    """One call as the client saw it."""

    began: float
    ended: float
    cells: Mapping[str, float]
    """Seconds by the part of the record."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="three rounds")
    options = parser.parse_args()
    rounds = 3 if options.quick else options.rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trace, calls = folder / "trace.json", []
        least: dict[str, list[float]] = {}
        with product.started(trace) as running, floors.open_all(running.client, folder) as ways:
            for number in range(rounds + 1):
                made = [call(running.client) for _ in range(CALLS)]
                taken = turns.take(ways, {name: Turn(calls=CALLS) for name in ways}, 1)
                if number:  # the first round warms up
                    calls += made
                    least = {name: [*least.get(name, ()), *seconds] for name, seconds in taken.items()}
        notes = json.loads(trace.read_text())
    results.save("parts", judge([split(one, notes) for one in calls], least), is_quick=options.quick)


def call(client: httpx.Client) -> Call:
    """Run the workflow, and read from its record how long its cells took."""
    began = time.perf_counter()
    answer = client.post("/api/workflows/enclosed_hello", json=notebook.PARAMETERS)
    ended = time.perf_counter()
    record = client.get(f"/api/executions/{answer.raise_for_status().headers['X-Execution-Id']}/notebook").json()
    return Call(began, ended, cell_seconds(record))


def cell_seconds(record: Mapping[str, Any]) -> dict[str, float]:
    """How long the call's cell took, and all before it."""
    seconds = {"call": 0.0, "before": 0.0}
    for cell in record["cells"]:
        is_call = cell["metadata"].get("bifrost", {}).get("part") == "call"
        seconds["call" if is_call else "before"] += cell["metadata"].get("papermill", {}).get("duration", 0.0)
    return seconds


def split(one: Call, notes: Sequence[tuple[str, float, float]]) -> dict[str, float]:
    """Seconds of each part of a call; together they are all of it."""
    at = {name: (began, ended) for name, began, ended in notes if one.began <= began and ended <= one.ended}
    submit, acquire = at["executions.submit"], at["kernels.acquire"]
    execute = at["pool.run"][0], at["pool.wait"][1]
    seal, finish, write = at["pool.seal"], at["store.finish_execution"], at["records.write"]
    seconds = (
        submit[0] - one.began,
        submit[1] - submit[0],
        acquire[0] - submit[1],
        acquire[1] - acquire[0],
        execute[0] - acquire[1],
        execute[1] - execute[0] - sum(one.cells.values()),
        one.cells["before"],
        one.cells["call"],
        seal[0] - execute[1],
        seal[1] - seal[0],
        write[1] - write[0],
        finish[1] - seal[1] - (write[1] - write[0]),
        one.ended - finish[1],
    )
    return dict(zip(PARTS, seconds, strict=True))


def judge(calls: Sequence[Mapping[str, float]], least: Mapping[str, Sequence[float]]) -> results.Results:
    """Medians by part; the last row is the median of whole calls, which the others need not add up to exactly."""
    rows = [
        (part, milliseconds(statistics.median(one[part] for one in calls)), *_floor(floor, least))
        for part, floor in PARTS.items()
    ]
    whole = milliseconds(statistics.median(sum(one.values()) for one in calls))
    table = Table(
        title=f"Medians of {len(calls)} calls, one after the other",
        columns=("part", "takes", "floor", "the floor is"),
        rows=(*rows, ("all of it", whole, "", "")),
    )
    notes = (
        "Cells are timed by papermill, everything else by clocks in the control plane. Kernels are forked ahead of the"
        " next execution, so that handing one out takes less than a fork. The floor of HTTP is there and back: compare"
        " it with the first and the last part together.",
    )
    return results.Results(tables=(table,), notes=notes)


def _floor(name: str, least: Mapping[str, Sequence[float]]) -> tuple[str, str]:
    return (milliseconds(statistics.median(least[name])), name) if name else ("", "")


if __name__ == "__main__":
    main()
