"""What is left when the control plane itself is killed, and what its next start makes of it."""

from __future__ import annotations

import time
from pathlib import Path

from tests.journeys.product import MakeProduct, Watch, lines_of


def test_nothing_outlives_it_and_the_next_start_accounts_for_all(new_product: MakeProduct, tmp_path: Path) -> None:
    """Kernels and workers die with it; what ran is `crashed` with its record, what waited runs, nothing runs twice."""
    product = new_product(max_concurrent_executions=2).start()
    counter = tmp_path / "acknowledged"
    running = [product.submit("acknowledge", counter=str(counter), lines=20, then="hang") for _ in range(2)]
    for execution_id in running:
        product.wait_for_log(execution_id, "all lines are written")
    waiting = product.submit("acknowledge", counter=str(counter), lines=3)

    with Watch(product.descendants()) as descendants:
        assert len(descendants) >= 6, "a fork server, two engine workers, two kernels with their inits"
        product.kill()
        assert descendants.survivors(within_seconds=5) == []

    left_behind = set(product.temporary.iterdir())
    product.start()
    assert not left_behind & set(product.temporary.iterdir()), "the next start removes temporary files of kernels"
    restarted = time.monotonic()
    ended = [product.wait_until_over(execution_id) for execution_id in running]
    assert time.monotonic() - restarted < 30
    assert [execution["status"] for execution in ended] == ["crashed", "crashed"]
    assert product.wait_until_over(waiting)["result"] == 3

    for execution_id in running:
        logged = [event["message"] for event in product.events(execution_id) if event["type"] == "log"]
        assert logged == [*(f"line {number}" for number in range(20)), "all lines are written"]
        assert "all lines are written" in str(product.record(execution_id))
    starts = [line.split()[0] for line in lines_of(counter) if line.endswith("started")]
    assert sorted(starts) == sorted([*running, waiting])


def test_a_stop_gives_running_executions_their_grace(new_product: MakeProduct, tmp_path: Path) -> None:
    """After SIGTERM what runs may tidy up, all ends within 15 seconds, and no process is left."""
    product = new_product(shutdown_seconds=8).start()
    tidied = tmp_path / "tidied"
    execution_id = product.submit("wait", tidy_file=str(tidied))
    product.wait_for_log(execution_id, "waiting")

    with Watch(product.descendants()) as descendants:
        began = time.monotonic()
        assert product.stop() == 0
        assert time.monotonic() - began < 15
        assert descendants.survivors(within_seconds=1) == []
    assert lines_of(tidied) == ["tidied up"]

    product.start()
    execution = product.execution(execution_id)
    assert (execution["status"], execution["error"]) == ("crashed", "The control plane was stopped while it ran.")
    assert product.record(execution_id)["metadata"]["bifrost"]["status"] == "crashed"


def test_an_execution_that_can_end_does_so_during_a_stop(new_product: MakeProduct, tmp_path: Path) -> None:
    """Its caller still gets the answer."""
    product = new_product().start()
    gate = tmp_path / "gate"
    execution_id = product.submit("wait_for_file", path=str(gate))
    product.wait_for_log(execution_id, "waiting")
    gate.touch()
    assert product.stop() == 0
    product.start()
    assert product.execution(execution_id)["status"] == "success"


def test_a_record_that_cannot_be_written_now_is_written_later(new_product: MakeProduct) -> None:
    """While the disk takes no record the execution is not over; then it ends as it ended, with what it printed."""
    product = new_product(lease_seconds=0.5).start()
    records, aside = product.home / "records", product.home / "aside"
    records.rename(aside)
    records.touch()
    execution_id = product.submit("heavy_checkpoint", size=1)
    events = product.follow(execution_id)
    assert [next(events)["type"] for _ in range(3)] == ["status", "status", "checkpoint"]
    while "could not be finished yet" not in (product.home / "logs" / "bifrost.log").read_text():
        assert product.execution(execution_id)["status"] == "running"
    records.unlink()
    aside.rename(records)
    assert [event["status"] for event in events] == ["success"]
    assert product.record(execution_id)["metadata"]["bifrost"]["status"] == "success"


def test_a_stop_amid_a_burst_ends_in_time(new_product: MakeProduct) -> None:
    """What was claimed in that very moment gets no more grace than the rest; what waited still waits afterwards."""
    product = new_product(shutdown_seconds=6, max_concurrent_executions=4).start()
    ids = [product.submit("wait") for _ in range(12)]
    began = time.monotonic()
    assert product.stop() == 0
    assert time.monotonic() - began < 15
    product.start()
    statuses = [product.execution(execution_id)["status"] for execution_id in ids]
    assert statuses[:4] == ["crashed"] * 4
    assert set(statuses[4:]) <= {"pending", "running"}
