"""The fork server of a Jupyter server, as that server sees it: asks for kernels, and starts the next one when it must.

`provisioner` launches kernels through it; JupyterLab and the portal start it early, so that the first notebook need not
wait. The process itself is `forkserver.interactive`. There is one for each Jupyter server, because its kernels may see
what that server sees and nothing of what another one does. Nothing here reads what a kernel says.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from traitlets import Bool, List, Unicode
from traitlets.config import SingletonConfigurable

from bifrost_kernel import errors, installed, models

INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV", "SSL_CERT_FILE")
"""All that the fork server gets of the Jupyter server's environment; each kernel is then given its own."""

MESSAGE_BYTES = 256 * 1024
_SERVE = (
    "import sys; del sys.path[0]; from bifrost_kernel.forkserver import interactive; interactive.main(sys.argv[1:])"
)
"""Not by `-m`, since `__main__` becomes the notebook's; nor with `-P`, which IPython heeds: no notebook could import
what lies beside it."""
_ANSWER_SECONDS = 60.0
_END_SECONDS = 5.0
_ATTEMPTS = 2


class Launch(models.Frozen):
    """What one kernel is started with; its standard output and error go along as descriptors."""

    arguments: tuple[str, ...]
    """Of `ipykernel_launcher`."""
    environment: dict[str, str]
    """The whole of it."""
    folder: str
    """Where it starts."""


class InteractiveOptions(models.Frozen):
    """What a fork server for people's kernels is started with."""

    preload: tuple[str, ...] = ()
    """Modules that are imported once for all kernels."""
    has_debugger: bool = True


class Forked(NamedTuple):
    """A kernel that has just been forked; both descriptors belong to whoever asked for it."""

    pid: int
    pidfd: int
    status: int
    """A pipe: the exit status as text when the kernel ended, or just the end of it when the fork server did."""


class _Process:
    """One fork server process. It ends when its socket is closed, and every kernel with it."""

    def __init__(self, options: InteractiveOptions, stamp: str) -> None:
        self.stamp = stamp
        self._ids = itertools.count(1)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(_ANSWER_SECONDS)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, str(theirs.fileno()), options.model_dump_json()],
                env={name: os.environ[name] for name in INHERITED if name in os.environ},
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Raises `Unavailable`: it does not start; `ConnectionError`: it ended."""
        answer, _ = self._receive()
        if answer["event"] != "ready":
            raise errors.Unavailable(f"Kernels cannot be started: {answer['reason']}")

    def launch(self, wanted: Launch, stdout: int, stderr: int) -> Forked:
        """Raises `Unavailable`: it says why not; `OSError`: it is gone."""
        request = {"op": "launch", "id": next(self._ids), "launch": wanted.model_dump()}
        socket.send_fds(self._control, [json.dumps(request).encode()], [stdout, stderr])
        answer, descriptors = self._receive()
        if answer["event"] != "launched":
            raise errors.Unavailable(f"The kernel cannot be started: {answer['reason']}")
        pidfd, status = descriptors
        return Forked(answer["pid"], pidfd, status)

    def retire(self) -> None:
        """Take no further launch, and end when the last kernel did."""
        with contextlib.suppress(OSError):
            self._control.send(json.dumps({"op": "retire"}).encode())

    def end(self) -> None:
        """End it now, with every kernel that it still has."""
        self._control.close()
        try:
            self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def _receive(self) -> tuple[Mapping[str, Any], list[int]]:
        data, descriptors, _, _ = socket.recv_fds(self._control, MESSAGE_BYTES, 2, socket.MSG_CMSG_CLOEXEC)
        if not data:
            raise ConnectionResetError("the fork server has ended")
        return json.loads(data), descriptors


class KernelServer(SingletonConfigurable):
    """The one fork server of this process, and those before it whose kernels still run."""

    preload: List[str] = List(Unicode(), help="Modules that are imported once for all kernels.").tag(config=True)
    has_debugger = Bool(True, help="Whether kernels offer a debugger.").tag(config=True)
    package_folders: List[str] = List(Unicode(), help="Where packages lie; none is wherever Python looks.").tag(
        config=True
    )

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._lock = threading.Lock()
        self._current: _Process | None = None
        self._retired: list[_Process] = []

    @property
    def pid(self) -> int | None:
        """Of the process that the next kernel comes from; None before there is one."""
        return None if self._current is None else self._current.process.pid

    def start_early(self) -> None:
        """Have it ready, soon, before the first kernel is asked for; whoever asks is told if it does not start."""
        threading.Thread(target=self._start_early, name="kernel-server", daemon=True).start()

    def _start_early(self) -> None:
        with self._lock, contextlib.suppress(errors.Unavailable):
            self._ready()

    def launch(self, wanted: Launch, stdout: int, stderr: int) -> Forked:
        """A new kernel; safe to call from many threads, blocks for some milliseconds.

        A fork server that has died is replaced, and so is one that was started before something was installed: who
        restarts a kernel after that wants it to have the new version.

        Raises:
            Unavailable: no kernel can be started; the text says why.
        """
        with self._lock:
            for _ in range(_ATTEMPTS):
                process = self._ready()
                try:
                    return process.launch(wanted, stdout, stderr)
                except OSError as error:
                    self._discard(process)
                    reason = error
        raise errors.Unavailable(f"The kernel cannot be started: {reason}")

    def close(self) -> None:
        """End it, its predecessors and all kernels."""
        with self._lock:
            for process in (*self._retired, *([self._current] if self._current is not None else [])):
                process.end()
            self._retired, self._current = [], None

    def _ready(self) -> _Process:
        current, stamp = self._current, installed.read_stamp(self.package_folders or None)
        if current is not None and current.stamp == stamp and not current.has_ended():
            return current
        coming = self._start(stamp)
        if current is not None:
            current.retire()
            self._retired = [*(one for one in self._retired if not self._is_over(one)), current]
        self._current = coming
        return coming

    def _start(self, stamp: str) -> _Process:
        options = InteractiveOptions(preload=tuple(self.preload), has_debugger=self.has_debugger)
        process = _Process(options, stamp)
        try:
            process.wait_ready()
        except OSError as error:
            process.end()
            raise errors.Unavailable(f"Kernels cannot be started: {error}; this server's log says more.") from error
        except errors.Unavailable:
            process.end()
            raise
        return process

    def _discard(self, process: _Process) -> None:
        process.end()
        self._current = None

    @staticmethod
    def _is_over(process: _Process) -> bool:
        if not process.has_ended():
            return False
        process.end()
        return True
