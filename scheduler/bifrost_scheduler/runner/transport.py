"""Messages between the control plane and its engine workers, over a SOCK_SEQPACKET pair.

A message is a small JSON head and a body of any size; the body travels as a memory file beside further descriptors, so
that a record of many megabytes needs neither a frame limit nor a second copy in the socket.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

_HEAD_BYTES = 64 * 1024
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
    memory = os.memfd_create("bifrost-message", os.MFD_CLOEXEC)
    try:
        with os.fdopen(memory, "wb", closefd=False) as file:
            file.write(body)
        socket.send_fds(sock, [json.dumps(head).encode()], [memory, *descriptors])
    finally:
        os.close(memory)


def receive(sock: socket.socket) -> Message | None:
    """The next message; None when the peer has closed."""
    data, descriptors, _, _ = socket.recv_fds(sock, _HEAD_BYTES, _MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    if not data:
        return None
    if not descriptors:
        raise OSError("a message came without its body: too many open files")
    with os.fdopen(descriptors.pop(0), "rb") as file:
        file.seek(0)
        body = file.read()
    return Message(json.loads(data), body, descriptors)
