"""The whole product as a process of its own, on a home of the test's: started, asked over HTTP, killed, started again.

The journeys use it through the fixtures of `conftest`. It waits for what the product says (its announcement, a live
event stream, the end of a process), never for time to pass.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import nbformat
import psutil

FINAL = {"success", "completed_with_errors", "failed", "timeout", "cancelled", "crashed"}
ORGANIZATION = "test-org-active"
UP = "Press Ctrl-C to end it.\n"

Json = dict[str, Any]


class Product:
    """One home, and the control plane that runs on it now, if any."""

    def __init__(self, folder: Path, workspace: Path, **settings: Any) -> None:
        self.home = folder / "home"
        self.workspace = workspace
        # Not below `folder`: the path of a Unix socket has 108 bytes.
        self.temporary = Path(tempfile.mkdtemp(prefix="journey-"))
        self._settings = {"dev": True, "lab": False, "portal": False, "port": 0, **settings}
        self._process: subprocess.Popen[str] | None = None
        self._client: httpx.Client | None = None
        self.said = ""
        """All that it printed until it ended last."""

    # its process

    def start(self) -> Product:
        """Start it and return when it says that it is up."""
        self._process = self.launch()
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said += line
            if line == UP:
                break
        else:
            raise AssertionError(f"the product did not start: {self.said}")
        runtime = json.loads((self.home / "runtime.json").read_text())
        self._client = httpx.Client(
            base_url=runtime["url"],
            headers={"x-functions-key": "test"},
            timeout=60,
            limits=httpx.Limits(max_connections=None),
        )
        return self

    def launch(self) -> subprocess.Popen[str]:
        """Start a control plane on this home, whatever becomes of it."""
        settings = {"home": str(self.home), "workspace": str(self.workspace), **self._settings}
        return subprocess.Popen(
            [sys.executable, "-m", "bifrost_scheduler.web.serve", json.dumps(settings)],
            env={**os.environ, "TMPDIR": str(self.temporary)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """As a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, as an operator would; returns the exit status."""
        return self._end(signal.SIGTERM)

    def close(self) -> None:
        """End whatever still runs, and remove what it leaves behind outside its home."""
        if self._process is not None:
            self._end(signal.SIGKILL)
        shutil.rmtree(self.temporary, ignore_errors=True)

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        assert self._client is not None or number is signal.SIGKILL
        if self._process.poll() is None:
            self._process.send_signal(number)
        status = self._process.wait(30)
        assert self._process.stdout is not None
        with self._process.stdout as rest:
            self.said += rest.read()
        if self._client is not None:
            self._client.close()
        self._process = self._client = None
        return status

    def descendants(self) -> list[psutil.Process]:
        """Every process below the control plane, kernels among them."""
        return list(psutil.Process(self.pid).children(recursive=True))

    # asking it

    @property
    def http(self) -> httpx.Client:
        assert self._client is not None
        return self._client

    def run(self, workflow: str, organization: str = ORGANIZATION, prefer: str = "", **inputs: Any) -> httpx.Response:
        """Call a workflow and wait for its answer."""
        headers = {"X-Organization-Id": organization, **({"Prefer": prefer} if prefer else {})}
        return self.http.post(f"/api/workflows/{workflow}", json=inputs, headers=headers)

    def submit(self, workflow: str, organization: str = ORGANIZATION, **inputs: Any) -> str:
        """Start a workflow; returns the execution's id."""
        answer = self.run(workflow, organization, prefer="respond-async", **inputs)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["execution_id"])

    def execution(self, execution_id: str) -> Json:
        return dict(self.http.get(f"/api/executions/{execution_id}").raise_for_status().json())

    def executions(self, **wanted: str) -> list[Json]:
        """All of the history that fits, newest first."""
        return list(self._pages("/api/executions", wanted | {"limit": "200"}))

    def events(self, execution_id: str) -> list[Json]:
        """All events, in their order."""
        return list(self._pages(f"/api/executions/{execution_id}/events", {"limit": "1000"}))

    def acts(self, action: str) -> list[Json]:
        """The audit entries of one kind of act, oldest first."""
        bodies = (entry["body"] for entry in self._pages("/api/audit", {"limit": "200"}))
        return [body for body in bodies if body.get("action") == action]

    def _pages(self, path: str, query: dict[str, str]) -> Iterator[Json]:
        while True:
            page = self.http.get(path, params=query).raise_for_status().json()
            yield from page["items"]
            if page["next_cursor"] is None:
                return
            query = query | {"cursor": page["next_cursor"]}

    def follow(self, execution_id: str) -> Generator[Json, None, None]:
        """The events as they come, until the execution is over."""
        path, accept = f"/api/executions/{execution_id}/events", {"Accept": "text/event-stream"}
        with self.http.stream("GET", path, headers=accept) as stream:
            for line in stream.raise_for_status().iter_lines():
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))

    def wait_for_log(self, execution_id: str, message: str) -> None:
        """Return when the execution has written this line."""
        with contextlib.closing(self.follow(execution_id)) as events:
            for event in events:
                if event.get("message") == message:
                    return
        raise AssertionError(f"{execution_id} ended without saying {message!r}: {self.execution(execution_id)}")

    def wait_until_over(self, execution_id: str) -> Json:
        """The execution when it has ended."""
        for _ in self.follow(execution_id):
            pass
        execution = self.execution(execution_id)
        assert execution["status"] in FINAL
        return execution

    def record(self, execution_id: str) -> Any:
        """Its sealed notebook, which is valid and has the bytes that the ledger names."""
        answer = self.http.get(f"/api/executions/{execution_id}/notebook").raise_for_status()
        assert hashlib.sha256(answer.content).hexdigest() == self.execution(execution_id)["record_sha256"]
        notebook = nbformat.reads(answer.text, as_version=4)
        nbformat.validate(notebook)
        return notebook

    def page(self, execution_id: str) -> str:
        """Its record as HTML."""
        answer = self.http.get(f"/api/executions/{execution_id}/notebook", headers={"Accept": "text/html"})
        return answer.raise_for_status().text

    # administering it

    def add_organization(self, id_: str) -> str:
        self.http.post("/api/organizations", json={"id": id_, "name": f"Name of {id_}"}).raise_for_status()
        return id_

    def put(self, path: str, organization: str = ORGANIZATION, **body: Any) -> None:
        """Set config, a secret or a connection of an organization."""
        headers = {"X-Organization-Id": organization}
        self.http.put(f"/api/{path}", json=body, headers=headers).raise_for_status()


def printed(notebook: Any) -> str:
    """All text that its cells wrote to stdout and stderr."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    return "".join(output["text"] for output in outputs if output["output_type"] == "stream")


class Watch:
    """Processes, held by descriptors that tell their end, whoever their parent is and whether it reaps them."""

    def __init__(self, processes: Iterable[psutil.Process]) -> None:
        self._processes: dict[int, psutil.Process] = {}
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                self._processes[os.pidfd_open(process.pid)] = process

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._processes:
            os.close(descriptor)

    def __len__(self) -> int:
        return len(self._processes)

    def survivors(self, *, within_seconds: float) -> list[int]:
        """Those that have not ended after this time; returns as soon as all have."""
        left, deadline = dict(self._processes), time.monotonic() + within_seconds
        while left and (seconds := deadline - time.monotonic()) > 0:
            ended, _, _ = select.select(left, [], [], seconds)
            for descriptor in ended:
                del left[descriptor]
        return [process.pid for process in left.values()]


def processes_with(mark: str) -> list[psutil.Process]:
    """Those that carry this text in their arguments."""
    return [process for process in psutil.process_iter(["cmdline"]) if mark in (process.info["cmdline"] or ())]


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


MakeProduct = Callable[..., Product]
