"""The control plane as the portal sees it: one HTTP client, asked in the name of whoever is signed in.

Every page of the portal goes through it, and so does the kernel behind a form, with a token that is good for this form
alone. It decides nothing: who may see what is the control plane's answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

Json = dict[str, Any]

KEY = re.compile(r"[!-~]{1,200}")
TIMEOUT = httpx.Timeout(30.0, connect=5.0)


class Refused(Exception):
    """The control plane answered with an error; `message` is written for people.

    Args:
        retry_after: seconds, when the answer names them.
    """

    def __init__(self, status: int, code: str, message: str, details: Any = None, retry_after: int | None = None):
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.retry_after = retry_after

    @property
    def fields(self) -> list[dict[str, str]]:
        """Every wrong field: `field`, `code`, `message`."""
        details = self.details if isinstance(self.details, dict) else {}
        return list(details.get("fields", ()))


class Unreachable(Exception):
    """The control plane does not answer; whether it got the request is not known."""

    def __init__(self) -> None:
        super().__init__("The control plane cannot be reached just now.")


class ControlPlane:
    """Requests in the name of one credential; `for_token` makes one for another person, on the same connections."""

    def __init__(
        self, client: httpx.AsyncClient, live: httpx.AsyncClient, headers: Mapping[str, str] | None = None
    ) -> None:
        self._client = client
        self._live = live
        self._headers = dict(headers or {})

    @classmethod
    def at(cls, url: str, *, headers: Mapping[str, str] | None = None) -> ControlPlane:
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=50)
        # The environment's proxies are for the internet, not for the way to our own control plane.
        client = httpx.AsyncClient(base_url=url, timeout=TIMEOUT, limits=limits, trust_env=False)
        # Live answers keep their connections: from the same pool they would take what all other pages need.
        live = httpx.AsyncClient(base_url=url, timeout=TIMEOUT, limits=httpx.Limits(), trust_env=False)
        return cls(client, live, headers)

    def for_token(self, token: str) -> ControlPlane:
        return ControlPlane(self._client, self._live, {**self._headers, "Authorization": f"Bearer {token}"})

    def with_headers(self, **headers: str) -> ControlPlane:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return ControlPlane(self._client, self._live, {**self._headers, **named})

    async def close(self) -> None:
        await self._client.aclose()
        await self._live.aclose()

    async def get(self, path: str, *, organization: str | None = None, **query: Any) -> Any:
        return await self.ask("GET", path, organization=organization, query=query)

    async def post(self, path: str, body: Any = None, *, organization: str | None = None, **headers: str) -> Any:
        return await self.ask("POST", path, body=body, organization=organization, headers=headers)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        organization: str | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The answer's JSON; None when it has no body.

        Raises:
            Refused: it answered with an error.
            Unreachable: it did not answer.
        """
        answer = await self.respond(method, path, body=body, organization=organization, query=query, headers=headers)
        return answer.json() if answer.content else None

    async def respond(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        organization: str | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """The answer as it is. Raises as `ask`."""
        wanted = {name: value for name, value in (query or {}).items() if value not in (None, "")}
        try:
            answer = await self._client.request(
                method, path, params=wanted, headers=self._with(organization, headers, body), content=encode(body)
            )
        except httpx.TransportError as error:
            raise Unreachable from error
        if answer.is_error:
            raise _refused(answer.status_code, answer.content, answer.headers)
        return answer

    @asynccontextmanager
    async def stream(self, path: str, *, headers: Mapping[str, str]) -> AsyncIterator[AsyncIterator[bytes]]:
        """A live answer, piece by piece. Raises as `ask`."""
        timeout = httpx.Timeout(None, connect=5.0)
        request = self._live.build_request("GET", path, headers=self._with(None, headers), timeout=timeout)
        try:
            answer = await self._live.send(request, stream=True)
        except httpx.TransportError as error:
            raise Unreachable from error
        try:
            if answer.is_error:
                raise _refused(answer.status_code, await answer.aread(), answer.headers)
            yield answer.aiter_bytes()
        finally:
            await answer.aclose()

    def _with(self, organization: str | None, headers: Mapping[str, str] | None, body: Any = None) -> dict[str, str]:
        chosen = {"X-Organization-Id": organization} if organization else {}
        chosen |= {} if body is None else {"Content-Type": "application/json"}
        named = {name.replace("_", "-"): value for name, value in (headers or {}).items()}
        return {**self._headers, **chosen, **named}


def encode(body: Any) -> bytes | None:
    """The body as JSON in ASCII, which carries whatever a browser sent as it was; what is wrong with it is not ours."""
    return None if body is None else json.dumps(body).encode("ascii")


def idempotency(key: str | None) -> dict[str, str]:
    """The header that makes a repeated request the same one. Raises `ValueError`: no header can carry this key."""
    if not key:
        return {}
    if not KEY.fullmatch(key):
        raise ValueError("The key of this request has to be 1 to 200 plain characters.")
    return {"Idempotency-Key": key}


def _refused(status: int, content: bytes, headers: Mapping[str, str]) -> Refused:
    try:
        problem = json.loads(content)
    except ValueError:
        problem = {}
    waiting = headers.get("retry-after", "")
    return Refused(
        status,
        str(problem.get("error", "InternalError")),
        str(problem.get("message", "The control plane answered with an error.")),
        problem.get("details"),
        int(waiting) if waiting.isdigit() else None,
    )
