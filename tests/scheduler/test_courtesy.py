"""Everything beside the control plane gives way to it, also where Linux shares the machine out by sessions."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bifrost_scheduler.runner import kernels, memory_watch
from bifrost_scheduler.runner.kernels import Kernel, KernelSource


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    source = KernelSource.start(spares=0)
    kernel = source.acquire()
    yield kernel
    kernel.close()
    source.close()


def process_of(kernel: Kernel) -> int:
    """That runs the code."""
    pid = memory_watch.find_pid(kernel.pidfds[0])
    assert pid is not None
    return pid


def test_a_nice_process_is_in_a_nice_session() -> None:
    """By as much."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    try:
        kernels.give_way(process.pid)
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(own + kernels.COURTESY, 19)
        group = Path(f"/proc/{process.pid}/autogroup")
        if not group.exists() or os.getuid():
            pytest.skip("this Linux has no sessions to be nice, or takes it from root alone")
        assert group.read_text().endswith(f"nice {kernels.COURTESY}\n")
    finally:
        process.communicate()


def test_each_kernel_has_a_nice_session_of_its_own(kernel: Kernel) -> None:
    """However many processes one starts, it takes no more of the machine than another."""
    pid = process_of(kernel)
    pause = threading.Event()
    while os.getsid(pid) != pid:  # it is handed out while it is still being made
        pause.wait(0.001)
    group = Path(f"/proc/{pid}/autogroup")
    if not group.exists() or os.getuid():
        pytest.skip("this Linux has no sessions to be nice, or takes it from root alone")
    while not group.read_text().endswith(f"nice {os.getpriority(os.PRIO_PROCESS, pid)}\n"):
        pause.wait(0.001)
    assert os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, 0)
