"""Keeps kernels ready and hands them out; the control plane is its only client, over one inherited socket.

Requests and reports are JSON in SOCK_SEQPACKET messages. `{"op": "acquire", "id": 7, "network": "proxy"}` is answered
by `{"event": "acquired", "id": 7, "kernel": "3", "folder": …}` with five descriptors: engine socket, broker socket,
console pipe, doorstep (where the listener for the egress proxy comes from at level full, and whose end is the kernel's)
and a pidfd of the first process. `{"event": "exited", "kernel": "3", "status": 0, "out_of_memory": false}` follows
when it ends. After `{"op": "retire"}` the spares end, and the server with its last kernel.
When the socket closes, the server ends at once and every kernel with it. It never runs author code itself.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from bifrost_kernel import models
from bifrost_kernel.forkserver import filesystem, kernel, pages, preloading, proxied, sandbox
from bifrost_kernel.forkserver.control_groups import SlotGroups
from bifrost_kernel.forkserver.options import ServerOptions

REFILL_AFTER_IDLE_MS = 20
"""Spares are made when no request came for this long, so that a burst never waits for them."""

_MAX_REQUEST_BYTES = 64 * 1024


SPARE_RETRY_SECONDS = 1.0
"""The same after a spare that ended by itself: whatever is wrong is not made better by trying all the time."""


@dataclass
class Running:
    """A first process and what belongs to it; the descriptors are the client's once it was handed out."""

    name: str
    pid: int
    pidfd: int
    slot: int
    """A number that no other running kernel has."""
    folder: str | None
    """None when its home is a file system of its own, which goes with it."""
    descriptors: tuple[int, ...]
    handed_out: bool = False


class Server:
    """The loop of the fork server."""

    def __init__(
        self, control: socket.socket, options: ServerOptions, standing: sandbox.Standing, groups: SlotGroups | None
    ) -> None:
        """Make the kernel that all others are copies of.

        Raises:
            NotPermitted: kernels cannot be enclosed as they should be.
        """
        self._control = control
        self._options = options
        self._standing = standing
        self._groups = groups if groups is not None and groups.can_be_entered() else None
        self._cell = sandbox.Cell(standing.enclosure)
        if standing.level is not sandbox.Level.NONE:
            sandbox.rehearse(standing, self._cell)
        self._not_preloaded = preloading.load(options.preload)
        self._template = kernel.build()
        if standing.level is sandbox.Level.FULL:
            proxied.trust_environment()
        # IPython makes a profile folder; kernels must not find a place that they all can write to.
        shutil.rmtree(kernel.shell_of(self._template).ipython_dir, ignore_errors=True)
        self._running: dict[int, Running] = {}
        self._spares: list[Running] = []
        self._has_spare_failed = False
        self._written = b""
        """What of the shared memory a kernel will write to; none where that cannot be known."""
        self._made = 0
        self._is_retired = False
        self._poller = select.epoll()
        self._poller.register(control.fileno(), select.EPOLLIN)

    def serve(self) -> None:
        """Answer until the control plane closes its end, or the last kernel ended after it was retired."""
        gc.collect()
        gc.freeze()
        self._written = pages.find_written(self._warm_up, self._cell.fork)
        standing = {"level": self._standing.level, "enclosure": self._standing.enclosure}
        prepared = {"not_preloaded": self._not_preloaded, "has_groups": self._groups is not None}
        self._send({"event": "ready", **standing, **prepared})
        while self._running or not self._is_retired:
            events = self._poller.poll(self._idle_seconds())
            if not events:
                self._refill()
            for fd, _ in events:
                if fd != self._control.fileno():
                    self._bury(fd)
                elif not self._answer():
                    return

    def _idle_seconds(self) -> float | None:
        if len(self._spares) >= self._options.spares or self._is_retired:
            return None
        return SPARE_RETRY_SECONDS if self._has_spare_failed else REFILL_AFTER_IDLE_MS / 1000

    def _refill(self) -> None:
        # A machine without room for a spare still answers requests, or says why it can't.
        with contextlib.suppress(OSError):
            self._spares.append(self._start(spare=True))

    def _answer(self) -> bool:
        data = self._control.recv(_MAX_REQUEST_BYTES)
        if not data:
            return False
        request = json.loads(data)
        if request["op"] == "retire":
            self._retire()
            return True
        try:
            running = self._take_or_start(models.Network(request["network"]))
        except OSError as error:
            self._send({"event": "refused", "id": request["id"], "reason": str(error)})
            return True
        self._hand_out(running, request["id"])
        return True

    def _retire(self) -> None:
        self._is_retired = True
        for spare in self._spares:
            signal.pidfd_send_signal(spare.pidfd, signal.SIGKILL)

    def _take_or_start(self, network: models.Network) -> Running:
        if network is models.Network.PROXY and self._spares:
            return self._spares.pop(0)
        return self._start(spare=False, network=network)

    def _hand_out(self, running: Running, request_id: int) -> None:
        message = {"event": "acquired", "id": request_id, "kernel": running.name, "folder": running.folder}
        self._send(message, (*running.descriptors, running.pidfd))
        _close(running.descriptors)
        running.descriptors = ()
        running.handed_out = True
        self._has_spare_failed = False

    def _bury(self, pidfd: int) -> None:
        running = self._running.pop(pidfd)
        self._poller.unregister(pidfd)
        _, status = os.waitpid(running.pid, 0)
        _close((pidfd, *running.descriptors))
        if self._standing.enclosure is sandbox.Enclosure.PROCESS_GROUP:
            sandbox.sweep({other.pid for other in self._running.values()})
        out_of_memory = self._groups is not None and self._groups.end(running.slot)
        if running.handed_out:
            code = os.waitstatus_to_exitcode(status)
            self._send({"event": "exited", "kernel": running.name, "status": code, "out_of_memory": out_of_memory})
            return
        self._spares.remove(running)
        self._has_spare_failed = True
        if running.folder is not None:
            shutil.rmtree(running.folder, ignore_errors=True)

    def _start(self, *, spare: bool, network: models.Network = models.Network.PROXY) -> Running:
        slot = self._free_slot()
        group = self._groups.prepare(slot) if self._groups is not None else None
        with contextlib.ExitStack() as undo:
            folder = self._make_folder(undo)
            home = folder or filesystem.HOME
            engine, ours = _socketpair()
            broker, theirs = _socketpair()
            reading, writing = os.pipe()
            proxy, doorstep = _socketpair()
            undo.callback(_close, (engine, broker, reading, proxy))
            try:
                pid = self._cell.fork(group)
                if pid == 0:
                    be_kernel = functools.partial(
                        self._be_kernel, home, ours, theirs, writing, warm=spare, network=network
                    )
                    self._be_first_process(be_kernel, slot, doorstep, network)
            finally:
                _close((ours, theirs, writing, doorstep))
            undo.pop_all()
        return self._watch(pid, slot, folder, (engine, broker, reading, proxy))

    def _make_folder(self, undo: contextlib.ExitStack) -> str | None:
        if self._standing.level is sandbox.Level.FULL:
            return None
        folder = tempfile.mkdtemp(prefix="kernel-", dir=self._options.folder)
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder

    def _free_slot(self) -> int:
        taken = {running.slot for running in self._running.values()}
        return next(slot for slot in itertools.count(self._options.first_slot) if slot not in taken)

    def _watch(self, pid: int, slot: int, folder: str | None, descriptors: tuple[int, ...]) -> Running:
        self._made += 1
        running = Running(str(self._made), pid, os.pidfd_open(pid), slot, folder, descriptors)
        self._running[running.pidfd] = running
        self._poller.register(running.pidfd, select.EPOLLIN)
        return running

    def _be_first_process(
        self, be_kernel: Callable[[], NoReturn], slot: int, doorstep: int, network: models.Network
    ) -> NoReturn:
        try:
            sandbox.tend(self._standing, be_kernel, slot=slot, doorstep=doorstep, network=network)
        except BaseException:  # the edge of the process: nothing may unwind into the server's frames
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(70)

    def _be_kernel(
        self, folder: str, sock: int, broker: int, console: int, *, warm: bool, network: models.Network
    ) -> NoReturn:
        code = 70
        try:
            os.setpgid(0, 0)  # and no session: that of the first process is a nice one
            _keep_only(sock, broker, console)
            _move_in(folder, self._options, self._standing.level, network)
            if warm:  # touching the pages takes as long as it saves: of use only while nobody waits
                self._get_ahead()
            kernel.serve(self._template, socket.socket(fileno=sock), socket.socket(fileno=broker))
            code = 0
        except BaseException:  # the edge of the process: nothing may unwind into the server's frames
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(code)

    def _get_ahead(self) -> None:
        if self._written:
            pages.take(self._written)
        else:
            self._warm_up()

    def _warm_up(self) -> None:
        kernel.warm_up(self._template, rounds=1, cells=kernel.SPARE_CELLS)

    def _send(self, message: Mapping[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        socket.send_fds(self._control, [json.dumps(message).encode()], descriptors)


def main(arguments: list[str]) -> None:
    """`python -m bifrost_kernel.forkserver <control descriptor> <options as JSON>`."""
    control = socket.socket(fileno=int(arguments[0]))
    control.set_inheritable(False)
    options = ServerOptions.model_validate_json(arguments[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        try:
            # Before the root changes, below which there are none.
            groups = _open_groups(options)
            standing = _enter(options)
            Server(control, options, standing, groups).serve()
        except sandbox.NotPermitted as error:
            socket.send_fds(control, [json.dumps({"event": "impossible", "reason": str(error)}).encode()], ())
            os._exit(1)
    # No unwinding: as the first process of its namespace, the end of this one is the end of all kernels.
    if standing.enclosure is sandbox.Enclosure.PROCESS_GROUP:
        sandbox.sweep(set())
    os._exit(0)


def _open_groups(options: ServerOptions) -> SlotGroups | None:
    if options.control_group is None:
        return None
    limits = options.limits
    return SlotGroups(options.control_group, memory_bytes=limits.memory_bytes, processes=limits.processes)


def _enter(options: ServerOptions) -> sandbox.Standing:
    standing = sandbox.enter(
        options.level,
        options.folder,
        namespaces=options.namespaces,
        visible=options.visible,
        hidden=options.hidden,
        home_bytes=options.home_bytes,
    )
    if standing.level is sandbox.Level.FULL:
        os.environ["HOME"] = filesystem.HOME
    return standing


def _socketpair() -> tuple[int, int]:
    left, right = socket.socketpair()
    return left.detach(), right.detach()


def _close(descriptors: tuple[int, ...]) -> None:
    for fd in descriptors:
        os.close(fd)


def _keep_only(sock: int, broker: int, console: int) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(console, 1)
    os.dup2(console, 2)
    low, high = sorted((sock, broker))
    os.closerange(3, low)
    os.closerange(low + 1, high)
    os.closerange(high + 1, 1 << 20)


def _move_in(folder: str, options: ServerOptions, level: sandbox.Level, network: models.Network) -> None:
    os.environ.clear()
    os.environ.update({**options.environment, "TMPDIR": folder})
    if level is sandbox.Level.FULL and network is models.Network.PROXY:
        os.environ.update(proxied.ENVIRONMENT)
    os.environ.setdefault("HOME", folder)
    tempfile.tempdir = folder  # which is found by writing to it otherwise
    os.chdir(options.working_folder or folder)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    options.limits.apply(own_user=level is sandbox.Level.FULL)
