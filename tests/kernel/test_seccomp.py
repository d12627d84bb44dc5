"""The filter of system calls, run instruction by instruction as Linux runs it."""

from __future__ import annotations

import errno
import platform
import struct

import pytest

from bifrost_kernel.forkserver import seccomp

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CALLS = {
    "x86_64": {"read": 0, "socket": 41, "clone": 56, "mount": 165, "ptrace": 101, "unshare": 272, "personality": 135},
    "aarch64": {"read": 63, "socket": 198, "clone": 220, "mount": 40, "ptrace": 117, "unshare": 97, "personality": 92},
}
MACHINES = sorted(CALLS)


def verdict(machine: str, number: int, *arguments: int, audit: int | None = None) -> int:
    """What the program of this machine returns for one call."""
    given = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("<IIQ6Q", number, AUDIT[machine] if audit is None else audit, 0, *given)
    program, at, loaded = list(struct.iter_unpack("HBBI", seccomp.build(machine))), 0, 0
    while True:
        code, if_true, if_false, value = program[at]
        at += 1
        match code:
            case 0x20:
                (loaded,) = struct.unpack_from("<I", data, value)
            case 0x15:
                at += if_true if loaded == value else if_false
            case 0x25:
                at += if_true if loaded > value else if_false
            case 0x45:
                at += if_true if loaded & value else if_false
            case 0x06:
                return int(value)
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")


def refused(number: int) -> int:
    return ERRNO | number


@pytest.mark.parametrize("machine", MACHINES)
def test_ordinary_calls_are_allowed(machine: str) -> None:
    """Also those whose arguments are looked at: threads, processes, internet and Unix sockets."""
    calls = CALLS[machine]
    assert verdict(machine, calls["read"], 3) == ALLOW
    assert verdict(machine, calls["clone"], 0x3D0F00) == ALLOW
    assert [verdict(machine, calls["socket"], family, 1) for family in (1, 2, 10)] == [ALLOW] * 3
    assert verdict(machine, calls["socket"], 16, 3, 0) == ALLOW
    assert [verdict(machine, calls["personality"], value) for value in (0, 0xFFFFFFFF)] == [ALLOW] * 2


@pytest.mark.parametrize("machine", MACHINES)
def test_dangerous_calls_are_refused(machine: str) -> None:
    """Mounts, namespaces by each of their doors, tracing, io_uring, kernel sockets, other families."""
    calls = CALLS[machine]
    for number in (*(calls[name] for name in ("mount", "ptrace", "unshare")), 425, 438, 442):
        assert verdict(machine, number) == refused(errno.EPERM)
    assert all(verdict(machine, calls["clone"], flag) == refused(errno.EPERM) for flag in (1 << 28, 1 << 17, 1 << 30))
    assert verdict(machine, 435) == refused(errno.ENOSYS)
    assert verdict(machine, calls["socket"], 16, 3, 9) == refused(errno.EAFNOSUPPORT)
    assert all(verdict(machine, calls["socket"], family) == refused(errno.EAFNOSUPPORT) for family in (17, 38, 40))
    assert verdict(machine, calls["personality"], 0x0400000) == refused(errno.EPERM)


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_of_another_kind_end_the_process(machine: str) -> None:
    """Another ABI has other numbers: its first call is the last. A call that is newer than the list is unknown."""
    assert verdict(machine, CALLS[machine]["read"], audit=0x40000003) == KILL
    assert verdict(machine, 0x40000000 | CALLS[machine]["mount"]) == KILL
    assert verdict(machine, 500) == refused(errno.ENOSYS)


@pytest.mark.skipif(platform.machine() not in MACHINES, reason="there is no filter for this machine")
def test_this_machine_has_one() -> None:
    """Reduced and full levels can be had here."""
    assert seccomp.is_supported()
