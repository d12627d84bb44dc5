"""Where kernels cannot be enclosed as they should be, none is handed out, and everybody is told what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.journeys.product import Product

ROOT = Path(__file__).resolve().parents[2]

IN_A_CAGE = """
from bifrost_kernel import errors
from bifrost_kernel.forkserver import jail
from bifrost_kernel.forkserver.sandbox import Level
from bifrost_scheduler.runner.kernels import KernelSource
jail.confine()  # this process stands for a machine without namespaces
source = KernelSource.start(spares=0, preload=(), level=Level("{level}"))
try:
    print(source.wait_ready().level)
    source.acquire().close()
    print("handed out")
except errors.Unavailable as error:
    print(error.message)
try:
    source.acquire()
except errors.Unavailable as error:
    print(error.message)
source.close()
"""


def in_a_cage(level: str) -> list[str]:
    """What a control plane says on a machine that permits no namespaces."""
    command = [sys.executable, "-c", IN_A_CAGE.format(level=level)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()


def test_without_namespaces_nothing_runs() -> None:
    """The first and every further request is refused, with the reason and the ways out."""
    first, second = in_a_cage("full")
    assert first == second
    assert all(said in first for said in ("Operation not permitted", "bifrost doctor", "--insecure-reduced-sandbox"))


def test_less_can_be_chosen() -> None:
    """The reduced sandbox needs no namespaces, and says that it is what is in force."""
    said = in_a_cage("reduced")
    assert said[:2] == ["reduced", "handed out"]


def test_doctor_tries_it_out() -> None:
    """The probe says `full`, or names what is missing."""
    code = "from bifrost_kernel.forkserver import jail, probe; jail.confine(); raise SystemExit(probe.main())"
    probe = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert probe.returncode == 1
    assert "Operation not permitted" in probe.stdout


class CagedProduct(Product):
    """The product on a machine that permits no namespaces."""

    def launch(self) -> subprocess.Popen[str]:
        code = (
            "import sys; from bifrost_kernel.forkserver import jail; jail.confine(); "
            "from bifrost_scheduler.web import serve; sys.exit(serve.main(sys.argv[1]))"
        )
        settings = {"home": str(self.home), "workspace": str(self.workspace), **self._settings}
        command = [sys.executable, "-c", code, json.dumps(settings)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_the_api_refuses_workflows_and_the_audit_says_why(tmp_path: Path) -> None:
    """503 with what to do; no execution is left; everything else answers."""
    product = CagedProduct(tmp_path, ROOT / "workspace").start()
    try:
        assert until(lambda: entered(product) != [])
        answer = product.run("hello_world", name="Ada")
        assert (answer.status_code, answer.json()["error"]) == (503, "Unavailable")
        assert "--insecure-reduced-sandbox" in answer.json()["message"]
        assert product.executions() == []
        assert [act["sandbox"] for act in entered(product)] == [None]
        assert product.http.get("/api/health").status_code == 200
    finally:
        product.close()


def entered(product: Product) -> list[dict[str, object]]:
    """What the audit says of the sandbox."""
    acts = [entry["body"] for entry in product.http.get("/api/audit").json()["items"]]
    return [act["details"] for act in acts if act.get("action") == "sandbox.enter"]


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not (met := condition()) and time.monotonic() < deadline:
        os.sched_yield()
    return met
