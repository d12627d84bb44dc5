"""How commands reach the control plane: address, credential, and one exit code for each kind of failure.

Without `BIFROST_API_KEY` the operator's credential of the home is used, which only the owner of the home can read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import httpx
import typer

EXECUTION_FAILED = 1
USAGE = 2
UNREACHABLE = 3

DEFAULT_URL = "http://127.0.0.1:7071"
TIMEOUT = httpx.Timeout(None, connect=5.0)


def address(*parts: str) -> str:
    """The address made of these parts; what a person typed is one part and never more."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


class Client:
    """Calls of one command; `organization` None lets a PlatformAdmin see all."""

    def __init__(self, organization: str | None = None) -> None:
        home = Path(os.environ.get("BIFROST_HOME", "~/.bifrost")).expanduser()
        headers = {"x-functions-key": _key(home), "X-Bifrost-Client": "cli"}
        if organization is not None:
            headers["X-Organization-Id"] = organization
        self._http = httpx.Client(base_url=running_url(home), headers=headers, timeout=TIMEOUT, trust_env=False)

    def call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """One call; whatever goes wrong ends the command with a clear line and its exit code."""
        response = self.try_call(method, path, **arguments)
        if response.is_error:
            fail_with(response)
        return response

    def try_call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """One call whose failure answer the command handles itself; an unreachable server ends the command."""
        try:
            return self._http.request(method, path, **arguments)
        except httpx.TransportError as error:
            fail(f"The control plane at {self._http.base_url} cannot be reached: {error}", UNREACHABLE)

    def items(
        self, path: str, limit: int | None = None, query: Mapping[str, str | None] | None = None
    ) -> Iterator[dict[str, Any]]:
        """The rows of a list over all its pages, at most `limit` of them."""
        left, cursor = limit, None
        while left is None or left > 0:
            size = 200 if left is None else min(left, 200)
            asked = {name: value for name, value in (query or {}).items() if value is not None}
            page = self.call(
                "GET", path, params={**asked, "limit": size} | ({"cursor": cursor} if cursor else {})
            ).json()
            yield from page["items"]
            cursor = page["next_cursor"]
            left = None if left is None else left - len(page["items"])
            if cursor is None:
                return

    def stream(self, path: str) -> Iterator[str]:
        """The data lines of a server-sent event stream."""
        with self._http.stream("GET", path, headers={"Accept": "text/event-stream"}) as response:
            if response.is_error:
                response.read()
                fail_with(response)
            for line in response.iter_lines():
                if line.startswith("data:"):
                    yield line.removeprefix("data:").strip()


def fail(message: str, status: int) -> NoReturn:
    """End the command: the message on stderr, the status for programs."""
    typer.echo(f"bifrost: {message}", err=True)
    raise typer.Exit(status)


def fail_with(response: httpx.Response) -> NoReturn:
    """End the command with what the control plane said."""
    try:
        problem = response.json()
        message = problem["message"]
    except (ValueError, KeyError, TypeError):
        fail(f"the control plane answered {response.status_code}.", EXECUTION_FAILED)
    for field in (problem.get("details") or {}).get("fields", []) if isinstance(problem.get("details"), dict) else []:
        message += f"\n  {field['field']}: {field['message']}"
    if problem.get("execution_id"):
        message += f"\n  Execution: {problem['execution_id']}"
    refused = response.status_code in (400, 401, 403, 404, 409, 413, 415) and not problem.get("execution_id")
    fail(message, UNREACHABLE if response.status_code == 503 else USAGE if refused else EXECUTION_FAILED)


def _key(home: Path) -> str:
    if key := os.environ.get("BIFROST_API_KEY"):
        return key
    try:
        return (home / "keys" / "operator.key").read_text().strip()
    except OSError:
        fail(
            f"No credential: set BIFROST_API_KEY, or BIFROST_HOME to the home of a control plane ({home} has none).",
            UNREACHABLE,
        )


def running_url(home: Path) -> str:
    """Where the control plane of this home listens; the default address while none runs."""
    if url := os.environ.get("BIFROST_URL"):
        return url
    try:
        url = json.loads((home / "runtime.json").read_text())["url"]
    except (OSError, ValueError, KeyError):
        return DEFAULT_URL
    return str(url)
