"""Framed messages on a stream socket: the one wire format between kernels and the broker.

A frame is a 4-byte big-endian length and that many bytes of UTF-8 JSON. Both rooms import it; it knows no operation.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

MAX_FRAME_BYTES = 16 * 1024 * 1024
_LENGTH = struct.Struct(">I")


class FrameError(Exception):
    """The peer sent something that is no frame."""


def send(sock: socket.socket, message: dict[str, Any]) -> None:
    """Send one message.

    Raises:
        FrameError: the message is longer than `MAX_FRAME_BYTES`.
        OSError: the peer is gone.
    """
    payload = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    if len(payload) > MAX_FRAME_BYTES:
        raise FrameError(f"a message of {len(payload)} bytes is over the limit of {MAX_FRAME_BYTES}")
    sock.sendall(_LENGTH.pack(len(payload)) + payload)


def receive(sock: socket.socket) -> dict[str, Any] | None:
    """Receive one message; None when the peer has closed between two messages.

    Raises:
        FrameError: oversize, truncated, not JSON, or not an object.
    """
    header = _receive_exactly(sock, _LENGTH.size)
    if not header:
        return None
    (length,) = _LENGTH.unpack(header)
    if length > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {length} bytes is over the limit of {MAX_FRAME_BYTES}")
    payload = _receive_exactly(sock, length)
    try:
        message = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"not JSON: {error}") from error
    if not isinstance(message, dict):
        raise FrameError("a message is an object")
    return message


def _receive_exactly(sock: socket.socket, length: int) -> bytes:
    chunks = bytearray()
    while len(chunks) < length:
        chunk = sock.recv(min(length - len(chunks), 1 << 18))
        if not chunk:
            if chunks:
                raise FrameError("the connection ended inside a frame")
            return b""
        chunks += chunk
    return bytes(chunks)
