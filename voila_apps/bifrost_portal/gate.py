"""What stands before every handler of the portal: which host is meant, who asks, from where, and with which headers.

`server` puts `Gate` before the handlers of Voila and Jupyter, `pages.base.Page` before ours. A handler without it is a
hole: a test walks the whole table of handlers.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from tornado import httputil, web
from tornado.routing import _RuleList

from bifrost_portal.visitors import Visitor

HOST = re.compile(r"^(?P<name>\[[0-9a-fA-F:.]+\]|[^:\[\]@/\\]+)(?::\d+)?$")

SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# Voila's front end compiles JSON Schema validators, loads the widget's module from a blob, and adds styles to the page.
KERNEL_PAGE_POLICY = (
    "default-src 'none'; script-src 'self' blob: 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
SANDBOXED_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
)
"""For documents that executions made: they are shown, and can do nothing."""


class PortalApplication(web.Application):
    """Refuses foreign Host headers before any handler is chosen: no page on the internet reaches us by rebinding."""

    def __init__(self, handlers: _RuleList, *, hosts: frozenset[str], **settings: Any) -> None:
        super().__init__(handlers, **settings)
        self._hosts = hosts

    def find_handler(self, request: httputil.HTTPServerRequest, **kwargs: Any) -> Any:
        if not self.knows(request.host):
            return self.get_handler_delegate(request, web.ErrorHandler, {"status_code": 400})
        return super().find_handler(request, **kwargs)

    def knows(self, host: str) -> bool:
        found = HOST.match(host)
        return found is not None and found["name"].lower().strip("[]") in self._hosts


def is_same_origin(handler: web.RequestHandler, *, needed: bool) -> bool:
    """Whether the request comes from our own pages.

    Args:
        needed: a request without the header is refused as well (websockets and every act of a browser carry it).
    """
    origin = handler.request.headers.get("Origin")
    if origin is None:
        return not needed
    return urlsplit(origin).netloc.lower() == handler.request.host.lower() and origin != "null"


def visitor_of(handler: web.RequestHandler) -> Visitor:
    """The visitor that `prepare` found. Raises `HTTPError` 401 when there is none."""
    visitor = getattr(handler, "visitor", None)
    if not isinstance(visitor, Visitor):
        raise web.HTTPError(401)
    return visitor
