"""Schedules under load and at rest: 300 due in the same second, single ones on an idle machine, 10,000 that wait.

`python -m bench.schedules`. Prints how late due times were, how fairly organizations started, how the API answered
meanwhile, and what waiting schedules cost.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench import product
from bifrost_scheduler import ledger, services
from bifrost_scheduler.schedules.derivation import new_schedule
from bifrost_scheduler.settings import Settings, prepare_home
from bifrost_scheduler.store.schedule_contract import Definition
from bifrost_scheduler.store.sqlite import SqliteStore

ORGANIZATIONS = 10


def burst(client: httpx.Client, number: int) -> None:
    """All of them due at one instant, spread over organizations."""
    names = [f"tenant-{index}" for index in range(ORGANIZATIONS)]
    for name in names:
        client.post("/api/organizations", json={"id": name, "name": name}).raise_for_status()
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=5 + number / 40)
    body = {"workflow": "hello_world", "parameters": {"name": "Alice"}, "run_at": at.isoformat()}
    for index in range(number):
        headers = {"X-Organization-Id": names[index % ORGANIZATIONS]}
        client.put(f"/api/schedules/s{index}", json=body, headers=headers).raise_for_status()
    wait_until(at - timedelta(seconds=0.5))
    with watched(client) as answers:
        executions = wait_for_executions(client, number, at)
    rows = [row for row in calendar(client, at) if row["outcome"]]
    print(f"{number} due in the same second, in {ORGANIZATIONS} organizations")
    print(f"  outcomes              {dict(Counter(row['outcome'] for row in rows))}")
    show("  submitted, late", [row["late_seconds"] for row in rows])
    show("  started, late", [(instant(one["started_at"]) - at).total_seconds() for one in executions])
    show("  over, late", [(instant(one["completed_at"]) - at).total_seconds() for one in executions])
    halfway = sorted(executions, key=lambda one: str(one["started_at"]))[: number // 2]
    shares = Counter(one["organization"] for one in halfway)
    print(f"  of the first half each organization started {min(shares.values())} to {max(shares.values())}")
    show("  API health meanwhile", answers)


def idle(client: httpx.Client, number: int) -> None:
    """One after the other on a machine that does nothing else."""
    late = []
    client.post("/api/workflows/hello_world", json={"name": "Alice"}).raise_for_status()  # reads the workspace
    for index in range(number):
        at = datetime.now(UTC) + timedelta(seconds=0.7 + index % 7 / 10)
        body = {"workflow": "hello_world", "parameters": {"name": "Alice"}, "run_at": at.isoformat()}
        body["overlap"] = "parallel"
        client.put("/api/schedules/idle", json=body).raise_for_status()
        wait_until(at)
        while not (row := newest(client)) or instant(row["due_at"]) != at:
            time.sleep(0.02)
        late.append(row["late_seconds"])
    show(f"idle, {number} single ones, late", late)


def newest(client: httpx.Client) -> dict[str, Any] | None:
    rows = client.get("/api/schedules/idle/history", params={"limit": 1}).json()["items"]
    return rows[0] if rows else None


def waiting(number: int, seconds: float, starts: int) -> None:
    """What schedules cost that are not due: in start-up, in turns with a store that has none, and at rest."""
    with tempfile.TemporaryDirectory(prefix="bifrost-bench-") as folder:
        homes = {many: Path(folder) / str(many) for many in (0, number)}
        for many, home in homes.items():
            fill(home, many)
        started: dict[int, list[float]] = {many: [] for many in homes}
        for _ in range(starts):
            for many, home in homes.items():
                with running(home) as (_, took):
                    started[many].append(took)
        for many, home in homes.items():
            with running(home):
                share = share_of_a_core(home, seconds)
            show(f"{many:>6} waiting, start-up", started[many])
            print(f"{many:>6} waiting, at rest         {share * 100:.2f} % of a core")
    more = statistics.median(started[number]) - statistics.median(started[0])
    print(f"{number:>6} waiting add to start-up  {more:+.2f} s")


@contextmanager
def running(home: Path) -> Iterator[tuple[httpx.Client, float]]:
    """A control plane over this home, and the seconds until it was healthy."""
    (home / "runtime.json").unlink(missing_ok=True)
    began = time.perf_counter()
    with product.running(home=str(home)) as client:
        client.get("/api/health").raise_for_status()
        yield client, time.perf_counter() - began


def fill(home: Path, many: int) -> None:
    """Schedules of a year from now, written as the product writes them."""
    settings = Settings(home=home)
    prepare_home(settings)
    store = SqliteStore(settings.database, sign=ledger.load_signer(settings.keys_dir).sign)
    now = datetime.now(UTC)
    entry = ledger.audit(services.OPERATOR, "schedule.create")

    def write(part: range) -> None:
        for index in part:
            definition = Definition(workflow="hello_world", cron=f"{index % 60} {index % 24} 1 1 *")
            made = new_schedule("test-org-active", f"s{index}", definition, saved_by="user:dev@example.com", now=now)
            store.create_schedule(made, audit=entry)

    threads = [threading.Thread(target=write, args=(range(first, many, 16),)) for first in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()


def share_of_a_core(home: Path, seconds: float) -> float:
    """Of the control plane's own process, once what belongs to its start is over."""
    process = psutil.Process(json.loads((home / "runtime.json").read_text())["pid"])
    time.sleep(5)
    before = sum(process.cpu_times()[:2])
    time.sleep(seconds)
    return (sum(process.cpu_times()[:2]) - before) / seconds


@contextmanager
def watched(client: httpx.Client) -> Iterator[list[float]]:
    """Seconds of health calls, ten a second, while the block runs."""
    answers: list[float] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.1):
            started = time.perf_counter()
            client.get("/api/health").raise_for_status()
            answers.append(time.perf_counter() - started)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        over.set()
        thread.join()


def wait_for_executions(client: httpx.Client, number: int, at: datetime) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        found = list(pages(client, "/api/executions", {"since": at.isoformat(), "limit": 200}))
        if len(found) >= number and all(one["completed_at"] for one in found):
            return found
        time.sleep(0.5)
    raise RuntimeError("not everything ran")


def calendar(client: httpx.Client, at: datetime) -> list[dict[str, Any]]:
    window = {"since": at.isoformat(), "until": (at + timedelta(seconds=1)).isoformat()}
    found: list[dict[str, Any]] = everywhere(client, "/api/schedule-calendar", window)["items"]
    return found


def pages(client: httpx.Client, path: str, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
    while True:
        page = everywhere(client, path, query)
        yield from page["items"]
        if page["next_cursor"] is None:
            return
        query = {**query, "cursor": page["next_cursor"]}


def everywhere(client: httpx.Client, path: str, query: dict[str, Any]) -> Any:
    """Asked without an organization: of all of them."""
    request = client.build_request("GET", path, params=query)
    del request.headers["X-Organization-Id"]
    return client.send(request).raise_for_status().json()


def wait_until(at: datetime) -> None:
    time.sleep(max(0.0, (at - datetime.now(UTC)).total_seconds()))


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def show(name: str, seconds: Sequence[float]) -> None:
    ordered = sorted(seconds)
    median, p99 = statistics.median(ordered), ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    print(f"{name:<28} median {median * 1000:8.1f} ms   p99 {p99 * 1000:8.1f} ms   n {len(ordered)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--burst", type=int, default=300)
    parser.add_argument("--idle", type=int, default=100)
    parser.add_argument("--waiting", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--starts", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    options = parser.parse_args()
    if options.quick:
        options.burst, options.idle = options.burst // 10, options.idle // 10
        options.waiting, options.seconds, options.starts = options.waiting // 10, options.seconds / 10, 3
    with product.running(workspace=str(product.EXAMPLES)) as client:
        idle(client, options.idle)
        burst(client, options.burst)
    waiting(options.waiting, options.seconds, options.starts)


if __name__ == "__main__":
    main()
