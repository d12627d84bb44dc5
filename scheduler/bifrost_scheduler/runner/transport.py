"""Messages between the control plane and its engine workers, over a SOCK_SEQPACKET pair.

A message is a small JSON head and a body of any size. A short body follows the head; a long one travels as a memory
file beside further descriptors, so that a record of many megabytes needs neither a frame limit nor a second copy in the
socket.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

_PREFIX = struct.Struct("=I?")
"""Bytes of the head, and whether the body is in a file."""
_SHORT_BYTES = 32 * 1024
_MESSAGE_BYTES = 64 * 1024
_MAX_DESCRIPTORS = 8


class Message(NamedTuple):
    head: dict[str, Any]
    body: bytes
    descriptors: list[int]
    """The receiver's to close."""


def send(sock: socket.socket, head: dict[str, Any], body: bytes = b"", descriptors: Sequence[int] = ()) -> None:
    """Send one message; the descriptors stay open here.

    Raises:
        OSError: the peer is gone, or there are too many open files.
    """
    text = json.dumps(head).encode()
    if len(body) <= _SHORT_BYTES:
        socket.send_fds(sock, [_PREFIX.pack(len(text), False), text, body], list(descriptors))
        return
    memory = os.memfd_create("bifrost-message", os.MFD_CLOEXEC)
    try:
        with os.fdopen(memory, "wb", closefd=False) as file:
            file.write(body)
        socket.send_fds(sock, [_PREFIX.pack(len(text), True), text], [memory, *descriptors])
    finally:
        os.close(memory)


def receive(sock: socket.socket) -> Message | None:
    """The next message; None when the peer has closed."""
    data, descriptors, _, _ = socket.recv_fds(sock, _MESSAGE_BYTES, _MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    if not data:
        return None
    head_bytes, is_in_file = _PREFIX.unpack_from(data)
    end = _PREFIX.size + head_bytes
    head = json.loads(data[_PREFIX.size : end])
    return Message(head, _read_file(descriptors) if is_in_file else data[end:], descriptors)


def _read_file(descriptors: list[int]) -> bytes:
    if not descriptors:
        raise OSError("a message came without its body: too many open files")
    with os.fdopen(descriptors.pop(0), "rb") as file:
        file.seek(0)
        return file.read()
