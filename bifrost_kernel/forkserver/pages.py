"""The memory that a kernel writes to as it works, copied before anybody waits for it.

A forked kernel shares every page with the fork server until it first writes to it, and each first write costs a fault.
`server` asks once which pages those are, and each kernel begins with taking its own copies of them in one system call,
which is less work than the faults.
"""

from __future__ import annotations

import array
import contextlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from bifrost_kernel.forkserver import syscalls

PAGE_BYTES = os.sysconf("SC_PAGESIZE")

_ENTRY = struct.Struct("<Q")
_PRESENT, _EXCLUSIVE = 1 << 63, 1 << 56
"""Bits of an entry of /proc/<pid>/pagemap that need no privilege (admin-guide/mm/pagemap)."""

_first = b""
"""What the next fork takes as it begins."""


class Range(NamedTuple):
    start: int
    length: int


def find_written(work: Callable[[], object]) -> bytes:
    """Which pages of this process a fork that does `work` writes to, as `take` wants them; none on an old Linux."""
    areas = list(_writable_areas())
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _tell_written(work, areas, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = array.array("Q", pipe.read())
    os.waitpid(pid, 0)
    return _packed(_merged(told))


def register() -> None:
    """Make `take_first` possible; what others register for forks after this works on pages that are taken already."""
    os.register_at_fork(after_in_child=_take_first)


def take_first(ranges: bytes) -> None:
    """Have every fork of this process begin with taking these pages; what it forks in turn does not."""
    global _first
    _first = ranges


def take(ranges: bytes) -> None:
    """Have own copies of these pages, as far as there is memory for them."""
    with contextlib.suppress(OSError):
        syscalls.populate(ranges)


def _take_first() -> None:
    global _first
    ranges, _first = _first, b""
    take(ranges)


def _tell_written(work: Callable[[], object], areas: Sequence[Range], pipe: int) -> Any:
    with contextlib.suppress(BaseException):  # the edge of the process: without an answer there is just no advance
        syscalls.populate(_packed([areas[0]._replace(length=PAGE_BYTES)]))
        work()
        with open(pipe, "wb", closefd=False) as answer:
            answer.write(array.array("Q", _own_pages(areas)).tobytes())
    os._exit(0)


def _packed(ranges: Iterable[Range]) -> bytes:
    """As an array of `struct iovec`."""
    return b"".join(struct.pack("@NN", *one) for one in ranges)


def _own_pages(areas: Iterable[Range]) -> Iterator[int]:
    """Addresses of the pages there that this process shares with no other."""
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        for area in areas:
            file.seek(area.start // PAGE_BYTES * _ENTRY.size)
            entries = file.read(area.length // PAGE_BYTES * _ENTRY.size)
            for index, (entry,) in enumerate(_ENTRY.iter_unpack(entries)):
                if entry & _PRESENT and entry & _EXCLUSIVE:
                    yield area.start + index * PAGE_BYTES


def _writable_areas() -> Iterator[Range]:
    """Private writable memory, but for the stack, which is written to by whoever asks."""
    with open("/proc/self/maps") as file:
        for line in file.read().splitlines():
            bounds, permissions, _, _, _, *name = line.split(maxsplit=5)
            start, end = (int(bound, 16) for bound in bounds.split("-"))
            if permissions.startswith("rw") and permissions.endswith("p") and name != ["[stack]"]:
                yield Range(start, end - start)


def _merged(pages: Iterable[int]) -> Iterator[Range]:
    """Ascending pages as ranges."""
    merged: list[Range] = []
    for page in pages:
        last = merged[-1] if merged else None
        if last is not None and last.start + last.length == page:
            merged[-1] = Range(last.start, last.length + PAGE_BYTES)
        else:
            merged.append(Range(page, PAGE_BYTES))
    return iter(merged)
