"""An engine worker: runs papermill for executions, and keeps the executed notebook until the parent closes it.

Started by `pool.EnginePool` as `python -m bifrost_scheduler.runner.worker <descriptor>`; one process per core, a thread
per execution. It opens no store, holds no key, and believes no kernel. When its socket closes it ends at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import nbformat
import papermill
from nbformat.notebooknode import NotebookNode
from nbformat.v4 import new_notebook
from papermill.engines import papermill_engines

from bifrost_kernel import models
from bifrost_scheduler.runner import cells, courtesy, engine, html, record, transport
from bifrost_scheduler.runner.outcome import Executed, Verdict
from bifrost_scheduler.runner.outputs import OutputLimits

ENGINE = "bifrost"
_KERNEL_DESCRIPTORS = 2
_THREADS = 256
"""More executions than this at once would wait for each other; the control plane admits fewer."""


class ExecuteRequest(models.Frozen):
    """The body of an `execute` message."""

    job: record.Job
    limits: OutputLimits


class CompleteRequest(models.Frozen):
    """The body of a `complete` message."""

    job: record.Job
    closing: record.Closing


class Withdrawn(Exception):
    """The execution that this notebook was prepared for does not take place."""


class Worker:
    """Answers requests, each in a thread of its own."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._sending = threading.Lock()
        self._kernels: dict[str, Future[cells.KernelPort]] = {}
        """By execution, from its request until its kernel comes."""
        self._executed: dict[str, Future[NotebookNode]] = {}

    def serve(self) -> None:
        """Answer until the control plane closes its end."""
        with ThreadPoolExecutor(_THREADS) as threads:
            while (message := transport.receive(self._control)) is not None:
                match message.head["op"]:
                    case "kernel":
                        self._bring_kernel(message)
                    case "execute":
                        # Before the next message, which may bring the kernel.
                        execution_id = message.head["execution_id"]
                        kernel = self._kernels[execution_id] = Future()
                        executed = self._executed[execution_id] = Future()
                        threads.submit(self._execute, message, kernel, executed)
                    case _:
                        threads.submit(self._answer, message)
            os._exit(0)

    def _bring_kernel(self, message: transport.Message) -> None:
        waiting = self._kernels.pop(message.head["execution_id"], None)
        if waiting is not None and not waiting.set_running_or_notify_cancel():
            waiting = None
        if waiting is not None and len(message.descriptors) == _KERNEL_DESCRIPTORS:
            sock, console = message.descriptors
            waiting.set_result(cells.KernelPort(socket.socket(fileno=sock), console))
            return
        for descriptor in message.descriptors:
            os.close(descriptor)
        if waiting is not None:
            waiting.set_exception(OSError("the kernel came without its sockets: too many open files"))

    def _answer(self, message: transport.Message) -> None:
        try:
            self._tell(message, self._do(message))
        except Exception as error:  # the edge of the worker: whoever asked gets the reason
            self._tell_failure(message, error)

    def _tell_failure(self, message: transport.Message, error: Exception) -> None:
        self._tell(message, f"{type(error).__name__}: {error}".encode("utf-8", "replace"), is_done=False)

    def _tell(self, message: transport.Message, body: bytes, *, is_done: bool = True) -> None:
        # The control plane is gone: this process ends with the next read.
        with self._sending, contextlib.suppress(OSError):
            transport.send(self._control, {"ok": is_done, "id": message.head["id"]}, body)

    def _do(self, message: transport.Message) -> bytes:
        match message.head["op"]:
            case "seal":
                closing = record.Closing.model_validate_json(message.body)
                return record.finish(self._executed.pop(message.head["execution_id"]).result(), closing)
            case "complete":
                request = CompleteRequest.model_validate_json(message.body)
                return record.complete_without_kernel(request.job, request.closing)
            case "discard":
                self._discard(message.head["execution_id"])
                return b""
            case "render_html":
                return html.render(message.body).encode("utf-8", "replace")
            case other:
                raise ValueError(f"unknown request {other!r}")

    def _discard(self, execution_id: str) -> None:
        self._executed.pop(execution_id, None)
        waiting = self._kernels.pop(execution_id, None)
        if waiting is not None and waiting.set_running_or_notify_cancel():
            waiting.set_exception(Withdrawn("no kernel comes"))

    def _execute(
        self, message: transport.Message, kernel: Future[cells.KernelPort], executed: Future[NotebookNode]
    ) -> None:
        """Answer when the last cell has ended; what papermill does after that, nobody but a seal waits for."""

        def tell(port: cells.KernelPort) -> None:
            self._tell(message, _verdict_of(port).model_dump_json().encode())
            told.set()

        told = threading.Event()
        try:
            run_papermill(ExecuteRequest.model_validate_json(message.body), kernel.result, tell)
            notebook = kernel.result().notebook
            assert notebook is not None
            executed.set_result(notebook)
        except Exception as error:  # the edge of the worker: whoever asked gets the reason
            executed.set_exception(error)
            self._kernels.pop(message.head["execution_id"], None)
            if not told.is_set():
                # Whoever is told so asks for no record of it here.
                self._executed.pop(message.head["execution_id"], None)
                self._tell_failure(message, error)
        finally:
            if not kernel.cancel() and kernel.exception() is None:
                kernel.result().close()


def run_papermill(
    request: ExecuteRequest,
    find_kernel: Callable[[], cells.KernelPort],
    on_end: Callable[[cells.KernelPort], None],
) -> None:
    """Run the job's notebook; the port holds the outcome.

    Args:
        find_kernel: waits for the kernel, which is asked for when the notebook is ready.
        on_end: called after the last cell.

    Raises:
        DeclarationError: the source of a notebook workflow is no notebook.
        Withdrawn: no kernel comes.
    """
    with contextlib.suppress(engine.NotebookKept):
        papermill.execute_notebook(
            record.compose(request.job),
            None,
            parameters=request.job.parameters,
            engine_name=ENGINE,
            kernel_name=record.KERNELSPEC["name"],
            language=record.KERNELSPEC["language"],
            progress_bar=False,
            request_save_on_cell_execute=False,
            kernel=find_kernel,
            on_end=on_end,
            hand_back=False,
            limits=request.limits,
        )


def _verdict_of(port: cells.KernelPort) -> Executed:
    if port.failure is None:
        return Executed(verdict=Verdict.COMPLETED)
    ename, evalue = port.failure
    return Executed(verdict=Verdict.DIED if port.died else Verdict.FAILED, ename=ename, evalue=evalue)


def main(arguments: list[str]) -> None:
    """Serve on the inherited socket."""
    papermill_engines.register(ENGINE, engine.BifrostEngine)
    # papermill would log every parameter and every output, and reformat cells if black happens to be there.
    logging.getLogger("papermill").setLevel(logging.CRITICAL + 1)
    _forget_module("black")
    control = socket.socket(fileno=int(arguments[0]))
    control.set_inheritable(False)
    # The validator is compiled at its first use: a tenth of a second that no execution shall wait for.
    nbformat.validate(new_notebook())
    courtesy.settle()
    Worker(control).serve()


def _forget_module(name: str) -> None:
    modules: dict[str, Any] = sys.modules  # None in it makes an import fail at once
    modules[name] = None


if __name__ == "__main__":
    main(sys.argv[1:])
