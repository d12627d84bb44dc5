"""Limits: each says itself in what it causes, and takes nothing but its own execution or organization."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.journeys.product import MakeProduct, Product, printed


def test_ten_megabytes_of_output_are_kept(product: Product) -> None:
    """The rest is cut with a note that names the limit, while the workflow goes on."""
    answer = product.run("flood", megabytes=14)
    assert answer.json() == "went on"
    record = product.record(answer.headers["X-Execution-Id"])
    assert 9 * 2**20 < len(printed(record)) <= 10 * 2**20
    assert json.dumps(record).count("the limit for one execution is 10 MB") == 1


def test_one_output_has_at_most_a_megabyte(product: Product) -> None:
    """The rest of it is cut with one note that names the limit; what comes after it is whole."""
    answer = product.run("one_long_output", megabytes=3)
    record = product.record(answer.headers["X-Execution-Id"])
    outputs = [output for cell in record["cells"] for output in cell.get("outputs", ())]
    long, short = (output["text"] for output in outputs if output["output_type"] == "stream")
    assert (len(long), short) == (2**20, "after it\n")
    assert json.dumps(outputs).count("the limit for one output is 1 MB") == 1


def test_a_checkpoint_has_at_most_a_megabyte(product: Product) -> None:
    """One that is larger raises LimitExceeded in the workflow, and is not kept."""
    assert product.run("heavy_checkpoint", size=900_000).json() == "saved"
    answer = product.run("heavy_checkpoint", size=1_100_000)
    name, text = answer.json()
    assert name == "LimitExceeded"
    assert "checkpoint" in text
    events = product.events(answer.headers["X-Execution-Id"])
    assert not [event for event in events if event["type"] == "checkpoint"]


@pytest.fixture(scope="module")
def narrow(make_product: MakeProduct) -> Product:
    """A product in which an organization may run one execution and let three wait, out of two at once."""
    product = make_product(
        max_concurrent_executions=2,
        organization_concurrency=1,
        organization_queue_limit=3,
        sync_wait_seconds=0.5,
        log_lines=200,
    ).start()
    product.add_organization("busy")
    product.add_organization("calm")
    return product


def fill(product: Product, organization: str, gate: Path) -> list[str]:
    """One execution that runs until the gate is there, and three that wait behind it."""
    running = product.submit("wait_for_file", organization, path=str(gate))
    product.wait_for_log(running, "waiting")
    return [running, *(product.submit("wait_for_file", organization, path=str(gate)) for _ in range(3))]


def test_a_full_queue_is_429_for_its_organization_alone(narrow: Product, tmp_path: Path) -> None:
    """With Retry-After; another organization runs at once, and later everything has run once, in its order."""
    gate = tmp_path / "gate"
    ids = fill(narrow, "busy", gate)
    refused = narrow.run("wait_for_file", "busy", path=str(gate))
    assert (refused.status_code, refused.json()["error"]) == (429, "TooManyRequests")
    assert int(refused.headers["Retry-After"]) >= 1
    assert narrow.run("heavy_checkpoint", "calm", size=1).json() == "saved"

    gate.touch()
    ended = [narrow.wait_until_over(execution_id) for execution_id in ids]
    assert [execution["status"] for execution in ended] == ["success"] * 4
    started = [execution["started_at"] for execution in ended]
    assert started == sorted(started)
    rows = narrow.executions(org="busy", text=str(gate))
    assert sorted(row["execution_id"] for row in rows) == sorted(ids), "what was refused left no row"


def test_log_lines_are_kept_up_to_the_limit(narrow: Product) -> None:
    """Then there is one note that names the setting, and silence; the workflow and its checkpoints go on."""
    answer = narrow.run("chatter", "calm", lines=250)
    assert answer.json() == "went on"
    events = narrow.events(answer.headers["X-Execution-Id"])
    logged = [event["message"] for event in events if event["type"] == "log"]
    assert logged[198:200] == ["line 198", "line 199"]
    (note,) = logged[200:]
    assert "200" in note
    assert "BIFROST_LOG_LINES" in note
    assert [event["name"] for event in events if event["type"] == "checkpoint"] == ["after"]


def test_a_sync_call_that_waits_too_long_is_202(narrow: Product, tmp_path: Path) -> None:
    """With where to look; it runs later all the same."""
    gate = tmp_path / "gate"
    running = narrow.submit("wait_for_file", "busy", path=str(gate))
    narrow.wait_for_log(running, "waiting")
    answer = narrow.run("heavy_checkpoint", "busy", size=1)
    assert (answer.status_code, answer.json()["status"]) == (202, "pending")
    assert answer.headers["Location"] == f"/api/executions/{answer.json()['execution_id']}"
    gate.touch()
    assert narrow.wait_until_over(answer.json()["execution_id"])["result"] == "saved"


def test_twenty_that_wait_hold_up_nobody_else(product: Product) -> None:
    """The organization with the fewest running executions comes first, however long another one's queue is."""
    many, few = product.add_organization("many"), product.add_organization("few")
    queue = [product.submit("chatter", many, lines=100) for _ in range(20)]
    with ThreadPoolExecutor(3) as threads:
        quick = list(threads.map(lambda _: product.run("heavy_checkpoint", few, size=1), range(3)))
    assert [answer.json() for answer in quick] == ["saved"] * 3
    last_of_few = max(product.execution(answer.headers["X-Execution-Id"])["started_at"] for answer in quick)
    ended = [product.wait_until_over(execution_id) for execution_id in queue]
    assert [execution["status"] for execution in ended] == ["success"] * 20
    assert last_of_few < max(execution["started_at"] for execution in ended)
