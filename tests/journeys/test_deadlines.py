"""The deadline is the parent's: whatever a workflow catches, ignores or hides, it ends, and everything with it."""

from __future__ import annotations

import time
from datetime import datetime

import pytest

from tests.journeys.product import MakeProduct, Product, Watch, processes_with

GRACE_SECONDS = 1
ROOM_SECONDS = 5
"""For a machine that does other things, too; on one that does not, all is over within a second after the grace."""


def test_what_hides_and_ignores_everything_ends(product: Product) -> None:
    """504 soon after timeout and grace; no grandchild in another session survives."""
    began = time.monotonic()
    execution_id = product.submit("stubborn", mark="mark-of-the-stubborn")
    product.wait_for_log(execution_id, "hidden")
    with Watch(processes_with("mark-of-the-stubborn")) as hidden:
        assert len(hidden) == 2
        execution = product.wait_until_over(execution_id)
        assert time.monotonic() - began < 2 + GRACE_SECONDS + 1 + 2 * ROOM_SECONDS
        assert hidden.survivors(within_seconds=1) == []
    assert execution["status"] == "timeout"
    assert "not yet" in str(product.record(execution_id))


@pytest.fixture(scope="module")
def walled(make_product: MakeProduct) -> Product:
    """A product with the full sandbox: nobody else is to feel a fork bomb."""
    return make_product(sandbox="full", grace_seconds=GRACE_SECONDS, memory_bytes=512 * 1024**2).start()


@pytest.mark.parametrize("way", ["stop", "block", "loop", "hide", "threads", "bomb", "memory"])
def test_whatever_stays_is_gone_a_second_after_the_grace(walled: Product, way: str) -> None:
    """Stopped by itself, deaf, busy, hidden by two forks and sessions, multiplying or full: it timed out, and is gone.

    Measured by the control plane's own clock, from the first word of the code to the outcome.
    """
    mark = f"mark-of-{way}"
    execution_id = walled.submit("refuse_to_end", way=way, mark=mark)
    execution = walled.wait_until_over(execution_id)
    with Watch(processes_with(mark)) as left:
        assert left.survivors(within_seconds=1) == []
    assert (execution["status"], execution["error_type"]) == ("timeout", "Timeout")
    began = next(event["at"] for event in walled.events(execution_id) if event.get("message") == "here to stay")
    ended = datetime.fromisoformat(execution["completed_at"])
    assert (ended - datetime.fromisoformat(began)).total_seconds() < 2 + GRACE_SECONDS + 1 + ROOM_SECONDS
    assert "timeout_seconds" in str(walled.record(execution_id))


@pytest.mark.parametrize("workflow", ["sleep_async", "sleep_sync"])
def test_code_that_sleeps_ends_by_the_interrupt(product: Product, workflow: str) -> None:
    """The caller gets 504 at the deadline; the code was interrupted and not killed."""
    answer = product.run(workflow)
    assert (answer.status_code, answer.json()["error"]) == (504, "Timeout")
    assert "timeout_seconds" in answer.json()["message"]
    record = product.record(answer.headers["X-Execution-Id"])
    assert record["metadata"]["bifrost"]["status"] == "timeout"
    raised = {output.get("ename") for cell in record["cells"] for output in cell.get("outputs", ())}
    assert raised & {"KeyboardInterrupt", "CancelledError"}
    assert "KernelDied" not in raised


def test_a_running_execution_can_be_cancelled(product: Product) -> None:
    """It ends by the interrupt, says so, and a second cancel is a conflict."""
    execution_id = product.submit("wait")
    product.wait_for_log(execution_id, "waiting")
    assert product.http.post(f"/api/executions/{execution_id}/cancel").status_code == 202
    execution = product.wait_until_over(execution_id)
    assert (execution["status"], execution["error_type"]) == ("cancelled", "Cancelled")
    assert product.record(execution_id)["metadata"]["bifrost"]["status"] == "cancelled"
    assert product.http.post(f"/api/executions/{execution_id}/cancel").status_code == 409


def test_a_stubborn_one_is_cancelled_too(product: Product) -> None:
    """By the kill after the grace time, its hidden processes included."""
    execution_id = product.submit("stubborn", mark="mark-of-the-cancelled")
    product.wait_for_log(execution_id, "hidden")
    with Watch(processes_with("mark-of-the-cancelled")) as hidden:
        product.http.post(f"/api/executions/{execution_id}/cancel")
        assert product.wait_until_over(execution_id)["status"] == "cancelled"
        assert hidden.survivors(within_seconds=1) == []
