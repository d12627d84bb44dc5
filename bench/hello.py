"""A sync call over HTTP, fully enclosed and with its record, against how others run an equal notebook.

`python -m bench.hello [--rounds N] [--quick]`. All ways take turns in one run; each peer stands in a clean environment
of its own, the papermill command line in the product's, too.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bench import product, results, turns, ways
from bench.figures import Spread, Table, Target, milliseconds, shown

TURNS = {
    ways.OURS: turns.Turn(calls=20, warm_up_calls=40),
    ways.IN_PROCESS: turns.Turn(calls=2, warm_up_calls=2),
    ways.PREFECT: turns.Turn(calls=2, warm_up_calls=2),
    ways.PREFECT_ASYNC: turns.Turn(calls=4, warm_up_calls=4),
}
TIMES = {ways.CLI_HERE: 80, ways.CLI_CLEAN: 40, ways.IN_PROCESS: 20, ways.PREFECT: 8}
"""How many times as long as ours each of them has to take at least.

Prefect's is a flow of plain functions, with which its documentation begins; a flow of coroutines is shown beside it.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="three rounds")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        product.running() as client,
        ways.open_all(client, Path(folder)) as those,
    ):
        taken = turns.take(those, TURNS, 3 if options.quick else options.rounds)
    results.save("hello", judge({name: Spread.of(seconds) for name, seconds in taken.items()}), is_quick=options.quick)


def judge(spreads: Mapping[str, Spread]) -> results.Results:
    """The figures, and what they are held to."""
    own = spreads[ways.OURS]
    targets = [
        Target(
            what=f"{name}: times ours",
            figure=spreads[name].median / own.median,
            bound=bound,
            sense="at least",
            unit="×",
        )
        for name, bound in TIMES.items()
    ]
    steady = Target(what="p95 in times the median", figure=own.p95 / own.median, bound=3, unit="×", sense="at most")
    return results.Results(
        tables=(table(spreads),), targets=(*targets, steady), notes=(f"Peers: {ways.versions()}.",), ways=dict(spreads)
    )


def table(spreads: Mapping[str, Spread]) -> Table:
    own = spreads[ways.OURS]
    rows = [
        (
            name,
            *map(milliseconds, (spread.median, spread.p5, spread.p95)),
            str(spread.count),
            shown(spread.median / own.median, "×"),
        )
        for name, spread in spreads.items()
    ]
    columns = ("", "median", "p5", "p95", "n", "times ours")
    return Table(title="One run, from the asking to its end", columns=columns, rows=tuple(rows))


if __name__ == "__main__":
    main()
