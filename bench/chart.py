"""The chart of the report: how long one run takes each way, and how many run in a second under load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jinja2 import Environment, FileSystemLoader

from bench import peers
from bench.figures import Frozen, Spread, milliseconds, shown

TEMPLATES = peers.DRIVERS.parent / "templates"
WIDTH, LEFT, RIGHT = 940, 350, 170
"""Of the drawing, of the names, and of the figures behind the longest bar."""
ROW, BAR, HEAD, GAP = 34, 18, 52, 26


class Bar(Frozen):
    """One bar: where it lies and what stands behind it."""

    name: str
    y: float
    length: float
    low: float
    high: float
    """Where the whisker begins and ends; equal ones draw none."""
    label: str
    is_ours: bool


class Panel(Frozen):
    """Bars under one title and one scale that begins at zero."""

    title: str
    y: float
    bars: tuple[Bar, ...]


def render(ways: Mapping[str, Spread], per_second: Mapping[str, float]) -> str:
    """The drawing as SVG; it carries its own colors for light and dark."""
    first = _times(ways, 0)
    panels = [first] if first else []
    rates = _rates(per_second, _end(first)) if per_second else None
    panels += [rates] if rates else []
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("chart.svg.j2").render(
        panels=panels, width=WIDTH, left=LEFT, height=_end(panels[-1]) if panels else HEAD, bar=BAR
    )


def _times(ways: Mapping[str, Spread], top: float) -> Panel | None:
    if not ways:
        return None
    own = next(iter(ways.values())).median
    longest = max(spread.p95 for spread in ways.values())
    bars = [
        Bar(
            name=name,
            y=top + HEAD + number * ROW,
            length=_scaled(spread.median, longest),
            low=_scaled(spread.p5, longest),
            high=_scaled(spread.p95, longest),
            label=milliseconds(spread.median) + (f" · {shown(spread.median / own, '×')}" if number else ""),
            is_ours=number == 0,
        )
        for number, (name, spread) in enumerate(ways.items())
    ]
    return Panel(title="One run, from the asking to its end (median; line: p5 to p95)", y=top, bars=tuple(bars))


def _rates(per_second: Mapping[str, float], top: float) -> Panel:
    most = max(per_second.values())
    bars = [
        Bar(
            name=name,
            y=top + HEAD + number * ROW,
            length=(length := _scaled(rate, most)),
            low=length,
            high=length,
            label=f"{shown(rate)} per second",
            is_ours=number == 0,
        )
        for number, (name, rate) in enumerate(per_second.items())
    ]
    return Panel(title="Runs per second when all cores are busy", y=top, bars=tuple(bars))


def _end(panel: Panel | None) -> float:
    return 0 if panel is None else _bottom(panel.bars) + GAP


def _bottom(bars: Sequence[Bar]) -> float:
    return bars[-1].y + BAR


def _scaled(figure: float, longest: float) -> float:
    """Pixels; a figure that would not be seen is one pixel wide."""
    return round(max(1.0, figure / longest * (WIDTH - LEFT - RIGHT)), 1)
