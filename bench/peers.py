"""Peers in clean, bytecode-compiled virtual environments of their own, below `.bench/` (made once, never committed)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO

FOLDER = Path(__file__).resolve().parent.parent / ".bench"
DRIVERS = Path(__file__).resolve().parent / "drivers"
NOTHING: Mapping[str, str] = MappingProxyType({})
NOTICED = ("papermill", "ipykernel", "jupyter-client", "nbclient", "jupyter-scheduler", "prefect")


def venv(name: str, *packages: str) -> Path:
    """The environment's `bin`; `packages` are what stands in it, and nothing else."""
    folder = FOLDER / name
    stamp = folder / "packages"
    if not stamp.exists() or stamp.read_text() != " ".join(packages):
        uv = str(Path(sys.executable).parent / "uv")
        subprocess.run([uv, "venv", "--quiet", "--clear", str(folder)], check=True)
        python = str(folder / "bin" / "python")
        subprocess.run(
            [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python, *packages], check=True
        )
        stamp.write_text(" ".join(packages))
    return folder / "bin"


def compile_here() -> None:
    """Compile the product's own environment, too: what is uncompiled there would slow down a peer that runs in it."""
    rooms = [str(FOLDER.parent / room) for room in ("bifrost_kernel", "scheduler", "voila_apps")]
    folders = [sysconfig.get_path("purelib"), *rooms]
    # Files of other Pythons, which some packages carry as data, cannot be compiled and are no reason to stop.
    subprocess.run([sys.executable, "-m", "compileall", "-q", "-q", "-j", "0", *folders], check=False)


def versions(bin_folder: Path) -> str:
    """Which versions of what matters stand in an environment."""
    uv = str(Path(sys.executable).parent / "uv")
    command = [uv, "pip", "list", "--quiet", "--format", "json", "--python", str(bin_folder / "python")]
    listed = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    found = {one["name"]: one["version"] for one in listed}
    return ", ".join(f"{name} {found[name]}" for name in NOTICED if name in found)


@contextmanager
def driven(
    bin_folder: Path, driver: str, *arguments: object, environment: Mapping[str, str] = NOTHING
) -> Iterator[Callable[[str], None]]:
    """A warm process in a peer's environment, and the function that has it run once what is named, until it is over.

    Raises:
        RuntimeError: the peer failed; the function raises it, too.
    """
    command = [str(bin_folder / "python"), str(DRIVERS / f"{driver}.py"), *map(str, arguments)]
    with tempfile.TemporaryDirectory(prefix="bifrost-bench-peer-") as folder, tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            command,
            env={**_clean_environment(bin_folder, folder), **environment},
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            bufsize=1,
        )
        # Leaving the process closes its input, at which it ends.
        with process:
            _expect("ready", process, complaints)
            yield lambda what: _run(what, process, complaints)


def _run(what: str, process: subprocess.Popen[str], complaints: IO[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{what}\n")
    _expect("done", process, complaints)


def _expect(word: str, process: subprocess.Popen[str], complaints: IO[bytes]) -> None:
    assert process.stdout is not None
    answer = process.stdout.readline().strip()
    if answer != word:
        complaints.seek(0)
        raise RuntimeError(f"{answer!r} instead of {word!r}: {complaints.read().decode()[-2000:]}")


def _clean_environment(bin_folder: Path, home: str) -> Mapping[str, str]:
    """What a user's shell would have, and nothing of ours."""
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    return {**kept, "PATH": f"{bin_folder}:{os.environ['PATH']}", "HOME": home}
