"""What encloses a kernel: levels, and the init process that ends with everything below it.

Called by the fork server, and by what encloses other processes (`workspace_reader`, `seclusion`). What is in force is
always said as a `Level`, never assumed: where the level that was asked for cannot be had, `enter` raises and nothing
runs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import NamedTuple, NoReturn

from bifrost_kernel.forkserver import filesystem, jail, seccomp, syscalls
from bifrost_kernel.forkserver.jail import Limits
from bifrost_kernel.network import Network

__all__ = [
    "Cell", "Enclosure", "Level", "Limits", "NotPermitted", "Standing", "close_all_files", "close_door",
    "die_with_parent", "enter", "join", "reap_until", "rehearse", "sweep", "tend", "unshare_with_user",
]  # fmt: skip


_OOM_SCORE = 1000
"""The highest: before every server of the machine (proc_pid_oom_score_adj(5))."""


class Level(StrEnum):
    """How much keeps a kernel from the machine and from other kernels."""

    FULL = "full"
    """Own user, file system, network, processes and limits; a filter of system calls; no capability."""
    REDUCED = "reduced"
    """A filter of system calls, no capability, limits: a kernel reads what this user reads, and reaches the network."""
    NONE = "none"
    """Limits only."""


class Enclosure(StrEnum):
    """What keeps the processes of one execution together."""

    PID_NAMESPACE = "pid_namespace"
    """Own pid namespaces: the end of the first process ends every process, whatever it did to hide."""
    PROCESS_GROUP = "process_group"
    """Sessions and a sweep of orphans, where the machine permits no namespaces."""


class NotPermitted(Exception):
    """The machine does not permit the level that was asked for; the text says what, and what to do."""


class Standing(NamedTuple):
    """What is in force in one fork server."""

    level: Level
    enclosure: Enclosure
    jail: jail.Jail | None = None
    """None at every level but full."""


def enter(
    level: Level,
    folder: str,
    *,
    namespaces: bool = True,
    visible: Sequence[str] = (),
    hidden: Sequence[str] = (),
    home_bytes: int = 0,
) -> Standing:
    """Become the first process of a new pid namespace, or the reaper of orphans where that is not permitted.

    On success the calling process stays behind as a mere parent that exits with its child; this function returns in
    the child. At level full the child's root is what kernels see, too.

    Args:
        folder: an empty folder, on which the root of level full is built.
        namespaces: False forgoes pid namespaces at the levels that can do without.
        visible, hidden: see `filesystem.build`.
        home_bytes: size of a kernel's home at level full.

    Raises:
        NotPermitted: the level cannot be had here.
    """
    die_with_parent(signal.SIGKILL)
    if level is not Level.NONE and not seccomp.is_supported():
        raise NotPermitted(f"The sandbox knows no system call filter for {os.uname().machine}.")
    if level is not Level.NONE:
        jail.prepare()
    if level is Level.FULL:
        return _enter_full(folder, visible, hidden, home_bytes)
    if namespaces and _unshare_pids():
        _leave_the_parent_behind()
        return Standing(level, Enclosure.PID_NAMESPACE)
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    return Standing(level, Enclosure.PROCESS_GROUP)


def die_with_parent(signal_number: signal.Signals) -> None:
    """Have the system send this signal when the parent *thread* ends (prctl(2), PR_SET_PDEATHSIG)."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal_number)


class Cell:
    """Forks first processes of kernels, each in a pid namespace of its own where the enclosure says so."""

    def __init__(self, enclosure: Enclosure) -> None:
        self._is_namespaced = enclosure is Enclosure.PID_NAMESPACE
        self._outer = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC) if self._is_namespaced else -1

    def fork(self, group: int | None = None) -> int:
        """`os.fork`, into a fresh enclosure.

        Args:
            group: a descriptor of the control group that the child shall be in.

        Raises:
            OSError: no more processes or namespaces.
        """
        if not self._is_namespaced:
            return _fork(group)
        syscalls.unshare(syscalls.CLONE_NEWPID)
        return self._fork_there(group)

    def fork_into(self, namespace: int, group: int | None = None) -> int:
        """`os.fork`, into the enclosure whose pid namespace this descriptor is of.

        Raises:
            OSError: no more processes, or the enclosure is gone.
        """
        syscalls.setns(namespace, syscalls.CLONE_NEWPID)
        return self._fork_there(group)

    def _fork_there(self, group: int | None) -> int:
        pid = -1
        try:
            pid = _fork(group)
        finally:
            if pid != 0:  # where the next children go, and from where alone a new namespace can be made
                syscalls.setns(self._outer, syscalls.CLONE_NEWPID)
        return pid


def close_door(standing: Standing, *, slot: int, doorstep: int, network: Network = Network.PROXY) -> tuple[int, ...]:
    """Close an enclosure around the calling process, its first; returns its namespaces, as `join` wants them.

    Args:
        slot, doorstep, network: see `jail.enclose`.

    Raises:
        OSError: a step is not permitted; the process is in between and has to end.
    """
    namespaces: tuple[int, ...] = ()
    if standing.jail is not None:
        namespaces = jail.enclose(standing.jail, slot=slot, doorstep=doorstep, network=network)
    elif standing.level is Level.REDUCED:
        jail.confine()
    if standing.level is not Level.NONE:
        # The first process is ours: author code shall neither read nor trace it.
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    return namespaces


def join(standing: Standing, namespaces: Sequence[int], *, slot: int) -> None:
    """Be enclosed where another process closed the door; the calling process is in its pid namespace already.

    Raises:
        OSError: a step is not permitted; the process is in between and has to end.
    """
    _stand_back()
    if standing.jail is not None:
        jail.join(standing.jail, namespaces, slot=slot)
    elif standing.level is Level.REDUCED:
        jail.confine()
    # What it gave up took its own files below /proc from it.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)


def tend(
    standing: Standing,
    kernel: Callable[[], NoReturn],
    *,
    slot: int,
    doorstep: int,
    network: Network = Network.PROXY,
) -> NoReturn:
    """Be the first process of an enclosure: close it, start `kernel`, hand interrupts on, reap, end with its status.

    Exit code: that of the kernel, or 128 + the signal that killed it.
    """
    _stand_back()
    if standing.enclosure is Enclosure.PROCESS_GROUP:
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        die_with_parent(signal.SIGTERM)
    close_door(standing, slot=slot, doorstep=doorstep, network=network)
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)  # and no session: that of the first process is a nice one
        # Its own files below /proc are its own again.
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
        kernel()
    signal.signal(signal.SIGINT, lambda *_: _signal(pid, signal.SIGINT))
    signal.signal(signal.SIGTERM, lambda *_: _end(143))
    # Its end of the doorstep stays open as long as this process lives: so the egress proxy learns of the end.
    close_all_files(doorstep)
    _end(reap_until(pid))


def rehearse(standing: Standing, cell: Cell) -> None:
    """Enclose a process that does nothing, as `tend` would a kernel's, and see that it can import Python's modules.

    Raises:
        NotPermitted: a kernel could not be enclosed here, or would not find its interpreter.
    """
    reading, writing = os.pipe()
    pid = cell.fork()
    if pid == 0:
        _rehearse_and_tell(standing, writing)
    os.close(writing)
    with os.fdopen(reading) as said:
        reason = said.read()
    os.waitpid(pid, 0)
    if reason:
        raise NotPermitted(_advice(reason))


def sweep(known: set[int]) -> None:
    """Kill and reap the children of this process that are not `known`: orphans of kernels that ended."""
    while orphans := _list_children() - known:
        for pid in orphans:
            _signal(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _enter_full(folder: str, visible: Sequence[str], hidden: Sequence[str], home_bytes: int) -> Standing:
    drops_user = jail.may_drop_user()
    os.umask(0o022)
    try:
        _unshare_for_full()
        _leave_the_parent_behind()
        resolver = filesystem.read_resolver()
        below_home = filesystem.build(folder, visible=visible, hidden=hidden)
    except OSError as error:
        raise NotPermitted(_advice(str(error))) from error
    return Standing(Level.FULL, Enclosure.PID_NAMESPACE, jail.Jail(below_home, home_bytes, drops_user, resolver))


def _unshare_for_full() -> None:
    wanted = syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNS
    if os.getuid() == 0:
        syscalls.unshare(wanted)
    else:
        unshare_with_user(wanted)
        die_with_parent(signal.SIGKILL)


def _unshare_pids() -> bool:
    with contextlib.suppress(OSError):
        syscalls.unshare(syscalls.CLONE_NEWPID)
        return True
    with contextlib.suppress(OSError):
        unshare_with_user(syscalls.CLONE_NEWPID)
        return True
    return False


def unshare_with_user(wanted: int) -> None:
    """The same user in a user namespace, who may there what root may."""
    uid, gid = os.getuid(), os.getgid()
    syscalls.unshare(syscalls.CLONE_NEWUSER | wanted)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{uid} {uid} 1")
    _write("/proc/self/gid_map", f"{gid} {gid} 1")


def _leave_the_parent_behind() -> None:
    pid = os.fork()
    if pid == 0:
        die_with_parent(signal.SIGKILL)
        return
    close_all_files()
    os._exit(reap_until(pid))


def _stand_back() -> None:
    """Give way to the rest of the machine, also where it is shared out by sessions, and where it is short of memory."""
    os.setsid()
    with contextlib.suppress(OSError):  # the session is as nice as its processes (sched(7), autogroup), where it can be
        _write("/proc/self/autogroup", str(os.getpriority(os.PRIO_PROCESS, 0)))
    with contextlib.suppress(OSError):  # executions go first
        _write("/proc/self/oom_score_adj", str(_OOM_SCORE))


def _fork(group: int | None) -> int:
    return os.fork() if group is None else syscalls.fork_into(group)


def _rehearse_and_tell(standing: Standing, writing: int) -> NoReturn:
    ours, theirs = socket.socketpair()
    reason = ""
    try:
        close_door(standing, slot=0, doorstep=theirs.fileno())
        os.listdir(os.path.dirname(os.__file__))
        os.close(os.open(filesystem.__file__, os.O_RDONLY))
    except OSError as error:
        reason = str(error)
    finally:
        os.write(writing, reason.encode())
        ours.close()
        os._exit(0)


def _advice(reason: str) -> str:
    return (
        f"Workflows cannot be enclosed on this machine ({reason}). It takes Linux 5.12 with user namespaces: see "
        "`bifrost doctor` and “The sandbox” in docs/operating.md. To run them without: --insecure-reduced-sandbox or "
        "--insecure-no-sandbox."
    )


def reap_until(pid: int) -> int:
    """Reap whatever ends until this child does; its exit code, or 128 + the signal that killed it."""
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


def close_all_files(kept: int = 2, *, streams: bool = True) -> None:
    """All but one; the standard streams then lead nowhere, if they are closed as well."""
    if streams:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
    os.closerange(3, kept)
    os.closerange(kept + 1, 1 << 20)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
