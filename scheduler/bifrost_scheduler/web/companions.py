"""The servers for people beside the control plane: JupyterLab for authors, the portal for customers.

`serve` starts and ends them. They are ordinary clients: each gets an address, a credential of its own and nothing of
the store. Each holds one end of a pipe, its lifeline, and ends when the control plane does, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import structlog

import bifrost_kernel
from bifrost_kernel.forkserver import seclusion
from bifrost_scheduler import services as composition
from bifrost_scheduler.catalog import keyless_environment
from bifrost_scheduler.runner.courtesy import give_way
from bifrost_scheduler.services import Services
from bifrost_scheduler.settings import Settings

log = structlog.get_logger("bifrost.companions")

_KERNEL_PACKAGE_FOLDER = str(Path(bifrost_kernel.__path__[0]).parent)
_SECLUDE = "from bifrost_kernel.forkserver import seclusion; seclusion.main(sys.argv[1:])"

LAB_START_SECONDS = 30.0
END_SECONDS = 5.0
RESTART_SECONDS = (0.0, 0.5, 2.0, 5.0, 15.0)
"""Before the first, second … restart in a row of a portal that ended by itself."""
STEADY_SECONDS = 60.0
"""After this long a portal counts as well again."""


@dataclass
class Companion:
    """A server beside us."""

    name: str
    process: subprocess.Popen[bytes]
    lifeline: int
    """Closed by the system when this process ends, however it ends; the companion ends with it."""
    url: str

    def stop(self) -> None:
        """Ask it to end."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()

    def wait(self) -> None:
        """Until it has ended; its session goes with it, so that no kernel or terminal is left behind."""
        try:
            self.process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self.lifeline)


def start_lab(services: Services, url: str) -> Companion:
    """Start JupyterLab, and return when it listens, or has ended."""
    settings = services.settings
    token, key = secrets.token_urlsafe(24), secrets.token_urlsafe(32)
    services.authenticator.accept(key, composition.DEVELOPER if settings.dev else composition.OPERATOR)
    environment = {"BIFROST_URL": url, "BIFROST_API_KEY": key, "BIFROST_LAB_TOKEN": token}
    arguments = (settings.host, str(settings.lab_port), str(settings.workspace))
    process, lifeline = _start(
        "bifrost_portal.lab", arguments, environment, settings.logs_dir / "lab.log", before=_without_home(settings)
    )
    _wait_for_port(settings.lab_port, process)
    return Companion(
        "lab", process, lifeline, f"http://{shown_host(settings.host)}:{settings.lab_port}/lab?token={token}"
    )


def lab_line(services: Services, lab: Companion) -> str:
    """What people are told of it."""
    if lab.process.poll() is None:
        return lab.url
    path, port = services.settings.logs_dir / "lab.log", services.settings.lab_port
    return f"did not start: see {path} (is port {port} taken?)"


@dataclass
class Portal:
    """The customers' portal, started again whenever it ends by itself.

    The port is ours: it is open while a portal ends and the next one starts, so that browsers wait instead of failing.
    """

    services: Services
    control_plane: str
    listener: socket.socket
    _key: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    _stopping: threading.Event = field(default_factory=threading.Event)
    _companion: Companion | None = None

    @classmethod
    def start(cls, services: Services, control_plane: str) -> Portal:
        """Raises `OSError`: the port is taken."""
        settings = services.settings
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.create_server((settings.host, settings.portal_port), family=family, backlog=512)
        portal = cls(services, control_plane, listener)
        services.accept_portal(portal._key)
        portal._launch()
        threading.Thread(target=portal._keep, name="portal", daemon=True).start()
        return portal

    @property
    def url(self) -> str:
        """Where browsers find it."""
        if self.services.settings.portal_url is not None:
            return self.services.settings.portal_origin
        return f"http://{shown_host(self.services.settings.host)}:{self.listener.getsockname()[1]}"

    @property
    def pid(self) -> int:
        assert self._companion is not None
        return self._companion.process.pid

    def stop(self) -> None:
        self._stopping.set()
        if self._companion is not None:
            self._companion.stop()

    def wait(self) -> None:
        if self._companion is not None:
            self._companion.wait()
        self.listener.close()

    def _launch(self) -> None:
        settings = self.services.settings
        given = {
            "listener": self.listener.fileno(),
            "host": settings.host,
            "control_plane": self.control_plane,
            "public_url": self.url,
            "behind_proxy": urlsplit(self.url).scheme == "https",
            "allowed_hosts": list(settings.allowed_hosts),
            "portal_key": self._key,
            "cookie_secret": cookie_secret(settings),
            "kernels": settings.portal_kernels,
            "kernels_per_person": settings.portal_kernels_per_person,
            "kernel_idle_seconds": settings.portal_kernel_idle_seconds,
            "kernel_abandoned_seconds": settings.portal_kernel_abandoned_seconds,
            "session_check_seconds": settings.portal_session_check_seconds,
            "streams_per_person": settings.portal_streams_per_person,
        }
        process, lifeline = _start(
            "bifrost_portal.server",
            (),
            {"BIFROST_PORTAL_SETTINGS": json.dumps(given)},
            settings.logs_dir / "portal.log",
            pass_fds=(self.listener.fileno(),),
        )
        self._companion = Companion("portal", process, lifeline, self.url)

    def _keep(self) -> None:
        """Start it again when it ends by itself, soon at first, and less and less eagerly."""
        failures = 0
        while not self._stopping.is_set():
            companion, started = self._companion, time.monotonic()
            assert companion is not None
            status = companion.process.wait()
            if self._stopping.is_set():
                return
            os.close(companion.lifeline)
            failures = 0 if time.monotonic() - started > STEADY_SECONDS else failures + 1
            delay = RESTART_SECONDS[min(failures, len(RESTART_SECONDS)) - 1] if failures else 0.0
            log.error("portal.ended", status=status, restart_in_seconds=delay)
            if self._stopping.wait(delay):
                return
            self._launch()


def cookie_secret(settings: Settings) -> str:
    """What the portal signs its cookies with; kept, so that people stay signed in over a restart."""
    path = settings.keys_dir / "portal.key"
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(48))
    return path.read_text()


def shown_host(host: str) -> str:
    """A name that a browser on this machine can open."""
    if host in ("0.0.0.0", "::", "127.0.0.1"):  # noqa: S104
        return "localhost"
    return f"[{host}]" if ":" in host else host


def _start(
    module: str,
    arguments: tuple[str, ...],
    environment: Mapping[str, str],
    log_file: Path,
    *,
    pass_fds: tuple[int, ...] = (),
    before: tuple[str, ...] = (),
) -> tuple[subprocess.Popen[bytes], int]:
    """The process, and our end of its lifeline; what it holds comes by the environment, where `ps` does not show it.

    Args:
        before: a command that runs the command which follows it.
    """
    theirs, ours = os.pipe()
    opener: Callable[[str, int], int] = lambda path, flags: os.open(path, flags, 0o600)  # noqa: E731
    with open(log_file, "ab", opener=opener) as output, open(theirs, "rb"):
        process = subprocess.Popen(
            [*before, sys.executable, "-m", module, *arguments, str(theirs)],
            env={**keyless_environment(), "HOME": os.environ.get("HOME", "/"), **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(theirs, *pass_fds),
            start_new_session=True,
        )
    give_way(process.pid)
    return process, ours


def _without_home(settings: Settings) -> tuple[str, ...]:
    """The command that runs another one which does not see the home, nor any process of ours."""
    kept = (settings.workspace, sys.prefix, sys.base_prefix, _KERNEL_PACKAGE_FOLDER)
    options = seclusion.SeclusionOptions(hidden=(str(settings.home),), kept=tuple(map(str, kept)))
    # By the path and not by the environment, which Lab's own programs would inherit.
    code = f"import sys; sys.path.insert(0, {_KERNEL_PACKAGE_FOLDER!r}); {_SECLUDE}"
    return sys.executable, "-P", "-c", code, options.model_dump_json()


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until the server listens (a link that is printed has to work), ends, or takes too long; then the log says why."""
    deadline = time.monotonic() + LAB_START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port), timeout=1):
            return
        time.sleep(0.05)
