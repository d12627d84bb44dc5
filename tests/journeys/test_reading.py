"""Hostile code at the top of a module, which runs when the workspace is read, against the whole product."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.product import MakeProduct, Product, Watch, processes_with

CANARY = "canary-in-the-environment"

SPY = """
import json, os, socket, subprocess, sys
from pathlib import Path
from bifrost_kernel import workflow

def read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""

def environment():
    return any({canary!r}.encode() in read(path) for path in Path("/proc").glob("[0-9]*/environ"))

def linger():
    sleeping = [sys.executable, "-c", "import time; time.sleep(600)", {mark!r}]
    return subprocess.Popen(sleeping, start_new_session=True).pid

WAYS = {{
    "database": lambda: Path({home!r}, "bifrost.db").read_bytes(),
    "key": lambda: Path({home!r}, "keys", "operator.key").read_bytes(),
    "environment": environment,
    "port": lambda: socket.create_connection(("127.0.0.1", {port}), 2).close() or True,
    "snapshot": lambda: Path(__file__).with_name("planted.txt").write_text("planted"),
    "workspace": lambda: Path({workspace!r}, "planted.txt").write_text("planted"),
    "process": linger,
}}

def gets_through(way):
    try:
        return bool(WAYS[way]())
    except OSError:
        return False

@workflow(name="spy", description=json.dumps({{way: gets_through(way) for way in WAYS}} | {{"user": os.getuid()}}))
def spy(context):
    return 1
"""

ENDLESS = "while True: pass\n"
BOMB = """
import os, time
while True:
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:
        time.sleep(0.01)
"""
GREEDY = "x = []\nwhile True: x.append(bytearray(1 << 24))\n"
KILLER = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nos.kill(-1, signal.SIGKILL)\n"
PRINTING = "print('{not json')\nimport os\nos.write(1, b'more noise')\n"
GOOD = (
    'from bifrost_kernel import workflow\n@workflow(name="good", description="d")\ndef good(context): return "good"\n'
)


@pytest.fixture(autouse=True)
def canary() -> Iterator[None]:
    """A value in the environment of the control plane."""
    os.environ["BIFROST_TEST_CANARY"] = CANARY
    yield
    del os.environ["BIFROST_TEST_CANARY"]


def spied(product: Product, mark: str) -> dict[str, object]:
    """What got through for a module while it was read."""
    places = {"home": str(product.home), "workspace": str(product.workspace), "port": product.http.base_url.port}
    save(product, "spy", SPY.format(**places, canary=CANARY, mark=mark))
    shown = product.http.get("/api/workflows/spy").raise_for_status().json()
    seen: dict[str, object] = json.loads(shown["description"])
    return seen


def save(product: Product, name: str, text: str) -> None:
    Path(product.workspace, "workflows", f"{name}.py").write_text(text)


def broken(product: Product) -> dict[str, str]:
    """Reasons by file."""
    listed = product.http.get("/api/workflows").raise_for_status().json()["broken"]
    return {one["source"]["file"]: one["reason"] for one in listed}


def test_what_a_module_can_do_while_it_is_read(new_product: MakeProduct) -> None:
    """Home, keys, environment, port, snapshot and workspace are out of reach, and no process stays behind.

    Each of these succeeds where the sandbox is switched off.
    """
    mark = f"left-behind-{os.getpid()}"
    enclosed, bare = new_product(sandbox="full").start(), new_product(sandbox="none").start()
    seen = spied(enclosed, f"{mark}-enclosed")
    user, process = seen.pop("user"), seen.pop("process")
    assert (user, process) == (1000, True)
    assert seen == dict.fromkeys(("database", "key", "environment", "port", "snapshot", "workspace"), False)
    with Watch(processes_with(f"{mark}-enclosed")) as watch:
        assert watch.survivors(within_seconds=10) == []
    outside = spied(bare, f"{mark}-bare")
    assert all(outside[way] for way in ("database", "key", "port", "snapshot", "workspace", "process"))
    assert outside["environment"] or os.getuid() != 0


@pytest.mark.parametrize("level", ["full", "reduced"])
def test_one_module_takes_no_other_down(new_product: MakeProduct, level: str) -> None:
    """Endless, greedy, printing, or killing everybody in reach: broken with file and reason, and the rest runs."""
    product = new_product(sandbox=level).start()
    hostile = {"a_endless": ENDLESS, "b_greedy": GREEDY, "c_printing": PRINTING}
    for name, text in {**hostile, "zz_good": GOOD}.items():
        save(product, name, text)
    if level == "full":
        save(product, "d_killer", KILLER)
        save(product, "e_bomb", BOMB)
    assert product.run("good").json() == "good"
    reasons = broken(product)
    assert "did not end within" in reasons["workflows/a_endless.py"]
    assert "MemoryError" in reasons["workflows/b_greedy.py"]
    assert "workflows/c_printing.py" not in reasons
    if level == "full":
        assert "ended the process that reads it" in reasons["workflows/d_killer.py"]
        assert "workflows/e_bomb.py" in reasons
