"""Ways that take turns, so that a machine that slows down slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from bench.figures import Frozen

Way = Callable[[], object]


class Turn(Frozen):
    """How often a way is called in each round."""

    calls: int = 1
    warm_up_calls: int = 1
    """Before the first round, and not measured."""


def take(ways: Mapping[str, Way], turns: Mapping[str, Turn], rounds: int) -> dict[str, list[float]]:
    """Seconds of every call of each way."""
    for name, way in ways.items():
        for _ in range(turns.get(name, Turn()).warm_up_calls):
            way()
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        # Whoever comes after a way that leaves the machine busy would always be the same one.
        for name in _rotated(list(ways), number):
            for _ in range(turns.get(name, Turn()).calls):
                taken[name].append(seconds_of(ways[name]))
    return taken


def seconds_of(way: Way) -> float:
    started = time.perf_counter()
    way()
    return time.perf_counter() - started


def _rotated(names: Sequence[str], by: int) -> list[str]:
    by %= len(names)
    return [*names[by:], *names[:by]]
