"""Engine workers: many executions at once, records back, and a death that is told and mended."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from bifrost_kernel import errors, models
from bifrost_scheduler.runner import transport
from bifrost_scheduler.runner.kernels import KernelSource
from bifrost_scheduler.runner.outcome import Executed, Verdict
from bifrost_scheduler.runner.pool import EnginePool, WorkerDied
from bifrost_scheduler.runner.record import Closing, Job

AT = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
NO_BROKER = "class bifrost: finish_notebook = staticmethod(lambda value: value)"


@pytest.fixture(scope="module")
def source() -> Iterator[KernelSource]:
    source = KernelSource.start(spares=2, preload=())
    yield source
    source.close()


@pytest.fixture
def pool() -> Iterator[EnginePool]:
    pool = EnginePool.start(workers=1)
    yield pool
    pool.close()


def job(number: int, *cells: str, **parameters: Any) -> Job:
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in (NO_BROKER, *cells)])
    return Job(
        execution_id=f"e{number}",
        workflow=models.WorkflowMetadata(
            name="notes", description="Notes", kind="notebook", source=models.Source(file="workflows/notes.ipynb")
        ),
        organization=models.OrganizationInfo(id="acme", name="Acme"),
        caller=models.Caller(subject="user:a@example.com"),
        trigger=models.Trigger.API,
        parameters=parameters,
        code_hash="c" * 64,
        source_text=nbformat.writes(notebook),
        source_sha256="a" * 64,
        submitted_at=AT,
    )


def execute(pool: EnginePool, source: KernelSource, wanted: Job) -> Executed:
    prepared = pool.prepare(wanted)
    kernel = source.acquire()
    try:
        pool.run(prepared, kernel)
        return pool.wait(prepared)
    finally:
        kernel.close()


def closing(status: models.ExecutionStatus = models.ExecutionStatus.SUCCESS) -> Closing:
    return Closing(status=status, started_at=AT, completed_at=AT)


def test_execute_and_seal(pool: EnginePool, source: KernelSource) -> None:
    """An execution comes back as a record with its outputs, its parameters and its end."""
    assert execute(pool, source, job(1, "print('hello', who)", who="Alice")).verdict is Verdict.COMPLETED
    text = pool.seal("e1", closing()).decode()
    assert "hello Alice" in text
    assert "injected-parameters" in text


def test_a_kernel_without_its_sockets(pool: EnginePool, source: KernelSource) -> None:
    """What a process with too many open files receives fails one execution, and no other."""
    prepared = pool.prepare(job(2, "1"))
    prepared.worker.tell({"op": "kernel", "execution_id": "e2"})
    with pytest.raises(errors.WorkflowError, match="came without its sockets"):
        pool.wait(prepared)
    assert execute(pool, source, job(3, "1")).verdict is Verdict.COMPLETED


@pytest.mark.parametrize("size", [0, 1, 32 * 1024, 32 * 1024 + 1, 5_000_000])
def test_a_message_of_any_size(size: int) -> None:
    """It comes as it was sent, with its descriptors, whichever way its body went."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        transport.send(left, {"op": "x"}, b"b" * size, [left.fileno(), right.fileno()])
        message = transport.receive(right)
        assert message is not None
        assert (message.head, message.body, len(message.descriptors)) == ({"op": "x"}, b"b" * size, 2)
        for descriptor in message.descriptors:
            os.close(descriptor)


def test_failure_is_told(pool: EnginePool, source: KernelSource) -> None:
    """A cell that raises is `failed` with class and text, and its record holds the traceback."""
    executed = execute(pool, source, job(2, "1 / 0"))
    assert (executed.verdict, executed.ename) == (Verdict.FAILED, "ZeroDivisionError")
    assert b"ZeroDivisionError" in pool.seal("e2", closing(models.ExecutionStatus.FAILED))


def test_dead_kernel_is_told(pool: EnginePool, source: KernelSource) -> None:
    """A kernel that dies is `died`, and its record keeps what was printed."""
    assert execute(pool, source, job(3, "print('bye')\nimport os; os._exit(1)")).verdict is Verdict.DIED
    assert b"bye" in pool.seal("e3", closing(models.ExecutionStatus.CRASHED))


def test_many_at_once(pool: EnginePool, source: KernelSource) -> None:
    """One worker runs many executions at the same time and mixes none up."""
    with ThreadPoolExecutor(8) as threads:
        runs = list(threads.map(lambda n: execute(pool, source, job(n, f"print('number', {n * 7})")), range(10, 18)))
    assert all(run.verdict is Verdict.COMPLETED for run in runs)
    assert all(f"number {n * 7}" in pool.seal(f"e{n}", closing()).decode() for n in range(10, 18))


def test_dead_worker_is_told_and_replaced(pool: EnginePool, source: KernelSource) -> None:
    """The death of a worker fails its executions with WorkerDied; the next execution finds another."""
    execute(pool, source, job(4))
    (worker,) = pool.worker_pids()
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(execute, pool, source, job(5, "while True: pass"))
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            run.result(30)
    with pytest.raises(WorkerDied):
        pool.seal("e4", closing())
    assert execute(pool, source, job(6)).verdict is Verdict.COMPLETED


def test_notebook_without_a_kernel_is_forgotten(pool: EnginePool, source: KernelSource) -> None:
    """Whether it was withdrawn before its kernel came, or could not be prepared at all."""
    withdrawn = pool.prepare(job(30))
    pool.discard("e30")
    unreadable = pool.prepare(job(31).model_copy(update={"source_text": "no notebook"}))
    kernel = source.acquire()
    for prepared in (withdrawn, unreadable):
        pool.run(prepared, kernel)
        with pytest.raises(errors.WorkflowError, match=r"Withdrawn|DeclarationError"):
            pool.wait(prepared)
        with pytest.raises(WorkerDied):
            pool.seal(prepared.execution_id, closing())
    kernel.close()
    assert execute(pool, source, job(32)).verdict is Verdict.COMPLETED


def test_complete_without_kernel(pool: EnginePool) -> None:
    """An execution that never ran has a record as well."""
    assert b"crashed" in pool.complete(job(7), closing(models.ExecutionStatus.CRASHED))


def test_render_html(pool: EnginePool) -> None:
    """A worker renders records."""
    assert "<main>" in pool.render_html(pool.complete(job(8), closing()))
