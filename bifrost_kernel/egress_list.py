"""Lists of hosts that code may reach: what an entry may look like, and whether a list permits a destination.

Decorators, the administration and the egress proxy call it, so that one entry means the same everywhere. Pure: it
resolves nothing. Where a host that is permitted leads to is somebody else's judgement.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bifrost_kernel import errors

MAX_ENTRIES = 200
EXAMPLES = "graph.microsoft.com, *.halopsa.com:443, 192.0.2.7 or [2001:db8::1]:8443"

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
_ENDS_LIKE_AN_ADDRESS = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
"""The last label of a name that libraries read as an IPv4 address (WHATWG URL, “ends in a number”)."""
_MAX_NAME_CHARS = 253


class Entry(NamedTuple):
    """One line of a list."""

    host: str
    """A name in lower case without the last dot, or an address in its shortest form."""
    port: int | None
    """None is any."""
    is_suffix: bool
    """`*.example.com`: every name below the host, at any depth, and not the host itself."""

    def permits(self, host: str, port: int) -> bool:
        if self.port not in (None, port):
            return False
        return host.endswith(f".{self.host}") if self.is_suffix else host == self.host


class EgressList:
    """What one list permits; an empty one permits nothing."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Raises `ValidationError` as `parse` does."""
        self._entries = tuple(map(parse, texts))

    def permits(self, host: str, port: int) -> bool:
        """Whether a destination is on the list, as it was asked for, before any name is resolved."""
        normal = normalise(host)
        return any(entry.permits(normal, port) for entry in self._entries)


def check(texts: Sequence[object]) -> tuple[str, ...]:
    """The list as it is kept.

    Raises:
        ValidationError: an entry is wrong; says which one and what is allowed.
    """
    if len(texts) > MAX_ENTRIES:
        raise errors.ValidationError(f"{len(texts)} entries are more than the {MAX_ENTRIES} that a list may have")
    kept = []
    for text in texts:
        if not isinstance(text, str):
            raise _wrong(text, "is no text")
        parse(text)
        kept.append(text)
    return tuple(kept)


def parse(text: str) -> Entry:
    """
    Raises:
        ValidationError: it is no host, `*.` and a name, or address, with or without a port.
    """
    if not text.isascii():
        raise _wrong(text, "is not ASCII; write the name in its xn-- form")
    if "/" in text:
        raise _wrong(text, "is no host but a URL or a network")
    host, port = _split(text)
    is_suffix = host.startswith("*.")
    name = normalise(host.removeprefix("*."))
    if _is_address(name):
        if is_suffix:
            raise _wrong(text, "puts *. before an address")
    elif len(name) > _MAX_NAME_CHARS or not _NAME.fullmatch(name) or _ENDS_LIKE_AN_ADDRESS.fullmatch(name):
        raise _wrong(text, "is no host")
    return Entry(name, port, is_suffix)


def normalise(host: str) -> str:
    """A name in lower case without the last dot; an address in its shortest form."""
    name = host.strip("[]").removesuffix(".").lower()
    with contextlib.suppress(ValueError):  # a name, which is compared as it is
        return ipaddress.ip_address(name).compressed
    return name


def _split(text: str) -> tuple[str, int | None]:
    if _is_address(text):
        return text, None
    host, separator, port = text.rpartition(":")
    if not separator:
        return text, None
    if text.endswith("]") and text.startswith("["):
        return text, None
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 1 << 16:
        raise _wrong(text, "has no port from 1 to 65535 behind its colon")
    return host, int(port)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def _wrong(entry: object, what: str) -> errors.ValidationError:
    shown = repr(entry)[:_MAX_NAME_CHARS]
    return errors.ValidationError(f"{shown} {what}; an entry is a host, with a port or without: {EXAMPLES}")
