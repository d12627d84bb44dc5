"""The memory that a kernel writes to as it works, copied before anybody waits for it.

A forked kernel shares every page with the fork server until it first writes to it, and each first write costs a fault.
`server` asks once which pages those are, and has each kernel take its own copies of them in one system call, which is
a third of the work of running cells for the same end, and less than the faults.
"""

from __future__ import annotations

import array
import contextlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from bifrost_kernel.forkserver import syscalls

PAGE_BYTES = os.sysconf("SC_PAGESIZE")

_ENTRY = struct.Struct("<Q")
_PRESENT, _EXCLUSIVE = 1 << 63, 1 << 56
"""Bits of an entry of /proc/<pid>/pagemap that need no privilege (admin-guide/mm/pagemap)."""


class Range(NamedTuple):
    start: int
    length: int


def find_written(work: Callable[[], object], fork: Callable[[], int] = os.fork) -> bytes:
    """Which pages `work` writes to in a fork of this process, as `take` wants them; none where Linux is too old.

    Without those that the fork and the look at them take: a fork has the former by itself, and no use for the latter.
    """
    others = set(_written(lambda: None, fork))
    return _packed(_merged(page for page in _written(work, fork) if page not in others))


def _written(work: Callable[[], object], fork: Callable[[], int]) -> array.array[int]:
    """Addresses, in ascending order."""
    reading, writing = os.pipe()
    pid = fork()
    if pid == 0:
        _tell_written(work, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = array.array("Q", pipe.read())
    os.waitpid(pid, 0)
    return told


def take(ranges: bytes) -> None:
    """Have own copies of these pages, as far as there is memory for them."""
    with contextlib.suppress(OSError):
        syscalls.populate(ranges)


def _tell_written(work: Callable[[], object], pipe: int) -> Any:
    with contextlib.suppress(BaseException):  # the edge of the process: without an answer there is just no advance
        syscalls.populate(_packed([next(_writable_areas())._replace(length=PAGE_BYTES)]))
        work()
        with open(pipe, "wb", closefd=False) as answer:
            answer.write(array.array("Q", _own_pages()).tobytes())
    os._exit(0)


def _packed(ranges: Iterable[Range]) -> bytes:
    """As an array of `struct iovec`."""
    return b"".join(struct.pack("@NN", *one) for one in ranges)


def _own_pages() -> Iterator[int]:
    """Addresses of the pages that this process shares with no other."""
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        for area in _writable_areas():
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
