"""A sync call over HTTP, with its record, against the papermill command line on an equal notebook.

`python -m bench.hello [--rounds N]`. Product and peers alternate within each round; the peers stand once in a clean
environment of their own and once in the product's.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from bench import peers, product

SOURCE = (product.WORKSPACE / "workflows" / "hello_world.py").read_text()

# The same function, its decorators and its context replaced by the least that runs without Bifrost.
STANDALONE = """
import json, sys

class OrganizationContext:
    org_id, org_name, executed_by_email = "test-org-active", "Test Organization", "dev@example.com"
    def log(self, level, message, data=None): print(level, message, json.dumps(data))
    def save_checkpoint(self, name, data=None): print(name, json.dumps(data))

def workflow(**_): return lambda function: function
def param(*_, **__): return lambda function: function
"""


def equal_notebook() -> nbformat.NotebookNode:
    """As many cells as a record has: header, parameters (and papermill's own), source, call."""
    source = SOURCE.replace("from bifrost_kernel import OrganizationContext, param, workflow", "")
    parameters = new_code_cell('name = ""\nlanguage = "english"', metadata={"tags": ["parameters"]})
    cells = [
        new_markdown_cell("# hello_world"),
        parameters,
        new_code_cell(STANDALONE + source),
        new_code_cell("await hello_world(OrganizationContext(), name=name, language=language)"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def call(client: httpx.Client) -> None:
    answer = client.post("/api/workflows/hello_world", json={"name": "Alice", "language": "spanish"})
    if answer.json()["greeting"] != "¡Hola, Alice!":
        raise RuntimeError(answer.text)


def papermill(bin_folder: Path, folder: Path) -> None:
    arguments = ["-p", "name", "Alice", "-p", "language", "spanish", "--no-progress-bar", "-k", "python3"]
    command = [bin_folder / "papermill", folder / "in.ipynb", folder / "out.ipynb", *arguments]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)


def measure(ways: Mapping[str, Callable[[], None]], rounds: int, calls: int) -> dict[str, list[float]]:
    """Seconds of each way, in turns; the first way is called `calls` times a round."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for number, (name, way) in enumerate(ways.items()):
            for _ in range(calls if number == 0 else 1):
                started = time.perf_counter()
                way()
                taken[name].append(time.perf_counter() - started)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=10, help="calls of the product in each round")
    options = parser.parse_args()
    clean = peers.venv("papermill", "papermill", "ipykernel")
    with tempfile.TemporaryDirectory() as name, product.running() as client:
        folder = Path(name)
        nbformat.write(equal_notebook(), folder / "in.ipynb")
        ways = {
            "Bifrost, sync call over HTTP": lambda: call(client),
            "papermill CLI, clean environment": lambda: papermill(clean, folder),
            "papermill CLI, the product's environment": lambda: papermill(Path(sys.executable).parent, folder),
        }
        measure(ways, 1, 20)
        taken = measure(ways, options.rounds, options.calls)
    report(taken)


def report(taken: Mapping[str, list[float]]) -> None:
    """Medians, spread and ratios to the first way."""
    own = statistics.median(next(iter(taken.values())))
    print(f"{'':<42} {'median':>9} {'p5':>9} {'p95':>9} {'n':>5} {'ratio':>7}")
    for name, seconds in taken.items():
        ordered = sorted(seconds)
        low, high = ordered[int(len(ordered) * 0.05)], ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
        median = statistics.median(seconds)
        print(f"{name:<42} {_ms(median)} {_ms(low)} {_ms(high)} {len(seconds):>5} {median / own:>6.1f}x")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:>6.1f} ms"


if __name__ == "__main__":
    main()
