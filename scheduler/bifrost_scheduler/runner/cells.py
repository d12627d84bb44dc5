"""The talk with a kernel, cell by cell: requests out, messages and printed text in, outputs into the notebook.

The papermill engine runs whole notebooks with it. It starts and ends no kernel, and believes none: whatever a kernel
says, this process survives it and its memory stays within the limits.
"""

from __future__ import annotations

import collections
import itertools
import json
import os
import select
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from nbformat.notebooknode import NotebookNode
from nbformat.v4 import new_code_cell

from bifrost_kernel.forkserver import protocol
from bifrost_kernel.forkserver.protocol import Kind
from bifrost_scheduler.runner.outputs import OutputLimits, Outputs

DIED = "KernelDied"
"""The `ename` of a cell whose kernel ended while it ran."""

_READ_BYTES = 1 << 18
_TOGETHER_BYTES = 32 * 1024
"""Requests that are on their way at once; they fit into a socket, so that neither end waits for the other to read."""
_PARAMETERS = frozenset({"parameters", "injected-parameters"})


class KernelPort:
    """The engine's end of one kernel; afterwards it holds the executed notebook and how it went.

    papermill gives the notebook back only when no cell failed, so whoever passes a port reads `notebook` from it.
    """

    def __init__(self, sock: socket.socket, console: int) -> None:
        self.sock = sock
        self.console = console
        self.notebook: NotebookNode | None = None
        self.died = False
        self.failure: tuple[str, str] | None = None
        """`ename` and `evalue` of the cell that ended the run."""

    def close(self) -> None:
        """For whoever the descriptors belong to."""
        self.sock.close()
        os.close(self.console)


class CellTimeout(Exception):
    """A cell took longer than papermill's `execution_timeout`."""


class _Message(NamedTuple):
    """What the kernel said about one request: `body` is a Jupyter message; `size` what it took on the wire."""

    body: dict[str, Any]
    size: int


class Conversation:
    """The talk with one kernel, cell by cell."""

    def __init__(self, port: KernelPort, limits: OutputLimits, on_text: Callable[[], None] | None = None) -> None:
        self._port = port
        self._on_text = on_text
        self._outputs = Outputs(limits)
        self._reader = protocol.FrameReader(limits.frame_bytes)
        self._session = uuid.uuid4().hex
        self._made = 0
        """Requests, of which some may be on their way."""
        self._run_count = 0
        self._on_their_way: collections.deque[str] = collections.deque()
        self._console_ended = False
        os.set_blocking(port.console, False)
        self._poller = select.poll()
        self._poller.register(port.sock, select.POLLIN)
        self._poller.register(port.console, select.POLLIN)

    def run(
        self, cell: NotebookNode, *, then: Iterable[NotebookNode] = (), timeout_seconds: float | None = None
    ) -> tuple[str, str] | None:
        """Run one code cell; None when it succeeded, else `ename` and `evalue` of what ended it.

        Args:
            then: the code cells that the caller runs next. One that follows parameters is sent with them, and is not
                run when they fail.
        """
        self._outputs.begin(cell)
        deadline = time.monotonic() + timeout_seconds if timeout_seconds else None
        try:
            return self._run(cell, then, deadline)
        except CellTimeout:
            return self._fail("CellTimeout", f"the cell ran for longer than {timeout_seconds} s")
        except (OSError, protocol.ProtocolError) as error:
            self._port.died = True
            self._read_console()
            return self._fail(DIED, f"the kernel ended while this cell ran ({error})")
        finally:
            self._outputs.end()

    def _run(self, cell: NotebookNode, then: Iterable[NotebookNode], deadline: float | None) -> tuple[str, str] | None:
        if not self._on_their_way:
            self._send(_together(cell, then))
        message_id = self._on_their_way.popleft()
        # Kernels are fresh, and count their requests as this end does.
        self._run_count += 1
        cell["execution_count"] = self._run_count
        # A kernel that is interrupted before or after the cell's own code goes idle without a reply.
        failure: tuple[str, str] | None = ("KeyboardInterrupt", "the cell was interrupted")
        for message in self._messages(message_id, deadline):
            content = message.body["content"]
            match message.body["msg_type"]:
                case "execute_reply":
                    failure = _failure_of(content)
                case "status":
                    if content.get("execution_state") == "idle":
                        break
                case _:
                    self._publish(message)
        self._read_console()
        return failure

    def _send(self, group: Sequence[NotebookNode]) -> None:
        """Send the first, and of the others what fits."""
        frames: list[bytes] = []
        for cell, following in itertools.zip_longest(group, group[1:]):
            self._made += 1
            message_id = f"{self._session}-{self._made}"
            stops = following is not None and "raises-exception" not in _tags(cell)
            parts = protocol.execute_request(
                cell["source"], message_id=message_id, session=self._session, stop_on_error=stops
            )
            frame = protocol.pack_parts(Kind.SHELL, parts)
            if frames and sum(map(len, frames)) + len(frame) > _TOGETHER_BYTES:
                break
            frames.append(frame)
            self._on_their_way.append(message_id)
        self._port.sock.sendall(b"".join(frames))

    def _publish(self, message: _Message) -> None:
        try:
            self._outputs.publish(message.body, message.size)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise protocol.ProtocolError(f"it published a {message.body['msg_type']} of a wrong shape") from error

    def _fail(self, ename: str, evalue: str) -> tuple[str, str]:
        self._outputs.add_error(ename, evalue)
        return ename, evalue

    def _messages(self, message_id: str, deadline: float | None) -> Iterator[_Message]:
        """The messages about one request; printed text goes to the outputs on the way."""
        for frame in self._frames(deadline):
            if frame.kind in (Kind.STDOUT, Kind.STDERR):
                self._tell_of_text()
                self._outputs.write("stdout" if frame.kind == Kind.STDOUT else "stderr", frame.payload or b"")
            elif frame.kind == Kind.SETUP_FAILED:
                raise protocol.ProtocolError(_text(frame.payload))
            elif frame.payload is None:
                yield from self._give_up_on(frame)
            else:
                message = _Message(_parse(frame.payload), frame.size)
                if message.body["parent_header"].get("msg_id") == message_id:
                    yield message

    def _tell_of_text(self) -> None:
        if self._on_text is not None:
            tell, self._on_text = self._on_text, None
            tell()

    def _give_up_on(self, frame: protocol.Frame) -> Iterator[_Message]:
        self._outputs.drop(frame.size)
        if frame.kind == Kind.SHELL:
            content = {"status": "error", "ename": "OutputTooLong", "evalue": "the error text was too long to be kept"}
            yield _Message({"msg_type": "execute_reply", "content": content}, frame.size)

    def _frames(self, deadline: float | None) -> Iterator[protocol.Frame]:
        yield from self._reader.feed(b"")
        while True:
            for fd, _ in self._poll(deadline):
                if fd == self._port.console:
                    self._read_console()
                    continue
                data = self._port.sock.recv(_READ_BYTES)
                if not data:
                    raise protocol.ProtocolError("its process ended")
                yield from self._reader.feed(data)

    def _poll(self, deadline: float | None) -> Sequence[tuple[int, int]]:
        if deadline is None:
            return self._poller.poll()
        ready = self._poller.poll(max(deadline - time.monotonic(), 0) * 1000)
        if not ready:
            raise CellTimeout
        return ready

    def _read_console(self) -> None:
        """Take what subprocesses and C code wrote, at most what a pipe holds, so that a flood can't keep us here."""
        if self._console_ended:
            return
        try:
            data = os.read(self._port.console, _READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._console_ended = True
            self._poller.unregister(self._port.console)
        self._outputs.write("stdout", data)


def run_cell(
    port: KernelPort, code: str, *, limits: OutputLimits | None = None, on_text: Callable[[], None] | None = None
) -> tuple[NotebookNode, tuple[str, str] | None]:
    """Run one piece of code without papermill; gives the executed cell, and what ended it.

    Args:
        on_text: called when the first text is printed.
    """
    talk = Conversation(port, limits or OutputLimits(), on_text)
    cell: NotebookNode = new_code_cell(code)
    return cell, talk.run(cell)


def language_info() -> dict[str, Any]:
    """The `language_info` of a notebook that our kernels run."""
    return {
        "name": "python",
        "version": sys.version.split()[0],
        "mimetype": "text/x-python",
        "codemirror_mode": {"name": "ipython", "version": 3},
        "pygments_lexer": "ipython3",
        "nbconvert_exporter": "python",
        "file_extension": ".py",
    }


def _together(cell: NotebookNode, then: Iterable[NotebookNode]) -> list[NotebookNode]:
    """The cell and those that are sent with it.

    Parameters are assigned, and that is all: what other cells start may print after them, and must find their own cell.
    """
    group = [cell]
    for following in then:
        if _PARAMETERS.isdisjoint(_tags(group[-1])):
            break
        group.append(following)
    return group


def _tags(cell: NotebookNode) -> Sequence[str]:
    tags: Sequence[str] = cell["metadata"].get("tags", ())
    return tags


def _parse(payload: bytes) -> dict[str, Any]:
    """The message in a frame: `msg_type`, `parent_header`, `content`.

    Raises:
        ProtocolError: it is none.
    """
    try:
        parts = protocol.unpack_parts(payload)
        start = parts.index(protocol.DELIMITER)
        header, parent, _, content = (json.loads(part) for part in parts[start + 2 : start + 6])
    except (ValueError, RecursionError) as error:
        raise protocol.ProtocolError("it sent a message that is none") from error
    if not all(isinstance(part, dict) for part in (header, parent, content)):
        raise protocol.ProtocolError("it sent a message that is none")
    return {"header": header, "msg_type": header.get("msg_type"), "parent_header": parent, "content": content}


def _failure_of(reply: dict[str, Any]) -> tuple[str, str] | None:
    if reply.get("status") == "ok":
        return None
    return str(reply.get("ename", "Aborted"))[:200], str(reply.get("evalue", ""))[:10_000]


def _text(payload: bytes | None) -> str:
    return (payload or b"").decode("utf-8", "replace")
