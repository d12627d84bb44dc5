"""The authors' side: a running control plane and JupyterLab; the customers': a running portal and browsers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx
import pytest
import websocket
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from bench import product
from tests.journeys.product import Product
from tests.portal.site import CHROMIUM, PASSWORD, Person, Site, make_workspace

TOKEN = "a-token-for-the-lab-of-this-test"


@pytest.fixture(scope="session")
def control_plane_client() -> Iterator[httpx.Client]:
    with product.running(workspace=str(product.EXAMPLES)) as client:
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
    command = [sys.executable, "-m", "bifrost_portal.lab", "127.0.0.1", str(port), str(product.EXAMPLES), str(reading)]
    log = folder / "lab.log"
    with log.open("wb") as output, open(reading, "rb"):
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, pass_fds=(reading,), start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    with open(writing, "wb") as lifeline:
        try:
            with httpx.Client(base_url=url, headers={"Authorization": f"token {TOKEN}"}, timeout=60) as client:
                _wait_until_it_answers(client, process, log)
                yield Lab(url, client), process, lifeline
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """As `bifrost up` does: ask, and when it takes long, end it with all that it started."""
    process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
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


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A portal that every test may use, and none may stop; its forms have no kernels, which most tests do without."""
    with running_site(tmp_path_factory.mktemp("site"), portal_kernels=0) as running:
        yield running


@contextmanager
def running_site(folder: Path, **settings: Any) -> Iterator[Site]:
    running = Product(folder, make_workspace(folder), **{"portal": True, "portal_port": 0, **settings})
    try:
        running.start()
        found = Site(running)
        # It accepts at once and answers when it has started.
        httpx.get(f"{found.url}/signin", timeout=60).raise_for_status()
        yield found
    finally:
        running.close()


@pytest.fixture
def customer(site: Site) -> Person:
    """Somebody at a customer's office, who may use forms, and of whom no other test left a draft."""
    return site.person("WorkflowUser")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser for one module: Playwright keeps an event loop in this thread, which other tests must not meet."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(chromium: Browser, site: Site) -> Iterator[OpenPage]:
    """Opens a page of the portal in a browser of the test's own, signed in as somebody if one is named."""
    contexts: list[BrowserContext] = []

    def open_(path: str, person: Person | None = None, **context: Any) -> Page:
        contexts.append(chromium.new_context(base_url=site.url, **context))
        page = contexts[-1].new_page()
        if person is not None:
            sign_in(page, person)
        page.goto(path)
        return page

    yield open_
    for context in contexts:
        context.close()


def sign_in(page: Page, person: Person) -> None:
    page.goto("/signin")
    page.get_by_label("E-mail").fill(person.email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/workflows*")
