"""Signing in and out: password, one-time link, OpenID Connect, and the first administrator's set-up.

The portal carries what people type to the control plane and keeps nothing of it but the session's token in a cookie.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from tornado import web

from bifrost_portal import visitors
from bifrost_portal.api_client import ControlPlane, Refused
from bifrost_portal.pages.base import Page

BINDING_COOKIE = "__Host-bifrost-oidc"
MAX_AGENT_CHARS = 200
CALLBACK = "/signin/oidc/callback"


class OpenPage(Page):
    """A page before anybody has signed in."""

    OPEN = True

    @property
    def gateway(self) -> ControlPlane:
        """The control plane, told that this is the portal, and which browser is behind it."""
        return self.portal.control_plane.with_headers(
            **{
                "X-Bifrost-Portal": self.portal.settings.portal_key,
                "X-Forwarded-For": self.request.remote_ip or "",
                "User-Agent": self.request.headers.get("User-Agent", "")[:MAX_AGENT_CHARS],
            }
        )

    def welcome(self, answer: Any, wanted: str | None) -> None:
        """The session is there: a new cookie, whatever the browser had before, and on to where he wanted to go."""
        visitors.write_cookie(self, answer["token"])
        self.redirect(self.local(wanted), status=303)

    async def show_form(self, failure: Refused | None = None, *, email: str = "") -> None:
        ways = await self.gateway.get("/api/sign-in")
        if failure is not None:
            self.set_status(failure.status)
            if failure.retry_after:
                self.set_header("Retry-After", str(failure.retry_after))
        wanted = self.local(self.get_argument("next", None), "")
        self.show("sign_in.html", ways=ways, failure=failure, next=wanted, email=email)


class SignIn(OpenPage):
    async def get(self) -> None:
        if await self.portal.visitors.find(self) is not None:
            self.redirect(self.local(self.get_query_argument("next", None)))
            return
        await self.show_form()

    async def post(self) -> None:
        email, password = self.get_body_argument("email", ""), self.get_body_argument("password", "", strip=False)
        wanted = self.get_body_argument("next", None)
        try:
            answer = await self.gateway.post("/api/sessions", {"email": email, "password": password})
        except Refused as refused:
            await self.show_form(refused, email=email)
            return
        self.welcome(answer, wanted)


class Link(OpenPage):
    """A one-time link: its token stands behind the `#`, so that no log and no mail scanner's request has it."""

    async def get(self) -> None:
        self.show("link.html", failure=None)

    async def post(self) -> None:
        password = self.get_body_argument("password", "", strip=False)
        body = {"link": self.get_body_argument("token", ""), **({"password": password} if password else {})}
        try:
            answer = await self.gateway.post("/api/sessions", body)
        except Refused as refused:
            self.set_status(refused.status)
            self.show("link.html", failure=refused)
            return
        self.welcome(answer, None)


class SetUp(OpenPage):
    """The first administrator of an installation."""

    async def get(self) -> None:
        self.show("set_up.html", failure=None, given={"token": "", "email": "", "name": ""})

    async def post(self) -> None:
        given = {name: self.get_body_argument(name, "") for name in ("token", "email", "name")}
        password = self.get_body_argument("password", "", strip=False)
        try:
            answer = await self.gateway.post("/api/setup", {**given, "password": password})
        except Refused as refused:
            self.set_status(refused.status)
            self.show("set_up.html", failure=refused, given=given)
            return
        self.welcome(answer, None)


class OidcStart(OpenPage):
    async def get(self) -> None:
        wanted = self.local(self.get_query_argument("next", None), "")
        body = {"redirect_uri": self.portal.settings.public_url + CALLBACK, **({"return_to": wanted} if wanted else {})}
        answer = await self.gateway.post("/api/oidc/authorizations", body)
        # Lax: the provider sends the browser back from another site, by GET.
        self.set_signed_cookie(BINDING_COOKIE, answer["binding"], expires_days=None, **visitors.COOKIE_ATTRIBUTES)
        self.redirect(answer["authorization_url"])


class OidcCallback(OpenPage):
    async def get(self) -> None:
        binding = self.get_signed_cookie(BINDING_COOKIE, max_age_days=1)
        self.clear_cookie(BINDING_COOKIE, **visitors.COOKIE_ATTRIBUTES)
        query = {name: self.get_query_argument(name) for name in self.request.query_arguments}
        body = {
            "binding": binding.decode() if binding else "",
            "redirect_uri": self.portal.settings.public_url + CALLBACK,
            "query": query,
        }
        try:
            answer = await self.gateway.post("/api/oidc/sessions", body)
        except Refused as refused:
            await self.show_form(refused)
            return
        self.welcome(answer, answer.get("return_to"))


class SignOut(Page):
    """Ends this session, or with `everywhere` all of this person's."""

    async def post(self) -> None:
        everywhere = self.get_body_argument("everywhere", "") == "yes"
        await self.api.ask("DELETE", "/api/sessions" if everywhere else "/api/sessions/current")
        self.portal.visitors.forget(self.me.token)
        await self.settings["kernel_manager"].end_of_session(self.me.session)
        visitors.clear_cookie(self)
        self.redirect(f"/signin?{urlencode({'out': '1'})}", status=303)


class Account(Page):
    async def get(self) -> None:
        await self.show_account()

    async def post(self) -> None:
        current, new = (self.get_body_argument(name, "", strip=False) for name in ("current", "new"))
        try:
            await self.api.ask("PUT", "/api/sessions/current/password", body={"current": current, "new": new})
        except Refused as refused:
            if refused.status == 401:
                raise
            self.set_status(refused.status)
            await self.show_account(failure=refused)
            return
        await self.show_account(changed=True)

    async def show_account(self, *, failure: Refused | None = None, changed: bool = False) -> None:
        sessions = await self.api.get("/api/sessions")
        self.show("account.html", sessions=sessions["items"], failure=failure, changed=changed)


class Root(web.RequestHandler):
    OPEN = True

    def get(self) -> None:
        self.redirect("/workflows")
