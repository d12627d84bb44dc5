"""A portal as a customer meets it: the whole product in a process of its own, people, and browsers without a window.

The portal's tests use it through the fixtures of `conftest`.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.journeys.product import Product

WORKSPACE = Path(__file__).parents[2] / "workspace"
CASES = Path(__file__).parent / "workspace"
PASSWORD = "correct horse battery"
COOKIE = "__Host-bifrost"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Person:
    """Somebody with an account."""

    email: str
    organization: str


class Site:
    """The portal of one product."""

    def __init__(self, product: Product) -> None:
        self.product = product

    @property
    def url(self) -> str:
        found = re.search(r"^\s+Portal\s+(\S+)$", self.product.said, re.MULTILINE)
        assert found is not None, self.product.said
        return found[1]

    @property
    def admin(self) -> httpx.Client:
        """The API with the development key."""
        return self.product.http

    def person(self, *roles: str, organization: str = "test-org-active", name: str = "Ada Customer") -> Person:
        """A new account with a password and these roles in an organization."""
        email = f"person-{next(_numbers)}@example.com"
        body = {"email": email, "name": name, "roles": {organization: list(roles)}}
        self.admin.post("/api/users", json=body).raise_for_status()
        link = self.admin.post(f"/api/users/{email}/link").raise_for_status().json()["token"]
        self.admin.post("/api/sessions", json={"link": link, "password": PASSWORD}).raise_for_status()
        return Person(email, organization)

    @contextmanager
    def visitor(self, person: Person | None = None) -> Iterator[Visitor]:
        """A browser without a window: cookies, and the token against forged requests; signed in as this person."""
        with httpx.Client(base_url=self.url, timeout=30) as client:
            visitor = Visitor(client)
            if person is not None:
                visitor.sign_in(person)
            yield visitor


class Visitor:
    """What a browser sends, without one."""

    def __init__(self, client: httpx.Client) -> None:
        self.http = client

    def sign_in(self, person: Person, password: str = PASSWORD) -> httpx.Response:
        return self.post_form("/signin", email=person.email, password=password)

    @property
    def cookies(self) -> str:
        """Secure cookies, which httpx does not send to a plain address as browsers do to this machine's."""
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.http.cookies.jar)

    def xsrf(self, page: str = "/signin?out=1") -> str:
        found = re.search(r'name="xsrf" content="([^"]+)"', self.get(page).text)
        assert found is not None
        return found[1]

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.http.get(path, headers={"Cookie": self.cookies, **_named(headers)})

    def post_form(self, path: str, **fields: str) -> httpx.Response:
        token = self.xsrf("/signin/link")
        headers = {"Cookie": self.cookies, "Origin": str(self.http.base_url).rstrip("/")}
        return self.http.post(path, data={**fields, "_xsrf": token}, headers=headers)

    def submit(self, form: str, values: Any, key: str = "", **headers: str) -> httpx.Response:
        """As the form's page submits it when it has no kernel."""
        more = {"Idempotency_Key": key} if key else {}
        return self.ask("POST", f"/workflows/{form}", values, **more, **headers)

    def send_raw(self, method: str, path: str, content: bytes) -> httpx.Response | None:
        """A body of these bytes; None when the connection was closed over it."""
        headers = {
            "Origin": str(self.http.base_url).rstrip("/"),
            "Accept": "application/json",
            "X-XSRFToken": self.xsrf("/signin/link"),
            "Content-Type": "application/json",
        }
        try:
            return self.http.request(method, path, content=content, headers={**headers, "Cookie": self.cookies})
        except httpx.TransportError:
            return None

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """As the page's script asks."""
        sent = {
            "Cookie": self.cookies,
            "Origin": str(self.http.base_url).rstrip("/"),
            "Accept": "application/json",
            "X-XSRFToken": self.xsrf("/signin/link"),
            **_named(headers),
        }
        sent["Cookie"] = self.cookies
        # As JavaScript writes it, and as it must not: with halves of characters, and numbers that are none.
        content = None if body is None else json.dumps(body)
        sent |= {} if body is None else {"Content-Type": "application/json"}
        return self.http.request(method, path, content=content, headers=sent)


def no_failures(site: Site) -> None:
    """The portal's log so far has no failure and no traceback."""
    said = (site.product.home / "logs" / "portal.log").read_text()
    for sign in ("portal.failed", "portal.error", "Traceback", "Uncaught", "never retrieved"):
        assert sign not in said, said[-8000:]


def make_workspace(folder: Path) -> Path:
    """The examples, and the cases of these tests."""
    workspace = folder / "workspace"
    shutil.copytree(WORKSPACE, workspace, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(CASES, workspace, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return workspace


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
