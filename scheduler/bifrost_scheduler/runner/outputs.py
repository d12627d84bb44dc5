"""The outputs of a notebook's cells while it runs: merged, updated, cleared, and cut at the limits.

The engine feeds it what a kernel says, which is never trusted: whatever comes, memory stays within the limits.
"""

from __future__ import annotations

import codecs
from typing import Any

from nbformat.notebooknode import NotebookNode, from_dict
from nbformat.v4 import new_output, output_from_msg

from bifrost_kernel import models

_OVERHEAD_BYTES = 200
"""What an output costs beside its content, so that a flood of empty ones ends as well."""

_PUBLISHED = frozenset({"display_data", "execute_result", "error"})


class OutputLimits(models.Frozen):
    """How much of what a kernel says is kept."""

    execution_bytes: int = 10 * 1024 * 1024
    """All outputs of an execution together."""
    output_bytes: int = 1024 * 1024
    """One output: a merged stream, a display, an error."""

    @property
    def frame_bytes(self) -> int:
        """The longest frame that is read at all: JSON may write a character in six bytes."""
        return 6 * self.output_bytes + 64 * 1024


class _Stream:
    """A stream output in the making."""

    def __init__(self, name: str) -> None:
        self.node = NotebookNode(output_type="stream", name=name, text="")
        self.size = 0
        self._parts: list[str] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def append(self, data: bytes) -> None:
        self._parts.append(self._decoder.decode(data))
        self.size += len(data)

    def close(self) -> None:
        self.node["text"] = "".join(self._parts) + self._decoder.decode(b"", final=True)


class Outputs:
    """The outputs of one execution, cell after cell."""

    def __init__(self, limits: OutputLimits | None = None) -> None:
        self._limits = limits or OutputLimits()
        self._left = self._limits.execution_bytes
        self._displays: dict[str, list[NotebookNode]] = {}
        self._cell: NotebookNode | None = None
        self._stream: _Stream | None = None
        self._clear_before_next = False
        self._full = False
        self._cut = False

    def begin(self, cell: NotebookNode) -> None:
        """What follows belongs to this code cell."""
        self._cell = cell
        cell["outputs"] = []
        self._clear_before_next = self._cut = False

    def end(self) -> None:
        """Finish the cell's last stream; further outputs go nowhere until the next `begin`."""
        self._close_stream()
        self._cell = None

    def write(self, name: str, data: bytes) -> None:
        """Text of `stdout` or `stderr`; neighbours of one name become one output."""
        if self._cell is None or self._full or not data:
            return
        self._clear_if_due()
        stream = self._open_stream(name)
        room = min(self._left, self._limits.output_bytes - stream.size)
        stream.append(data[: max(room, 0)])
        self._left -= min(len(data), max(room, 0))
        if len(data) > room:
            self._note_cut()

    def publish(self, message: dict[str, Any], size: int) -> None:
        """A message of the kernel, and how many bytes it had on the wire; unknown types are ignored."""
        kind = message["msg_type"]
        if kind == "clear_output":
            self._clear(wait=bool(message["content"].get("wait")))
        elif kind == "update_display_data":
            self._update(message, size)
        elif kind in _PUBLISHED:
            self._add(message, size)

    def drop(self, size: int) -> None:
        """Something too long to be read at all."""
        if self._cell is not None:
            self._append_note(
                f"an output of {_megabytes(size)} was left out: the limit for one output", per_output=True
            )

    def add_error(self, ename: str, evalue: str, traceback: list[str] | None = None) -> None:
        """An error that the engine found; it is never cut off."""
        if self._cell is not None:
            self._close_stream()
            error = new_output("error", ename=ename, evalue=evalue, traceback=traceback or [f"{ename}: {evalue}"])
            self._cell["outputs"].append(error)

    def _add(self, message: dict[str, Any], size: int) -> None:
        if self._cell is None:
            return
        is_error = message["msg_type"] == "error"
        if self._full and not is_error:
            return
        self._clear_if_due()
        self._close_stream()
        if size > self._limits.output_bytes and not is_error:
            self.drop(size)
            return
        output = _shorten_error(output_from_msg(message), self._limits) if is_error else _shown(message)
        self._cell["outputs"].append(output)
        self._remember_display(message, output)
        self._spend(size + _OVERHEAD_BYTES)

    def _remember_display(self, message: dict[str, Any], output: NotebookNode) -> None:
        display_id = (message["content"].get("transient") or {}).get("display_id")
        if isinstance(display_id, str):
            self._displays.setdefault(display_id, []).append(output)

    def _update(self, message: dict[str, Any], size: int) -> None:
        content = message["content"]
        shown = self._displays.get(str((content.get("transient") or {}).get("display_id")), [])
        if not shown or self._full or size > self._limits.output_bytes:
            return
        for output in shown:
            output["data"] = from_dict(content["data"])
            output["metadata"] = from_dict(content["metadata"])
        self._spend(size)

    def _clear(self, *, wait: bool) -> None:
        self._clear_before_next = True
        if not wait:
            self._clear_if_due()

    def _clear_if_due(self) -> None:
        if self._clear_before_next and self._cell is not None:
            self._clear_before_next = False
            self._stream = None
            self._cell["outputs"] = []

    def _open_stream(self, name: str) -> _Stream:
        if self._stream is None or self._stream.node["name"] != name:
            self._close_stream()
            self._stream = _Stream(name)
            assert self._cell is not None
            self._cell["outputs"].append(self._stream.node)
            self._left -= _OVERHEAD_BYTES
            self._cut = False
        return self._stream

    def _close_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left <= 0:
            self._note_cut()

    def _note_cut(self) -> None:
        if self._left <= 0:
            self._full = True
            self._append_note("further output was cut: the limit for one execution", per_output=False)
        elif not self._cut:
            self._cut = True
            self._append_note("this output was cut: the limit for one output", per_output=True)

    def _append_note(self, text: str, *, per_output: bool) -> None:
        limit = self._limits.output_bytes if per_output else self._limits.execution_bytes
        note = new_output("display_data", data={"text/plain": f"[Bifrost: {text} is {_megabytes(limit)}]"})
        note["metadata"] = from_dict({"bifrost": {"cut": True}})
        assert self._cell is not None
        self._cell["outputs"].append(note)


def _shown(message: dict[str, Any]) -> NotebookNode:
    """A display or a result; plain text, as most are, without nbformat's validation of each, which is slow."""
    kind, content = message["msg_type"], message["content"]
    data, metadata, count = content["data"], content["metadata"], content.get("execution_count")
    is_plain = not metadata and data.keys() == {"text/plain"} and isinstance(data["text/plain"], str)
    if kind != "execute_result" or not is_plain or type(count) is not int or count < 0:
        output: NotebookNode = output_from_msg(message)
        return output
    return NotebookNode(output_type=kind, data=NotebookNode(data), metadata=NotebookNode(), execution_count=count)


def _shorten_error(error: NotebookNode, limits: OutputLimits) -> NotebookNode:
    """Errors are always shown, but not at any length."""
    room = limits.output_bytes // 4
    error["evalue"] = _shorten(str(error["evalue"]), room)
    lines, kept = list(map(str, error["traceback"])), []
    for line in lines[:200]:
        kept.append(_shorten(line, room))
        room -= len(kept[-1])
    error["traceback"] = kept
    return error


def _shorten(text: str, room: int) -> str:
    return text if len(text) <= room else text[: max(room, 0)] + " … [cut by Bifrost]"


def _megabytes(size: int) -> str:
    return f"{size / 1024 / 1024:.3g} MB"
