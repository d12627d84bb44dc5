"""Masks secrets in everything that leaves a kernel: events, results, errors, notebooks, HTML and log lines.

The broker adds each value that it hands out, and masks events; the engine worker masks the record. It works on text and
JSON-like values and reads no store. It cannot mask what author code cuts up or encodes on purpose, nor images.
"""

from __future__ import annotations

import base64
import html
import json
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import re2

from bifrost_kernel import errors

MASK = "***"
MIN_CHARS = 8
"""A shorter text occurs by chance; it is no secret that could be masked."""
_MATCHER_BYTES = 256 * 1024 * 1024

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
"""Escape sequences of terminals: CSI, OSC and the short ones (ECMA-48)."""


class Redactor:
    """Replaces known values, and their usual spellings, by `***`. Called from any thread."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._literals: set[str] = set()
        self._matcher: Any = None
        for value in values:
            self.add(value)

    def add(self, value: str) -> None:
        """Mask this value from now on.

        Raises:
            ValidationError: it is too short to be masked; do not hand it out.
        """
        if len(value.strip()) < MIN_CHARS:
            raise errors.ValidationError(f"a value under {MIN_CHARS} characters could not be masked in records")
        found = spellings(value)
        with self._lock:
            if not found <= self._literals:
                self._literals |= found
                self._matcher = None

    def text(self, text: str) -> str:
        """The text with every known value masked; colours go too where one ran through a value."""
        matcher = self._compiled()
        if matcher is None or not text:
            return text
        masked = _mask(matcher, text)
        if "\x1b" not in masked:
            return masked
        plain = _ANSI.sub("", masked)
        return _mask(matcher, plain) if _finds(matcher, plain) else masked

    def walk(self, value: Any) -> Any:
        """The same JSON-like value with every text, key and telling number in it masked."""
        if self._compiled() is None:
            return value
        try:
            return self._walk(value)
        except RecursionError:
            return MASK  # Too deep to be looked through is too deep to be shown.

    def has_leak(self, text: str | bytes) -> bool:
        """Whether a known value still stands in the text."""
        matcher = self._compiled()
        if matcher is None:
            return False
        plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        return _finds(matcher, plain) or ("\x1b" in plain and _finds(matcher, _ANSI.sub("", plain)))

    def _walk(self, value: Any) -> Any:
        match value:
            case str():
                return self.text(value)
            case dict():
                return {self._walk(key): self._walk(item) for key, item in value.items()}
            case list() | tuple():
                return [self._walk(item) for item in value]
            case bool() | None:
                return value
            case int() | float():
                return MASK if self.has_leak(repr(value)) else value
        return value

    def _compiled(self) -> Any:
        with self._lock:
            if self._matcher is None and self._literals:
                self._matcher = _compile(self._literals)
            return self._matcher


def spellings(value: str) -> set[str]:
    """The texts in which a value usually appears: itself, its lines and its JSON leaves, each escaped and encoded."""
    parts = {value, value.strip(), *_long_lines(value), *_json_leaves(value)}
    found: set[str] = set()
    for part in parts:
        found |= _escaped(part) | _encoded(part)
    return {text for text in found if len(text) >= MIN_CHARS}


def _long_lines(value: str) -> Iterator[str]:
    """Each line of a PEM block or the like may be printed on its own."""
    lines = value.splitlines()
    if len(lines) > 1:
        yield from (line.strip() for line in lines if len(line.strip()) >= MIN_CHARS)


def _json_leaves(value: str) -> Iterator[str]:
    """The texts and numbers inside a secret that is itself JSON, such as a service account."""
    if not value.lstrip().startswith(("{", "[")):
        return
    try:
        pending = [json.loads(value)]
    except (ValueError, RecursionError):
        return
    while pending:
        item = pending.pop()
        if isinstance(item, dict | list):
            pending.extend(item.values() if isinstance(item, dict) else item)
        elif not isinstance(item, bool) and len(str(item).strip()) >= MIN_CHARS:
            yield str(item)
            yield from _long_lines(str(item))


def _escaped(text: str) -> set[str]:
    """Under one escape and under two, as in a repr inside JSON."""
    once = {escape(text) for escape in _ESCAPES}
    return {text, text[::-1]} | once | {escape(inner) for inner in once for escape in _ESCAPES}


def _percent_lower(text: str) -> str:
    return re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), urllib.parse.quote(text, safe="", errors="replace"))


_ESCAPES: tuple[Callable[[str], str], ...] = (
    lambda text: repr(text)[1:-1],
    lambda text: repr(text.encode("utf-8", "replace"))[2:-1],
    # `repr` doubles quotes only when both kinds stand in the text; inside a longer text they may be escaped anyway.
    lambda text: repr(text + "'\"")[1:-4],
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    html.escape,
    lambda text: html.escape(text, quote=False),
    # As Jinja2 and markupsafe write quotes.
    lambda text: html.escape(text).replace("&quot;", "&#34;").replace("&#x27;", "&#39;"),
    lambda text: urllib.parse.quote(text, errors="replace"),
    lambda text: urllib.parse.quote(text, safe="", errors="replace"),
    lambda text: urllib.parse.quote_plus(text, errors="replace"),
    _percent_lower,
)


def _encoded(text: str) -> set[str]:
    plain = text.encode("utf-8", "replace")
    found = {plain.hex(), plain.hex().upper()}
    for offset in range(3):
        standard = _base64_core(plain, offset)
        found |= {standard, standard.replace("+", "-").replace("/", "_")}
    # MIME breaks base64 into lines of 76 (RFC 2045 §6.8).
    found |= {line for line in base64.encodebytes(plain).decode().splitlines() if len(line) > MIN_CHARS}
    return found


def _base64_core(plain: bytes, offset: int) -> str:
    """The characters that stand for these bytes alone, when `offset` (mod 3) other bytes come before them.

    So `user:secret` in a Basic header is found by its secret, whatever the user is called.
    """
    text = base64.b64encode(b"\0" * offset + plain).decode().rstrip("=")
    shared_with_next = 1 if (offset + len(plain)) % 3 else 0
    return text[(0, 2, 3)[offset] : len(text) - shared_with_next]


def _compile(literals: set[str]) -> Any:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1  # Bytes are bytes, whatever a kernel printed.
    options.longest_match = True
    options.max_mem = _MATCHER_BYTES
    options.log_errors = False
    ordered = sorted(literal.encode("utf-8", "replace") for literal in literals)
    return re2.compile(b"|".join(re2.escape(literal) for literal in ordered), options)


def _mask(matcher: Any, text: str) -> str:
    plain = text.encode("utf-8", "surrogatepass")
    if matcher.search(plain) is None:
        return text
    masked: bytes = matcher.sub(MASK.encode(), plain)
    return masked.decode("utf-8", "surrogatepass")


def _finds(matcher: Any, text: str) -> bool:
    return matcher.search(text.encode("utf-8", "surrogatepass")) is not None
