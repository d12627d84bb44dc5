"""Control groups (cgroup v2) for kernels, where this process may make them: memory and processes of a whole execution.

The control plane calls `settle` once; the fork server keeps a group per slot and uses it again and again, so that an
execution costs no more than the fork that it needs anyway. `python -m bifrost_kernel.forkserver.control_groups` says
what can be had here, and changes nothing. It touches no group that was not given to it: below systemd only what is
delegated (systemd, “Control Group APIs and Delegation”), and no group with a process that is not its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bifrost_kernel.forkserver import syscalls

CONTROLLERS = frozenset({"memory", "pids"})

_LEAF = "bifrost-main"
"""Where our own processes move: a group with members cannot hand controllers on (cgroups(7), no internal processes)."""
_UNDER_SYSTEMD = os.path.isdir("/run/systemd/system")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class NotPermitted(Exception):
    """There are no control groups to be had here; the text says why."""


class Place(NamedTuple):
    """Where groups may be made."""

    folder: Path
    members: tuple[int, ...]
    """Processes of ours that have to move to a leaf first."""


def find(mounts: str | None = None, own: str | None = None) -> Place:
    """Where this process may make groups; looks only.

    Args:
        mounts, own: what stands in `/proc/self/mountinfo` and `/proc/self/cgroup`.

    Raises:
        NotPermitted: nowhere.
    """
    folder = find_own(
        Path("/proc/self/mountinfo").read_text() if mounts is None else mounts,
        Path("/proc/self/cgroup").read_text() if own is None else own,
    )
    # With systemd's DelegateSubgroup= the process is in a leaf already, and what was delegated is above it.
    above = folder.parent
    if _is_marked(above) and _has_controllers(above) and not _members(above):
        return Place(above, ())
    if not _has_controllers(folder) or (_UNDER_SYSTEMD and not _is_marked(folder)):
        raise NotPermitted(f"{folder} was not delegated with the controllers memory and pids")
    members = _members(folder)
    if not set(members) <= set(_family(os.getpid())):
        raise NotPermitted(f"{folder} holds processes of others")
    return Place(folder, members)


def settle(name: str) -> Path:
    """Make the folder that holds the groups of kernels; moves this process and its children to a leaf where needed.

    Args:
        name: of the folder; the next control plane of the same home uses it again.

    Raises:
        NotPermitted: it cannot be had; as far as the system permits, nothing has changed.
    """
    place = find()
    folder = place.folder / name
    try:
        if place.members:
            _move(place.members, place.folder / _LEAF)
        _hand_on(place.folder)
        remove(folder)
        folder.mkdir(exist_ok=True)
        _hand_on(folder)
    except OSError as error:
        raise NotPermitted(f"{folder}: {error.strerror}") from error
    return folder


def remove(folder: Path) -> None:
    """Remove the groups of kernels that have ended; what is not empty yet stays for the next `settle` of its name."""
    with contextlib.suppress(OSError):
        for group in folder.glob("slot-*"):
            group.rmdir()
        folder.rmdir()


class SlotGroups:
    """The groups of one fork server's kernels, one per slot, reached through a descriptor: the root will change."""

    def __init__(self, folder: str, *, memory_bytes: int | None, processes: int | None) -> None:
        """Raises `OSError`: the folder is gone."""
        self._folder = os.open(folder, _FOLDER)
        self._slots: dict[int, int] = {}
        self._generations: dict[int, int] = {}
        self._owner = os.getpid()
        """Groups of an earlier fork server may have been killed, too."""
        self._limits = {
            "memory.max": memory_bytes,
            "memory.swap.max": 0,
            "memory.oom.group": 1,
            # What the group holds beside the kernel's own: its first process.
            "pids.max": None if processes is None else processes + 1,
        }
        self._killed: dict[int, int] = {}

    def prepare(self, slot: int) -> int:
        """A descriptor of the group of this slot, for `syscalls.fork_into`; the group is made the first time."""
        if slot not in self._slots:
            self._make(slot)
            self._slots[slot] = os.open(self._name(slot), _FOLDER, dir_fd=self._folder)
        return self._slots[slot]

    def can_be_entered(self) -> bool:
        """Try it with a process that does nothing: old filters of containers do not know the call."""
        try:
            pid = syscalls.fork_into(self.prepare(0))
        except OSError:
            return False
        if pid == 0:
            os._exit(0)
        return os.waitpid(pid, 0)[1] == 0

    def _make(self, slot: int) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._name(slot), dir_fd=self._folder)
        for file, value in self._limits.items():
            # A system without swap accounting has no file for it.
            if value is not None:
                with contextlib.suppress(FileNotFoundError):
                    self._write(slot, file, str(value))
        self._killed[slot] = self._out_of_memory_count(slot)

    def end(self, slot: int) -> bool:
        """End what is left in the group; tells whether the system had to end something for want of memory."""
        before, self._killed[slot] = self._killed[slot], self._out_of_memory_count(slot)
        ran_out = self._killed[slot] > before
        if "populated 1" in self._read(slot, "cgroup.events"):
            self._kill(slot)
        return ran_out

    def _kill(self, slot: int) -> None:
        with contextlib.suppress(FileNotFoundError):  # Linux 5.14
            self._write(slot, "cgroup.kill", "1")
        # Linux 6.18 kills whoever is forked into a group that was killed once: the next kernel gets another one.
        os.close(self._slots.pop(slot))
        self._generations[slot] = self._generations.get(slot, 0) + 1

    def _name(self, slot: int) -> str:
        return f"slot-{self._owner}-{slot}-{self._generations.get(slot, 0)}"

    def _out_of_memory_count(self, slot: int) -> int:
        try:
            found = re.search(r"^oom_kill (\d+)$", self._read(slot, "memory.events"), re.MULTILINE)
        except FileNotFoundError:
            return 0
        return int(found[1]) if found else 0

    def _read(self, slot: int, file: str) -> str:
        descriptor = os.open(f"{self._name(slot)}/{file}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)
        with open(descriptor, encoding="ascii") as opened:
            return opened.read()

    def _write(self, slot: int, file: str, text: str) -> None:
        descriptor = os.open(f"{self._name(slot)}/{file}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._folder)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


def find_own(mounts: str, own: str) -> Path:
    """The folder of the group that a process is in; raises `NotPermitted`."""
    mounted = re.search(r"^\S+ \S+ \S+ (?P<root>\S+) (?P<at>\S+) .* - cgroup2 ", mounts, re.MULTILINE)
    line = re.search(r"^0::(/.*)$", own, re.MULTILINE)
    if mounted is None or line is None:
        raise NotPermitted("cgroup v2 is not mounted")
    relative = os.path.relpath(line[1], mounted["root"])
    if relative.startswith(".."):
        raise NotPermitted("the control group of this process lies outside of what is mounted")
    return Path(mounted["at"], relative)


def _has_controllers(folder: Path) -> bool:
    """Whether this user could make groups with our controllers in it."""
    try:
        controllers = set((folder / "cgroup.controllers").read_text().split())
    except OSError:
        return False
    return controllers >= CONTROLLERS and os.access(folder, os.W_OK)


def _is_marked(folder: Path) -> bool:
    """Whether systemd delegated it."""
    for attribute in ("trusted.delegate", "user.delegate"):
        with contextlib.suppress(OSError):
            return os.getxattr(folder, attribute) == b"1"
    return False


def _members(folder: Path) -> tuple[int, ...]:
    try:
        return tuple(map(int, (folder / "cgroup.procs").read_text().split()))
    except OSError:
        return ()


def _family(pid: int) -> Iterator[int]:
    yield pid
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in file.read_text().split():
                yield from _family(int(child))


def _move(members: tuple[int, ...], leaf: Path) -> None:
    leaf.mkdir(exist_ok=True)
    for pid in members:
        with contextlib.suppress(ProcessLookupError):
            (leaf / "cgroup.procs").write_text(str(pid))


def _hand_on(folder: Path) -> None:
    (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(CONTROLLERS)))


def main() -> int:
    try:
        find()
    except NotPermitted as error:
        print(error, flush=True)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
