"""The least that each part of an execution could take: the same deed with nothing around it, warm, in one process."""

from __future__ import annotations

import contextlib
import io
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import nbformat
import papermill
from IPython.core.interactiveshell import InteractiveShell
from nbformat.notebooknode import NotebookNode
from papermill.engines import Engine, NotebookExecutionManager, papermill_engines

from bench import notebook
from bench.turns import Way


class IdleEngine(Engine):  # type: ignore[misc]
    """Runs nothing, so that papermill's own pipeline is all that is left."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: NotebookExecutionManager, kernel_name: str, **_: Any) -> NotebookNode:
        for index, cell in enumerate(nb_man.nb.cells):
            nb_man.cell_start(cell, index)
            nb_man.cell_complete(cell, cell_index=index)
        executed: NotebookNode = nb_man.nb
        return executed


HTTP = "an answer of the API that asks for no execution"
FORK = "a fork that says hello over a pipe"
PAPERMILL = "papermill with an engine that runs nothing"
CELLS = "IPython, the equal notebook's cells"
FILE = "write, fsync, rename, fsync of the folder"
COMMIT = "one commit of SQLite, synchronous=FULL"


@contextmanager
def open_all(client: httpx.Client, folder: Path) -> Iterator[dict[str, Way]]:
    """Every floor, by what it is."""
    papermill_engines.register("idle", IdleEngine)
    source, shell = notebook.equal(), InteractiveShell.instance()
    record = nbformat.writes(source).encode() * 4
    with closing(_database(folder / "floor.db")) as connection:
        yield {
            HTTP: lambda: client.get("/api/health").raise_for_status(),
            FORK: fork,
            PAPERMILL: lambda: run_idle(source),
            CELLS: lambda: run_cells(shell, source),
            FILE: lambda: write_durably(folder, record),
            COMMIT: lambda: connection.execute("INSERT INTO rows (text) VALUES (?)", ("x" * 500,)),
        }


def fork() -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, b"hello")
        os._exit(0)
    os.read(reading, 5)
    os.close(reading)
    os.close(writing)
    os.waitpid(pid, 0)


def run_idle(source: NotebookNode) -> None:
    papermill.execute_notebook(
        source, None, parameters=notebook.PARAMETERS, engine_name="idle", kernel_name="python3",
        progress_bar=False, request_save_on_cell_execute=False,
    )  # fmt: skip


def run_cells(shell: InteractiveShell, source: NotebookNode) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        for cell in source.cells:
            if cell.cell_type == "code":
                shell.run_cell(cell.source, store_history=False).raise_error()


def write_durably(folder: Path, content: bytes) -> None:
    partial = folder / "partial"
    with open(partial, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / "whole")
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _database(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, text TEXT)")
    return connection
