"""The watch over the memory of whole executions: it sees trees of processes, and counts what they share once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from bifrost_scheduler.runner import memory_watch
from bifrost_scheduler.runner.memory_watch import MemoryWatch

MIB = 1024**2

FAMILY = """
import os, signal
shared = b"x" * (50 * 1024**2)
for _ in range(4):
    if os.fork() == 0:
        os.setsid()
        own = b"y" * (50 * 1024**2)
        os.write(1, b".")
        signal.pause()
signal.pause()
"""


@pytest.fixture(scope="module")
def family() -> Iterator[int]:
    """A process with 50 MB and four children that share it and have 50 MB each."""
    with subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout is not None
        try:
            assert parent.stdout.read(4) == b"...."
            yield parent.pid
        finally:
            for pid in list(memory_watch.list_tree(parent.pid)):
                os.kill(pid, signal.SIGKILL)


def test_what_processes_share_counts_once(family: int) -> None:
    """About 250 MB and five interpreters, not 450; children in sessions of their own are part of it."""
    assert len(list(memory_watch.list_tree(family))) == 5
    assert memory_watch.takes_more([family], 240 * MIB)
    assert not memory_watch.takes_more([family], 400 * MIB)


def test_who_takes_more_is_told_of(family: int) -> None:
    """Whoever watches hears of it while they do; one within the limit is never mentioned."""
    watch, found, never = MemoryWatch(240 * MIB, watch_seconds=0.01), threading.Event(), threading.Event()
    pidfd = os.pidfd_open(family)
    watch.start()
    with watch.watching((pidfd,), found.set), subprocess.Popen(["cat"], stdin=subprocess.PIPE) as small:
        small_fd = os.pidfd_open(small.pid)
        with watch.watching((small_fd, small_fd), never.set):
            assert found.wait(10)
        os.close(small_fd)
    watch.stop()
    assert not never.is_set()
    os.close(pidfd)


def test_a_process_that_is_gone_takes_nothing() -> None:
    """Neither by its pidfd nor by its number."""
    with subprocess.Popen(["true"]) as gone:
        pidfd = os.pidfd_open(gone.pid)
    assert memory_watch.find_pid(pidfd) is None
    assert not memory_watch.takes_more([gone.pid], 0)
    os.close(pidfd)
