"""Signing in by OpenID Connect at a certified provider that runs for real, and at one that lies."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from bifrost_kernel import errors
from bifrost_scheduler.openid import OpenId
from bifrost_scheduler.services import openid_provider
from bifrost_scheduler.sessions import Source
from tests import identity_provider

REDIRECT = "http://localhost:8866/signin/oidc"
HERE = Source(address="192.0.2.7")

Browse = Callable[..., dict[str, str]]


@pytest.fixture(scope="session")
def issuer() -> Iterator[str]:
    """A running provider."""
    with identity_provider.running(REDIRECT) as running:
        yield running


@pytest.fixture(scope="session")
def with_openid(start_control_plane: Callable[..., Any], issuer: str) -> Any:
    """A control plane whose people may sign in at the provider."""
    return start_control_plane(
        oidc_issuer=issuer,
        oidc_client_id="bifrost",
        oidc_client_secret=identity_provider.CLIENT_SECRET,
        oidc_name="Example",
        sign_in_address_attempts=1_000_000,
    )


@pytest.fixture
def portal(with_openid: Any) -> Iterator[httpx.Client]:
    """What the portal asks the control plane by: nothing to show yet."""
    with with_openid.open(None) as client:
        yield client


@pytest.fixture
def begin(portal: httpx.Client) -> Callable[..., dict[str, str]]:
    """Begin to sign in: `authorization_url` and `binding`."""

    def make(**fields: str) -> dict[str, str]:
        begun = portal.post("/api/oidc/authorizations", json={"redirect_uri": REDIRECT, **fields})
        assert begun.status_code == 201, begun.text
        answer: dict[str, str] = begun.json()
        return answer

    return make


def browse(url: str, person: str, **changed: str) -> dict[str, str]:
    """Go to the provider as this person (`sub,email,verified`), and give what it sends back; `changed` tampers."""
    back = identity_provider.browse(url, person, REDIRECT, **changed)
    return {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}


@pytest.fixture
def finish(portal: httpx.Client) -> Callable[..., httpx.Response]:
    def make(begun: dict[str, str], query: dict[str, str], **fields: str) -> httpx.Response:
        body = {"binding": begun["binding"], "redirect_uri": REDIRECT, "query": query, **fields}
        return portal.post("/api/oidc/sessions", json=body)

    return make


@pytest.fixture
def invite(with_openid: Any) -> Callable[[str], None]:
    """Make a user without a role."""

    def make(email: str) -> None:
        with with_openid.open() as admin:
            admin.post("/api/users", json={"email": email, "name": "Invited"}).raise_for_status()

    return make


@pytest.fixture
def state_of(with_openid: Any) -> Callable[[], tuple[Any, ...]]:
    """What a refused sign-in must leave as it was, and the reason that the audit gives."""
    store = with_openid.services.store

    def look() -> tuple[Any, ...]:
        users = store.list_users(limit=1000)
        return users, [store.list_sessions(one.email, now=datetime.now(UTC), used_after=PAST) for one in users]

    return look


PAST = datetime(2000, 1, 1, tzinfo=UTC)


def last_audit(control_plane: Any) -> dict[str, Any]:
    """The last entry about a session."""
    bodies = [json.loads(entry.body) for entry in control_plane.services.store.list_ledger(limit=1_000_000)]
    entry: dict[str, Any] = [body for body in bodies if str(body.get("action")).startswith("session.")][-1]
    return entry


def test_the_button(portal: httpx.Client) -> None:
    """The page for signing in learns what stands on the button, and nothing else of the provider."""
    assert portal.get("/api/sign-in").json() == {"oidc": {"name": "Example"}, "setup": False, "password": True}


def test_sign_in(begin: Any, finish: Any, invite: Any, with_openid: Any) -> None:
    """Who was invited signs in by the verified email, is asked for nothing, and lands where he wanted to."""
    invite("ada@example.com")
    begun = begin(return_to="/forms?category=it")
    answer = finish(begun, browse(begun["authorization_url"], "ada,ADA@example.com,true"))
    assert answer.status_code == 201, last_audit(with_openid)["details"]
    assert answer.json()["user"] == {"email": "ada@example.com", "name": "Invited"}
    assert answer.json()["return_to"] == "/forms?category=it"
    with with_openid.open(answer.json()["token"]) as one:
        assert one.get("/api/sessions/current").json()["user"]["email"] == "ada@example.com"
    assert last_audit(with_openid)["details"] == {"by": "openid"}


def test_the_account_counts_after_the_first_time(begin: Any, finish: Any, invite: Any) -> None:
    """The email finds a person once; then the provider's account does, and nobody else with that email."""
    invite("bob@example.com")
    for person, status, email in [
        ("bob,bob@example.com,true", 201, "bob@example.com"),
        ("bob,robert@example.com,true", 201, "bob@example.com"),
        ("imposter,bob@example.com,true", 401, None),
    ]:
        begun = begin()
        answer = finish(begun, browse(begun["authorization_url"], person))
        assert (answer.status_code, answer.json().get("user", {}).get("email")) == (status, email)


def test_who_was_here_before(begin: Any, finish: Any, invite: Any, with_openid: Any) -> None:
    """The first sign-in at the provider ends passwords, links and sessions of whoever made the user before."""
    email, password = "fay@example.com", "correct horse battery"
    invite(email)
    with with_openid.open() as admin, with_openid.open(None) as one:
        link = admin.post(f"/api/users/{email}/link").json()["token"]
        token = one.post("/api/sessions", json={"link": link, "password": password}).json()["token"]
        left = admin.post(f"/api/users/{email}/link").json()["token"]
        begun = begin()
        assert finish(begun, browse(begun["authorization_url"], f"fay,{email},true")).status_code == 201
        assert one.get("/api/workflows", headers={"x-functions-key": token}).status_code == 401
        for body in ({"email": email, "password": password}, {"link": left}):
            assert one.post("/api/sessions", json=body).status_code == 401


@pytest.mark.parametrize(
    ("person", "reason"),
    [
        ("eve,eve@example.com,true", "openid: unknown"),
        ("dev,dev@example.com,false", "openid: email"),
        ("deny", "openid: error: access_denied"),
    ],
)
def test_who_is_refused(begin: Any, finish: Any, state_of: Any, with_openid: Any, person: str, reason: str) -> None:
    """Unknown people, unverified emails and refusals at the provider leave an audit entry and nothing else."""
    begun, before = begin(), state_of()
    assert finish(begun, browse(begun["authorization_url"], person)).status_code == 401
    assert (last_audit(with_openid)["action"], last_audit(with_openid)["details"]) == (
        "session.refuse",
        {"reason": reason},
    )
    assert state_of() == before


def test_a_disabled_person(begin: Any, finish: Any, invite: Any, with_openid: Any) -> None:
    """Who is disabled here is out, whatever the provider says."""
    invite("carl@example.com")
    with with_openid.open() as admin:
        admin.patch("/api/users/carl@example.com", json={"disabled": True}).raise_for_status()
    begun = begin()
    assert finish(begun, browse(begun["authorization_url"], "carl,carl@example.com,true")).status_code == 401


TAMPERED: dict[str, tuple[dict[str, str], dict[str, str], str]] = {
    "nonce": ({"nonce": "another"}, {}, "openid: id_token: invalid_claim"),
    "verifier": ({"code_challenge": "x" * 43}, {}, "openid: code"),
    "code": ({}, {"code": "guessed"}, "openid: code"),
    "issuer": ({}, {"iss": "https://elsewhere.example.com"}, "openid: issuer"),
    "state": ({}, {"state": "guessed"}, "openid: state"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_tampering(begin: Any, finish: Any, state_of: Any, with_openid: Any, invite: Any, what: str) -> None:
    """A changed nonce, verifier, code, issuer or state is refused; nothing is stored."""
    there, back, reason = TAMPERED[what]
    begun, before = begin(), state_of()
    query = browse(begun["authorization_url"], "dev,dev@example.com,true", **there)
    assert finish(begun, query | back).status_code == 401
    assert last_audit(with_openid)["details"] == {"reason": reason}
    assert state_of() == before


def test_an_answer_without_its_issuer(begin: Any, finish: Any) -> None:
    """A provider that always names itself and did not is another one (RFC 9207)."""
    begun = begin()
    query = browse(begun["authorization_url"], "dev,dev@example.com,true")
    del query["iss"]
    assert finish(begun, query).status_code == 401


def test_another_browser(begin: Any, finish: Any) -> None:
    """Who was sent back in a browser that did not begin it does not sign in; the state is gone with the attempt."""
    begun, other = begin(), begin()
    query = browse(begun["authorization_url"], "dev,dev@example.com,true")
    assert finish(other, query).status_code == 401
    assert finish(begun, query).status_code == 401


def test_a_state_is_good_for_once(begin: Any, finish: Any, invite: Any) -> None:
    """What was redeemed is not redeemed again."""
    invite("dora@example.com")
    begun = begin()
    query = browse(begun["authorization_url"], "dora,dora@example.com,true")
    assert [finish(begun, query).status_code for _ in range(2)] == [201, 401]


def test_a_state_is_good_for_ten_minutes(with_openid: Any) -> None:
    """Who stays away longer begins again."""
    openid, now = with_openid.services.openid, datetime.now(UTC)
    begun = openid.begin(HERE, redirect_uri=REDIRECT, return_to=None, now=now)
    query = browse(begun.authorization_url, "dev,dev@example.com,true")
    with pytest.raises(errors.Unauthorized):
        openid.finish(HERE, binding=begun.binding, redirect_uri=REDIRECT, query=query, now=now + timedelta(minutes=10))


@pytest.mark.parametrize(
    "address",
    [
        "http://localhost:8867/signin",
        "https://localhost:8866/signin",
        "http://localhost:8866@evil.example.com/",
        "http://evil.example.com:8866/",
        "http://localhost:8866/#x",
        "javascript:alert(1)",
        "",
        "http://[",
    ],
)
def test_redirects_stay_at_the_portal(portal: httpx.Client, address: str) -> None:
    """The provider sends nobody elsewhere than to the portal."""
    refused = portal.post("/api/oidc/authorizations", json={"redirect_uri": address})
    assert (refused.status_code, refused.json()["details"]["fields"][0]["field"]) == (400, "redirect_uri")


@pytest.mark.parametrize("path", ["https://evil.example.com", "//evil.example.com", "/\\evil.example.com", "forms", ""])
def test_returns_stay_at_the_portal(portal: httpx.Client, path: str) -> None:
    """Signing in redirects nobody elsewhere."""
    refused = portal.post("/api/oidc/authorizations", json={"redirect_uri": REDIRECT, "return_to": path})
    assert (refused.status_code, refused.json()["details"]["fields"][0]["field"]) == (400, "return_to")


def test_without_a_provider(client: Callable[..., httpx.Client]) -> None:
    """Where no provider is set, nobody begins or finishes: 404."""
    one = client(None)
    query = {"binding": "x", "redirect_uri": REDIRECT, "query": {"code": "x", "state": "x"}}
    assert one.post("/api/oidc/authorizations", json={"redirect_uri": REDIRECT}).status_code == 404
    assert one.post("/api/oidc/sessions", json=query).status_code == 404
    assert one.get("/api/sign-in").json()["oidc"] is None


@pytest.mark.parametrize(
    ("email", "changes", "is_let_in"),
    [
        ("new@example.com", {"oidc_create_users": True}, True),
        ("new@other.example.com", {"oidc_create_users": True, "oidc_allowed_domains": ("example.com",)}, False),
        ("new2@example.com", {"oidc_create_users": True, "oidc_allowed_domains": ("Example.com",)}, True),
    ],
)
def test_unknown_people(with_openid: Any, email: str, changes: dict[str, Any], is_let_in: bool) -> None:
    """By setting, unknown people of the allowed domains become users without a role."""
    services = with_openid.services
    settings = services.settings.model_copy(update=changes)
    openid = OpenId(services.store, services.sign_in, openid_provider(services.settings), settings)
    now = datetime.now(UTC)
    begun = openid.begin(HERE, redirect_uri=REDIRECT, return_to=None, now=now)
    query = browse(begun.authorization_url, f"{email},{email},true")
    arguments = {"binding": begun.binding, "redirect_uri": REDIRECT, "query": query, "now": now}
    if is_let_in:
        openid.finish(HERE, **arguments)
        assert services.store.find_user(email).roles == {}
    else:
        with pytest.raises(errors.Unauthorized):
            openid.finish(HERE, **arguments)
        assert services.store.find_user(email) is None
