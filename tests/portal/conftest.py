"""The authors' side: a running control plane, and JupyterLab as `bifrost up` starts it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx
import pytest
import websocket

from bench import product

TOKEN = "a-token-for-the-lab-of-this-test"


@pytest.fixture(scope="session")
def control_plane_client() -> Iterator[httpx.Client]:
    with product.running() as client:
        yield client


@dataclass(frozen=True)
class Lab:
    """JupyterLab over HTTP."""

    url: str
    client: httpx.Client

    def start_kernel(self, name: str) -> Kernel:
        kernel_id = self.client.post("/api/kernels", json={"name": name}).raise_for_status().json()["id"]
        address = f"{self.url.replace('http', 'ws', 1)}/api/kernels/{kernel_id}/channels?token={TOKEN}"
        return Kernel(websocket.create_connection(address, timeout=60))


class Kernel:
    """A kernel over Lab's own websocket, as a browser has it."""

    def __init__(self, channel: websocket.WebSocket) -> None:
        self._channel = channel

    def run(self, code: str) -> str:
        """Run a cell; all the text that it shows."""
        message_id = uuid.uuid4().hex
        self._channel.send(json.dumps(_execute_request(code, message_id)))
        shown = ""
        while True:
            message = json.loads(self._channel.recv())
            if message["parent_header"].get("msg_id") != message_id:
                continue
            shown += _text_of(message)
            if message["header"]["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return shown

    def close(self) -> None:
        self._channel.close()


def _execute_request(code: str, message_id: str) -> dict[str, Any]:
    header = {"msg_id": message_id, "msg_type": "execute_request", "username": "", "session": "test", "version": "5.3"}
    content = {
        "code": code,
        "silent": False,
        "store_history": True,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": True,
    }
    return {
        "header": {**header, "date": "2026-01-01T00:00:00Z"},
        "parent_header": {},
        "metadata": {},
        "content": content,
        "channel": "shell",
        "buffers": [],
    }


def _text_of(message: dict[str, Any]) -> str:
    content = message["content"]
    match message["header"]["msg_type"]:
        case "stream":
            return str(content["text"])
        case "execute_result" | "display_data":
            return str(content["data"].get("text/plain", ""))
        case "error":
            return f"{content['ename']}: {content['evalue']}"
    return ""


@contextmanager
def running_lab(control_plane: httpx.Client, folder: Path) -> Iterator[tuple[Lab, subprocess.Popen[bytes], IO[bytes]]]:
    """JupyterLab on a free port, a client of the control plane like any other; its process, and its lifeline."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "BIFROST_URL": str(control_plane.base_url),
        "BIFROST_API_KEY": "test",
        "BIFROST_ORGANIZATION": "test-org-active",
        "BIFROST_LAB_TOKEN": TOKEN,
    }
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "bifrost_portal.lab", "127.0.0.1", str(port), str(product.WORKSPACE), str(reading)]
    log = folder / "lab.log"
    with log.open("wb") as output, open(reading, "rb"):
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, pass_fds=(reading,))
    url = f"http://127.0.0.1:{port}"
    with open(writing, "wb") as lifeline:
        try:
            with httpx.Client(base_url=url, headers={"Authorization": f"token {TOKEN}"}, timeout=60) as client:
                _wait_until_it_answers(client, process, log)
                yield Lab(url, client), process, lifeline
        finally:
            process.terminate()
            process.wait()


@pytest.fixture(scope="session")
def lab(control_plane_client: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(control_plane_client, tmp_path_factory.mktemp("author")) as (started, _, _):
        yield started


def _wait_until_it_answers(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            client.get("/api/status").raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="session")
def kernel(lab: Lab) -> Iterator[Kernel]:
    """A "Bifrost (Python 3)" kernel of JupyterLab."""
    started = lab.start_kernel("bifrost")
    yield started
    started.close()
