"""Everything beside the control plane gives way to it, also where Linux shares the machine out by sessions."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bifrost_scheduler.runner import courtesy, memory_watch
from bifrost_scheduler.runner.cells import KernelPort, run_cell
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


def slice_of(pid: int) -> int:
    """In nanoseconds (sched_getattr(2))."""
    attributes = ctypes.create_string_buffer(56)
    number = {"x86_64": 315, "aarch64": 275}[platform.machine()]
    assert ctypes.CDLL(None).syscall(number, pid, attributes, len(attributes), 0) == 0
    return int.from_bytes(attributes.raw[24:32], sys.byteorder)


def test_only_the_thread_that_answers_comes_first() -> None:
    """What it starts waits for its turn, as everybody does."""
    if not slice_of(0):
        pytest.skip("this Linux knows no slices (before 6.12)")
    program = (
        "import subprocess, sys; from bifrost_scheduler.runner import courtesy; courtesy.come_first();"
        "child = subprocess.Popen(['cat'], stdin=subprocess.PIPE); print(child.pid, flush=True); input();"
        "child.communicate()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert slice_of(process.pid) == round(courtesy.PROMPT_SECONDS * 1e9)
        assert slice_of(child) == slice_of(0)
        process.communicate("\n")


def test_a_nice_process_is_in_a_nice_session() -> None:
    """By as much."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    try:
        courtesy.give_way(process.pid)
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(own + courtesy.COURTESY, 19)
        group = Path(f"/proc/{process.pid}/autogroup")
        if not group.exists() or os.getuid():
            pytest.skip("this Linux has no sessions to be nice, or takes it from root alone")
        assert group.read_text().endswith(f"nice {courtesy.COURTESY}\n")
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


def test_a_spare_that_is_ready_is_scheduled_as_any_process() -> None:
    """Only while it is being made it lets everybody else go first."""
    with contextlib.closing(KernelSource.start(spares=1, preload=())) as source:
        source.acquire().close()
        with contextlib.closing(source.acquire()) as kernel:
            run_cell(KernelPort(kernel.kernel_socket, kernel.console), "pass")
            assert slice_of(process_of(kernel)) == slice_of(0)
