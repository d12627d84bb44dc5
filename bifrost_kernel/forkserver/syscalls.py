"""The system calls of Linux that Python has no name for; whoever encloses, forks or schedules kernels calls them.

Each function is one call and raises `OSError` with the call's name where it fails. Nothing here decides anything.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import os
import platform
import signal
import socket
import struct
from typing import Any

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

_SECCOMP_MODE_FILTER = 2
_MNT_DETACH = 2
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8}
_MOUNT_SETATTR = 442
"""The same number on every architecture (Linux 5.12)."""
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAPABILITY_VERSION_3 = 0x20080522
_MADV_POPULATE_WRITE = 23
_PROCESS_MADVISE = 440
"""The same number on every architecture."""
_PIDFD_SELF = -10000
_IOVEC_BYTES = 2 * ctypes.sizeof(ctypes.c_size_t)
_MAX_IOVEC_BYTES = 1024 * _IOVEC_BYTES
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
_SCHED_ATTR = struct.Struct("=IIQiIQQQ")
_SCHED_FLAG_RESET_ON_FORK = 1

_CLONE3 = 435
"""The same number on every architecture (Linux 5.3)."""
_CLONE_INTO_CGROUP = 1 << 33

_libc = ctypes.CDLL(None, use_errno=True)
_python = ctypes.PyDLL(None, use_errno=True)
"""The same library, called without letting go of the interpreter's lock."""


def unshare(flags: int) -> None:
    _check("unshare", _libc.unshare(flags))


def setns(descriptor: int, kind: int) -> None:
    _check("setns", _libc.setns(descriptor, kind))


def prctl(option: int, argument: int) -> None:
    _check("prctl", _libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0))


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    arguments = source.encode(), target.encode(), _text(kind), ctypes.c_ulong(flags), _text(data)
    _check(f"mount {kind or source} on {target}", _libc.mount(*arguments))


def fork_into(group: int) -> int:
    """`os.fork` whose child is in a control group from the beginning (clone3(2), Linux 5.7).

    To move a process afterwards waits for every processor of the machine, some 5 ms; this costs what a fork does. The C
    library does not know of the child, which therefore starts no thread, and forks again by `os.fork` for any more.

    Args:
        group: a descriptor of the group's folder.
    """
    arguments = struct.pack("11Q", _CLONE_INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, group)
    buffer = ctypes.create_string_buffer(arguments, len(arguments))
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = int(_python.syscall(_CLONE3, buffer, ctypes.c_size_t(len(arguments))))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    number = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(number, f"clone3: {os.strerror(number)}")
    return pid


def set_mount_attributes(target: str, *names: str, recursive: bool = False) -> None:
    """Any of ro, nosuid, nodev, noexec; `recursive` for the mounts beneath, too (mount_setattr(2))."""
    wanted = sum(_MOUNT_ATTR[name] for name in names)
    attributes = ctypes.create_string_buffer(struct.pack("QQQQ", wanted, 0, 0, 0), 32)
    flags = _AT_RECURSIVE if recursive else 0
    _check(
        f"mount_setattr {target}",
        _libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, target.encode(), flags, attributes, ctypes.c_size_t(32)),
    )


def pivot_here() -> None:
    """Make the current folder, a mount point, the root, and leave nothing of the old one."""
    _check("pivot_root", _libc.syscall(_PIVOT_ROOT[platform.machine()], b".", b"."))
    _check("umount2", _libc.umount2(b".", _MNT_DETACH))
    os.chdir("/")


@functools.cache
def last_capability() -> int:
    """The highest that this Linux knows."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        return int(file.read())


def drop_capabilities(last: int) -> None:
    """For good: nothing that this process executes can have one again."""
    for number in range(last + 1):
        # Refused to a process that has none, which is as well.
        _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0)
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    _check("capset", _libc.capset(header, struct.pack("6I", 0, 0, 0, 0, 0, 0)))


def set_seccomp_filter(program: bytes) -> None:
    """Bind this process and its children to a BPF program; needs PR_SET_NO_NEW_PRIVS before it."""
    buffer = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer)))
    _check("seccomp", _libc.prctl(PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0))


def populate(ranges: bytes) -> None:
    """Map these pages writable now, each its own copy (process_madvise(2) of oneself, Linux 6.14).

    Args:
        ranges: an array of `struct iovec`.
    """
    for start in range(0, len(ranges), _MAX_IOVEC_BYTES):
        part = ranges[start : start + _MAX_IOVEC_BYTES]
        count = ctypes.c_size_t(len(part) // _IOVEC_BYTES)
        done = _libc.syscall(_PROCESS_MADVISE, _PIDFD_SELF, part, count, _MADV_POPULATE_WRITE, 0)
        _check("process_madvise", min(done, 0))


def set_slice(seconds: float, *, is_inherited: bool = True) -> None:
    """How long this thread may run before others that wait get their turn; 0 is what Linux does by itself.

    Whoever wakes up and asks for a shorter slice need not wait for the end of this one (sched_setattr(2), in force
    since Linux 6.12). The policy becomes SCHED_OTHER.

    Args:
        seconds: from 0.1 ms to 100 ms.
        is_inherited: by threads and processes that it starts.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"sched_setattr: its number is not known for {platform.machine()}")
    nice, flags = os.getpriority(os.PRIO_PROCESS, 0), 0 if is_inherited else _SCHED_FLAG_RESET_ON_FORK
    attributes = _SCHED_ATTR.pack(_SCHED_ATTR.size, 0, flags, nice, 0, round(seconds * 1e9), 0, 0)
    _check("sched_setattr", _libc.syscall(number, 0, attributes, 0))


def bring_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def _text(value: str | None) -> bytes | None:
    return None if value is None else value.encode()


def _check(call: str, result: Any) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
