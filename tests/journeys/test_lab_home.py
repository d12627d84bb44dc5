"""JupyterLab as the product starts it: its kernels and terminals do not see the home, and the workspace is theirs."""

from __future__ import annotations

import json
import re
import socket
import uuid
from collections.abc import Iterator

import httpx
import pytest
import websocket

from tests.journeys.product import MakeProduct, Product

LINK = re.compile(r"(http://\S+):(\d+)/lab\?token=(\S+)")
DONE = "that-was-all"

LOOK = """
from pathlib import Path
print("sees", list(Path({home!r}).rglob("*")), list(Path("/proc").glob("*/root{home}/*")))
Path({saved!r}).write_text("saved")
"""


@pytest.fixture(scope="module")
def product(make_product: MakeProduct) -> Product:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return make_product(lab=True, lab_port=port).start()


@pytest.fixture(scope="module")
def lab(product: Product) -> Iterator[httpx.Client]:
    found = LINK.search(product.said)
    assert found is not None, product.said
    with httpx.Client(
        base_url=f"http://localhost:{found[2]}", headers={"Authorization": f"token {found[3]}"}, timeout=60
    ) as client:
        yield client


def channel(lab: httpx.Client, path: str) -> websocket.WebSocket:
    address = f"{str(lab.base_url).replace('http', 'ws', 1).rstrip('/')}{path}"
    return websocket.create_connection(address, timeout=60, header={"Authorization": lab.headers["Authorization"]})


def run_in_kernel(lab: httpx.Client, name: str, code: str) -> str:
    """What a cell prints."""
    kernel = lab.post("/api/kernels", json={"name": name}).raise_for_status().json()["id"]
    header = {
        "msg_id": uuid.uuid4().hex,
        "msg_type": "execute_request",
        "username": "",
        "session": "s",
        "version": "5.3",
    }
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    request = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
    shown, over = "", False
    with_kernel = channel(lab, f"/api/kernels/{kernel}/channels")
    with_kernel.send(json.dumps({**request, "buffers": []}))
    while not over:
        message = json.loads(with_kernel.recv())
        if message["parent_header"].get("msg_id") == header["msg_id"]:
            shown += str(message["content"].get("text", "")) + str(message["content"].get("ename", ""))
            over = message["content"].get("execution_state") == "idle"
    with_kernel.close()
    lab.delete(f"/api/kernels/{kernel}")
    return shown


def run_in_terminal(lab: httpx.Client, command: str) -> str:
    """What a command shows."""
    terminal = lab.post("/api/terminals").raise_for_status().json()["name"]
    shown = ""
    with_terminal = channel(lab, f"/terminals/websocket/{terminal}")
    # Written in two parts, so that the echo of the command is not taken for its end.
    with_terminal.send(json.dumps(["stdin", f"{command}; echo {DONE[:4]}''{DONE[4:]}\r"]))
    while DONE not in shown:
        kind, text = json.loads(with_terminal.recv())[:2]
        shown += text if kind == "stdout" else ""
    with_terminal.close()
    lab.delete(f"/api/terminals/{terminal}")
    return shown


@pytest.mark.parametrize("name", ["bifrost", "python3"])
def test_a_kernel_does_not_see_the_home(product: Product, lab: httpx.Client, name: str) -> None:
    """Neither the store nor a key, by no process; what it saves in the workspace is there."""
    specs = lab.get("/api/kernelspecs").raise_for_status().json()["kernelspecs"]
    if name not in specs:
        pytest.skip(f"there is no kernel {name!r} here")
    saved = product.workspace / f"saved_by_{name}.txt"
    code = LOOK.format(home=str(product.home), saved=str(saved))
    assert (product.home / "bifrost.db").exists()
    assert "sees [] []" in run_in_kernel(lab, name, code)
    assert saved.read_text() == "saved"


def test_a_terminal_does_not_see_the_home(product: Product, lab: httpx.Client) -> None:
    """Nor can it, as the same user, look through a process of the control plane."""
    key = "keys/operator.key"
    shown = run_in_terminal(
        lab, f"head -c 1 {product.home}/{key} | wc -c; head -c 1 /proc/{product.pid}/root{product.home}/{key} | wc -c"
    )
    assert shown.count("No such file") == 2
    assert (product.home / key).exists()
