"""A fork server is replaced, because something was installed or because it was killed: whoever calls notices little."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.journeys.product import MakeProduct, Product, Watch


class Callers:
    """Call a workflow again and again while the block runs, and count how the calls ended."""

    def __init__(self, product: Product, number: int = 3) -> None:
        self._product = product
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(number)]
        self.answers: Counter[tuple[int, str]] = Counter()

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        while not self._over.is_set():
            answer = self._product.run("chatter", lines=1)
            self.answers[answer.status_code, answer.headers.get("X-Execution-Status", "refused")] += 1


def fork_server(product: Product) -> psutil.Process:
    """The newest one."""
    found = filter(is_fork_server, psutil.Process(product.pid).children())
    return max(found, key=lambda one: one.create_time())


def is_fork_server(process: psutil.Process) -> bool:
    try:
        return "bifrost_kernel.forkserver" in process.cmdline()
    except psutil.NoSuchProcess:  # another child, which has just ended
        return False


@pytest.mark.slow
def test_an_installation_is_noticed_and_no_call_is_refused(
    new_product: MakeProduct, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Soon after a package was installed executions run in kernels of a new fork server; every call succeeds."""
    (tmp_path / "packages").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    product = new_product(sandbox="full").start()
    before = fork_server(product)
    with Callers(product) as callers, Watch([before]) as watch:
        (tmp_path / "packages" / "thing-2.0.dist-info").mkdir()
        assert watch.survivors(within_seconds=60) == []
    assert product.run("chatter", lines=1).status_code == 200
    assert set(callers.answers) == {(200, "success")}
    assert fork_server(product).is_running()


@pytest.mark.slow
def test_a_killed_fork_server_takes_its_own_executions_and_no_other(new_product: MakeProduct) -> None:
    """What ran in it is `crashed`, with its record; whoever called meanwhile gets an answer, and none is refused."""
    product = new_product(sandbox="full").start()
    execution_id = product.submit("wait")
    product.wait_for_log(execution_id, "waiting")
    with Callers(product) as callers:
        fork_server(product).kill()
        assert product.wait_until_over(execution_id)["status"] == "crashed"
        assert product.run("chatter", lines=1).status_code == 200
    assert set(callers.answers) <= {(200, "success"), (500, "crashed")}
    assert callers.answers[500, "crashed"] <= 3
    assert product.record(execution_id)["metadata"]["bifrost"]["status"] == "crashed"
