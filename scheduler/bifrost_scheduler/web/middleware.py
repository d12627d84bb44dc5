"""What stands before every route: the body limit, safe headers, and one access line a request.

Pure ASGI, so that live event streams pass unbuffered. The access line holds no query string and no header.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bifrost_kernel import errors
from bifrost_scheduler.web import problems

access = structlog.get_logger("bifrost.access")

SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}

DOCS_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger's page has inline script and style; it holds no data, and nothing of it comes from elsewhere."""


class Guard:
    """Refuses foreign Host headers and over-long bodies, adds headers, writes the access line."""

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str], body_limit_bytes: int) -> None:
        self._app = app
        self._hosts = frozenset(hosts)
        self._limit = body_limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                if scope["path"] == "/docs":
                    headers.setdefault("Content-Security-Policy", DOCS_POLICY)
                for name, value in SAFE_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(Headers(scope=scope))
        if refusal is not None:
            await problems.answer(refusal)(scope, receive, answer)
        else:
            await self._app(scope, _limited(receive, self._limit), answer)
        principal = getattr(Request(scope).state, "principal", None)
        access.info(
            "request",
            method=scope["method"],
            path=scope["path"],
            status=status,
            duration_ms=round((time.perf_counter() - started) * 1000, 1),
            principal=principal.subject if principal else None,
        )

    def _refusal(self, headers: Headers) -> errors.BifrostError | None:
        if _host_of(headers.get("host", "")) not in self._hosts:
            return errors.ValidationError("This server does not answer to that Host; see BIFROST_ALLOWED_HOSTS.")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._limit:
            return _too_large(self._limit)
        return None


def _host_of(header: str) -> str:
    """The name without the port, lower case; `[::1]:7071` gives `::1`."""
    host = header.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


def _limited(receive: Receive, limit: int) -> Receive:
    """A body without a declared length is counted as it comes."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise _too_large(limit)
        return message

    return counted


def _too_large(limit: int) -> errors.BifrostError:
    return problems.PayloadTooLarge(f"The body is over the limit of {limit} bytes (BIFROST_REQUEST_BODY_BYTES).")
