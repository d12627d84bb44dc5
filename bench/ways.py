"""The ways to run an equal notebook that `bench.hello` compares: ours, and each peer's in an environment of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import nbformat

from bench import notebook, peers
from bench.turns import Way

OURS = "Bifrost, sync call over HTTP"
CLI_HERE = "papermill CLI, in the product's environment"
CLI_CLEAN = "papermill CLI, clean environment"
IN_PROCESS = "papermill.execute_notebook, warm process"
JOBS = "jupyter-scheduler, a process per job"
PREFECT = "Prefect flow with one task, warm process"
PREFECT_ASYNC = "Prefect async flow with one task, warm process"

# FastAPI 0.150 and later take away what Prefect's server still uses.
PACKAGES = {
    "papermill": ("papermill", "ipykernel"),
    "jupyter-scheduler": ("jupyter-scheduler", "ipykernel"),
    "prefect": ("prefect>=3.8", "fastapi<0.150"),
}
_QUIET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}


def peer(name: str) -> Path:
    """The `bin` of a peer's environment, which is made at its first use."""
    return peers.venv(name, *PACKAGES[name])


def call(client: httpx.Client) -> None:
    """A call of the product, with its record."""
    answer = client.post("/api/workflows/enclosed_hello", json=notebook.PARAMETERS)
    if answer.status_code != 200 or answer.json()["greeting"] != notebook.ANSWER:
        raise RuntimeError(answer.text)


def command_line(bin_folder: Path, folder: Path, name: str = "out.ipynb") -> None:
    """papermill's command on `in.ipynb` in a folder."""
    parameters = [word for pair in notebook.PARAMETERS.items() for word in ("-p", *pair)]
    command = [str(bin_folder / "papermill"), "in.ipynb", name, *parameters, "--no-progress-bar", "-k", "python3"]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    if notebook.ANSWER not in (folder / name).read_text():
        raise RuntimeError("papermill did not greet")


def prepare(folder: Path) -> None:
    """Write what peers run."""
    nbformat.write(notebook.equal(), folder / "in.ipynb")
    (folder / "hello.py").write_text(notebook.standalone_source())


@contextmanager
def open_all(client: httpx.Client, folder: Path) -> Iterator[dict[str, Way]]:
    """Every way, ours first; the processes of peers end with the block."""
    prepare(folder)
    peers.compile_here()
    given = json.dumps(notebook.PARAMETERS), notebook.ANSWER
    source, hello = folder / "in.ipynb", folder / "hello.py"
    with (
        peers.driven(peer("papermill"), "papermill_in_process", source, folder / "warm.ipynb", *given) as in_process,
        peers.driven(peer("jupyter-scheduler"), "scheduler_jobs", source, *given) as jobs,
        peers.driven(peer("prefect"), "prefect_flow", hello, *given, environment=_QUIET) as prefect,
    ):
        yield {
            OURS: lambda: call(client),
            CLI_HERE: lambda: command_line(Path(sys.executable).parent, folder),
            CLI_CLEAN: lambda: command_line(peer("papermill"), folder),
            IN_PROCESS: lambda: in_process("run"),
            JOBS: lambda: jobs("run"),
            PREFECT: lambda: prefect("plain"),
            PREFECT_ASYNC: lambda: prefect("coroutine"),
        }


def versions() -> str:
    return "; ".join(f"{name}: {peers.versions(peer(name))}" for name in PACKAGES)
