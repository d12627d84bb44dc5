"""What encloses a kernel: namespaces, limits, and the init process that ends with everything below it.

Called by the fork server only. Mount and network namespaces, system call filters and the change of user belong here
too; what is in force is always said as a `Level`, never assumed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Callable
from enum import StrEnum
from typing import NoReturn

from bifrost_kernel import models

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWPID = 0x20000000
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


class Level(StrEnum):
    """What keeps the processes of one execution together."""

    PID_NAMESPACE = "pid_namespace"
    """Own pid namespaces: the end of the first process ends every process, whatever it did to hide."""
    PROCESS_GROUP = "process_group"
    """Sessions and a sweep of orphans, where the machine permits no namespaces."""


class Limits(models.Frozen):
    """Resource limits of each kernel; None leaves what the machine gives."""

    memory_bytes: int | None = None
    """Address space (RLIMIT_AS)."""
    processes: int | None = None
    """Processes of the same user (RLIMIT_NPROC); does not bind root."""
    file_bytes: int | None = None
    """Size of one file (RLIMIT_FSIZE)."""

    def apply(self) -> None:
        """Bind this process and its children."""
        for kind, value in (
            (resource.RLIMIT_AS, self.memory_bytes),
            (resource.RLIMIT_NPROC, self.processes),
            (resource.RLIMIT_FSIZE, self.file_bytes),
        ):
            if value is not None:
                resource.setrlimit(kind, (value, value))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def enter(*, namespaces: bool) -> Level:
    """Become the first process of a new pid namespace, or the reaper of orphans where that is not permitted.

    On success the calling process stays behind as a mere parent that exits with its child; this function returns in
    the child. `namespaces=False` takes the second way at once.
    """
    die_with_parent(signal.SIGKILL)
    if namespaces and _unshare_pids():
        _leave_the_parent_behind()
        return Level.PID_NAMESPACE
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    return Level.PROCESS_GROUP


def die_with_parent(signal_number: signal.Signals) -> None:
    """Have the system send this signal when the parent *thread* ends (prctl(2), PR_SET_PDEATHSIG)."""
    _prctl(_PR_SET_PDEATHSIG, signal_number)


class Cell:
    """Forks first processes of kernels, each in a pid namespace of its own where `level` says so."""

    def __init__(self, level: Level) -> None:
        self.level = level
        self._outer = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC) if self._is_namespaced else -1

    @property
    def _is_namespaced(self) -> bool:
        return self.level is Level.PID_NAMESPACE

    def fork(self) -> int:
        """`os.fork`, into a fresh enclosure.

        Raises:
            OSError: no more processes or namespaces.
        """
        if self._is_namespaced:
            # Children go to the namespace of the last unshare, and a new one can only be made from the own one.
            _check(_libc.setns(self._outer, _CLONE_NEWPID))
            _check(_libc.unshare(_CLONE_NEWPID))
        return os.fork()


def tend(level: Level, kernel: Callable[[], NoReturn]) -> NoReturn:
    """Be the first process of an enclosure: start `kernel`, hand interrupts on, reap, end with its status.

    Exit code: that of the kernel, or 128 + the signal that killed it.
    """
    os.setsid()
    if level is Level.PROCESS_GROUP:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        die_with_parent(signal.SIGTERM)
    pid = os.fork()
    if pid == 0:
        kernel()
    signal.signal(signal.SIGINT, lambda *_: _signal(pid, signal.SIGINT))
    signal.signal(signal.SIGTERM, lambda *_: _end(143))
    _close_all_files()
    _end(_reap_until(pid))


def sweep(known: set[int]) -> None:
    """Kill and reap the children of this process that are not `known`: orphans of kernels that ended."""
    while orphans := _list_children() - known:
        for pid in orphans:
            _signal(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _unshare_pids() -> bool:
    if _libc.unshare(_CLONE_NEWPID) == 0:
        return True
    uid, gid = os.getuid(), os.getgid()
    if _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWPID) != 0:
        return False
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{uid} {uid} 1")
    _write("/proc/self/gid_map", f"{gid} {gid} 1")
    return True


def _leave_the_parent_behind() -> None:
    pid = os.fork()
    if pid == 0:
        die_with_parent(signal.SIGKILL)
        return
    _close_all_files()
    os._exit(_reap_until(pid))


def _reap_until(pid: int) -> int:
    while True:
        reaped, status = os.wait()
        if reaped == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _end(code: int) -> NoReturn:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    if os.getpid() != 1:
        sweep(set())
    os._exit(code)


def _list_children() -> set[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return {int(pid) for pid in file.read().split()}
    except OSError:
        return set()


def _close_all_files() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.closerange(3, 1 << 20)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _prctl(option: int, argument: int) -> None:
    _check(_libc.prctl(option, argument, 0, 0, 0))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
