"""What all pages have in common: the visitor, the organization that he looks at, templates, and friendly failures."""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import quote, urlencode, urlsplit

import jinja2
import structlog
from tornado import web
from tornado.iostream import StreamClosedError

from bifrost_portal import gate, visitors
from bifrost_portal.api_client import ControlPlane, Refused, Unreachable
from bifrost_portal.assets import Assets
from bifrost_portal.settings import PortalSettings
from bifrost_portal.streams import Streams
from bifrost_portal.visitors import Organization, Visitor

log = structlog.get_logger("bifrost.portal")

RETRY_SECONDS = 3


@dataclass(frozen=True)
class Portal:
    """What pages work with; `server` makes it."""

    settings: PortalSettings
    control_plane: ControlPlane
    visitors: visitors.Visitors
    templates: jinja2.Environment
    assets: Assets
    streams: Streams


class Page(web.RequestHandler):
    """A page for signed-in people, unless it says that it is `OPEN`."""

    OPEN: ClassVar[bool] = False
    POLICY: ClassVar[str] = gate.PAGE_POLICY

    visitor: Visitor | None = None

    @property
    def portal(self) -> Portal:
        portal = self.settings["portal"]
        assert isinstance(portal, Portal)
        return portal

    @property
    def me(self) -> Visitor:
        return gate.visitor_of(self)

    @property
    def api(self) -> ControlPlane:
        """The control plane, in the name of who is signed in."""
        return self.portal.control_plane.for_token(self.me.token)

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in gate.SAFE_HEADERS.items():
            self.set_header(name, value)
        self.set_header("Content-Security-Policy", self.POLICY)

    async def prepare(self) -> None:
        acts = self.request.method not in ("GET", "HEAD")
        if not gate.is_same_origin(self, needed=acts):
            raise web.HTTPError(403, "This request did not come from a page of the portal.")
        if self.OPEN:
            return
        self.visitor = await self.portal.visitors.find(self)
        if self.visitor is None:
            self.ask_to_sign_in()

    def ask_to_sign_in(self) -> None:
        visitors.clear_cookie(self)
        if self.request.method in ("GET", "HEAD") and not self.wants_json:
            self.redirect(f"/signin?{urlencode({'next': self.request.uri or '/'})}")
        else:
            raise web.HTTPError(401)

    # the organization that is looked at

    @property
    def organization(self) -> Organization:
        """The one named in the address, or last chosen, or the first. Raises `HTTPError` 404."""
        wanted = self.get_query_argument("org", None)
        if wanted is not None:
            found = self.me.find_organization(wanted)
            if found is None:
                raise web.HTTPError(404)
            return found
        last = self.get_signed_cookie(visitors.ORGANIZATION_COOKIE)
        found = self.me.find_organization(last.decode() if last else None)
        if found is not None:
            return found
        if not self.me.organizations:
            raise web.HTTPError(403, "You belong to no organization yet. Please ask whoever invited you.")
        return self.me.organizations[0]

    def remember(self, organization: Organization) -> None:
        attributes = visitors.COOKIE_ATTRIBUTES
        self.set_signed_cookie(visitors.ORGANIZATION_COOKIE, organization.id, expires_days=90, **attributes)

    # answers

    @property
    def wants_json(self) -> bool:
        return "application/json" in self.request.headers.get("Accept", "")

    def show(self, template: str, **given: Any) -> None:
        self.finish(self.html(template, **given))

    def html(self, template: str, **given: Any) -> str:
        self.set_header("Content-Type", "text/html; charset=utf-8")
        portal = self.portal
        shared = {
            "me": self.visitor,
            "asset": portal.assets.url,
            "xsrf": self.xsrf_token.decode(),
            "theme": _theme(self),
            "path": self.request.path,
            "organization": None,
            "quote": quote,
        }
        return portal.templates.get_template(template).render({**shared, **given})

    def send(self, answer: Any, *, status: int = 200) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(json.dumps(answer))

    def read_json(self) -> dict[str, Any]:
        """The body. Raises `HTTPError` 400, 415."""
        if self.request.headers.get("Content-Type", "").split(";")[0].strip() != "application/json":
            raise web.HTTPError(415, "Send JSON.")
        try:
            body = json.loads(self.request.body)
        except (ValueError, RecursionError) as error:
            raise web.HTTPError(400, "That is no JSON.") from error
        if not isinstance(body, dict):
            raise web.HTTPError(400, "Send an object.")
        return body

    def local(self, wanted: str | None, default: str = "/workflows") -> str:
        """Where to go next, if that is a page of ours: never another site."""
        parts = urlsplit(wanted or "")
        ours = bool(wanted) and not parts.scheme and not parts.netloc and parts.path.startswith("/")
        plain = ours and not (wanted or "").startswith(("//", "/\\")) and "\\" not in (wanted or "")
        return (wanted or default) if plain and not any(ord(sign) < 33 for sign in wanted or "") else default

    # failures

    def log_exception(self, *raised: Any) -> None:
        if not isinstance(raised[1], Refused | Unreachable | web.HTTPError | StreamClosedError):
            self.reference = secrets.token_hex(4)
            log.error("portal.error", reference=self.reference, path=self.request.path, exc_info=raised)

    def write_error(self, status_code: int, **given: Any) -> None:
        error = given.get("exc_info", (None, None, None))[1]
        failure = describe(error, status_code, getattr(self, "reference", None))
        self.set_status(failure["status"])
        if isinstance(error, Refused) and error.status == 401:
            visitors.clear_cookie(self)
        if failure["retry_after"]:
            self.set_header("Retry-After", str(failure["retry_after"]))
        if self.wants_json:
            self.set_header("Content-Type", "application/json; charset=utf-8")
            self.finish(json.dumps(failure))
        else:
            self.show("failure.html", failure=failure)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        raise web.HTTPError(405)


TEXTS = {
    400: ("That did not work", "The request was not understood."),
    401: ("Please sign in again", "Your session has ended."),
    403: ("Not allowed", "You may not do this here. If you need it, please ask your administrator."),
    404: ("Not found", "There is no such page, or it is not yours."),
    405: ("That did not work", "This address does not take that."),
    413: ("Too large", "What was sent is too large."),
    415: ("That did not work", "What was sent is not in the right form."),
    429: ("A moment, please", "There is too much to do just now. Please try again shortly."),
    503: ("Back in a moment", "Bifrost cannot be reached just now. This page tries again by itself; nothing is lost."),
}
INTERNAL = ("Something went wrong", "This is our mistake, and it has been noted.")


def describe(error: BaseException | None, status: int, reference: str | None) -> dict[str, Any]:
    """What a person, or a page's script, is told of a failure."""
    fields: list[dict[str, str]] = []
    message, retry_after = None, None
    if isinstance(error, Unreachable):
        status, retry_after = 503, RETRY_SECONDS
    elif isinstance(error, Refused):
        status, fields, retry_after = error.status, error.fields, error.retry_after
        message = error.message if status not in (401, 404) and status < 500 else None
    elif isinstance(error, web.HTTPError) and error.log_message and status < 500:
        message = error.log_message
    title, text = TEXTS.get(status, INTERNAL)
    return {
        "status": status,
        "title": title,
        "message": message or text,
        "fields": fields,
        "reference": reference,
        "retry_after": retry_after,
    }


def _theme(handler: web.RequestHandler) -> str | None:
    theme = handler.get_cookie("bifrost-theme")
    return theme if theme in ("light", "dark") else None
