"""papermill's engine for our kernels, published as the entry point `papermill.engine: bifrost`.

Workers use it by way of `papermill.execute_notebook(…, engine_name="bifrost", kernel=…)`; anybody may use it without a
kernel, for a notebook that knows nothing of Bifrost. papermill imports this module at the end of its own import, so
whoever needs it directly imports papermill first.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Callable
from typing import IO, Any, NamedTuple

from nbformat.notebooknode import NotebookNode
from papermill.engines import Engine, NotebookExecutionManager
from papermill.exceptions import PapermillException
from papermill.log import logger

from bifrost_scheduler.runner import kernels
from bifrost_scheduler.runner.cells import Conversation, KernelPort, language_info
from bifrost_scheduler.runner.outputs import OutputLimits


class NotebookKept(Exception):
    """The notebook ran, and papermill need not write it: whoever holds the kernel's port has it."""


class BifrostEngine(Engine):  # type: ignore[misc]
    """Runs a notebook in a warm kernel."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: NotebookExecutionManager,
        kernel_name: str,
        *,
        kernel: Callable[[], KernelPort] | None = None,
        on_end: Callable[[KernelPort], None] | None = None,
        hand_back: bool = True,
        limits: OutputLimits | None = None,
        execution_timeout: float | None = None,
        log_output: bool = False,
        stdout_file: IO[str] | None = None,
        stderr_file: IO[str] | None = None,
        **_: Any,
    ) -> NotebookNode:
        """Called by papermill; without `kernel` a private fork server is started and ended.

        Args:
            kernel: gives, or waits for, where to run; it is not closed.
            on_end: called when the last cell has ended, before papermill goes on.
            hand_back: False leaves the executed notebook to the kernel's port alone, and raises `NotebookKept` after
                the end: papermill completes its metadata, and does not serialise it for nobody.
            limits: how much output is kept.
            execution_timeout: seconds per cell.

        Raises:
            NotebookKept: see `hand_back`.
        """
        sinks = _Sinks(log_output, stdout_file, stderr_file)
        if kernel is not None:
            port = kernel()
            notebook = _run_cells(nb_man, port, limits or OutputLimits(), execution_timeout, sinks)
            if on_end is not None:
                on_end(port)
            if not hand_back:
                raise NotebookKept
            return notebook
        _refuse_other_languages(nb_man.nb)
        # A stranger's notebook runs as with any engine: in the caller's folder and environment.
        source = kernels.KernelSource.start(spares=0, environment=os.environ, working_folder=os.getcwd(), preload=())
        try:
            own = source.acquire()
            try:
                port = KernelPort(own.kernel_socket, own.console)
                return _run_cells(nb_man, port, limits or OutputLimits(), execution_timeout, sinks)
            finally:
                own.close()
        finally:
            source.close()


class _Sinks(NamedTuple):
    """Where else papermill wants the text of outputs."""

    log_output: bool
    stdout_file: IO[str] | None
    stderr_file: IO[str] | None

    def take(self, cell: NotebookNode) -> None:
        for output in cell.get("outputs", ()):
            if output["output_type"] == "stream":
                self._take_stream(output["name"], output["text"])
            elif self.log_output and "text/plain" in output.get("data", {}):
                logger.info(output["data"]["text/plain"])

    def _take_stream(self, name: str, text: str) -> None:
        file = self.stdout_file if name == "stdout" else self.stderr_file
        if self.log_output:
            logger.info(text)
        if file is not None:
            file.write(text)
            file.flush()


def _run_cells(
    nb_man: NotebookExecutionManager,
    port: KernelPort,
    limits: OutputLimits,
    cell_timeout_seconds: float | None,
    sinks: _Sinks,
) -> NotebookNode:
    notebook: NotebookNode = nb_man.nb
    port.notebook = notebook
    notebook["metadata"]["language_info"] = language_info()
    talk = Conversation(port, limits)
    to_run = collections.deque(filter(_is_to_run, notebook["cells"]))
    for index, cell in enumerate(notebook["cells"]):
        nb_man.cell_start(cell, index)
        try:
            if not _is_to_run(cell):
                continue
            to_run.popleft()
            failure = talk.run(cell, then=to_run, timeout_seconds=cell_timeout_seconds)
            sinks.take(cell)
            if failure is not None and not _may_fail(cell, port):
                port.failure = failure
                nb_man.cell_exception(cell, cell_index=index)
                break
        finally:
            nb_man.cell_complete(cell, cell_index=index)
    return notebook


def _is_to_run(cell: NotebookNode) -> bool:
    return cell["cell_type"] == "code" and bool(cell["source"].strip())


def _may_fail(cell: NotebookNode, port: KernelPort) -> bool:
    return not port.died and "raises-exception" in cell["metadata"].get("tags", ())


def _refuse_other_languages(notebook: NotebookNode) -> None:
    language = notebook["metadata"].get("kernelspec", {}).get("language", "python")
    if language.lower() != "python":
        raise PapermillException(f"the bifrost engine runs Python notebooks, and this one is {language}")
