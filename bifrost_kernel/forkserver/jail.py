"""Closing the door behind a kernel: what its first process does before any author code exists in it.

`sandbox` calls `enclose` in the first process of each kernel, and `confine` alone where there are no namespaces. All
that is given up here is given up for good; a step that fails ends the process, so that nothing runs half enclosed.
"""

from __future__ import annotations

import os
import platform
import resource
import socket
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bifrost_kernel.forkserver import filesystem, seccomp, syscalls
from bifrost_kernel.network import Network

PROXY_PORT = 3128
"""Where a kernel finds the egress proxy, on the loopback interface that is its own."""

FIRST_HOST_ID = 64000
"""User ids that kernels have on the machine when the fork server runs as root, one per kernel that is alive."""
HOST_IDS = 1000

_NAMESPACES = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
_NAMESPACE_FILES_BUT_NETWORK = ("mnt", "ipc", "uts", "user")
_NAMESPACE_FILES = ("net", *_NAMESPACE_FILES_BUT_NETWORK)
_BACKLOG = 128


class Limits(NamedTuple):
    """Resource limits of each kernel; None leaves what the machine gives."""

    memory_bytes: int | None = None
    """Address space of one process (RLIMIT_AS)."""
    processes: int | None = None
    """Processes and threads (RLIMIT_NPROC); in force where each kernel is a user of its own, at level full."""
    file_bytes: int | None = None
    """Size of one file (RLIMIT_FSIZE)."""
    open_files: int | None = None
    """Descriptors of one process (RLIMIT_NOFILE)."""

    def apply(self, *, own_user: bool) -> None:
        """Bind this process and its children."""
        for kind, value in (
            (resource.RLIMIT_AS, self.memory_bytes),
            (resource.RLIMIT_NPROC, self.processes if own_user else None),
            (resource.RLIMIT_FSIZE, self.file_bytes),
            (resource.RLIMIT_NOFILE, self.open_files),
        ):
            if value is not None:
                resource.setrlimit(kind, (value, value))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Jail(NamedTuple):
    """What all enclosures of one fork server have in common."""

    below_home: tuple[str, ...]
    home_bytes: int
    drops_user: bool
    """Whether kernels become another user of the machine, which takes a fork server that is root."""
    resolver: Mapping[str, bytes]
    """What a kernel with the machine's network is shown of its configuration."""

    def host_id(self, slot: int) -> int:
        """The user that the kernel in this slot is on the machine."""
        return FIRST_HOST_ID + slot % HOST_IDS if self.drops_user else os.getuid()


def enclose(jail: Jail, *, slot: int, doorstep: int, network: Network = Network.PROXY) -> tuple[int, ...]:
    """Take the calling process, the first of its pid namespace, out of everything that is not its own.

    Returns descriptors of the namespaces that it made, in the order in which `join` can enter them.

    Args:
        slot: a number that no other living kernel has.
        doorstep: a socket; the listener of the egress proxy goes through it.
        network: with `host` the network stays the machine's; every other wall is built.

    Raises:
        OSError: a step is not permitted; the process is in between and has to end.
    """
    is_proxied = network is Network.PROXY
    syscalls.unshare(_NAMESPACES | (syscalls.CLONE_NEWNET if is_proxied else 0))
    owner = jail.host_id(slot)
    filesystem.make_private(jail.below_home, home_bytes=jail.home_bytes, owner=owner)
    socket.sethostname("kernel")
    if is_proxied:
        syscalls.bring_loopback_up()
        _leave_listener(doorstep)
    else:
        filesystem.show_resolver(jail.resolver)
    if jail.drops_user:
        _become(owner)
    _take_own_user_namespace(owner)
    made = _NAMESPACE_FILES if is_proxied else _NAMESPACE_FILES_BUT_NETWORK
    namespaces = tuple(os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in made)
    confine()
    return namespaces


def join(jail: Jail, namespaces: Sequence[int], *, slot: int) -> None:
    """Take the calling process to where `enclose` took another one of the same slot.

    Raises:
        OSError: a step is not permitted; the process is in between and has to end.
    """
    *others, user = namespaces
    for namespace in others:
        syscalls.setns(namespace, 0)
    if jail.drops_user:
        _become(jail.host_id(slot))
    # Whoever is the user that made it, has every right in it until `confine`.
    syscalls.setns(user, syscalls.CLONE_NEWUSER)
    confine()


def confine() -> None:
    """Give up every capability and every system call that no workflow needs.

    Raises:
        OSError: the machine has no system call filters.
    """
    syscalls.drop_capabilities(syscalls.last_capability())
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.set_seccomp_filter(seccomp.build(platform.machine()))


def prepare() -> None:
    """Work out beforehand, once for all kernels, what `confine` needs."""
    syscalls.last_capability()
    seccomp.build(platform.machine())


def may_drop_user() -> bool:
    """Whether this process is root and the user ids of kernels exist in its user namespace."""
    if os.getuid() != 0:
        return False
    with open("/proc/self/uid_map") as file:
        ranges = [tuple(map(int, line.split())) for line in file]
    last = FIRST_HOST_ID + HOST_IDS - 1
    return any(start <= FIRST_HOST_ID and last < start + count for start, _, count in ranges)


def _leave_listener(doorstep: int) -> None:
    """Listen where the environment says that the proxy is, and let it through the socket: no name leads there."""
    with socket.socket() as listener, socket.socket(fileno=os.dup(doorstep)) as out:
        listener.bind(("127.0.0.1", PROXY_PORT))
        listener.listen(_BACKLOG)
        socket.send_fds(out, [b"listener"], [listener.fileno()])


def _become(host_id: int) -> None:
    os.setgroups([])
    os.setresgid(host_id, host_id, host_id)
    os.setresuid(host_id, host_id, host_id)
    # The change hid /proc/self from this process, which has maps to write.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)


def _take_own_user_namespace(host_id: int) -> None:
    """Limits of a user are then this kernel's alone, and so would be whatever power it could get."""
    group = os.getgid()
    syscalls.unshare(syscalls.CLONE_NEWUSER)
    for name, text in {
        "setgroups": "deny",
        "uid_map": f"{filesystem.USER_ID} {host_id} 1",
        "gid_map": f"{filesystem.USER_ID} {group} 1",
    }.items():
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
