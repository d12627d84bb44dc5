"""The engine workers as the control plane sees them: give them a job, then a kernel, get the record back.

The runner's loop calls it from many threads. A worker prepares a notebook while its kernel is being fetched. A worker
that dies fails what it had in hand and is replaced; papermill is never imported here, so that the control plane starts
without waiting for it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import bifrost_kernel
import bifrost_scheduler
from bifrost_kernel import errors
from bifrost_scheduler.runner import courtesy, kernels, transport
from bifrost_scheduler.runner.outcome import Executed
from bifrost_scheduler.runner.outputs import OutputLimits
from bifrost_scheduler.runner.record import Closing, Job, complete_without_kernel

_PACKAGE_FOLDERS = [str(Path(package.__path__[0]).parent) for package in (bifrost_kernel, bifrost_scheduler)]
_HASTY_SECONDS = 2.0
_HASTY_ENDS = 5
"""A worker that ends this often within `_HASTY_SECONDS` of its start is not replaced any more."""


class WorkerDied(errors.Unavailable):
    """The engine worker ended before it answered; its executions have no notebook any more."""


class _Worker:
    """One worker process after the other, behind one queue of requests."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._waiting: dict[int, Future[bytes]] = {}
        self._control: socket.socket | None = None
        self.pid: int | None = None
        """Of the process that runs now, or of the last one."""
        self._closing = False
        self._up = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name=f"bifrost-worker-{number}", daemon=True)
        self._keeper.start()

    @property
    def load(self) -> tuple[bool, int]:
        """What orders workers from free to busy; one that does not run comes last."""
        return self._control is None, len(self._waiting)

    def ask(self, head: dict[str, Any], body: bytes = b"") -> bytes:
        """Send a request and wait for its answer.

        Raises:
            WorkerDied: the process ended before it answered.
            WorkflowError: the worker could not do it; says why.
        """
        return self.begin(head, body).result()

    def begin(self, head: dict[str, Any], body: bytes = b"") -> Future[bytes]:
        """Send a request; the answer comes, or raises, as that of `ask`.

        Raises:
            WorkerDied: the process does not run.
        """
        self._up.wait()
        answer: Future[bytes] = Future()
        with self._lock:
            if self._control is None:
                raise WorkerDied(f"engine worker {self.number} does not run")
            request_id = next(self._ids)
            self._waiting[request_id] = answer
            try:
                transport.send(self._control, {**head, "id": request_id}, body)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it just died: the keeper fails the request
            except OSError:
                del self._waiting[request_id]
                raise
        return answer

    def tell(self, head: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send what has no answer; a worker that does not run fails the request that this belongs to."""
        with self._lock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if self._control is not None:
                transport.send(self._control, head, descriptors=descriptors)

    def close(self) -> None:
        with self._lock:
            self._closing = True
            if self._control is not None:
                with contextlib.suppress(OSError):
                    self._control.shutdown(socket.SHUT_RDWR)
        self._keeper.join()

    def _keep(self) -> None:
        hasty = 0
        while not self._closing and hasty < _HASTY_ENDS:
            started = time.monotonic()
            try:
                process, control = _spawn()
            except OSError:
                hasty += 1
                continue
            with self._lock:
                self._control, self.pid = control, process.pid
                if self._closing:
                    control.shutdown(socket.SHUT_RDWR)
            self._up.set()
            self._listen(control)
            self._bury(process, control)
            hasty = hasty + 1 if time.monotonic() - started < _HASTY_SECONDS else 0
        self._up.set()  # whoever still waits is told that it does not run

    def _listen(self, control: socket.socket) -> None:
        while True:
            try:
                message = transport.receive(control)
            except OSError:
                return
            if message is None:
                return
            self._deliver(message)

    def _deliver(self, message: transport.Message) -> None:
        with self._lock:
            answer = self._waiting.pop(message.head["id"])
        if message.head["ok"]:
            answer.set_result(message.body)
        else:
            answer.set_exception(errors.WorkflowError(f"the engine failed: {message.body.decode()}"))

    def _bury(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        process.kill()
        process.wait()
        with self._lock:
            self._control = None
            self._up.clear()
            lost = list(self._waiting.values())
            self._waiting.clear()
        control.close()
        for answer in lost:
            answer.set_exception(WorkerDied(f"engine worker {self.number} died (exit status {process.returncode})"))


class Prepared(NamedTuple):
    """A notebook that a worker makes ready, and runs as soon as it has a kernel."""

    execution_id: str
    worker: _Worker
    answer: Future[bytes]


class EnginePool:
    """Engine workers, and which of them holds which execution's notebook."""

    def __init__(self, workers: Sequence[_Worker], limits: OutputLimits) -> None:
        self._workers = workers
        self._limits = limits
        self._lock = threading.Lock()
        self._holders: dict[str, _Worker] = {}

    @classmethod
    def start(cls, *, workers: int = 2, limits: OutputLimits | None = None) -> EnginePool:
        """Start the processes and return at once; the first `execute` waits until one is ready."""
        return cls([_Worker(number) for number in range(1, workers + 1)], limits or OutputLimits())

    def prepare(self, job: Job) -> Prepared:
        """Have a worker make the job's notebook ready; the caller then calls `run`, or `discard`.

        Raises:
            WorkerDied: the worker does not run.
        """
        worker = self._choose()
        head = {"op": "execute", "execution_id": job.execution_id}
        answer = worker.begin(head, _request_json(job, self._limits))
        with self._lock:
            self._holders[job.execution_id] = worker
        return Prepared(job.execution_id, worker, answer)

    def run(self, prepared: Prepared, kernel: kernels.Kernel) -> None:
        """Let the notebook run in this kernel, which stays the caller's; `wait` tells how that went."""
        head = {"op": "kernel", "execution_id": prepared.execution_id}
        prepared.worker.tell(head, (kernel.kernel_socket.fileno(), kernel.console))

    def wait(self, prepared: Prepared) -> Executed:
        """How the notebook ran; the caller then calls `seal` or `discard`.

        Raises:
            WorkerDied: the worker ended meanwhile: complete the record without it.
            WorkflowError: the job is none that papermill can run.
        """
        try:
            return Executed.model_validate_json(prepared.answer.result())
        except BaseException:
            self._release(prepared.execution_id)
            raise

    def seal(self, execution_id: str, closing: Closing) -> bytes:
        """The bytes of the finished record.

        Raises:
            WorkerDied: the worker ended, and the notebook with it.
        """
        worker = self._release(execution_id)
        if worker is None:
            raise WorkerDied(f"no engine worker holds a notebook of {execution_id}")
        try:
            return worker.ask({"op": "seal", "execution_id": execution_id}, closing.model_dump_json().encode())
        except errors.WorkflowError as error:
            # The worker that holds it is not the process that ran it any more.
            raise WorkerDied(f"the notebook of {execution_id} is lost: {error.message}") from error

    def complete(self, job: Job, closing: Closing) -> bytes:
        """The record of an execution that has no notebook: made of what the control plane knows.

        A notebook that a worker may still hold of it is forgotten.
        """
        self.discard(job.execution_id)
        body = b'{"job":%b,"closing":%b}' % (job.model_dump_json().encode(), closing.model_dump_json().encode())
        try:
            return self._choose().ask({"op": "complete"}, body)
        except WorkerDied:
            return complete_without_kernel(job, closing)

    def worker_pids(self) -> list[int]:
        """The processes of the workers, for whoever watches over them."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    def discard(self, execution_id: str) -> None:
        """Forget a notebook that nobody will run, or seal (a data provider's)."""
        worker = self._release(execution_id)
        if worker is not None:
            with contextlib.suppress(WorkerDied):
                worker.ask({"op": "discard", "execution_id": execution_id})

    def render_html(self, record: bytes) -> str:
        """A record as one safe HTML page.

        Raises:
            WorkerDied: the worker ended meanwhile; another try may succeed.
        """
        return self._choose().ask({"op": "render_html"}, record).decode()

    def close(self) -> None:
        """End all workers; what they have in hand fails with `WorkerDied`."""
        for worker in self._workers:
            worker.close()

    def _choose(self) -> _Worker:
        # Of several that are idle always the same, whose code and data the processor still has at hand.
        return min(self._workers, key=lambda worker: worker.load)

    def _release(self, execution_id: str) -> _Worker | None:
        with self._lock:
            return self._holders.pop(execution_id, None)


def _request_json(job: Job, limits: OutputLimits) -> bytes:
    return b'{"job":%b,"limits":%b}' % (job.model_dump_json().encode(), limits.model_dump_json().encode())


def _spawn() -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {
        **kernels.allowed_environment(),
        "HOME": os.path.join(os.sep, "nonexistent"),
        "PYTHONPATH": os.pathsep.join(_PACKAGE_FOLDERS),
    }
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bifrost_scheduler.runner.worker", str(theirs.fileno())],
            env=environment,
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
    courtesy.give_way(process.pid)
    return process, ours
