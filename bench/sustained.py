"""Eight callers at once for a minute, and the papermill command line twice in parallel before and after; three times.

`python -m bench.sustained [--rounds N] [--seconds N] [--quick]`. Tells executions per second, errors, the memory of all
processes of the product from beginning to end, and how the API answers beside it.
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


class Round(NamedTuple):
    """What the callers got and what it cost, and what papermill's command line did before and after."""

    answers: callers.Answers
    health: Sequence[float]
    memory: Sequence[Sample]
    command_line: Sequence[float]
    """Runs per second."""

    @property
    def per_second(self) -> float:
        return len(self.answers.seconds) / self.answers.elapsed

    @property
    def times(self) -> float:
        return self.per_second / statistics.mean(self.command_line)

    @property
    def growth_percent(self) -> float:
        first, last = ends(self.memory)
        return (last / first - 1) * 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60, help="for the callers, in each round")
    parser.add_argument("--cli-seconds", type=float, default=20, help="for the command line, before and after each")
    parser.add_argument("--quick", action="store_true", help="one round, a third of all times")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.cli_seconds = 1, options.seconds / 3, options.cli_seconds / 3
    with tempfile.TemporaryDirectory() as folder:
        ways.prepare(Path(folder))
        rounds = measure(Path(folder), options.rounds, options.seconds, options.cli_seconds)
    results.save("sustained", judge(rounds), is_quick=options.quick)


def measure(folder: Path, count: int, seconds: float, cli_seconds: float) -> Sequence[Round]:
    """So many rounds; the command line between two of them counts for both."""
    rounds: list[Round] = []
    before = command_lines(folder, cli_seconds)
    for _ in range(count):
        answers, health, memory = load(seconds)
        after = command_lines(folder, cli_seconds)
        rounds.append(Round(answers, health, memory, (before, after)))
        before = after
    return rounds


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


def load(seconds: float) -> tuple[callers.Answers, Sequence[float], Sequence[Sample]]:
    """A fresh product under load; the first seconds of it warm up and do not count."""
    with product.started() as running:
        url = str(running.client.base_url)
        callers.call_together(CALLERS, callers.hello(url, notebook.PARAMETERS, seconds=seconds / 6))
        crowd = callers.Callers(CALLERS, callers.hello(url, notebook.PARAMETERS, seconds=seconds))
        with Health(url, every_seconds=HEALTH_SECONDS) as health:
            crowd.go()
            with Memory(running.pid, seconds) as memory:
                answers = crowd.answers()
    return answers, health.seconds, memory.samples


def judge(rounds: Sequence[Round]) -> results.Results:
    """The figures, and what they are held to."""
    health = Spread.of([one for each in rounds for one in each.health])
    errors = [error for each in rounds for error in each.answers.errors]
    table = Table(
        title=f"{CALLERS} callers for {rounds[0].answers.elapsed:.0f} s, {len(rounds)} times",
        columns=("", *(f"round {number}" for number in range(1, len(rounds) + 1))),
        rows=tuple(zip(_NAMES, *map(_column, rounds), strict=True)),
    )
    targets = (
        Target(
            what="executions, times the papermill CLI, median of the rounds",
            figure=statistics.median(each.times for each in rounds),
            bound=LEAST_TIMES_CLI,
            sense="at least",
            unit="×",
        ),
        Target(what="errors", figure=len(errors), bound=0, sense="at most"),
        Target(
            what="growth of memory, largest",
            figure=max(each.growth_percent for each in rounds),
            bound=MOST_GROWTH_PERCENT,
            sense="at most",
            unit="%",
        ),
        Target(
            what=f"API health, p99 of {health.count}",
            figure=health.p99 * 1000,
            bound=MOST_HEALTH_MILLISECONDS,
            sense="at most",
            unit="ms",
        ),
    )
    per_second = {
        "Bifrost": statistics.median(each.per_second for each in rounds),
        "papermill CLI, clean environment": statistics.median(one for each in rounds for one in each.command_line),
    }
    notes = (f"Errors: {callers.different(errors)}",) if errors else ()
    return results.Results(tables=(table,), targets=targets, notes=notes, per_second=per_second)


_NAMES = (
    "executions per second",
    "a call: median, p95, p99",
    "papermill CLI, two at once, per second: before, after",
    "times the papermill CLI",
    "memory of all processes: first, last",
    "API health: median, p99",
)


def _column(one: Round) -> tuple[str, ...]:
    calls, health = Spread.of(one.answers.seconds), Spread.of(one.health)
    return (
        shown(one.per_second),
        ", ".join(map(milliseconds, (calls.median, calls.p95, calls.p99))),
        ", ".join(map(shown, one.command_line)),
        shown(one.times, "×"),
        ", ".join(f"{size / 1e6:.0f} MB" for size in ends(one.memory)),
        ", ".join(map(milliseconds, (health.median, health.p99))),
    )


def ends(samples: Sequence[Sample]) -> tuple[float, float]:
    """Memory in the first and in the last ten seconds: the median, since kernels come and go."""
    begin, end = samples[0].at, samples[-1].at
    first = [sample.bytes for sample in samples if sample.at <= begin + WINDOW_SECONDS]
    last = [sample.bytes for sample in samples if sample.at >= end - WINDOW_SECONDS]
    return statistics.median(first), statistics.median(last)


if __name__ == "__main__":
    main()
