"""Kernels in control groups, on real ones where this machine permits them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bifrost_kernel.forkserver import control_groups
from bifrost_kernel.forkserver.control_groups import NotPermitted
from bifrost_kernel.forkserver.sandbox import Level, Limits
from bifrost_scheduler.runner.cells import KernelPort, run_cell
from bifrost_scheduler.runner.kernels import Kernel, KernelSource


@pytest.mark.parametrize("level", ["none", "full"])
def test_kernels_are_in_the_group_of_their_slot(control_group: Path, level: str) -> None:
    """One after the other in the same; without namespaces, too, where the end of the group is what ends everything."""
    source = KernelSource.start(
        spares=0, preload=(), level=Level(level), namespaces=False, control_group=str(control_group)
    )
    try:
        assert source.wait_ready().has_groups
        for _ in range(3):
            kernel = source.acquire()
            assert f"{control_group.name}/slot-" in said(kernel, "print(open('/proc/self/cgroup').read())")
            assert "hello" in said(kernel, "import subprocess; print(subprocess.check_output(['echo', 'hello']))")
            assert "1000" in said(kernel, "import threading; threading.Thread(target=print, args=[1000]).start()")
            kernel.close()
            assert kernel.wait(10) is not None
            assert not kernel.ran_out_of_memory()
    finally:
        source.close()


def test_memory_of_a_group_is_the_systems_to_hold() -> None:
    """Many processes that take a little each are ended together, and the fork server knows why."""
    try:
        folder = control_groups.settle(f"bifrost-test-{os.getpid()}")
    except NotPermitted as error:
        pytest.skip(f"this machine does not hold memory by control groups: {error}")
    limits = Limits(memory_bytes=512 * 1024**2)
    source = KernelSource.start(spares=0, preload=(), limits=limits, control_group=str(folder))
    try:
        kernel = source.acquire()
        said(kernel, "import os\nfor _ in range(4):\n    os.fork()\ntaken = b'x' * (50 * 1024**2)")
        assert kernel.wait(10) is not None
        assert kernel.ran_out_of_memory()
        kernel.close()
    finally:
        source.close()


def said(kernel: Kernel, code: str) -> str:
    cell, _ = run_cell(KernelPort(kernel.kernel_socket, kernel.console), code)
    return "".join(output.get("text", output.get("evalue", "")) for output in cell["outputs"])
