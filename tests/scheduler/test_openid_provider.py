"""What the answer of an OpenID provider has to prove; this one speaks real HTTP, and lies in one thing at a time."""

from __future__ import annotations

import hmac
import json
import threading
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey
from pydantic import SecretStr

from bifrost_kernel import errors
from bifrost_scheduler.openid_provider import OpenIdProvider, Refused

KEY, STRANGE_KEY = (RSAKey.generate_key(2048, {"kid": "one", "use": "sig"}) for _ in range(2))


class Liar(ThreadingHTTPServer):
    """A provider that answers what a test says."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.issuer = f"http://127.0.0.1:{self.server_address[1]}"
        self.discovery: dict[str, Any] = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "userinfo_endpoint": f"{self.issuer}/me",
        }
        self.keys: list[Any] = [KEY]
        self.id_token = ""
        self.userinfo: Any = {"sub": "ada", "email": "ada@example.com", "email_verified": True}
        self.token: tuple[int, Any] | None = None

    def answer(self, path: str) -> tuple[int, Any]:
        if path == "/token":
            given = {"access_token": "a", "token_type": "Bearer", "expires_in": 5, "id_token": self.id_token}
            return self.token or (200, given)
        keys = {"keys": [key.as_dict(private=False) for key in self.keys]}
        return 200, {"/keys": keys, "/me": self.userinfo}.get(path, self.discovery)

    def sign(self, key: Any = KEY, alg: str = "RS256", **changed: Any) -> None:
        """Give out a right id_token but for what is changed; None leaves a claim out."""
        now = int(datetime.now(UTC).timestamp())
        claims = {"iss": self.issuer, "aud": "bifrost", "sub": "ada", "nonce": "n", "iat": now, "exp": now + 60}
        kept = {name: value for name, value in {**claims, **changed}.items() if value is not None}
        self.id_token = jwt.encode({"alg": alg, "kid": "one"}, kept, key, algorithms=[alg])


class _Answers(BaseHTTPRequestHandler):
    server: Liar

    def do_GET(self) -> None:
        status, body = self.server.answer(self.path)
        raw = json.dumps(body).encode() if not isinstance(body, bytes) else body
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def liar() -> Iterator[Liar]:
    server = Liar()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def fetch(liar: Liar) -> Callable[[], Any]:
    """Redeem a code at the liar's."""
    provider = OpenIdProvider(liar.issuer, "bifrost", SecretStr("secret"))
    return lambda: provider.fetch_claims(code="c", redirect_uri="http://localhost/", nonce="n", code_verifier="v" * 43)


NOW = int(datetime.now(UTC).timestamp())

LIES: dict[str, dict[str, Any]] = {
    "another issuer": {"iss": "https://elsewhere.example.com"},
    "another audience": {"aud": "somebody-else"},
    "several audiences": {"aud": ["bifrost", "somebody-else"]},
    "several audiences, made for another": {"aud": ["bifrost", "somebody-else"], "azp": "somebody-else"},
    "another nonce": {"nonce": "m"},
    "no nonce": {"nonce": None},
    "no subject": {"sub": None},
    "no audience": {"aud": None},
    "no issuer": {"iss": None},
    "no expiry": {"exp": None},
    "over": {"exp": NOW - 600},
    "of the future": {"iat": NOW + 3600},
    "a strange key": {"key": STRANGE_KEY},
    "a number for a subject": {"sub": 5},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused(liar: Liar, fetch: Any, lie: str) -> None:
    """An id_token that is wrong in one thing proves nothing."""
    liar.sign(**LIES[lie])
    with pytest.raises(Refused):
        fetch()


@pytest.mark.parametrize("id_token", ["", "x", "a.b.c", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEifQ."])
def test_what_is_no_token(liar: Liar, fetch: Any, id_token: str) -> None:
    """Neither noise nor an unsigned token proves anything."""
    liar.id_token = id_token
    with pytest.raises(Refused):
        fetch()


def test_the_public_key_as_a_secret(liar: Liar, fetch: Any) -> None:
    """A token that anybody could make with the published key proves nothing."""
    liar.sign()
    claims = liar.id_token.split(".")[1]
    head = urlsafe_b64encode(b'{"alg":"HS256","kid":"one"}').decode().rstrip("=")
    for secret in (KEY.as_pem(private=False), KEY.as_der(private=False)):
        digest = hmac.digest(secret, f"{head}.{claims}".encode(), "sha256")
        liar.id_token = f"{head}.{claims}.{urlsafe_b64encode(digest).decode().rstrip('=')}"
        with pytest.raises(Refused):
            fetch()


def test_a_clock_that_is_a_little_off(liar: Liar, fetch: Any) -> None:
    """Half a minute either way is no lie."""
    liar.sign(exp=int(datetime.now(UTC).timestamp()) - 30, iat=int(datetime.now(UTC).timestamp()) + 30)
    assert fetch().verified_email == "ada@example.com"


def test_another_key(liar: Liar, fetch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the provider changed its keys they are read again, though not at every wrong token."""
    liar.sign()
    fetch()
    liar.keys = [STRANGE_KEY]
    liar.sign(key=STRANGE_KEY)
    with pytest.raises(Refused):
        fetch()
    monkeypatch.setattr("bifrost_scheduler.openid_provider.REFRESH_SECONDS", -1)
    assert fetch().sub == "ada"


@pytest.mark.parametrize(
    ("userinfo", "email"),
    [
        ({"sub": "ada", "email": "Ada@example.com", "email_verified": True}, "ada@example.com"),
        ({"sub": "ada", "email": "ada@example.com", "email_verified": "true"}, "ada@example.com"),
        ({"sub": "ada", "email": "ada@example.com", "email_verified": "false"}, None),
        ({"sub": "ada", "email": "ada@example.com"}, None),
        ({"sub": "ada", "email_verified": True}, None),
    ],
)
def test_a_verified_email(liar: Liar, fetch: Any, userinfo: Any, email: str | None) -> None:
    """An email counts when the provider says that it was verified."""
    liar.sign()
    liar.userinfo = userinfo
    assert fetch().verified_email == email


@pytest.mark.parametrize(
    "userinfo", [{"sub": "eve", "email": "ada@example.com"}, [], {}, "x", {"sub": "ada", "email": 5}]
)
def test_userinfo_of_another(liar: Liar, fetch: Any, userinfo: Any) -> None:
    """What is said about somebody else, or about nobody, is refused."""
    liar.sign()
    liar.userinfo = userinfo
    with pytest.raises(Refused):
        fetch()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((400, {"error": "invalid_grant"}), Refused),
        ((200, b"<html>"), Refused),
        ((200, {"access_token": "a"}), Refused),
        ((302, {}), errors.BifrostError),
        ((500, {}), errors.BifrostError),
        ((500, b"<html>"), errors.BifrostError),
    ],
)
def test_token_endpoints_that_fail(liar: Liar, fetch: Any, answer: Any, kind: type[Exception]) -> None:
    """A refusal is the person's to try again, a failure the provider's: never ours."""
    liar.token = answer
    with pytest.raises(kind):
        fetch()


@pytest.mark.parametrize(
    "changed",
    [
        {"issuer": "https://elsewhere.example.com"},
        {"token_endpoint": "http://elsewhere.example.com/token"},
        {"jwks_uri": None},
    ],
)
def test_discovery_of_another(liar: Liar, fetch: Any, changed: Any) -> None:
    """A provider that calls itself otherwise, or would have secrets sent in clear, is not used."""
    liar.discovery |= changed
    with pytest.raises(errors.Unavailable):
        fetch()


def test_nobody_there() -> None:
    """A provider that does not answer is 503, with a text that says so."""
    provider = OpenIdProvider("http://127.0.0.1:9", "bifrost", None)
    with pytest.raises(errors.Unavailable, match="does not answer"):
        provider.authorization_url(redirect_uri="http://localhost/", state="s", nonce="n", code_verifier="v" * 43)
