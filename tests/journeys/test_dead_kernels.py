"""What is left when a kernel dies in the middle: everything that it was told is kept, and the truth about its end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.journeys.product import Product, lines_of, printed

WAYS = ("kill", "exit_0", "exit_3", "segfault", "kill_group", "abort")


@pytest.mark.parametrize("way", WAYS)
def test_a_dead_kernel_is_a_crash_that_keeps_what_it_was_told(product: Product, tmp_path: Path, way: str) -> None:
    """500 for the caller; the record is valid and holds the printed text and all acknowledged events; one run."""
    counter = tmp_path / "runs"
    answer = product.run("die", way=way, counter=str(counter))
    execution_id = answer.headers["X-Execution-Id"]

    assert (answer.status_code, answer.json()["error"]) == (500, "WorkflowError")
    assert answer.headers["X-Execution-Status"] == product.execution(execution_id)["status"] == "crashed"
    kept = [event.get("message") or event.get("name") for event in product.events(execution_id)]
    assert [name for name in kept if name] == ["before the end", "half", "kept"]
    record = product.record(execution_id)
    assert "printed before the end" in printed(record)
    assert all(f'"{name}"' in json.dumps(record).replace('\\"', '"') for name in ("half", "kept"))
    assert record["metadata"]["bifrost"]["status"] == "crashed"
    assert "crashed" in product.page(execution_id)
    assert lines_of(counter) == [execution_id]


def test_how_it_died_is_said(product: Product, tmp_path: Path) -> None:
    """The signal or the exit status, for whoever has to find the reason."""
    ways = {"kill": "signal 9", "segfault": "signal 11", "abort": "signal 6", "exit_3": "exit status 3"}
    for way, said in ways.items():
        assert said in product.run("die", way=way, counter=str(tmp_path / "runs")).json()["message"]


def test_system_exit_is_a_failure_of_the_workflow(product: Product) -> None:
    """Also `sys.exit(0)`: it gave no result."""
    answer = product.run("leave")
    assert (answer.status_code, answer.json()["error"]) == (500, "WorkflowError")
    execution = product.execution(answer.headers["X-Execution-Id"])
    assert (execution["status"], execution["error_type"]) == ("failed", "SystemExit")
