"""The control plane's side of the egress proxy: attach a kernel, and hear afterwards whom it talked to.

The runner calls it from many threads. A proxy that died is replaced at the next kernel; kernels that it served lose
their connections, and their figures. Without it kernels reach nobody, so that its failure never opens anything.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bifrost_kernel
import bifrost_scheduler
from bifrost_scheduler.runner.destinations import Destination, HostList

_ANSWER_SECONDS = 5.0
_MESSAGE_BYTES = 256 * 1024
_PACKAGE_FOLDERS = [str(Path(package.__path__[0]).parent) for package in (bifrost_kernel, bifrost_scheduler)]


class EgressGate:
    """One egress proxy at a time."""

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        """`allowed` are `host:port` pairs that kernels may reach although they are not public."""
        self._allowed = list(allowed)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self) -> None:
        """Start the proxy beforehand, so that the first execution need not wait for it."""
        with self._lock, contextlib.suppress(OSError):
            self._ensure()

    def attach(self, name: str, doorstep: int, lists: Sequence[HostList] = ()) -> None:
        """Serve the kernel with this doorstep; what it does is told under `name`, and each of the lists binds it."""
        told = [one.model_dump() for one in lists]
        with self._lock, contextlib.suppress(OSError):
            self._tell({"op": "attach", "name": name, "lists": told}, [doorstep])

    def detach(self, name: str) -> tuple[Destination, ...]:
        """Serve it no more; gives whom it talked to, as far as the proxy lives to tell."""
        with self._lock:
            try:
                control = self._tell({"op": "detach", "name": name})
                answer = json.loads(control.recv(_MESSAGE_BYTES))
            except (OSError, ValueError):
                self._end()
                return ()
        return tuple(Destination.model_validate(told) for told in answer["destinations"])

    def close(self) -> None:
        """End the proxy; further calls do nothing."""
        with self._lock:
            self._end()

    def _tell(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> socket.socket:
        control = self._ensure()
        socket.send_fds(control, [json.dumps(message).encode()], descriptors)
        return control

    def _ensure(self) -> socket.socket:
        if self._control is None or self._process is None or self._process.poll() is not None:
            self._end()
            self._control = self._spawn()
        return self._control

    def _spawn(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(_ANSWER_SECONDS)
        with theirs:
            command = ["-m", "bifrost_scheduler.runner.egress", str(theirs.fileno()), json.dumps(self._allowed)]
            self._process = subprocess.Popen(
                [sys.executable, "-P", *command],
                env={"PYTHONPATH": ":".join(_PACKAGE_FOLDERS), "LANG": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                cwd="/",
            )
        return ours

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._control = self._process = None
