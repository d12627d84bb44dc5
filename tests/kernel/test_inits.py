"""The first process of each kernel's namespaces: not made by the fork server, and the end of all that is in it."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator

import psutil
import pytest

from bifrost_kernel.forkserver.sandbox import Enclosure
from bifrost_scheduler.runner import cells
from bifrost_scheduler.runner.kernels import Kernel, KernelSource

SEVERAL_SECONDS = 20


@pytest.fixture
def source() -> Iterator[KernelSource]:
    source = KernelSource.start(spares=0, preload=())
    if source.wait_ready().enclosure is not Enclosure.PID_NAMESPACE:
        source.close()
        pytest.skip("this machine permits no pid namespaces")
    yield source
    source.close()


def run(kernel: Kernel, code: str) -> str:
    cell, failure = cells.run_cell(cells.KernelPort(kernel.kernel_socket, kernel.console), code)
    assert failure is None, failure
    return "".join(output["text"] for output in cell["outputs"])


def has_ended(pidfd: int) -> bool:
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(SEVERAL_SECONDS * 1000))


def test_kernel_is_the_second_process_of_its_namespace(source: KernelSource) -> None:
    """And its init takes in whoever is orphaned there."""
    kernel = source.acquire()
    double_fork = """
import os, time
reading, writing = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        while os.getppid() != 1:
            time.sleep(0.001)
        os.write(writing, b"adopted")
    os._exit(0)
os.wait()
print(os.getpid(), os.read(reading, 10).decode())
"""
    assert run(kernel, double_fork) == "2 adopted\n"
    kernel.close()


def test_end_of_an_init_is_the_end_of_its_kernel(source: KernelSource) -> None:
    """And the other way round."""
    for first, last in ((1, 0), (0, 1)):
        kernel = source.acquire()
        run(kernel, "")
        signal.pidfd_send_signal(kernel.pidfds[first], signal.SIGKILL)
        assert has_ended(kernel.pidfds[last])
        assert kernel.wait(SEVERAL_SECONDS) == 128 + signal.SIGKILL
        kernel.close()


def test_kernels_go_on_without_the_maker_that_died(source: KernelSource) -> None:
    """The fork server cannot do without, and is replaced."""
    before = source.fork_server_pid()
    assert before is not None
    (server,) = psutil.Process(before).children()
    (maker,) = server.children()
    os.kill(maker.pid, signal.SIGKILL)
    maker_end = psutil.wait_procs([maker], timeout=SEVERAL_SECONDS)
    assert not maker_end[1]
    kernel = source.acquire()
    assert run(kernel, "print(6 * 7)") == "42\n"
    assert source.fork_server_pid() != before
    kernel.close()
