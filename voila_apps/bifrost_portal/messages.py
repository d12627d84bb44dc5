"""What a browser may say to the kernel behind its form: every message of a websocket is read here before it goes on.

`server` asks. A message passes when all of it is in the one plain shape that our front end sends; whatever could be
read in two ways (a name twice, another channel, a header that is none) is dropped. It never answers, never executes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from jupyter_server.services.kernels.connection.base import deserialize_msg_from_ws_v1

ALLOWED_TYPES = ("comm_open", "comm_msg", "comm_close", "comm_info_request", "kernel_info_request")
"""Nothing that executes, completes, inspects, debugs or ends: forms need widgets' messages only."""
ALLOWED_METHODS = ("custom", "request_state", "request_states")
CONTROL_TARGET = "jupyter.widget.control"
"""Where a front end asks for the state of the widgets that are there."""
CHANNEL = "shell"
PARTS = ("header", "parent_header", "metadata", "content")
V1 = "v1.kernel.websocket.jupyter.org"


def is_allowed(message: str | bytes, protocol: str | None) -> bool:
    """Whether it may go to the kernel.

    Args:
        protocol: what the websocket speaks; None is the older one, JSON in text frames.
    """
    try:
        parts = _parts_v1(message) if protocol == V1 else _parts(message)
    except (ValueError, IndexError, RecursionError):
        return False
    if not all(isinstance(part, dict) for part in parts):
        return False
    header, _, _, content = parts
    return _is_allowed_header(header) and _is_harmless(header["msg_type"], content)


def _is_allowed_header(header: dict[str, Any]) -> bool:
    kind = header.get("msg_type")
    # Subshells are threads of the kernel, which a form has no use for.
    return isinstance(kind, str) and kind in ALLOWED_TYPES and header.get("subshell_id") is None


def _is_harmless(kind: str, content: dict[str, Any]) -> bool:
    """Whether it asks a widget that is there: none is made, and nothing of one is overwritten."""
    if not kind.startswith("comm_") or kind == "comm_info_request":
        return True
    data = content.get("data", {})
    if not isinstance(content.get("comm_id"), str) or not isinstance(data, dict):
        return False
    if kind == "comm_open":
        return content.get("target_name") == CONTROL_TARGET
    return kind == "comm_close" or data.get("method") in ALLOWED_METHODS


def _parts(message: str | bytes) -> Sequence[Any]:
    """Raises `ValueError`, `RecursionError`: it is no message."""
    read = _read(message) if isinstance(message, str) else None
    if not isinstance(read, dict) or read.get("channel") != CHANNEL or read.get("buffers"):
        raise ValueError
    return [read.get(name) for name in PARTS]


def _parts_v1(message: str | bytes) -> Sequence[Any]:
    """Raises `ValueError`, `IndexError`, `RecursionError`: it is no message."""
    if isinstance(message, str) or int.from_bytes(message[:8], "little") * 8 > len(message):
        raise ValueError
    channel, parts = deserialize_msg_from_ws_v1(message)
    if channel != CHANNEL or len(parts) < len(PARTS):
        raise ValueError
    return [_read(part) for part in parts[: len(PARTS)]]


def _read(text: str | bytes) -> Any:
    read = json.loads(text, object_pairs_hook=_without_doubles)
    json.dumps(read, ensure_ascii=False).encode()  # Halves of characters (lone surrogates) go no further.
    return read


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises `ValueError`: a name stands there twice, and who reads it next might take the other value."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found
