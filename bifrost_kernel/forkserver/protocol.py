"""The frames between a kernel and the engine that drives it; both ends import this, it does no I/O.

A frame is a 4-byte length, a 1-byte kind and the payload. Text that the code prints travels raw, because a whole
Jupyter message for each `print` costs fifty times as much; everything else is a Jupyter message, as stock libraries
make and read it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

DELIMITER = b"<IDS|MSG>"
"""Ends the routing prefix of a Jupyter message."""

MAX_TEXT_BYTES = 64 * 1024
"""A longer text is sent in several frames, so that a reader can cut it without holding all of it."""

_HEAD = struct.Struct(">IB")
_COUNT = struct.Struct(">B")


class Kind(IntEnum):
    SETUP = 1
    """To the kernel: `models.KernelSetup` as JSON."""
    SHELL = 2
    """A request to the kernel, or its reply: parts of a Jupyter message."""
    IOPUB = 3
    """What the kernel publishes: parts of a Jupyter message."""
    STDOUT = 4
    STDERR = 5
    SETUP_FAILED = 6
    """From the kernel: the text of what went wrong before any cell could run."""


class Frame(NamedTuple):
    """`payload` is None when the frame was longer than the reader's limit and was thrown away."""

    kind: int
    payload: bytes | None
    size: int


class ProtocolError(Exception):
    """The other end sent something that is no frame."""


def pack(kind: Kind, payload: bytes) -> bytes:
    """One frame."""
    return _HEAD.pack(len(payload), kind) + payload


def pack_parts(kind: Kind, parts: Sequence[bytes]) -> bytes:
    """One frame with the parts of a Jupyter message (at most 255)."""
    lengths = struct.pack(f">B{len(parts)}I", len(parts), *map(len, parts))
    return pack(kind, lengths + b"".join(parts))


def unpack_parts(payload: bytes) -> list[bytes]:
    """The parts of a Jupyter message.

    Raises:
        ProtocolError: the lengths do not add up.
    """
    try:
        (count,) = _COUNT.unpack_from(payload)
        lengths = struct.unpack_from(f">{count}I", payload, _COUNT.size)
    except struct.error as error:
        raise ProtocolError("a message without its lengths") from error
    start = _COUNT.size + 4 * count
    if start + sum(lengths) != len(payload):
        raise ProtocolError("the lengths of a message do not add up")
    parts = []
    for length in lengths:
        parts.append(payload[start : start + length])
        start += length
    return parts


def execute_request(code: str, *, message_id: str, session: str, stop_on_error: bool = False) -> list[bytes]:
    """The parts of an `execute_request` (Jupyter messaging protocol 5.3).

    Args:
        stop_on_error: the requests that are behind it on the way are aborted when it fails.
    """
    header = {
        "msg_id": message_id,
        "msg_type": "execute_request",
        "username": "bifrost",
        "session": session,
        "date": "1970-01-01T00:00:00+00:00",
        "version": "5.3",
    }
    content = {
        "code": code,
        "silent": False,
        "store_history": True,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": stop_on_error,
    }
    return [DELIMITER, b"", json.dumps(header).encode(), b"{}", b"{}", json.dumps(content).encode()]


class FrameReader:
    """Turns received bytes into frames, holding at most `limit_bytes` and one read."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._buffer = bytearray()
        self._skip = 0

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes."""
        self._buffer += data
        while (frame := self._next()) is not None:
            yield frame

    def _next(self) -> Frame | None:
        self._drop_skipped()
        if self._skip or len(self._buffer) < _HEAD.size:
            return None
        length, kind = _HEAD.unpack_from(self._buffer)
        if length > self._limit:
            del self._buffer[: _HEAD.size]
            self._skip = length
            return Frame(kind, None, length)
        end = _HEAD.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[_HEAD.size : end])
        del self._buffer[:end]
        return Frame(kind, payload, length)

    def _drop_skipped(self) -> None:
        dropped = min(self._skip, len(self._buffer))
        del self._buffer[:dropped]
        self._skip -= dropped
