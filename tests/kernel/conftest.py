"""What the tests of the author's side share: workspaces on disk, and a peer that speaks the broker's protocol."""

from __future__ import annotations

import socket
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bifrost_kernel import entry, frames, models


class Peer:
    """The broker's end of a socket: answers from a table, and keeps every request."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answers = dict(answers)
        self.kernel_end, self._end = socket.socketpair()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(ConnectionError):  # the kernel is gone, with an answer that it did not read
            self._answer_all()
        self._end.close()

    def _answer_all(self) -> None:
        while (request := frames.receive(self._end)) is not None:
            self.requests.append(request)
            answer = self.answers.get(request["op"])
            if callable(answer):
                answer = answer(request)
            body = answer if isinstance(answer, dict) and "error" in answer else {"ok": answer}
            frames.send(self._end, {"id": request["id"], **body})

    def of(self, op: str) -> list[dict[str, Any]]:
        return [request for request in self.requests if request["op"] == op]

    def close(self) -> None:
        self.kernel_end.close()
        self._thread.join()


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    """Make peers; each ends with the test."""
    peers: list[Peer] = []

    def make(**answers: Any) -> Peer:
        peers.append(Peer(answers))
        return peers[-1]

    yield make
    for made in peers:
        made.close()


@pytest.fixture
def own_imports() -> Iterator[None]:
    """Give back the import system as it was: loading author code is meant for processes that end afterwards."""
    before = list(sys.path), dict(sys.modules), list(sys.meta_path), sys.dont_write_bytecode
    yield
    sys.path[:], sys.meta_path[:], sys.dont_write_bytecode = before[0], before[2], before[3]
    for name in set(sys.modules) - set(before[1]):
        if not name.startswith("bifrost_kernel") and _is_author_code(name):
            del sys.modules[name]


def _is_author_code(name: str) -> bool:
    roots = ("workflows", "modules", "data_providers", "engine", "bifrost_workspace")
    return name.partition(".")[0] in roots or not hasattr(sys.modules[name], "__spec__")


@pytest.fixture
def workspace(tmp_path: Path, own_imports: None) -> Callable[[Mapping[str, str]], Path]:
    """Write files into a workspace of the test's own."""

    def write(files: Mapping[str, str]) -> Path:
        for relative, text in files.items():
            path = tmp_path / "code" / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text), encoding="utf-8")
        return tmp_path / "code"

    return write


@pytest.fixture
def configured(peer: Callable[..., Peer], workspace: Callable[..., Path]) -> Callable[..., Peer]:
    """A kernel that is set up for the workflow or data provider of a one-file workspace."""

    def configure(name: str, code: str = "", *, builtin: bool = False, **answers: Any) -> Peer:
        root = workspace({"workflows/it.py": code})
        setup = models.KernelSetup(
            token="t",
            execution_id="e1",
            organization=models.OrganizationInfo(id="acme", name="Acme"),
            caller=models.Caller(subject="user:a@example.com", email="a@example.com", name="A"),
            name=name,
            code_dir=str(root),
            source=models.Source(file="workflows/it.py"),
            builtin=builtin,
        )
        made: Peer = peer(**answers)
        entry.configure(setup, made.kernel_end)
        return made

    return configure
