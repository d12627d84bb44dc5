"""Who looks at the portal: from the signed cookie of a browser to a visitor, by asking the control plane.

Every handler of the portal asks here before it answers. The cookie holds the session's token and nothing else; whether
the session still counts is the control plane's answer to each request, so that an end of it is felt at once.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from typing import Any

from pydantic import Field
from tornado.web import RequestHandler

from bifrost_kernel import models
from bifrost_portal.api_client import ControlPlane, Refused

COOKIE = "__Host-bifrost"
COOKIE_DAYS = 1
ORGANIZATION_COOKIE = "__Host-bifrost-organization"
CACHE_SECONDS = 2.0
"""How long an answer counts for the many small files of one page; every page and every act asks anew."""


class Organization(models.Frozen):
    id: str
    name: str
    permissions: frozenset[str] = Field(default_factory=frozenset)


class Visitor(models.Frozen):
    """A signed-in person, and what the control plane says of him now."""

    token: str = Field(repr=False)
    email: str
    name: str
    platform_admin: bool
    organizations: tuple[Organization, ...]

    @property
    def initials(self) -> str:
        words = [word for word in self.name.split() if word[:1].isalnum()] or [self.email]
        return "".join(word[0] for word in words[:2]).upper()

    @property
    def session(self) -> str:
        """Names the session without giving its token away."""
        return hashlib.sha256(self.token.encode()).hexdigest()[:16]

    def find_organization(self, wanted: str | None) -> Organization | None:
        return next((organization for organization in self.organizations if organization.id == wanted), None)

    def may(self, permission: str, organization: str) -> bool:
        """For what is shown; whether it may really be done is the control plane's answer."""
        found = self.find_organization(organization)
        return self.platform_admin or (found is not None and permission in found.permissions)


class Visitors:
    def __init__(self, control_plane: ControlPlane) -> None:
        self._control_plane = control_plane
        self._known: dict[str, tuple[float, Visitor]] = {}

    async def find(self, handler: RequestHandler, *, fresh: bool = True) -> Visitor | None:
        """The visitor of this request; None when there is no session, or it has ended.

        Args:
            fresh: False takes an answer of the last moments, for the files of a page.

        Raises:
            Unreachable: the control plane does not answer.
        """
        token = read_cookie(handler)
        if token is None:
            return None
        at, known = self._known.get(token, (0.0, None))
        if not fresh and known is not None and time.monotonic() - at < CACHE_SECONDS:
            return known
        return await self.check(token)

    async def check(self, token: str) -> Visitor | None:
        """What the control plane says of this session now. Raises as `find`."""
        try:
            answer = await self._control_plane.for_token(token).get("/api/sessions/current")
        except Refused as refused:
            self._known.pop(token, None)
            if refused.status in (401, 403):
                return None
            raise
        visitor = _visitor(token, answer)
        self._forget_old()
        self._known[token] = (time.monotonic(), visitor)
        return visitor

    def forget(self, token: str) -> None:
        self._known.pop(token, None)

    def _forget_old(self) -> None:
        limit = time.monotonic() - CACHE_SECONDS
        for token in [token for token, (at, _) in self._known.items() if at < limit]:
            del self._known[token]


def read_cookie(handler: RequestHandler) -> str | None:
    value = handler.get_signed_cookie(COOKIE, max_age_days=COOKIE_DAYS)
    return value.decode() if value else None


def write_cookie(handler: RequestHandler, token: str) -> None:
    """Sign the browser in. `__Host-`: only over TLS or on this machine, for this very host, for every path."""
    handler.set_signed_cookie(COOKIE, token, expires_days=None, **COOKIE_ATTRIBUTES)


def clear_cookie(handler: RequestHandler) -> None:
    handler.clear_cookie(COOKIE, **COOKIE_ATTRIBUTES)


COOKIE_ATTRIBUTES: dict[str, Any] = {"path": "/", "secure": True, "httponly": True, "samesite": "Lax"}


def _visitor(token: str, answer: Any) -> Visitor:
    organizations: Iterable[Any] = answer["organizations"]
    return Visitor(
        token=token,
        email=answer["user"]["email"],
        name=answer["user"]["name"],
        platform_admin=answer["platform_admin"],
        organizations=tuple(Organization.model_validate(one) for one in organizations),
    )
