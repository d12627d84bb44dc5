"""Keeps kernels ready and hands them out; the control plane is its only client, over one inherited socket.

Requests and reports are JSON in SOCK_SEQPACKET messages. `{"op": "acquire", "id": 7, "network": "proxy"}` is answered
by `{"event": "acquired", "id": 7, "kernel": "3", "folder": …}` with six descriptors: engine socket, broker socket,
console pipe, doorstep (where the listener for the egress proxy comes from at level full, and whose end is the kernel's)
and pidfds of the process to interrupt, and of the first one, with which all others end.
`{"event": "exited", "kernel": "3", "status": 0, "out_of_memory": false}` follows when they did. After
`{"op": "retire"}` the spares end, and the server with its last kernel. When the socket closes, the server ends at once
and every kernel with it. It never runs author code itself.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import json
import math
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from bifrost_kernel import models
from bifrost_kernel.forkserver import filesystem, kernel, pages, preloading, proxied, sandbox, syscalls
from bifrost_kernel.forkserver.control_groups import SlotGroups
from bifrost_kernel.forkserver.inits import Init, Inits
from bifrost_kernel.forkserver.options import ServerOptions

REFILL_AFTER_END_SECONDS = 0.004
"""How long after the end of an execution, or after a spare, the next spare is made; never while a request waits."""
REFILL_AFTER_REQUEST_SECONDS = 0.05
"""How long after a request it is made at the latest: what begins has the processors for itself first."""
SPARE_RETRY_SECONDS = 1.0
"""The same after a spare that ended by itself: whatever is wrong is not made better by trying all the time."""

_UNHURRIED_SECONDS = 0.1
"""The longest slice that Linux grants: whoever wakes up meanwhile, and waits for an answer, comes first."""
_MAX_REQUEST_BYTES = 64 * 1024


@dataclass
class Order:
    """A kernel that is to be made."""

    slot: int
    """A number that no other kernel has."""
    network: models.Network
    listener: int
    """Our end of the doorstep."""
    request_id: int | None
    """None for a spare."""


@dataclass
class Running:
    """A kernel and what belongs to it; the descriptors are the client's once it was handed out."""

    name: str
    pid: int
    """Its own, or that of the first process where that forked it."""
    pidfd: int
    init: Init | None
    slot: int
    folder: str | None
    """None when its home is a file system of its own, which goes with it."""
    descriptors: tuple[int, ...]
    handed_out: bool = False
    status: int = 0
    """How it ended: exit code, or 128 + the signal that killed it."""

    def pidfds(self) -> tuple[int, ...]:
        """The last one is of the first process."""
        return (self.pidfd,) if self.init is None else (self.pidfd, self.init.pidfd)

    def kill(self) -> None:
        """End every process of it."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfds()[-1], signal.SIGKILL)


class Server:
    """The loop of the fork server."""

    def __init__(
        self,
        control: socket.socket,
        options: ServerOptions,
        standing: sandbox.Standing,
        inits: Inits | None,
        groups: SlotGroups | None,
    ) -> None:
        """Make the kernel that all others are copies of.

        Args:
            inits: where enclosures come from; None where there are no pid namespaces.
        """
        self._control = control
        self._options = options
        self._standing = standing
        self._inits = inits
        self._groups = groups if groups is not None and groups.can_be_entered() else None
        self._cell = sandbox.Cell(standing.enclosure)
        self._not_preloaded = preloading.load(options.preload)
        self._template = kernel.build()
        if standing.level is sandbox.Level.FULL:
            proxied.trust_environment()
        # IPython makes a profile folder; kernels must not find a place that they all can write to.
        shutil.rmtree(kernel.shell_of(self._template).ipython_dir, ignore_errors=True)
        self._running: dict[int, Running] = {}
        """By pidfd, of the kernel and of its init."""
        self._ordered: dict[int, Order] = {}
        """By slot; their inits are on the way."""
        self._spares: list[Running] = []
        self._refill_at = time.monotonic()
        self._has_spare_failed = False
        self._written = b""
        """What of the shared memory a kernel will write to; none where that cannot be known."""
        self._made = 0
        self._is_retired = False
        self._poller = select.epoll()
        self._poller.register(control.fileno(), select.EPOLLIN)
        if inits is not None:
            self._poller.register(inits.fileno(), select.EPOLLIN)

    def serve(self) -> None:
        """Answer until the control plane closes its end, or the last kernel ended after it was retired.

        Raises:
            MakerEnded: no more kernels can be enclosed.
        """
        gc.collect()
        gc.freeze()
        self._written = pages.find_written(self._warm_up)
        if self._inits is not None:  # else a fork is not a kernel yet, but who forks it
            pages.take_first(self._written)
        standing = {"level": self._standing.level, "enclosure": self._standing.enclosure}
        prepared = {"not_preloaded": self._not_preloaded, "has_groups": self._groups is not None}
        self._send({"event": "ready", **standing, **prepared})
        while self._running or self._ordered or not self._is_retired:
            events = self._poller.poll(self._seconds_to_refill())
            if not events:
                self._refill()
            for fd, _ in events:
                if fd in self._running:
                    self._see_end(fd)
                elif fd != self._control.fileno():
                    self._receive_init()
                elif not self._answer():
                    return

    def _seconds_to_refill(self) -> float | None:
        if len(self._spares) + len(self._coming_spares()) >= self._options.spares or self._is_retired:
            self._refill_at = math.inf
            return None
        return max(0.0, self._refill_at - time.monotonic())

    def _refill_within(self, seconds: float) -> None:
        wait = SPARE_RETRY_SECONDS if self._has_spare_failed else seconds
        self._refill_at = min(self._refill_at, time.monotonic() + wait)

    def _refill(self) -> None:
        self._refill_at = time.monotonic() + (
            SPARE_RETRY_SECONDS if self._has_spare_failed else REFILL_AFTER_END_SECONDS
        )
        # A machine without room for a spare still answers requests, or says why it can't.
        with contextlib.suppress(OSError):
            self._order(None, models.Network.PROXY)

    def _coming_spares(self) -> list[Order]:
        return [order for order in self._ordered.values() if order.request_id is None]

    def _note_failed_spare(self) -> None:
        self._has_spare_failed = True
        self._refill_at = time.monotonic() + SPARE_RETRY_SECONDS

    def _answer(self) -> bool:
        data = self._control.recv(_MAX_REQUEST_BYTES)
        if not data:
            return False
        request = json.loads(data)
        if request["op"] == "retire":
            self._retire()
            return True
        network = models.Network(request["network"])
        try:
            if network is models.Network.PROXY and self._spares:
                self._hand_out(self._spares.pop(0), request["id"])
            elif network is models.Network.PROXY and (coming := self._coming_spares()):
                coming[0].request_id = request["id"]
                self._refill_within(REFILL_AFTER_REQUEST_SECONDS)
            else:
                self._order(request["id"], network)
        except OSError as error:
            self._refuse(request["id"], error)
        return True

    def _retire(self) -> None:
        self._is_retired = True
        for spare in self._spares:
            spare.kill()

    def _order(self, request_id: int | None, network: models.Network) -> None:
        """Have a kernel made, as soon as there is an enclosure for it."""
        listener, doorstep = _socketpair()
        order = Order(self._free_slot(), network, listener, request_id)
        try:
            if self._inits is None:
                self._fulfil(order, None, doorstep)
            else:
                self._inits.order(order.slot, doorstep, network)
                self._ordered[order.slot] = order
        except OSError:
            os.close(listener)
            raise
        finally:
            os.close(doorstep)

    def _free_slot(self) -> int:
        taken = {running.slot for running in self._running.values()} | set(self._ordered)
        return next(slot for slot in itertools.count(self._options.first_slot) if slot not in taken)

    def _receive_init(self) -> None:
        assert self._inits is not None
        slot, init, reason = self._inits.receive()
        order = self._ordered.pop(slot)
        try:
            if init is None:
                raise OSError(reason)
            self._fulfil(order, init)
        except OSError as error:
            os.close(order.listener)
            if order.request_id is None:
                self._note_failed_spare()
            else:
                self._refuse(order.request_id, error)

    def _fulfil(self, order: Order, init: Init | None, doorstep: int = -1) -> None:
        """Make the kernel that was ordered, and give it to whoever waits for it."""
        try:
            running = self._fork(order, init, doorstep)
        except OSError:
            if init is not None:
                init.end()
                os.close(init.pidfd)
            raise
        finally:
            if init is not None:
                init.close_namespaces()
        if order.request_id is not None:
            self._hand_out(running, order.request_id)
        elif self._is_retired:
            running.kill()
        else:
            self._spares.append(running)

    def _fork(self, order: Order, init: Init | None, doorstep: int) -> Running:
        group = self._groups.prepare(order.slot) if self._groups is not None else None
        with contextlib.ExitStack() as undo:
            folder = self._make_folder(undo)
            engine, ours = _socketpair()
            broker, theirs = _socketpair()
            reading, writing = os.pipe()
            undo.callback(_close, (engine, broker, reading))
            try:
                pid = self._cell.fork(group) if init is None else self._cell.fork_into(init.pid_namespace, group)
                if pid == 0:
                    be_kernel = functools.partial(self._be_kernel, order, folder, ours, theirs, writing)
                    self._be_child(order, init, doorstep, be_kernel)
            finally:
                _close((ours, theirs, writing))
            undo.pop_all()
        return self._watch(order, pid, init, folder, (engine, broker, reading, order.listener))

    def _hand_out(self, running: Running, request_id: int) -> None:
        message = {"event": "acquired", "id": request_id, "kernel": running.name, "folder": running.folder}
        self._send(message, (*running.descriptors, running.pidfd, running.pidfds()[-1]))
        _close(running.descriptors)
        running.descriptors = ()
        running.handed_out = True
        self._has_spare_failed = False
        self._refill_within(REFILL_AFTER_REQUEST_SECONDS)

    def _refuse(self, request_id: int, error: OSError) -> None:
        self._send({"event": "refused", "id": request_id, "reason": str(error)})

    def _make_folder(self, undo: contextlib.ExitStack) -> str | None:
        if self._standing.level is sandbox.Level.FULL:
            return None
        folder = tempfile.mkdtemp(prefix="kernel-", dir=self._options.folder)
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder

    def _watch(
        self, order: Order, pid: int, init: Init | None, folder: str | None, descriptors: tuple[int, ...]
    ) -> Running:
        self._made += 1
        running = Running(str(self._made), pid, os.pidfd_open(pid), init, order.slot, folder, descriptors)
        for pidfd in running.pidfds():
            self._running[pidfd] = running
            self._poller.register(pidfd, select.EPOLLIN)
        return running

    def _see_end(self, pidfd: int) -> None:
        running = self._running.pop(pidfd)
        self._poller.unregister(pidfd)
        os.close(pidfd)
        if pidfd == running.pidfd:
            _, status = os.waitpid(running.pid, 0)
            code = os.waitstatus_to_exitcode(status)
            running.status = code if code >= 0 else 128 - code
            if running in self._spares:
                self._spares.remove(running)
                self._note_failed_spare()
        if pidfd != running.pidfds()[-1]:
            running.kill()  # the first process, which is seen to end when no other is left
        else:
            self._bury(running)

    def _bury(self, running: Running) -> None:
        _close(running.descriptors)
        if self._standing.enclosure is sandbox.Enclosure.PROCESS_GROUP:
            sandbox.sweep({other.pid for other in self._running.values()})
        out_of_memory = self._groups is not None and self._groups.end(running.slot)
        if running.handed_out:
            self._refill_within(REFILL_AFTER_END_SECONDS)
            ended = {"event": "exited", "kernel": running.name, "status": running.status}
            self._send({**ended, "out_of_memory": out_of_memory})
        elif running.folder is not None:
            shutil.rmtree(running.folder, ignore_errors=True)

    def _be_child(self, order: Order, init: Init | None, doorstep: int, be_kernel: Callable[[], NoReturn]) -> NoReturn:
        try:
            if order.request_id is None:
                _set_slice(_UNHURRIED_SECONDS)
            if init is None:
                sandbox.tend(self._standing, be_kernel, slot=order.slot, doorstep=doorstep, network=order.network)
            sandbox.join(self._standing, init.namespaces, slot=order.slot)
            be_kernel()
        except BaseException:  # the edge of the process: nothing may unwind into the server's frames
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(70)

    def _be_kernel(self, order: Order, folder: str | None, sock: int, broker: int, console: int) -> NoReturn:
        _keep_only(sock, broker, console)
        _move_in(folder or filesystem.HOME, self._options, self._standing.level, order.network)
        if self._inits is None:
            pages.take(self._written)
        if not self._written and order.request_id is None:
            self._warm_up()  # which takes as long as it saves: of use only while nobody waits
        if order.request_id is None:
            _set_slice(0)
        kernel.serve(self._template, socket.socket(fileno=sock), socket.socket(fileno=broker))
        os._exit(0)

    def _warm_up(self) -> None:
        kernel.warm_up(self._template, rounds=1, cells=kernel.SPARE_CELLS)

    def _send(self, message: Mapping[str, Any], descriptors: tuple[int, ...] = ()) -> None:
        socket.send_fds(self._control, [json.dumps(message).encode()], descriptors)


def _set_slice(seconds: float) -> None:
    with contextlib.suppress(OSError):  # of use where there is such a thing
        syscalls.set_slice(seconds)


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
