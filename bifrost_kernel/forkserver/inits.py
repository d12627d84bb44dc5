"""Init processes: each the first of namespaces of its own, which end with it, and into which one kernel is born.

A kernel is a copy of the fork server with everything that it imported. An init needs nothing of that, and as such a
copy it would cost as much as the kernel: so a maker is split off from the fork server while that is still small, and
forks them. The maker is asked over a socket (JSON in SOCK_SEQPACKET messages): `{"slot": 3, "network": "proxy"}` with a
doorstep is answered by `{"slot": 3}` with descriptors of the init and its namespaces, or by `{"slot": 3, "reason": …}`.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from bifrost_kernel.forkserver import sandbox
from bifrost_kernel.network import Network

_MESSAGE_BYTES = 4096
_MOST_DESCRIPTORS = 8


class MakerEnded(Exception):
    """There is nobody any more who makes inits."""


class Init(NamedTuple):
    """Descriptors of an init process that waits for its kernel."""

    pidfd: int
    pid_namespace: int
    namespaces: tuple[int, ...]
    """The others, as `sandbox.join` wants them."""

    def end(self) -> None:
        """Kill it, and every process that it is the first of; nobody has to reap it."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close_namespaces(self) -> None:
        """When the kernel is in them."""
        for descriptor in (self.pid_namespace, *self.namespaces):
            os.close(descriptor)


class Made(NamedTuple):
    """The answer to an order."""

    slot: int
    init: Init | None
    reason: str = ""
    """Why there is none."""


class Inits:
    """The fork server's end."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def fileno(self) -> int:
        return self._sock.fileno()

    def order(self, slot: int, doorstep: int, network: Network) -> None:
        """Ask for an init; it comes by `receive`. The doorstep is the init's end of a socket, see `jail.enclose`."""
        socket.send_fds(self._sock, [json.dumps({"slot": slot, "network": network}).encode()], [doorstep])

    def receive(self) -> Made:
        """The next one that is ready.

        Raises:
            MakerEnded: it was killed.
        """
        data, descriptors, _, _ = socket.recv_fds(
            self._sock, _MESSAGE_BYTES, _MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
        )
        if not data:
            raise MakerEnded
        answer = json.loads(data)
        if "reason" in answer:
            return Made(answer["slot"], None, answer["reason"])
        pidfd, pid_namespace, *namespaces = descriptors
        return Made(answer["slot"], Init(pidfd, pid_namespace, tuple(namespaces)))


def split_off(standing: sandbox.Standing) -> Inits:
    """Fork the maker, which ends with this process; to be called before anything large is imported."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        try:
            sandbox.close_all_files(theirs.fileno(), streams=False)
            _Maker(theirs, standing).serve()
        except BaseException:  # the edge of the process: nothing may unwind into the fork server's frames
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(70)
    theirs.close()
    return Inits(ours)


class _Maker:
    """The loop of the small process."""

    def __init__(self, sock: socket.socket, standing: sandbox.Standing) -> None:
        self._sock = sock
        self._standing = standing
        self._cell = sandbox.Cell(standing.enclosure)

    def serve(self) -> None:
        gc.collect()
        gc.freeze()
        # Nobody waits for an init, and an init for nothing: what ends is gone.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            data, descriptors, _, _ = socket.recv_fds(self._sock, _MESSAGE_BYTES, 1)
            if not data:
                return
            order = json.loads(data)
            self._make(order["slot"], descriptors[0], Network(order["network"]))

    def _make(self, slot: int, doorstep: int, network: Network) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            try:
                pid = self._cell.fork()
                if pid == 0:
                    _be_init(self._standing, slot, doorstep, network, theirs)
                theirs.close()
                self._pass_on(slot, os.pidfd_open(pid), ours)
            except OSError as error:
                self._answer({"slot": slot, "reason": str(error)})
            finally:
                os.close(doorstep)

    def _pass_on(self, slot: int, pidfd: int, sock: socket.socket) -> None:
        said, namespaces, _, _ = socket.recv_fds(sock, _MESSAGE_BYTES, _MOST_DESCRIPTORS)
        if namespaces:
            self._answer({"slot": slot}, (pidfd, *namespaces))
        else:
            self._answer({"slot": slot, "reason": said.decode(errors="replace") or "the first process was killed"})
        for descriptor in (pidfd, *namespaces):
            os.close(descriptor)

    def _answer(self, message: dict[str, object], descriptors: Sequence[int] = ()) -> None:
        socket.send_fds(self._sock, [json.dumps(message).encode()], descriptors)


def _be_init(standing: sandbox.Standing, slot: int, doorstep: int, network: Network, sock: socket.socket) -> NoReturn:
    """Close the door, tell which namespaces are behind it, and be there until somebody kills it."""
    try:
        pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        namespaces = sandbox.close_door(standing, slot=slot, doorstep=doorstep, network=network)
        socket.send_fds(sock, [b"closed"], (pid_namespace, *namespaces))
        # Its end of the doorstep stays open as long as this process lives: so the egress proxy learns of the end.
        sandbox.close_all_files(doorstep)
        while True:
            signal.pause()
    except OSError as error:
        sock.send(str(error).encode())
    finally:
        os._exit(70)
