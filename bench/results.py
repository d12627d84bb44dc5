"""What a benchmark found: printed for whoever runs it, and kept below `.bench/results/` for the report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import Field
from rich.console import Console
from rich.table import Table as Shown

from bench import peers
from bench.figures import Frozen, Spread, Table, Target

FOLDER = peers.FOLDER / "results"


class Results(Frozen):
    """All that one benchmark says."""

    tables: tuple[Table, ...] = ()
    targets: tuple[Target, ...] = ()
    notes: tuple[str, ...] = ()
    ways: dict[str, Spread] = Field(default_factory=dict)
    """Times by way, where ways are compared; the first is ours."""
    per_second: dict[str, float] = Field(default_factory=dict)
    """Runs under load, by way."""
    is_quick: bool = False
    measured_at: datetime = datetime.min.replace(tzinfo=UTC)


def save(name: str, results: Results, *, is_quick: bool) -> None:
    """Keep them for the report, in place of what was found before, and print them."""
    results = results.model_copy(update={"is_quick": is_quick, "measured_at": datetime.now(UTC)})
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(results.model_dump_json(indent=1))
    show(results)


def forget(name: str) -> None:
    """Remove what a benchmark found and printed."""
    for suffix in ("json", "txt"):
        (FOLDER / f"{name}.{suffix}").unlink(missing_ok=True)


def find(name: str) -> Results | None:
    """What a benchmark found when it ran last; None when it did not."""
    path = FOLDER / f"{name}.json"
    return Results.model_validate_json(path.read_bytes()) if path.exists() else None


def show(results: Results) -> None:
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    for table in (*results.tables, *_targets(results.targets)):
        drawn = Shown(title=table.title, title_justify="left", title_style="bold")
        for number, column in enumerate(table.columns):
            drawn.add_column(column, justify="right" if number else "left")
        for row in table.rows:
            drawn.add_row(*row)
        console.print(drawn)
    for note in results.notes:
        console.print(note)


def targets_table(targets: Sequence[Target]) -> Table:
    rows = [(one.what, one.shown_figure, one.shown_bound, "met" if one.is_met else "not met") for one in targets]
    return Table(title="Targets", columns=("", "measured", "target", ""), rows=tuple(rows))


def _targets(targets: Sequence[Target]) -> list[Table]:
    return [targets_table(targets)] if targets else []
