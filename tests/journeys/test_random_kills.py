"""SIGKILLs at random moments of whatever process the product consists of, against a count that is kept outside.

The suite runs a sample; `BIFROST_KILLS=100 pytest tests/journeys/test_random_kills.py` runs as many as one likes, and
`BIFROST_KILLS_SEED` chooses other moments.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections import Counter
from pathlib import Path

import httpx
import psutil
import pytest

from bifrost_scheduler import ledger
from bifrost_scheduler.store.sqlite import SqliteStore
from tests.journeys.product import FINAL, MakeProduct, Product, lines_of

KILLS = int(os.environ.get("BIFROST_KILLS", "15"))
SEED = int(os.environ.get("BIFROST_KILLS_SEED", "20261122"))
VICTIMS = ("control plane", "fork server", "engine worker", "kernel")
BATCH = 4
MOST_LINES = 40


class Havoc:
    """Submits executions, and kills something while they run."""

    def __init__(self, product: Product, counter: Path) -> None:
        self.product = product
        self.counter = counter
        self.accepted: list[str] = []
        self.killed: Counter[str] = Counter()
        self._random = random.Random(SEED)

    def strike(self) -> None:
        """One kill among running executions; returns when all of them are accounted for."""
        batch = self._submit()
        self._let_pass(batch)
        self._kill(self._random.choice(VICTIMS))
        if not self.product.is_running:
            self.product.start()
            if self._random.random() < 0.3:  # in the middle of the recovery
                self._kill("control plane")
                self.product.start()
        for execution_id in batch:
            self.product.wait_until_over(execution_id)

    def _submit(self) -> list[str]:
        counter = str(self.counter)
        lines = [self._random.randint(1, MOST_LINES) for _ in range(BATCH)]
        batch = [self.product.submit("acknowledge", counter=counter, lines=number) for number in lines]
        self.accepted += batch
        return batch

    def _let_pass(self, batch: list[str]) -> None:
        """Some events of one of them, from none to its end: moments that are told, not slept through."""
        with contextlib.closing(self.product.follow(self._random.choice(batch))) as events:
            for _ in zip(range(self._random.randint(0, MOST_LINES)), events, strict=False):
                pass

    def _kill(self, victim: str) -> None:
        if victim == "control plane":
            self.killed[victim] += 1
            self.product.kill()
        elif choices := self._choices(victim):
            self.killed[victim] += 1
            with contextlib.suppress(psutil.NoSuchProcess):
                self._random.choice(choices).kill()

    def _choices(self, victim: str) -> list[psutil.Process]:
        children = psutil.Process(self.product.pid).children()
        workers = [child for child in children if "bifrost_scheduler.runner.worker" in child.cmdline()]
        servers = [child for child in children if "bifrost_kernel.forkserver" in child.cmdline()]
        if victim == "engine worker":
            return workers
        below = [inner for server in servers for inner in server.children()]
        if victim == "fork server":
            return [*servers, *below]
        return [kernel for inner in below for kernel in inner.children(recursive=True)]


@pytest.fixture
def havoc(new_product: MakeProduct, tmp_path: Path) -> Havoc:
    return Havoc(new_product(max_concurrent_executions=BATCH).start(), tmp_path / "acknowledged")


@pytest.mark.timeout(60 + 10 * KILLS)
def test_random_kills_lose_nothing_and_run_nothing_twice(havoc: Havoc, capsys: pytest.CaptureFixture[str]) -> None:
    """No acknowledged event is lost, nothing runs twice or stays `running`; records and ledger are whole."""
    product = havoc.product
    for _ in range(KILLS):
        havoc.strike()
    executions = {execution["execution_id"]: execution for execution in product.executions()}
    with capsys.disabled():
        ended = Counter(execution["status"] for execution in executions.values())
        print(f" kills {dict(havoc.killed)}, executions {dict(ended)}", end=" ")

    assert set(havoc.accepted) == set(executions)
    assert {execution["status"] for execution in executions.values()} <= FINAL
    written = [line.split() for line in lines_of(havoc.counter)]
    assert max(Counter(execution_id for execution_id, what in written if what == "started").values()) == 1
    for execution_id in executions:
        logged = Counter(event.get("message") for event in product.events(execution_id))
        counted = {f"line {what}" for counted_id, what in written if counted_id == execution_id and what != "started"}
        assert [line for line in counted if logged[line] != 1] == []
        assert product.record(execution_id)["metadata"]["bifrost"]["status"] == executions[execution_id]["status"]
    product.stop()
    assert find_flaw(product) is None


def find_flaw(product: Product) -> int | None:
    """The first entry of the ledger that is not as it was written."""
    store = SqliteStore(product.home / "bifrost.db")
    try:
        return ledger.verify(store, public_key=ledger.load_signer(product.home / "keys").public_key)
    finally:
        store.close()


def test_a_caller_whose_control_plane_dies_may_ask_again(new_product: MakeProduct, tmp_path: Path) -> None:
    """With the same Idempotency-Key the call after the restart gives the same execution: nothing runs twice."""
    product, counter = new_product().start(), tmp_path / "acknowledged"
    headers = {"X-Organization-Id": "test-org-active", "Idempotency-Key": "once", "Prefer": "respond-async"}
    body = {"counter": str(counter), "lines": 1, "then": "hang"}
    first = product.http.post("/api/workflows/acknowledge", json=body, headers=headers).json()["execution_id"]
    product.wait_for_log(first, "all lines are written")
    address = product.http.base_url
    product.kill()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{address}/api/health")
    product.start()
    again = product.http.post("/api/workflows/acknowledge", json=body, headers=headers)
    assert again.json()["execution_id"] == first
    assert product.wait_until_over(first)["status"] == "crashed"
    assert [line for line in lines_of(counter) if line.endswith("started")] == [f"{first} started"]
