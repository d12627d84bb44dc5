"""The filter of system calls that every enclosed kernel is bound to: a BPF program for seccomp(2).

`sandbox` installs it. A list of what is refused, not of what is allowed: workflows use any library, and what the
namespaces do not cover is the kernel's attack surface. Pure: `build` gives bytes.
"""

from __future__ import annotations

import errno
import functools
import platform
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class _Machine(NamedTuple):
    audit: int
    """Its AUDIT_ARCH (linux/audit.h): a call in another ABI would have other numbers."""
    numbers: Mapping[str, int]


_COMMON = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "clone3": 435, "pidfd_getfd": 438,
    "mount_setattr": 442, "quotactl_fd": 443, "open_tree_attr": 467,
}  # fmt: skip
"""Since Linux 5.1 a call has the same number everywhere."""

_X86_64 = {
    "socket": 41, "clone": 56, "ioctl": 16, "personality": 135,
    "ptrace": 101, "syslog": 103, "uselib": 134, "ustat": 136, "sysfs": 139, "vhangup": 153, "modify_ldt": 154,
    "pivot_root": 155, "_sysctl": 156, "adjtimex": 159, "chroot": 161, "acct": 163, "settimeofday": 164, "mount": 165,
    "umount2": 166, "swapon": 167, "swapoff": 168, "reboot": 169, "sethostname": 170, "setdomainname": 171, "iopl": 172,
    "ioperm": 173, "init_module": 175, "delete_module": 176, "quotactl": 179, "nfsservctl": 180, "lookup_dcookie": 212,
    "clock_settime": 227, "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250, "migrate_pages": 256,
    "unshare": 272, "move_pages": 279, "perf_event_open": 298, "fanotify_init": 300, "fanotify_mark": 301,
    "name_to_handle_at": 303, "open_by_handle_at": 304, "clock_adjtime": 305, "setns": 308, "process_vm_readv": 310,
    "process_vm_writev": 311, "kcmp": 312, "finit_module": 313, "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323,
}  # fmt: skip

_AARCH64 = {
    "socket": 198, "clone": 220, "ioctl": 29, "personality": 92,
    "lookup_dcookie": 18, "umount2": 39, "mount": 40, "pivot_root": 41, "nfsservctl": 42, "chroot": 51, "vhangup": 58,
    "quotactl": 60, "acct": 89, "unshare": 97, "kexec_load": 104, "init_module": 105, "delete_module": 106,
    "clock_settime": 112, "syslog": 116, "ptrace": 117, "reboot": 142, "sethostname": 161, "setdomainname": 162,
    "settimeofday": 170, "adjtimex": 171, "add_key": 217, "request_key": 218, "keyctl": 219, "swapon": 224,
    "swapoff": 225, "migrate_pages": 238, "move_pages": 239, "perf_event_open": 241, "fanotify_init": 262,
    "fanotify_mark": 263, "name_to_handle_at": 264, "open_by_handle_at": 265, "clock_adjtime": 266, "setns": 268,
    "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "finit_module": 273, "bpf": 280,
    "userfaultfd": 282, "kexec_file_load": 294,
}  # fmt: skip

_MACHINES = {
    "x86_64": _Machine(0xC000003E, {**_X86_64, **_COMMON}),
    "aarch64": _Machine(0xC00000B7, {**_AARCH64, **_COMMON}),
}

_JUDGED = frozenset({"socket", "clone", "ioctl", "personality", "clone3"})
"""Calls that are needed, and refused only with some arguments, or answered in a way of their own."""

_LAST_KNOWN = 469
"""Calls that were made after this list are answered as an older Linux would."""
_X32 = 0x40000000

_NEW_NAMESPACES = 0x7E020000
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
"""Type into a terminal as if a person did."""
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_QUERY_PERSONALITY = 0xFFFFFFFF

_LOAD, _JUMP_EQUAL, _JUMP_ABOVE, _JUMP_IF_SET, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
"""Offsets in `struct seccomp_data`; of an argument the low half is read (little-endian)."""


def is_supported() -> bool:
    """Whether there is a filter for this machine."""
    return platform.machine() in _MACHINES


@functools.cache
def build(machine: str) -> bytes:
    """The program for a machine as `platform.machine()` names it."""
    audit, numbers = _MACHINES[machine]
    program = [
        _statement(_LOAD, _ARCHITECTURE),
        _jump(_JUMP_EQUAL, audit, 1, 0),
        _statement(_RETURN, _KILL),
        _statement(_LOAD, _NUMBER),
        _jump(_JUMP_ABOVE, _X32 - 1, 0, 1),
        _statement(_RETURN, _KILL),
        _jump(_JUMP_ABOVE, _LAST_KNOWN, 0, 1),
        _refuse(errno.ENOSYS),
        # Its flags are behind a pointer, which a filter cannot follow; the C library falls back to clone.
        *_when(numbers["clone3"], [_refuse(errno.ENOSYS)]),
    ]
    for name in sorted(set(numbers) - _JUDGED):
        program += _when(numbers[name], [_refuse(errno.EPERM)])
    program += _judge(numbers["clone"], 0, [_jump(_JUMP_IF_SET, _NEW_NAMESPACES, 0, 1), _refuse(errno.EPERM)])
    program += _judge(numbers["ioctl"], 1, _none_of([_TIOCSTI, _TIOCLINUX]))
    program += _judge(numbers["personality"], 0, _one_of([0, _QUERY_PERSONALITY], errno.EPERM))
    families = [_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK]
    program += _judge(numbers["socket"], 0, _one_of(families, errno.EAFNOSUPPORT))
    program += _judge(numbers["socket"], 0, _route_netlink_only())
    return b"".join([*program, _statement(_RETURN, _ALLOW)])


def _judge(number: int, argument: int, verdict: Sequence[bytes]) -> list[bytes]:
    """Run `verdict` with this argument loaded; when it falls through, the next rule finds the number again."""
    return _when(number, [_load_argument(argument), *verdict, _statement(_LOAD, _NUMBER)])


def _when(number: int, body: Sequence[bytes]) -> list[bytes]:
    return [_jump(_JUMP_EQUAL, number, 0, len(body)), *body]


def _one_of(values: Sequence[int], error: int) -> list[bytes]:
    """Fall through for these values."""
    jumps = [_jump(_JUMP_EQUAL, value, len(values) - index, 0) for index, value in enumerate(values)]
    return [*jumps, _refuse(error)]


def _none_of(values: Sequence[int]) -> list[bytes]:
    """Fall through for other values than these."""
    return [part for value in values for part in (_jump(_JUMP_EQUAL, value, 0, 1), _refuse(errno.EPERM))]


def _route_netlink_only() -> list[bytes]:
    """getaddrinfo asks for the machine's addresses by NETLINK_ROUTE, which is protocol 0."""
    return [
        _jump(_JUMP_EQUAL, _AF_NETLINK, 0, 3),
        _load_argument(2),
        _jump(_JUMP_EQUAL, 0, 1, 0),
        _refuse(errno.EAFNOSUPPORT),
    ]


def _load_argument(index: int) -> bytes:
    return _statement(_LOAD, _ARGUMENTS + 8 * index)


def _refuse(error: int) -> bytes:
    return _statement(_RETURN, _ERRNO | error)


def _statement(code: int, value: int) -> bytes:
    return struct.pack("HBBI", code, 0, 0, value)


def _jump(code: int, value: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)
