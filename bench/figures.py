"""Figures and what they are held to; every benchmark makes them, `results` keeps them, `report` shows them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Spread(Frozen):
    """A sample of times, in seconds."""

    median: float
    p5: float
    p95: float
    p99: float
    slowest: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        ordered = sorted(seconds)
        return cls(
            median=statistics.median(ordered),
            p5=percentile(ordered, 5),
            p95=percentile(ordered, 95),
            p99=percentile(ordered, 99),
            slowest=ordered[-1],
            count=len(ordered),
        )


class Target(Frozen):
    """A bound that a figure keeps or not."""

    what: str
    figure: float
    bound: float
    sense: Literal["at least", "at most"]
    unit: str = ""

    @property
    def is_met(self) -> bool:
        return self.figure >= self.bound if self.sense == "at least" else self.figure <= self.bound

    @property
    def shown_figure(self) -> str:
        return shown(self.figure, self.unit)

    @property
    def shown_bound(self) -> str:
        return f"{self.sense} {shown(self.bound, self.unit)}"


class Table(Frozen):
    """Rows of text under a title; the first column names, the others are figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of a sorted sample do not exceed."""
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


def shown(figure: float, unit: str = "") -> str:
    """Three digits that count, and the unit: `26.4 ms`, `133 ×`."""
    digits = 0 if abs(figure) >= 100 or figure == int(figure) else 1 if abs(figure) >= 10 else 2
    return f"{figure:,.{digits}f}{' ' if unit else ''}{unit}"


def milliseconds(seconds: float) -> str:
    return shown(seconds * 1000, "ms")
