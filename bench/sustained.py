"""Eight callers at once for a minute, against the papermill command line twice in parallel before and after.

`python -m bench.sustained [--seconds N] [--quick]`. Tells executions per second, errors, the memory of all processes of
the product from beginning to end, and how the API answers beside it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

from bench import callers, notebook, processes, product, results, ways
from bench.figures import Spread, Table, Target, milliseconds, shown
from bench.health import Health

CALLERS = 8
PARALLEL_CLI = 2
LEAST_TIMES_CLI = 30
MOST_GROWTH_PERCENT = 5
MOST_HEALTH_MILLISECONDS = 50
WINDOW_SECONDS = 10
HEALTH_SECONDS = 0.1
"""Six hundred answers a minute: enough for a p99, and little is taken from the callers."""


class Sample(NamedTuple):
    """Memory of all processes at one moment."""

    at: float
    bytes: int


class Memory:
    """Looks at the memory of all processes once a second, while the block begins and before it ends.

    Not in between: a look takes a tenth of a second of one processor, which those who are measured would miss.
    """

    def __init__(self, pid: int, seconds: float) -> None:
        self._pid = pid
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.samples: list[Sample] = []

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        begin = time.monotonic()
        while not self._over.wait(1):
            if not WINDOW_SECONDS < time.monotonic() - begin < self._seconds - WINDOW_SECONDS:
                self.samples.append(Sample(time.monotonic(), processes.pss(self._pid)))


class Load(NamedTuple):
    """What the callers got, and what it cost."""

    answers: callers.Answers
    health: Spread
    memory: Sequence[Sample]

    @property
    def per_second(self) -> float:
        return len(self.answers.seconds) / self.answers.elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cli-seconds", type=float, default=20, help="for the command line, before and after")
    parser.add_argument("--quick", action="store_true", help="a third of all times")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.cli_seconds = options.seconds / 3, options.cli_seconds / 3
    with tempfile.TemporaryDirectory() as folder:
        ways.prepare(Path(folder))
        before = command_lines(Path(folder), options.cli_seconds)
        load = measure(options.seconds)
        after = command_lines(Path(folder), options.cli_seconds)
    results.save("sustained", judge(load, (before, after)), is_quick=options.quick)


def command_lines(folder: Path, seconds: float) -> float:
    """Runs per second of papermill's command, two at once."""
    started = time.monotonic()
    with ThreadPoolExecutor(PARALLEL_CLI) as threads:
        counts = threads.map(_runs_until, repeat(started + seconds), repeat(folder), range(PARALLEL_CLI))
        return sum(counts) / (time.monotonic() - started)


def _runs_until(end: float, folder: Path, number: int) -> int:
    count = 0
    while time.monotonic() < end:
        ways.command_line(ways.peer("papermill"), folder, f"out-{number}.ipynb")
        count += 1
    return count


def measure(seconds: float) -> Load:
    """The product under load; the first seconds of it warm up and do not count."""
    with product.started() as running:
        url = str(running.client.base_url)
        callers.call_together(CALLERS, callers.hello(url, notebook.PARAMETERS, seconds=seconds / 6))
        crowd = callers.Callers(CALLERS, callers.hello(url, notebook.PARAMETERS, seconds=seconds))
        with Health(url, every_seconds=HEALTH_SECONDS) as health:
            crowd.go()
            with Memory(running.pid, seconds) as memory:
                answers = crowd.answers()
    return Load(answers, health.spread, memory.samples)


def judge(load: Load, command_line: Sequence[float]) -> results.Results:
    """The figures, and what they are held to."""
    times = load.per_second / statistics.mean(command_line)
    calls, first, last = Spread.of(load.answers.seconds), *ends(load.memory)
    growth = (last / first - 1) * 100
    table = Table(
        title=f"{CALLERS} callers for {load.answers.elapsed:.0f} s",
        columns=("", "figure"),
        rows=(
            ("executions per second", shown(load.per_second)),
            ("a call: median, p95, p99", ", ".join(map(milliseconds, (calls.median, calls.p95, calls.p99)))),
            ("papermill CLI, two at once, per second: before, after", ", ".join(map(shown, command_line))),
            ("memory of all processes: first, last", f"{first / 1e6:.0f} MB, {last / 1e6:.0f} MB"),
            ("API health: median, p99", f"{milliseconds(load.health.median)}, {milliseconds(load.health.p99)}"),
        ),
    )
    targets = (
        Target(
            what="executions, times the papermill CLI", figure=times, bound=LEAST_TIMES_CLI, sense="at least", unit="×"
        ),
        Target(what="errors", figure=len(load.answers.errors), bound=0, sense="at most"),
        Target(what="growth of memory", figure=growth, bound=MOST_GROWTH_PERCENT, sense="at most", unit="%"),
        Target(
            what="API health, p99",
            figure=load.health.p99 * 1000,
            bound=MOST_HEALTH_MILLISECONDS,
            sense="at most",
            unit="ms",
        ),
    )
    errors = (f"Errors: {callers.different(load.answers.errors)}",) if load.answers.errors else ()
    per_second = {"Bifrost": load.per_second, "papermill CLI, clean environment": statistics.mean(command_line)}
    return results.Results(tables=(table,), targets=targets, notes=errors, per_second=per_second)


def ends(samples: Sequence[Sample]) -> tuple[float, float]:
    """Memory in the first and in the last ten seconds: the median, since kernels come and go."""
    begin, end = samples[0].at, samples[-1].at
    first = [sample.bytes for sample in samples if sample.at <= begin + WINDOW_SECONDS]
    last = [sample.bytes for sample in samples if sample.at >= end - WINDOW_SECONDS]
    return statistics.median(first), statistics.median(last)


if __name__ == "__main__":
    main()
