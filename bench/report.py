"""`docs/performance.md` and its chart, made of what the benchmarks found when they ran last.

`python -m bench` calls it after the benchmarks; `python -m bench.report` writes it again without measuring.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bench import chart, results
from bench.figures import Table
from bench.machine import Machine
from bench.results import Results

DOCS = Path(__file__).resolve().parent.parent / "docs"
MACHINE = results.FOLDER / "machine.json"


def main() -> None:
    environment = Environment(loader=FileSystemLoader(chart.TEMPLATES), undefined=StrictUndefined, autoescape=False)
    environment.globals.update(section=section, printed=printed, verdict=verdict, machine=_machine_rows)
    text = environment.get_template("performance.md.j2").render()
    (DOCS / "performance.md").write_text(text.strip() + "\n")
    (DOCS / "performance.svg").write_text(_chart())


def section(name: str) -> str:
    """Tables, targets and notes of one benchmark as Markdown."""
    found = results.find(name)
    if found is None:
        return "Not measured."
    tables = [*found.tables, *([results.targets_table(found.targets)] if found.targets else [])]
    parts = [_markdown(table) for table in tables]
    return "\n\n".join([*parts, *found.notes, *_caution(found)])


def printed(name: str) -> str:
    """What a benchmark printed, as it is."""
    path = results.FOLDER / f"{name}.txt"
    return f"```text\n{path.read_text().strip()}\n```" if path.exists() else "Not measured."


def verdict() -> str:
    """How many of all targets are met, and which are not."""
    found = [target for one in _all() for target in one.targets]
    missed = [target for target in found if not target.is_met]
    named = "".join(f"\n- not met: {one.what}: {one.shown_figure} ({one.shown_bound})" for one in missed)
    return f"{len(found) - len(missed)} of {len(found)} targets are met.{named}"


def _all() -> Iterable[Results]:
    names = sorted(path.stem for path in results.FOLDER.glob("*.json") if path != MACHINE)
    return [found for found in map(results.find, names) if found is not None]


def _caution(found: Results) -> list[str]:
    machine = _find_machine()
    is_older = machine is not None and found.measured_at < machine.measured_at
    earlier = [f"*Measured in an earlier run, at {found.measured_at:%Y-%m-%d %H:%M} UTC.*"] if is_older else []
    return [*(["*A quick run: few samples.*"] if found.is_quick else []), *earlier]


def _machine_rows() -> str:
    machine = _find_machine()
    return _markdown(Table(title="", columns=("", ""), rows=tuple(machine.rows() if machine else ())))


def _find_machine() -> Machine | None:
    return Machine.model_validate_json(MACHINE.read_bytes()) if MACHINE.exists() else None


def _markdown(table: Table) -> str:
    lines = [
        "| " + " | ".join(_cell(text) for text in table.columns) + " |",
        "|---|" + "---:|" * (len(table.columns) - 1),
        *("| " + " | ".join(_cell(text) for text in row) + " |" for row in table.rows),
    ]
    return "\n".join([*([f"**{table.title}**", ""] if table.title else []), *lines])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _chart() -> str:
    hello, sustained = results.find("hello"), results.find("sustained")
    return chart.render(hello.ways if hello else {}, sustained.per_second if sustained else {})


if __name__ == "__main__":
    main()
