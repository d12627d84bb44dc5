"""Spare kernels have their own copies of the pages that work will write to."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import textwrap

import pytest

from bifrost_kernel.forkserver import pages

BLOCKS = 400
SIZE = 3 * pages.PAGE_BYTES
"""Of a block; one page of each is written to, so that no two written pages lie side by side."""


@pytest.fixture(scope="module")
def memory() -> list[bytearray]:
    return [bytearray(SIZE) for _ in range(BLOCKS)]


def write(memory: list[bytearray]) -> None:
    for block in memory:
        block[SIZE // 2] += 1


def faults_of_writing(memory: list[bytearray], ranges: bytes) -> int:
    """Page faults that the work costs in a fork that took these pages beforehand."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        pages.take(ranges)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        write(memory)
        os.write(writing, str(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    os.waitpid(pid, 0)
    return int(told)


def test_work_costs_no_faults_after_its_pages_were_taken(memory: list[bytearray]) -> None:
    """And leaves the memory of the process that asked as it was."""
    ranges = pages.find_written(lambda: write(memory))
    if not ranges:
        pytest.skip("this Linux cannot copy pages beforehand (before 6.14)")
    assert faults_of_writing(memory, b"") >= BLOCKS
    # A large process has others beside, such as for its code.
    assert faults_of_writing(memory, ranges) < BLOCKS / 2
    assert not any(block[SIZE // 2] for block in memory)


def test_a_fork_begins_with_its_pages(memory: list[bytearray]) -> None:
    """And what it forks in turn does not: author code may, for its own ends."""
    program = textwrap.dedent(f"""
        import os, resource
        from bifrost_kernel.forkserver import pages
        memory = [bytearray({SIZE}) for _ in range({BLOCKS})]
        def write():
            for block in memory:
                block[{SIZE // 2}] += 1
        def faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            write()
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        pages.register()
        written = pages.find_written(write)
        pages.take_first(written)
        if (pid := os.fork()) == 0:
            first = faults()
            if (pid := os.fork()) == 0:
                print(len(written) > 0, first, faults(), flush=True)
            os.waitpid(pid, 0) if pid else None
            os._exit(0)
        os.waitpid(pid, 0)
    """)
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    is_possible, first, second = told.split()
    if is_possible != "True":
        pytest.skip("this Linux cannot copy pages beforehand (before 6.14)")
    assert int(first) < BLOCKS / 2 < BLOCKS <= int(second)


def test_work_that_fails_tells_nothing() -> None:
    """A spare is then warmed up as it can be."""
    assert pages.find_written(lambda: 1 / 0) == b""


def test_pages_that_are_gone_are_passed_over() -> None:
    """Nothing depends on the copies."""
    pages.take(pages._packed([pages.Range(pages.PAGE_BYTES, pages.PAGE_BYTES)]))
