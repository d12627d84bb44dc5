"""The control plane's side of the fork server: where kernels come from and how they are ended.

The runner acquires a kernel per execution; the papermill engine starts a private source for a stranger's notebook. A
fork server that dies is replaced, and takes only its own kernels with it. When packages were installed, a successor is
made ready, and from then on hands out kernels; those of the old one run to their end. Nothing here reads what a kernel
says.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import structlog

import bifrost_kernel
from bifrost_kernel import errors, installed, models
from bifrost_kernel.forkserver import control_groups, protocol, sandbox
from bifrost_kernel.forkserver.options import ServerOptions
from bifrost_scheduler.runner import courtesy

log = structlog.get_logger("bifrost.kernels")

ALLOWED_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""Variables of the control plane that a kernel may see; everything else stays behind."""

PRELOADED = ("httpx", "requests", "aiohttp")

LOOK_SECONDS = 2.0
"""How often it is looked whether packages were installed; twice the same means that the installer is done."""

_START_ATTEMPTS = 3
_FAREWELL_SECONDS = 5.0
_MESSAGE_BYTES = 64 * 1024
_DESCRIPTORS = 6
"""That a kernel comes with."""
_SLOTS = 250
"""Numbers of kernels that a fork server has for itself, before those of its successors begin."""
_SLOT_RANGES = 4
_KERNEL_PACKAGE_FOLDER = str(Path(bifrost_kernel.__path__[0]).parent)


def allowed_environment(names: Sequence[str] = ALLOWED_ENVIRONMENT) -> dict[str, str]:
    """What of this process's environment a kernel may see."""
    return {name: os.environ[name] for name in names if name in os.environ} | {"TZ": "UTC", "PYTHONUTF8": "1"}


class Standing(NamedTuple):
    """What is in force in a fork server and its kernels."""

    level: sandbox.Level
    enclosure: sandbox.Enclosure
    has_groups: bool = False
    """Whether the system itself holds each kernel, as a whole, to its memory."""


class Exit(NamedTuple):
    """How a kernel ended; the status is None when it was lost together with the fork server."""

    status: int | None
    out_of_memory: bool = False


class _Wanted(NamedTuple):
    """What somebody waits for."""

    kernel: Future[Kernel]
    network: models.Network


class Kernel:
    """One warm kernel, for one execution; `close` frees all that it holds."""

    def __init__(
        self,
        name: str,
        folder: str | None,
        standing: Standing,
        descriptors: Sequence[int],
        exited: Future[Exit],
        janitor: Executor,
    ) -> None:
        engine, broker, console, doorstep, pidfd, first = descriptors
        self.name = name
        self.folder = folder
        """Its private folder: working folder, HOME and temporary files; None when it is in no file system of ours."""
        self.standing = standing
        self.kernel_socket = socket.socket(fileno=engine)
        self.broker_socket = socket.socket(fileno=broker)
        """The control plane's end."""
        self.console = console
        """The reading end of the pipe behind descriptors 1 and 2: output of subprocesses and C code."""
        self.doorstep = doorstep
        """Where the listener for the egress proxy comes from at level full; it ends with the kernel."""
        self.pidfds = (pidfd, first)
        """Of the process that runs the code, and of the first one, with which all others end: of both trees."""
        self._exited = exited
        self._janitor = janitor
        self._lock = threading.Lock()
        self._closed = False

    def configure(self, setup: models.KernelSetup) -> None:
        """Tell the kernel whose execution it is; to be called before the first cell."""
        frame = protocol.pack(protocol.Kind.SETUP, setup.model_dump_json().encode())
        self.kernel_socket.sendall(frame)

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the code that runs, or cancel what it awaits."""
        self._signal(self.pidfds[0], signal.SIGINT)

    def kill(self) -> None:
        """End every process of the kernel."""
        # Nothing milder: without namespaces a workflow could have stopped the first process. Its orphans then come to
        # the fork server, which sweeps them up.
        self._signal(self.pidfds[1], signal.SIGKILL)

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """The exit status, or None when it still runs after the timeout.

        The status is the kernel's exit code, 128 + n when signal n killed it, and negative when it was lost together
        with the fork server.
        """
        try:
            status = self._exited.result(timeout_seconds).status
        except TimeoutError:
            return None
        return -signal.SIGKILL if status is None else status

    def ran_out_of_memory(self) -> bool:
        """Whether it has ended because its control group had no more."""
        return self._exited.done() and self._exited.result().out_of_memory

    def close(self) -> None:
        """Kill what still runs and free the descriptors; further calls do nothing.

        Its folder is removed in the background when every process is gone, which an outcome need not wait for.
        """
        with self._lock:
            if self._closed:
                return
            self.kill()
            self._closed = True
        self.kernel_socket.close()
        self.broker_socket.close()
        _close_all((self.console, self.doorstep, *self.pidfds))
        if self.folder is not None:
            # After the source closed there is no janitor, and no folder either.
            with contextlib.suppress(RuntimeError):
                self._janitor.submit(self._remove, self.folder)

    def _remove(self, folder: str) -> None:
        self.wait(_FAREWELL_SECONDS)
        shutil.rmtree(folder, ignore_errors=True)

    def _signal(self, pidfd: int, number: signal.Signals) -> None:
        if not self._closed:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)


class _Generation:
    """One fork server process: its control socket, its process, and the kernels that die with it."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self.process = process
        self.control = control
        self.standing: Standing | None = None
        self.not_preloaded: Mapping[str, str] = {}
        self.exits: dict[str, Future[Exit]] = {}

    def end(self) -> None:
        """End the process and answer for the kernels that went with it."""
        self.control.close()
        self.process.kill()
        self.process.wait()
        for exited in self.exits.values():
            exited.set_result(Exit(None))
        self.exits.clear()


class KernelSource:
    """A fork server and the thread that keeps it alive."""

    def __init__(self, options: ServerOptions, *, package_folders: Sequence[str] | None, look_seconds: float) -> None:
        self._options = options
        self._package_folders = package_folders
        self._look_seconds = look_seconds
        self._ids = itertools.count(1)
        self._made = itertools.count()
        self._lock = threading.Lock()
        self._wanted: dict[int, _Wanted] = {}
        self._generation: _Generation | None = None
        """Whom kernels are asked of."""
        self._coming: _Generation | None = None
        """Its successor, which is not ready yet."""
        self._alive: list[_Generation] = []
        """All of them, with those whose last kernels still run."""
        self._installed = self._seen = installed.read_stamp(package_folders)
        self._standing: Future[Standing] = Future()
        self._refusal: str | None = None
        self._closing = False
        self._janitor = ThreadPoolExecutor(1, thread_name_prefix="bifrost-janitor")
        # The fork server dies with the *thread* that started it, so that thread must live as long as the source.
        self._keeper = threading.Thread(target=self._keep, name="bifrost-kernels", daemon=True)

    @classmethod
    def start(
        cls,
        *,
        spares: int = 2,
        environment: Mapping[str, str] | None = None,
        working_folder: str | None = None,
        preload: Sequence[str] = PRELOADED,
        limits: sandbox.Limits | None = None,
        control_group: str | None = None,
        namespaces: bool = True,
        level: sandbox.Level = sandbox.Level.NONE,
        visible: Sequence[str] = (),
        hidden: Sequence[str] = (),
        home_bytes: int = 256 * 1024 * 1024,
        folder_prefix: str = "bifrost-",
        package_folders: Sequence[str] | None = None,
        look_seconds: float = LOOK_SECONDS,
    ) -> KernelSource:
        """Start a fork server and return at once.

        Args:
            spares: kernels that are kept ready.
            environment: all that kernels see; None means `allowed_environment()`.
            working_folder: where kernels start; None means in a private folder each.
            preload: modules to import once for all kernels; see `find_not_preloaded`.
            control_group: see `ServerOptions`.
            namespaces: False forgoes pid namespaces even where they are permitted; without effect at level full.
            level: what kernels are enclosed by; where it cannot be had, none is handed out.
            visible: folders that kernels read at level full, beside the system and Python.
            hidden: folders that they don't, wherever they lie.
            home_bytes: size of a kernel's home at level full.
            folder_prefix: what the name of its temporary folder begins with.
            package_folders: where to look for what was installed; None means wherever this interpreter does.
            look_seconds: how often.
        """
        options = ServerOptions(
            folder=tempfile.mkdtemp(prefix=folder_prefix),
            spares=spares,
            environment=dict(allowed_environment() if environment is None else environment),
            working_folder=working_folder,
            preload=tuple(preload),
            limits=limits or sandbox.Limits(),
            control_group=control_group,
            namespaces=namespaces,
            level=level,
            visible=tuple(visible),
            hidden=tuple(hidden),
            home_bytes=home_bytes,
        )
        source = cls(options, package_folders=package_folders, look_seconds=look_seconds)
        source._keeper.start()
        return source

    def wait_ready(self, timeout_seconds: float = 60) -> Standing:
        """Wait for the first fork server; returns what is in force.

        Raises:
            Unavailable: it does not start, or kernels cannot be enclosed as they should be.
        """
        try:
            return self._standing.result(timeout_seconds)
        except TimeoutError as error:
            raise errors.Unavailable("the fork server does not get ready") from error

    def acquire(self, *, network: models.Network = models.Network.PROXY, timeout_seconds: float = 60) -> Kernel:
        """A kernel that nobody used before; safe to call from many threads.

        Args:
            network: with `host` it has the network of the machine, at every level.

        Raises:
            Unavailable: no kernel could be made, or the source is closed.
        """
        wanted = _Wanted(Future(), network)
        with self._lock:
            if self._closing:
                raise errors.Unavailable(self._refusal or "kernels are not handed out any more: the runner is closing")
            request_id = next(self._ids)
            self._wanted[request_id] = wanted
            self._request(request_id)
        try:
            return wanted.kernel.result(timeout_seconds)
        except TimeoutError as error:
            with self._lock:
                waits_no_more = self._wanted.pop(request_id, None) is None
            if waits_no_more:
                return wanted.kernel.result()
            raise errors.Unavailable(f"no kernel within {timeout_seconds} s") from error

    def find_refusal(self) -> str | None:
        """Why kernels cannot be enclosed as they should be; None when they can, or it is not known yet."""
        return self._refusal

    def find_not_preloaded(self) -> Mapping[str, str]:
        """Modules that the fork server could not import, each with the reason; kernels do without."""
        generation = self._generation
        return generation.not_preloaded if generation is not None else {}

    def fork_server_pid(self) -> int | None:
        """The process that answers at the moment; None while there is none."""
        generation = self._generation
        return generation.process.pid if generation is not None else None

    def close(self) -> None:
        """End the fork server and every kernel of it; further calls do nothing."""
        with self._lock:
            self._closing = True
            for generation in self._alive:
                with contextlib.suppress(OSError):
                    generation.control.shutdown(socket.SHUT_RDWR)
        self._keeper.join()
        self._janitor.shutdown()
        shutil.rmtree(self._options.folder, ignore_errors=True)
        if self._options.control_group is not None:
            control_groups.remove(Path(self._options.control_group))

    def _request(self, request_id: int) -> None:
        """Ask the fork server; when there is none, the keeper asks the next one."""
        if self._generation is not None and self._generation.standing is not None:
            with contextlib.suppress(OSError):
                request = {"op": "acquire", "id": request_id, "network": self._wanted[request_id].network}
                self._generation.control.send(json.dumps(request).encode())

    def _keep(self) -> None:
        failures = 0
        while not self._closing and self._refusal is None and failures < _START_ATTEMPTS:
            failures = 0 if self._keep_one() else failures + 1
        for generation in list(self._alive):
            self._bury(generation)
        self._give_up()

    def _keep_one(self) -> bool:
        """Start a fork server and stay until it, with all its successors, ended; tells whether it ever got ready."""
        try:
            self._generation = generation = self._spawn()
        except OSError:
            return False
        look_at = time.monotonic() + self._look_seconds
        while self._generation is not None:
            self._listen(timeout_seconds=max(0.0, look_at - time.monotonic()))
            if time.monotonic() >= look_at:
                self._look()
                look_at = time.monotonic() + self._look_seconds
        return generation.standing is not None

    def _spawn(self) -> _Generation:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        first_slot = next(self._made) % _SLOT_RANGES * _SLOTS
        options = self._options._replace(first_slot=first_slot).to_json()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "bifrost_kernel.forkserver", str(theirs.fileno()), options],
                env={**allowed_environment(), "HOME": self._options.folder, "PYTHONPATH": _KERNEL_PACKAGE_FOLDER},
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        courtesy.give_way(process.pid)
        generation = _Generation(process, ours)
        with self._lock:
            self._alive.append(generation)
            if self._closing:
                ours.shutdown(socket.SHUT_RDWR)
        return generation

    def _look(self) -> None:
        """Start a successor when something was installed, and the installer is done."""
        before, self._seen = self._seen, installed.read_stamp(self._package_folders)
        if self._seen != before or self._seen == self._installed or self._coming is not None:
            return
        self._installed = self._seen
        with contextlib.suppress(OSError):
            self._coming = self._spawn()

    def _listen(self, timeout_seconds: float) -> None:
        poller = select.poll()
        by_descriptor = {generation.control.fileno(): generation for generation in self._alive}
        for descriptor in by_descriptor:
            poller.register(descriptor, select.POLLIN)
        for descriptor, _ in poller.poll(timeout_seconds * 1000):
            self._receive(by_descriptor[descriptor])

    def _receive(self, generation: _Generation) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(generation.control, _MESSAGE_BYTES, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            data, fds = b"", []
        if data:
            self._heed(generation, json.loads(data), fds)
        else:
            self._bury(generation)

    def _bury(self, generation: _Generation) -> None:
        """It ended. What was asked of it, and not answered, is asked of whoever is there, or comes."""
        with self._lock:
            self._alive.remove(generation)
            if generation is self._coming:
                self._coming = None
                log.error("kernels.no_successor", message="the fork server from before the installation goes on")
            if generation is self._generation:
                self._generation, self._coming = self._coming, None
                if not self._closing and self._refusal is None:
                    log.error("kernels.fork_server_ended", pid=generation.process.pid)
        generation.end()
        with self._lock:
            self._ask_again()

    def _ask_again(self) -> None:
        for request_id in self._wanted:
            self._request(request_id)

    def _heed(self, generation: _Generation, message: Mapping[str, Any], fds: Sequence[int]) -> None:
        match message["event"]:
            case "ready":
                generation.not_preloaded = message["not_preloaded"]
                level, enclosure = sandbox.Level(message["level"]), sandbox.Enclosure(message["enclosure"])
                self._set_ready(generation, Standing(level, enclosure, message["has_groups"]))
            case "impossible" if generation is self._generation:
                self._refusal = message["reason"]
            case "acquired":
                self._deliver(generation, message, fds)
            case "exited":
                exited = generation.exits.pop(message["kernel"], None)
                if exited is not None:
                    exited.set_result(Exit(message["status"], message["out_of_memory"]))
            case "refused":
                self._refuse(message["id"], f"the fork server cannot start a kernel: {message['reason']}")

    def _set_ready(self, generation: _Generation, standing: Standing) -> None:
        for name, reason in generation.not_preloaded.items():
            log.warning("kernels.not_preloaded", module=name, reason=reason)
        with self._lock:
            generation.standing = standing
            if generation is self._coming:
                self._coming = None
                self._succeed(generation)
            else:
                self._ask_again()
        if not self._standing.done():
            self._standing.set_result(standing)

    def _succeed(self, generation: _Generation) -> None:
        """Ask this one from now on; the old one answers what it was asked before, and ends with its last kernel."""
        before, self._generation = self._generation, generation
        if before is not None:
            with contextlib.suppress(OSError):
                before.control.send(json.dumps({"op": "retire"}).encode())
        log.info("kernels.replaced", pid=generation.process.pid)

    def _deliver(self, generation: _Generation, message: Mapping[str, Any], fds: Sequence[int]) -> None:
        if len(fds) != _DESCRIPTORS:
            _close_all(fds)
            self._refuse(message["id"], "the control plane has too many open files")
            return
        assert generation.standing is not None
        exited: Future[Exit] = Future()
        generation.exits[message["kernel"]] = exited
        kernel = Kernel(message["kernel"], message["folder"], generation.standing, fds, exited, self._janitor)
        with self._lock:
            wanted = self._wanted.pop(message["id"], None)
            if wanted is not None:
                wanted.kernel.set_result(kernel)
        if wanted is None:
            kernel.close()

    def _refuse(self, request_id: int, reason: str) -> None:
        with self._lock:
            wanted = self._wanted.pop(request_id, None)
        if wanted is not None:
            wanted.kernel.set_exception(errors.Unavailable(reason))

    def _give_up(self) -> None:
        reason = self._refusal or ("the runner is closing" if self._closing else "the fork server does not start")
        with self._lock:
            self._closing = True
            wanted = list(self._wanted)
        for request_id in wanted:
            self._refuse(request_id, reason)
        if not self._standing.done():
            self._standing.set_exception(errors.Unavailable(reason))


def _close_all(descriptors: Sequence[int]) -> None:
    for fd in descriptors:
        os.close(fd)
