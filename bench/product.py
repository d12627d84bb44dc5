"""The real product as a process of its own, for benchmarks: API, store, broker, fork server and engine workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

WORKSPACE = Path(__file__).resolve().parent / "workspace"
"""The workflows of the benchmarks."""
EXAMPLES = Path(__file__).resolve().parent.parent / "workspace"
"""Those that users find in a new checkout."""
HEADERS = {"X-Organization-Id": "test-org-active", "x-functions-key": "test"}


class Product(NamedTuple):
    """A control plane that runs, and where it keeps what."""

    client: httpx.Client
    pid: int
    home: Path
    temporary: Path
    """All temporary files of its processes, and nobody else's."""


@contextmanager
def running(**settings: object) -> Iterator[httpx.Client]:
    """A client of a fresh control plane over the workspace of the benchmarks; both end with the block."""
    with started(None, **settings) as product:
        yield product.client


@contextmanager
def started(trace: Path | None = None, **settings: object) -> Iterator[Product]:
    """The same, for who looks at its processes and files, too.

    Args:
        trace: where clocks at its stations write what they noted, at the end; None runs it without clocks.
    """
    with tempfile.TemporaryDirectory(prefix="bifrost-bench-") as name:
        folder = Path(name)
        home, temporary = Path(str(settings.get("home", folder / "home"))), folder / "tmp"
        temporary.mkdir()
        chosen = {"home": str(home), "workspace": str(WORKSPACE), "dev": True, "lab": False, "portal": False, "port": 0}
        served = ["bifrost_scheduler.web.serve"] if trace is None else ["bench.traced"]
        command = [sys.executable, "-m", *served, json.dumps(chosen | settings), *([str(trace)] if trace else [])]
        environment = os.environ | {"TMPDIR": str(temporary)}
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
        try:
            with httpx.Client(base_url=_url(home, process), headers=HEADERS, timeout=120) as client:
                yield Product(client, process.pid, home, temporary)
        finally:
            process.terminate()
            process.wait()


def _url(home: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if (home / "runtime.json").exists():
            return str(json.loads((home / "runtime.json").read_text())["url"])
        time.sleep(0.02)
    raise RuntimeError("the control plane did not start")
