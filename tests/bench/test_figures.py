"""What the benchmarks say of their samples."""

from __future__ import annotations

from collections import Counter

import pytest

from bench import chart, leftovers, parts, results, turns
from bench.figures import Spread, Table, Target, percentile, shown
from bench.results import Results


@pytest.mark.parametrize(("percent", "expected"), [(5, 1), (50, 10), (95, 19), (99, 20), (100, 20)])
def test_percentile(percent: float, expected: int) -> None:
    """A percentile is a value of the sample that so many percent do not exceed."""
    assert percentile(range(1, 21), percent) == expected


def test_spread_of_one() -> None:
    """A single value is its own median and percentiles."""
    spread = Spread.of([0.5])
    assert (spread.median, spread.p5, spread.p95, spread.slowest, spread.count) == (0.5, 0.5, 0.5, 0.5, 1)


@pytest.mark.parametrize(
    ("figure", "sense", "is_met"),
    [(80, "at least", True), (79.9, "at least", False), (3, "at most", True), (3.01, "at most", False)],
)
def test_target(figure: float, sense: str, is_met: bool) -> None:
    """A target is met at its bound and not beyond it."""
    bound = 80 if sense == "at least" else 3
    assert Target.model_validate({"what": "x", "figure": figure, "bound": bound, "sense": sense}).is_met is is_met


@pytest.mark.parametrize(("figure", "expected"), [(133.4, "133 ×"), (26.44, "26.4 ×"), (2.871, "2.87 ×"), (8, "8 ×")])
def test_shown(figure: float, expected: str) -> None:
    """A figure is shown with the digits that count."""
    assert shown(figure, "×") == expected


def test_turns() -> None:
    """Ways take turns in every round, each begins once, and warm-up calls are not measured."""
    called: list[str] = []
    ways = {"a": lambda: called.append("a"), "b": lambda: called.append("b")}
    taken = turns.take(ways, {"a": turns.Turn(calls=2, warm_up_calls=0)}, 2)
    assert called == ["b", "a", "a", "b", "b", "a", "a"]
    assert {name: len(seconds) for name, seconds in taken.items()} == {"a": 4, "b": 2}


def test_grown() -> None:
    """What became less does not hide what became more."""
    assert leftovers.grown(Counter(sockets=5, pipes=3), Counter(sockets=2, pipes=4)) == 1


def test_parts_are_all_of_it() -> None:
    """The parts of a call add up to the time that its caller waited."""
    stations = ["executions.submit", "kernels.acquire", "pool.run", "pool.seal", "records.write"]
    notes = [(name, 1.0 + number, 1.5 + number) for number, name in enumerate(stations)]
    notes += [("pool.wait", 3.2, 3.5), ("store.finish_execution", 4.8, 5.7), ("executions.submit", 20.0, 21.0)]
    whole = parts.split(parts.Call(0.0, 10.0, {"before": 0.1, "call": 0.2}), notes)
    assert sum(whole.values()) == pytest.approx(10)
    assert list(whole) == list(parts.PARTS)


def test_results_are_kept(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report reads what a benchmark has saved; what is forgotten is not there any more."""
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    found = Results(tables=(Table(title="t", columns=("", "n"), rows=(("a", "1"),)),))
    results.save("some", found, is_quick=True)
    kept = results.find("some")
    assert kept is not None
    assert (kept.tables, kept.is_quick) == (found.tables, True)
    results.forget("some")
    assert results.find("some") is None


def test_chart_escapes() -> None:
    """A name is text in the chart, and the first bar is ours."""
    drawn = chart.render({"<ours>": Spread.of([0.1]), "peer": Spread.of([0.2])}, {})
    assert "<ours>" not in drawn
    assert "&lt;ours&gt;" in drawn
