"""`bifrost doctor`: what this machine and this home allow, and what to do about what they don't."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import httpx
import typer

from bifrost_scheduler.cli import client as clients
from bifrost_scheduler.cli.options import AsJson
from bifrost_scheduler.cli.output import print_json, print_table

FREE_BYTES = 1024**3


class Finding(NamedTuple):
    """One line of the report; `state` is ok, warning or error."""

    check: str
    state: str
    text: str


def doctor(as_json: AsJson = False) -> None:
    """Check this machine and this home; exit code 1 when something is wrong."""
    home = Path(os.environ.get("BIFROST_HOME", "~/.bifrost")).expanduser()
    checks: tuple[Callable[[Path], Finding], ...] = (
        _python,
        _home,
        _keys,
        _disk,
        _sandbox,
        _chosen_sandbox,
        _preload,
        _memory,
        _lab,
        _git,
        _control_plane,
    )
    findings = [check(home) for check in checks]
    if as_json:
        print_json([finding._asdict() for finding in findings])
    else:
        print_table(["Check", "State", ""], findings, empty="")
    if any(finding.state == "error" for finding in findings):
        raise typer.Exit(clients.EXECUTION_FAILED)


def _python(home: Path) -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    state = "ok" if sys.version_info >= (3, 11) else "error"
    return Finding("Python", state, f"{version} (3.11 or higher is needed)")


def _home(home: Path) -> Finding:
    if not home.exists():
        return Finding("Home", "ok", f"{home} does not exist yet; `bifrost up` makes it")
    if stat.S_IMODE(home.stat().st_mode) & 0o077:
        return Finding("Home", "error", f"{home} is open to other users: chmod 700 {home}")
    return Finding("Home", "ok", str(home))


def _keys(home: Path) -> Finding:
    folder = home / "keys"
    open_files = [path for path in folder.glob("*") if stat.S_IMODE(path.stat().st_mode) & 0o077]
    if open_files:
        return Finding("Keys", "error", f"{open_files[0]} is open to other users: chmod 600 {open_files[0]}")
    return Finding("Keys", "ok", "readable by their owner alone" if folder.exists() else "none yet")


def _disk(home: Path) -> Finding:
    existing = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    return Finding("Disk", "ok" if free > FREE_BYTES else "warning", f"{free // 1024**2} MB are free at {existing}")


def _sandbox(home: Path) -> Finding:
    """Tried out, not read off: what permits or forbids it differs from machine to machine."""
    asked = [sys.executable, "-m", "bifrost_kernel.forkserver.probe"]
    probe = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    if probe.returncode == 0:
        return Finding("Sandbox", "ok", f"{probe.stdout.strip()}: each execution is alone with its own files and user")
    return Finding("Sandbox", "error", probe.stdout.strip() or probe.stderr.strip().rpartition("\n")[2])


def _chosen_sandbox(home: Path) -> Finding:
    chosen = os.environ.get("BIFROST_SANDBOX", "full")
    if chosen == "full":
        return Finding("Sandbox level", "ok", "full, or no workflow runs")
    return Finding("Sandbox level", "warning", f"BIFROST_SANDBOX={chosen}: workflows may read what this user reads")


def _preload(home: Path) -> Finding:
    """Tried out as the fork server does it, without this process's environment."""
    names = [name.strip() for name in os.environ.get("BIFROST_PRELOAD", "").split(",") if name.strip()]
    if not names:
        return Finding("Preload", "ok", "nothing besides what every kernel has")
    asked = [sys.executable, "-P", "-m", "bifrost_kernel.forkserver.preloading", *names]
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    tried = subprocess.run(asked, env=kept, capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        return Finding("Preload", "error", f"importing {', '.join(names)} ends Python with {tried.returncode}")
    # A package may print something first.
    reasons = json.loads(tried.stdout.strip().rpartition("\n")[2])
    if reasons:
        return Finding("Preload", "warning", "; ".join(f"{name}: {reason}" for name, reason in reasons.items()))
    return Finding("Preload", "ok", ", ".join(names))


def _memory(home: Path) -> Finding:
    asked = [sys.executable, "-m", "bifrost_kernel.forkserver.control_groups"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    if found.returncode == 0:
        return Finding("Memory", "ok", "the system holds each execution to its memory (control groups)")
    # Not a fault: where groups are delegated to the service, whoever asks from a shell may be outside of them.
    reason = found.stdout.strip() or found.stderr.strip().rpartition("\n")[2]
    return Finding("Memory", "ok", f"limited by process, and watched for each execution (no control groups: {reason})")


def _lab(home: Path) -> Finding:
    """Tried out, too: whether JupyterLab can be started without the home."""
    # Told as text: to import the module takes longer than all other commands together.
    options = json.dumps({"hidden": [tempfile.gettempdir()], "is_required": True})
    module = "bifrost_kernel.forkserver.seclusion"
    asked = [sys.executable, "-m", module, options, "true"]
    if subprocess.run(asked, capture_output=True, check=False, timeout=60).returncode == 0:
        return Finding("JupyterLab", "ok", "its kernels and terminals do not see the home")
    return Finding("JupyterLab", "warning", "it sees the home on this machine: an author is an operator")


def _git(home: Path) -> Finding:
    if shutil.which("git"):
        return Finding("Git", "ok", "records name the commit of the code")
    return Finding("Git", "warning", "git is missing: records name the hash of the code only")


def _control_plane(home: Path) -> Finding:
    url = os.environ.get("BIFROST_URL") or clients.running_url(home)
    try:
        health = httpx.get(f"{url}/api/health", timeout=5, trust_env=False)
    except httpx.TransportError:
        return Finding("Control plane", "warning", f"nothing answers at {url}; `bifrost up` starts it")
    if health.is_error:
        return Finding("Control plane", "error", str(health.json().get("message")))
    return Finding("Control plane", "ok", f"{url}, version {health.json()['version']}")
