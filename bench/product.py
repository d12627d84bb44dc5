"""The real product as a process of its own, for benchmarks: API, store, broker, fork server and engine workers."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

WORKSPACE = Path(__file__).resolve().parent.parent / "workspace"
HEADERS = {"X-Organization-Id": "test-org-active", "x-functions-key": "test"}


@contextmanager
def running(**settings: object) -> Iterator[httpx.Client]:
    """A client of a fresh control plane over the example workspace; both end with the block."""
    with tempfile.TemporaryDirectory(prefix="bifrost-bench-") as home:
        chosen = {"home": home, "workspace": str(WORKSPACE), "dev": True, "lab": False, "portal": False, "port": 0}
        command = [sys.executable, "-m", "bifrost_scheduler.web.serve", json.dumps(chosen | settings)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            with httpx.Client(
                base_url=_url(Path(str(settings.get("home", home))), process), headers=HEADERS, timeout=120
            ) as client:
                yield client
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
