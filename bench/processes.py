"""All processes of the product, seen from outside: what they are, and what they hold of the machine."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import psutil

GONE = (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError, ProcessLookupError, PermissionError)


class Holding(NamedTuple):
    """What one process holds."""

    pid: int
    role: str
    threads: int
    rss: int
    pss: int
    descriptors: Counter[str]
    """By kind: `socket`, `pipe`, `file`, …"""


def tree(pid: int) -> list[psutil.Process]:
    """The product's process and all that came of it, kernels included."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def pss(pid: int) -> int:
    """Bytes of memory of the whole tree, what is shared counted once."""
    return sum(pss_of(process.pid) for process in tree(pid))


def pss_of(pid: int) -> int:
    """Bytes of one process; none when it ended meanwhile."""
    with contextlib.suppress(*GONE), open(f"/proc/{pid}/smaps_rollup") as lines:
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return 0


def holdings(pid: int) -> list[Holding]:
    """Of every process that lives; those that end meanwhile are left out."""
    return [holding for process in tree(pid) for holding in _holding(process)]


def _holding(process: psutil.Process) -> Iterator[Holding]:
    with contextlib.suppress(*GONE):
        yield Holding(
            pid=process.pid,
            role=role(process),
            threads=process.num_threads(),
            rss=process.memory_info().rss,
            pss=pss_of(process.pid),
            descriptors=descriptors(process.pid),
        )


def role(process: psutil.Process) -> str:
    """What the process is for: the module that it runs, or `kernel` (which has an interpreter that was forked)."""
    words = process.cmdline()
    module = words[words.index("-m") + 1] if "-m" in words else words[0] if words else "(ended)"
    if module.endswith("forkserver") and _namespaces(process.pid) > 2:
        return "kernel"
    return module.removeprefix("bifrost_scheduler.").removeprefix("bifrost_kernel.")


def _namespaces(pid: int) -> int:
    """How many pid namespaces lie around a process: 1 is this machine's, 2 is a fork server's, 3 is a kernel's."""
    with open(f"/proc/{pid}/status") as lines:
        return next((len(line.split()) - 1 for line in lines if line.startswith("NSpid:")), 1)


def descriptors(pid: int) -> Counter[str]:
    """How many of each kind a process has open."""
    kinds: Counter[str] = Counter()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(*GONE):
            kinds[_kind(os.readlink(f"/proc/{pid}/fd/{name}"))] += 1
    return kinds


def _kind(target: str) -> str:
    return "file" if target.startswith("/") else target.partition(":")[0]


def mounts(pid: int) -> int:
    """How many mounts a process sees."""
    with contextlib.suppress(*GONE), open(f"/proc/{pid}/mountinfo") as lines:
        return sum(1 for _ in lines)
    return 0
