"""Forks kernels for people: ordinary ipykernels over zmq, whose imports were done once.

`kernel_server` starts it, in JupyterLab and in the portal, and is its only client, over one inherited socket. Requests
are JSON in SOCK_SEQPACKET messages: `{"op": "launch", "id": 7, "launch": …}` with the descriptors of standard output
and error is answered by `{"event": "launched", "id": 7, "pid": …}` with a pidfd and a pipe, on which the exit status
follows. When the socket closes, or the server dies, every kernel ends. It opens no zmq context and starts no thread
before a fork, runs no author code, and is enclosed by nothing but what its Jupyter server is enclosed by.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import sys
import tempfile
import time
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import setproctitle

from bifrost_kernel.forkserver import sandbox
from bifrost_kernel.kernel_server import MESSAGE_BYTES, InteractiveOptions, Launch

NEEDED = (
    *("ipykernel.kernelapp", "ipykernel.ipkernel", "ipykernel.zmqshell", "jupyter_client.session", "sqlite3"),
    *("tornado.gen", "tornado.platform.asyncio", "zmq.eventloop.zmqstream", "faulthandler"),
    *("IPython.core.completerlib", "IPython.core.debugger", "IPython.core.oinspect", "IPython.extensions.storemagic"),
)
"""What every kernel imports before, or with, its first cell."""


@dataclass
class Running:
    """A kernel, and the pipe on which its end is told."""

    pid: int
    status: int


class Server:
    """The loop of the fork server."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._running: dict[int, Running] = {}
        self._is_retired = False
        self._poller = select.epoll()
        self._poller.register(control.fileno(), select.EPOLLIN)

    def serve(self) -> Launch | None:
        """Answer until the client closes its end; what it returns, in a new process, is the kernel to be."""
        self._send({"event": "ready"})
        while not self._is_retired or self._running:
            for fd, _ in self._poller.poll():
                if fd != self._control.fileno():
                    self._bury(fd)
                    continue
                data, descriptors, _, _ = socket.recv_fds(self._control, MESSAGE_BYTES, 2)
                if not data:
                    self._end_all()
                    return None
                if (launch := self._answer(json.loads(data), descriptors)) is not None:
                    return launch
        return None

    def _answer(self, request: Mapping[str, Any], descriptors: Sequence[int]) -> Launch | None:
        if request["op"] == "retire":
            self._is_retired = True
            return None
        launch = Launch.model_validate(request["launch"])
        reading, writing = os.pipe()
        try:
            # Afterwards nobody could be told that there is no such folder.
            os.close(os.open(launch.folder, os.O_PATH | os.O_DIRECTORY))
            server, pid = os.getpid(), os.fork()
        except OSError as error:
            _close((*descriptors, reading, writing))
            self._send({"event": "refused", "id": request["id"], "reason": str(error)})
            return None
        if pid == 0:
            self._leave(server, descriptors)
            return launch
        self._watch(pid, writing, request["id"], reading)
        _close((*descriptors, reading))
        return None

    def _leave(self, server: int, descriptors: Sequence[int]) -> None:
        """The first steps of a kernel: a session of its own, nothing open but its streams, an end with the server's."""
        os.setsid()
        sandbox.die_with_parent(signal.SIGKILL)
        if os.getppid() != server:
            os._exit(1)
        # By their objects, too: these would close the numbers again when others have them.
        self._poller.close()
        self._control.close()
        for ours, given in enumerate((os.open(os.devnull, os.O_RDONLY), *descriptors)):
            os.dup2(given, ours)
        os.closerange(3, 1 << 20)

    def _watch(self, pid: int, writing: int, request_id: int, reading: int) -> None:
        pidfd = os.pidfd_open(pid)
        self._running[pidfd] = Running(pid, writing)
        self._poller.register(pidfd, select.EPOLLIN)
        self._send({"event": "launched", "id": request_id, "pid": pid}, (pidfd, reading))

    def _bury(self, pidfd: int) -> None:
        """Reap a kernel and what it left running; its group is its own until then."""
        running = self._running.pop(pidfd)
        self._poller.unregister(pidfd)
        _end_group(running.pid)
        _, status = os.waitpid(running.pid, 0)
        with contextlib.suppress(BrokenPipeError):
            os.write(running.status, str(os.waitstatus_to_exitcode(status)).encode())
        _close((pidfd, running.status))

    def _end_all(self) -> None:
        for running in self._running.values():
            _end_group(running.pid)

    def _send(self, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        socket.send_fds(self._control, [json.dumps(message).encode()], descriptors)


def main(arguments: Sequence[str]) -> None:
    """`… <control descriptor> <options as JSON>`: returns when the server, or the kernel that it became, ends."""
    control = socket.socket(fileno=int(arguments[0]))
    control.set_inheritable(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        prepare(InteractiveOptions.model_validate_json(arguments[1]))
    except Exception as error:  # the edge of the process: whoever waits for kernels is told why there are none
        reason = f"{type(error).__name__}: {error}"
        socket.send_fds(control, [json.dumps({"event": "impossible", "reason": reason}).encode()], [])
        raise
    launch = None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        launch = Server(control).serve()
    if launch is None:
        os._exit(0)
    run(launch)


def prepare(options: InteractiveOptions) -> None:
    """Import what kernels need; nothing that starts a thread or opens a socket.

    Raises:
        ImportError: a module to preload is not there.
    """
    setproctitle.setproctitle("bifrost: kernels for people")
    if not options.has_debugger:
        _replace_debugger()
    for name in (*NEEDED, *options.preload):
        importlib.import_module(name)
    # Reading a command line fills caches that kernels then share; it makes neither a shell nor a socket.
    sys.modules["ipykernel.kernelapp"].IPKernelApp().parse_command_line(["-f", "kernel.json"])
    gc.collect()
    gc.freeze()


def run(launch: Launch) -> None:
    """Be an ordinary kernel, from its first step to its last."""
    _become(launch)
    kernelapp = sys.modules["ipykernel.kernelapp"]
    app = kernelapp.IPKernelApp.instance()
    # The server's death ends it (see `_leave`); a poller of the parent would look for the Jupyter server there.
    app.initialize([*launch.arguments, "--IPKernelApp.parent_handle=1"])
    _adopt_widgets()
    app.start()


def _replace_debugger() -> None:
    """As if debugpy was not installed: it takes a third of the memory of a form's kernel."""
    without: Any = types.ModuleType("ipykernel.debugger")
    without._is_debugpy_available, without.Debugger = False, object
    sys.modules["ipykernel.debugger"] = without


def _become(launch: Launch) -> None:
    """What a new process would have been given, and nothing that should be unique twice."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(launch.environment)
    time.tzset()
    tempfile.tempdir = None
    os.chdir(launch.folder)
    sys.argv = ["ipykernel_launcher", *launch.arguments]
    setproctitle.setproctitle(" ".join(sys.argv))
    random.seed()
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()


def _adopt_widgets() -> None:
    """Widgets that were imported before there was a kernel do not know of it; imported in it, they would."""
    widgets = sys.modules.get("ipywidgets")
    if widgets is not None:
        widgets.register_comm_target()


def _end_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _close(descriptors: Sequence[int]) -> None:
    for fd in descriptors:
        os.close(fd)
