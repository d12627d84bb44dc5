"""How fast an execution is: `python bench/hello.py` prints start-up, latency and throughput of kernels and papermill.

It uses the fork server, the engine workers and the record as the runner does, without store, broker and HTTP.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from bifrost_kernel import models
from bifrost_scheduler.runner.kernels import KernelSource
from bifrost_scheduler.runner.pool import EnginePool
from bifrost_scheduler.runner.record import Closing, Job

CELLS = (
    "class bifrost: finish_notebook = staticmethod(lambda value: value)  # there is no broker here",
    "async def greet(name):\n    print('hello', name)\n    return {'greeting': name}",
    "await greet('Alice')",
)
"""With the call cell that every record has, four cells are executed."""


def make_job(number: int) -> Job:
    return Job(
        execution_id=str(number),
        workflow=models.WorkflowMetadata(
            name="hello", description="Says hello", kind="notebook", source=models.Source(file="workflows/hello.ipynb")
        ),
        organization=models.OrganizationInfo(id="acme", name="Acme"),
        caller=models.Caller(subject="user:dev@example.com"),
        trigger=models.Trigger.API,
        code_hash="0" * 64,
        source_text=nbformat.writes(new_notebook(cells=[new_code_cell(cell) for cell in CELLS])),
        source_sha256="0" * 64,
        submitted_at=datetime.now(UTC),
    )


def execute(source: KernelSource, pool: EnginePool, job: Job) -> float:
    """One execution with its record; gives the milliseconds until the record was there."""
    started = time.perf_counter()
    now = datetime.now(UTC)
    kernel = source.acquire()
    try:
        pool.execute(job, kernel)
        kernel.kill()
        status = models.ExecutionStatus.SUCCESS
        pool.seal(job.execution_id, Closing(status=status, started_at=now, completed_at=datetime.now(UTC)))
    finally:
        kernel.close()
    return (time.perf_counter() - started) * 1000


def measure_throughput(source: KernelSource, pool: EnginePool, *, threads: int, count: int) -> float:
    jobs = [make_job(number) for number in range(count)]
    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as executor:
        list(executor.map(lambda job: execute(source, pool, job), jobs))
    return count / (time.perf_counter() - started)


def measure_import() -> float:
    started = time.perf_counter()
    command = "import papermill; from bifrost_scheduler.runner import worker"
    subprocess.run([sys.executable, "-c", command], check=True)
    return time.perf_counter() - started


def main() -> None:
    print(f"import of a worker          {measure_import():8.2f} s")
    started = time.perf_counter()
    source, pool = KernelSource.start(spares=2), EnginePool.start(workers=2)
    level = source.wait_ready()
    print(f"fork server ready           {time.perf_counter() - started:8.2f} s   ({level})")
    execute(source, pool, make_job(0))
    print(f"first execution done        {time.perf_counter() - started:8.2f} s")
    for _ in range(10):
        execute(source, pool, make_job(0))
    idle = []
    for _ in range(30):
        time.sleep(0.15)  # a spare kernel gets ready
        idle.append(execute(source, pool, make_job(0)))
    print(f"one execution, idle         {statistics.median(idle):8.1f} ms  (best {min(idle):.1f})")
    for threads in (1, 8):
        rate = measure_throughput(source, pool, threads=threads, count=150)
        print(f"throughput, {threads} at once       {rate:8.1f} executions/s")
    pool.close()
    source.close()


if __name__ == "__main__":
    main()
