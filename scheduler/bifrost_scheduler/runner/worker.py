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
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import nbformat
import papermill
from nbformat.notebooknode import NotebookNode
from nbformat.v4 import new_notebook
from papermill.engines import papermill_engines
from papermill.exceptions import PapermillExecutionError

from bifrost_kernel import models
from bifrost_scheduler.runner import cells, engine, html, record, transport
from bifrost_scheduler.runner.outcome import Executed, Verdict
from bifrost_scheduler.runner.outputs import OutputLimits

ENGINE = "bifrost"
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


class Worker:
    """Answers requests, each in a thread of its own."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._sending = threading.Lock()
        self._executed: dict[str, NotebookNode] = {}

    def serve(self) -> None:
        """Answer until the control plane closes its end."""
        with ThreadPoolExecutor(_THREADS) as threads:
            while (message := transport.receive(self._control)) is not None:
                threads.submit(self._answer, message)
            os._exit(0)

    def _answer(self, message: transport.Message) -> None:
        try:
            head, body = {"ok": True}, self._do(message)
        except Exception as error:  # the edge of the worker: whoever asked gets the reason
            head, body = {"ok": False}, f"{type(error).__name__}: {error}".encode("utf-8", "replace")
        # The control plane is gone: this process ends with the next read.
        with self._sending, contextlib.suppress(OSError):
            transport.send(self._control, {**head, "id": message.head["id"]}, body)

    def _do(self, message: transport.Message) -> bytes:
        match message.head["op"]:
            case "execute":
                return self._execute(message)
            case "seal":
                closing = record.Closing.model_validate_json(message.body)
                return record.finish(self._executed.pop(message.head["execution_id"]), closing)
            case "complete":
                request = CompleteRequest.model_validate_json(message.body)
                return record.complete_without_kernel(request.job, request.closing)
            case "discard":
                self._executed.pop(message.head["execution_id"], None)
                return b""
            case "render_html":
                return html.render(message.body).encode("utf-8", "replace")
            case other:
                raise ValueError(f"unknown request {other!r}")

    def _execute(self, message: transport.Message) -> bytes:
        sock_fd, console = message.descriptors
        try:
            with socket.socket(fileno=sock_fd) as sock:
                request = ExecuteRequest.model_validate_json(message.body)
                port = cells.KernelPort(sock, console)
                run_papermill(request, port)
        finally:
            os.close(console)
        assert port.notebook is not None
        self._executed[request.job.execution_id] = port.notebook
        return _verdict_of(port).model_dump_json().encode()


def run_papermill(request: ExecuteRequest, port: cells.KernelPort) -> None:
    """Run the job's notebook; the port holds the outcome.

    Raises:
        DeclarationError: the source of a notebook workflow is no notebook.
    """
    # A failed cell is an outcome and no error of this process; the port has it.
    with contextlib.suppress(PapermillExecutionError):
        papermill.execute_notebook(
            record.compose(request.job),
            None,
            parameters=request.job.parameters,
            engine_name=ENGINE,
            kernel_name=record.KERNELSPEC["name"],
            language=record.KERNELSPEC["language"],
            progress_bar=False,
            request_save_on_cell_execute=False,
            kernel=port,
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
    Worker(control).serve()


def _forget_module(name: str) -> None:
    modules: dict[str, Any] = sys.modules  # None in it makes an import fail at once
    modules[name] = None


if __name__ == "__main__":
    main(sys.argv[1:])
