"""A customer's form against the same fields in stock Voila, and the control plane while a hundred people are there.

`python -m bench.portal [--rounds N] [--sessions N]`. The two forms alternate within each round, each time in a browser
without a cache. Times are from the navigation until a key that is typed into the first field stays there and the button
can be pressed.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import nbformat
import psutil
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Browser, Page, sync_playwright

from bench import product
from bench.health import Health

PASSWORD = "correct horse battery"
SIGN_INS = 2
"""At once: more passwords than that are not hashed at the same time, and their owners are asked to wait."""
STOCK = """
import ipywidgets
name = ipywidgets.Text(description="Name")
language = ipywidgets.Dropdown(description="Language", options=["english", "spanish", "french", "german"])
button, answer = ipywidgets.Button(description="Run Workflow"), ipywidgets.Label()
button.on_click(lambda _: setattr(answer, "value", f"pressed for {name.value}"))
ipywidgets.VBox([name, language, button, answer])
"""
WATCHED = """
import asyncio
from bifrost_kernel import OrganizationContext, workflow

@workflow(name="watched", description="Tells something every second", execution_mode="async", timeout_seconds=600)
async def watched(context: OrganizationContext):
    for second in range(600):
        context.log("info", f"second {second}")
        await asyncio.sleep(1)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def stock_voila(folder: Path) -> Iterator[str]:
    """Address of a Voila with its own settings and one notebook."""
    cells = [new_code_cell(STOCK)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / "form.ipynb")
    port = free_port()
    command = [sys.executable, "-m", "voila", "form.ipynb", "--no-browser", f"--port={port}"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://localhost:{port}/static/voila/favicon.ico")
        yield f"http://localhost:{port}/"
    finally:
        process.terminate()
        process.wait()


def wait_for(url: str) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            httpx.get(url, timeout=60)
            return
        except httpx.TransportError:
            time.sleep(0.05)
    raise RuntimeError(f"nothing answers at {url}")


def add_person(api: httpx.Client, number: int) -> tuple[str, str]:
    """Email and one-time link of somebody new."""
    email = f"person-{number}@example.com"
    body = {"email": email, "name": f"Person {number}", "roles": {"test-org-active": ["WorkflowUser"]}}
    api.post("/api/users", json=body).raise_for_status()
    return email, str(api.post(f"/api/users/{email}/link").raise_for_status().json()["token"])


class Traffic:
    """Bytes that a page has taken from the network, as they were sent."""

    def __init__(self, page: Page) -> None:
        self.bytes = 0
        session = page.context.new_cdp_session(page)
        session.on("Network.dataReceived", self._count)
        session.send("Network.enable")

    def _count(self, event: Mapping[str, Any]) -> None:
        self.bytes += event["encodedDataLength"]


def measure_bifrost(browser: Browser, url: str, state: Any) -> tuple[float, int, int]:
    """Seconds until the form can be used; bytes until then, and until its kernel is connected, too."""
    context = browser.new_context(storage_state=state)
    page = context.new_page()
    traffic, started = Traffic(page), time.perf_counter()
    page.goto(f"{url}/workflows/hello_world", wait_until="commit")
    type_a_key(page, "[data-field=name] input")
    page.get_by_role("button", name="Run Workflow").wait_for()
    seconds, bytes_ = time.perf_counter() - started, traffic.bytes
    page.wait_for_selector("html[data-kernel=connected]", state="attached", timeout=60_000)
    in_all = traffic.bytes
    page.get_by_role("button", name="Run Workflow").click()
    page.wait_for_url("**/runs/*", timeout=60_000)
    context.close()
    return seconds, bytes_, in_all


def measure_stock(browser: Browser, url: str) -> tuple[float, int, int]:
    """The same for stock Voila, whose form is there when its kernel is."""
    context = browser.new_context()
    page = context.new_page()
    traffic, started = Traffic(page), time.perf_counter()
    page.goto(url, wait_until="commit", timeout=60_000)
    type_a_key(page, ".widget-text input")
    page.get_by_role("button", name="Run Workflow").wait_for()
    seconds, bytes_ = time.perf_counter() - started, traffic.bytes
    page.get_by_role("button", name="Run Workflow").click()
    page.get_by_text("pressed for").wait_for(timeout=60_000)
    in_all = traffic.bytes
    context.close()
    return seconds, bytes_, in_all


def type_a_key(page: Page, field: str) -> None:
    box = page.locator(field).first
    box.wait_for(timeout=60_000)
    box.press("a")
    if box.input_value() != "a":
        raise RuntimeError(f"{field} did not keep what was typed")


def compare(browser: Browser, api: httpx.Client, portal: str, stock: str, rounds: int) -> None:
    _, link = add_person(api, 0)
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{portal}/signin/link#{link}")
    page.locator("input[type=password]").first.fill(PASSWORD)
    page.locator("main form button").first.click()
    page.wait_for_url("**/workflows")
    state = context.storage_state()
    context.close()
    ways: dict[str, Callable[[], tuple[float, int, int]]] = {
        "Bifrost": lambda: measure_bifrost(browser, portal, state),
        "stock Voila": lambda: measure_stock(browser, stock),
    }
    taken: dict[str, list[tuple[float, int, int]]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            measured = way()
            if number:  # the first round warms both up
                taken[name].append(measured)
    report(taken)


def report(taken: Mapping[str, list[tuple[float, int, int]]]) -> None:
    own = statistics.median(seconds for seconds, _, _ in next(iter(taken.values())))
    print(
        f"{'form can be used after':<24} {'median':>9} {'fastest':>9} {'slowest':>9}"
        f" {'kB then':>8} {'kB':>8} {'ratio':>6}"
    )
    for name, rows in taken.items():
        seconds = [row[0] for row in rows]
        median, kilobytes = (
            statistics.median(seconds),
            [statistics.median(row[at] for row in rows) / 1000 for at in (1, 2)],
        )
        times = " ".join(f"{value * 1000:>6.0f} ms" for value in (median, min(seconds), max(seconds)))
        print(f"{name:<24} {times} {kilobytes[0]:>8.0f} {kilobytes[1]:>8.0f} {median / own:>5.1f}x")


async def crowd(url: str, portal: str, links: list[str], run: str, kernels: Callable[[], int]) -> None:
    """Many people with a form and live events open."""
    people = len(links)
    async with AsyncExitStack() as open_ones:
        with Health(url) as health:
            few = asyncio.Semaphore(SIGN_INS)
            sessions = await asyncio.gather(*(sign_in(open_ones, few, portal, link) for link in links))
        health.tell(f"{people} people sign in")
        with Health(url) as health:
            pages = await asyncio.gather(*(client.get("/workflows/hello_world") for client in sessions))
        health.tell(f"{people} forms are opened")
        with_kernel = sum('"kernelId"' in page.raise_for_status().text for page in pages)
        print(f"{people} forms, {with_kernel} of them with a kernel; kernels that run: {kernels()}")
        streams = await asyncio.gather(*(watch(open_ones, client, run) for client in sessions))
        with Health(url) as health:
            seen = await asyncio.gather(*(lines_within(stream, 20) for stream in streams))
        health.tell(f"{people} people watch a run live for 20 seconds")
        print(f"lines that each of them saw: {min(seen)} to {max(seen)}")


async def sign_in(open_ones: AsyncExitStack, few: asyncio.Semaphore, portal: str, link: str) -> httpx.AsyncClient:
    client = await open_ones.enter_async_context(httpx.AsyncClient(base_url=portal, timeout=120))
    page = await client.get("/signin/link")
    found = re.search(r'name="xsrf" content="([^"]+)"', page.text)
    if found is None:
        raise RuntimeError(page.text)
    remember(client, page)
    body = {"_xsrf": found[1], "token": link, "password": PASSWORD}
    async with few:
        answer = await client.post("/signin/link", data=body, headers={"Origin": portal})
    if answer.status_code != 303:
        raise RuntimeError(f"sign-in: {answer.status_code}")
    remember(client, answer)
    return client


def remember(client: httpx.AsyncClient, answer: httpx.Response) -> None:
    """Cookies that browsers send to this machine without TLS, and httpx does not."""
    pairs = [one.split(";")[0] for one in answer.headers.get_list("set-cookie")]
    client.headers["Cookie"] = "; ".join([*filter(None, [client.headers.get("Cookie")]), *pairs])


async def watch(open_ones: AsyncExitStack, client: httpx.AsyncClient, run: str) -> httpx.Response:
    stream = await open_ones.enter_async_context(client.stream("GET", f"/runs/{run}/events"))
    return stream.raise_for_status()


async def lines_within(stream: httpx.Response, seconds: float) -> int:
    count = 0
    try:
        async with asyncio.timeout(seconds):
            async for line in stream.aiter_lines():
                count += line.startswith("data:")
    except TimeoutError:
        pass
    return count


def kernels_below(process: psutil.Process) -> int:
    return sum(
        "ipykernel" in " ".join(child.cmdline()) for child in process.children(recursive=True) if child.is_running()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="two rounds, ten people")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.sessions = 2, 10
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    port = free_port()
    portal = f"http://localhost:{port}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(product.EXAMPLES, folder / "workspace")
        (folder / "workspace" / "workflows" / "watched.py").write_text(WATCHED)
        (folder / "stock").mkdir()
        with product.running(workspace=str(folder / "workspace"), portal=True, portal_port=port) as api:
            wait_for(f"{portal}/signin")
            with stock_voila(folder / "stock") as stock, sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                compare(browser, api, portal, stock, options.rounds)
                browser.close()
            links = [add_person(api, number)[1] for number in range(1, options.sessions + 1)]
            run = api.post("/api/workflows/watched", json={}).raise_for_status().json()["execution_id"]
            asyncio.run(crowd(str(api.base_url), portal, links, run, lambda: kernels_below(psutil.Process())))


if __name__ == "__main__":
    main()
