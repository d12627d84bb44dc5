"""Signing in and out over HTTP: passwords, links, sessions and their ends; what each failure gives away (nothing)."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from bifrost_scheduler import sessions

Client = Callable[..., httpx.Client]
PASSWORD = "correct horse battery"


@pytest.fixture
def person(new_user: Callable[..., str], sign_in: Callable[..., str], organization: str) -> str:
    """A workflow user of the test's organization, with a password."""
    email = new_user({organization: ["WorkflowUser"]})
    sign_in(email, password=PASSWORD)
    return email


@pytest.fixture
def attempt(client: Client) -> Callable[..., httpx.Response]:
    """`attempt(email, password)`."""
    return lambda email, password=PASSWORD, **headers: client(None, **headers).post(
        "/api/sessions", json={"email": email, "password": password}
    )


@pytest.fixture
def status(client: Client) -> Callable[[str], int]:
    """What the current session answers with this token."""
    return lambda token: client(token).get("/api/sessions/current").status_code


def audit_of(control_plane: Any, email: str) -> list[str]:
    """The acts that concern this person, in their order."""
    bodies = [json.loads(entry.body) for entry in control_plane.services.store.list_ledger(limit=1_000_000)]
    return [body["action"] for body in bodies if body.get("target") == email]


def test_sign_in(attempt: Any, client: Client, person: str, organization: str) -> None:
    """Email and password give a token, which says who one is, and what one may do where."""
    begun = attempt(person.upper())
    assert begun.status_code == 201
    assert begun.json()["user"] == {"email": person, "name": "Ada"}
    shown = client(None, Authorization=f"Bearer {begun.json()['token']}").get("/api/sessions/current").json()
    assert shown["organizations"] == [
        {
            "id": organization,
            "name": f"Number {organization}",
            "permissions": ["canExecuteWorkflows", "canViewHistory"],
        }
    ]
    assert (shown["platform_admin"], shown["expires_at"]) == (False, begun.json()["expires_at"])


def test_the_developer(attempt: Any, client: Client) -> None:
    """In development `dev@example.com` signs in with the password `test`, and sees every active organization."""
    token = attempt("dev@example.com", "test").json()["token"]
    shown = client(token).get("/api/sessions/current").json()
    assert shown["platform_admin"]
    assert "test-org-active" in [one["id"] for one in shown["organizations"]]


def test_one_answer_for_every_failure(
    attempt: Any, client: Client, new_user: Callable[..., str], person: str, organization: str
) -> None:
    """Unknown, wrong, without a password and disabled read the same, byte for byte."""
    disabled, without = new_user({organization: ["WorkflowUser"]}), new_user()
    client().patch(f"/api/users/{disabled}", json={"disabled": True}).raise_for_status()
    answers = [
        attempt("nobody@example.com"),
        attempt(person, "wrong horse battery"),
        attempt(disabled),
        attempt(without),
        attempt("no email at all"),
    ]
    assert {(answer.status_code, answer.content) for answer in answers} == {(401, answers[0].content)}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"email": "a@example.com"},
        {"password": PASSWORD},
        {"link": "x", "email": "a@example.com", "password": PASSWORD},
        {"email": "a@example.com", "password": "x" * 257},
        {"email": ["a@example.com"], "password": PASSWORD},
        {"email": "a@example.com", "password": PASSWORD, "remember": True},
    ],
)
def test_neither_password_nor_link(client: Client, body: dict[str, Any]) -> None:
    """What is no sign-in at all is 400, and does not repeat what was sent."""
    refused = client(None).post("/api/sessions", json=body)
    assert (refused.status_code, refused.json()["error"]) == (400, "ValidationError")
    assert PASSWORD not in refused.text


# links


def test_a_link_is_good_for_once(client: Client, new_user: Callable[..., str], organization: str) -> None:
    """A link signs in once; what was made before the last one is over."""
    email = new_user({organization: ["WorkflowUser"]})
    earlier, link = (client().post(f"/api/users/{email}/link").json()["token"] for _ in range(2))
    answers = [client(None).post("/api/sessions", json={"link": one}).status_code for one in (earlier, link, link)]
    assert answers == [401, 201, 401]


def test_a_link_sets_a_password(client: Client, attempt: Any, new_user: Callable[..., str]) -> None:
    """A password that is refused leaves the link good; one that is set counts at once and ends other sessions."""
    email = new_user()
    link = client().post(f"/api/users/{email}/link").json()["token"]
    for wrong in ("short", email, "x" * 256 + "y"):
        assert client(None).post("/api/sessions", json={"link": link, "password": wrong}).status_code == 400
    client(None).post("/api/sessions", json={"link": link, "password": PASSWORD}).raise_for_status()
    assert attempt(email).status_code == 201


@pytest.mark.parametrize("link", ["", "x", "bfl_" + "x" * 43, "bfs_" + "x" * 43, "é"])
def test_an_unknown_link(client: Client, link: str) -> None:
    """What is no link is 401, whatever it looks like."""
    assert client(None).post("/api/sessions", json={"link": link}).status_code == 401


def test_a_link_of_a_disabled_person(client: Client, new_user: Callable[..., str]) -> None:
    """A link ends with its person being disabled, also when he is enabled again; meanwhile there is none."""
    email = new_user()
    link = client().post(f"/api/users/{email}/link").json()["token"]
    client().patch(f"/api/users/{email}", json={"disabled": True}).raise_for_status()
    assert client().post(f"/api/users/{email}/link").status_code == 409
    client().patch(f"/api/users/{email}", json={"disabled": False}).raise_for_status()
    assert client(None).post("/api/sessions", json={"link": link}).status_code == 401


# what ends a session


def test_sign_out(client: Client, attempt: Any, person: str, status: Any, control_plane: Any) -> None:
    """Signing out ends this session and no other; signing out everywhere ends them all. Each is in the audit."""
    one, two, three = (attempt(person).json()["token"] for _ in range(3))
    assert client(one).delete("/api/sessions/current").status_code == 204
    assert [status(token) for token in (one, two, three)] == [401, 200, 200]
    assert client(two).delete("/api/sessions").status_code == 204
    assert [status(token) for token in (two, three)] == [401, 401]
    assert audit_of(control_plane, person)[-2:] == ["session.end", "session.end_all"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "", {"disabled": True}),
        ("POST", "/sign-out", None),
        ("DELETE", "", None),
    ],
)
def test_an_administrator_ends_sessions(
    client: Client, attempt: Any, person: str, status: Any, method: str, path: str, body: Any
) -> None:
    """Who is disabled, signed out or deleted is out at the next request."""
    token = attempt(person).json()["token"]
    assert status(token) == 200
    assert client().request(method, f"/api/users/{person}{path}", json=body).status_code in (200, 204)
    assert status(token) == 401


def test_rights_are_those_of_now(client: Client, attempt: Any, person: str, organization: str) -> None:
    """A role that was given or taken counts at the next request of a session that is there."""
    one = client(attempt(person).json()["token"], organization)
    assert one.get("/api/config").status_code == 403
    client().patch(f"/api/users/{person}", json={"roles": {organization: ["OrgAdmin"]}}).raise_for_status()
    assert one.get("/api/config").status_code == 200
    client().patch(f"/api/users/{person}", json={"roles": {organization: []}}).raise_for_status()
    assert one.get("/api/config").status_code == 404


def test_a_session_expires(control_plane: Any, attempt: Any, person: str) -> None:
    """A session is over after 12 hours however busy, and after one hour that it lay idle."""
    token, begun = attempt(person).json()["token"], datetime.now(UTC)
    found = control_plane.services.sessions.find_principal
    assert found(token, now=begun + timedelta(minutes=61)) is None
    assert found(token, now=begun + timedelta(minutes=58)) is not None  # last: it is used then, and lives on
    control_plane.services.store.check()
    session = control_plane.services.store.find_session(sessions.sha256(token))
    control_plane.services.store.touch_session(session.id, begun + timedelta(hours=11, minutes=50))
    control_plane.services.store.check()
    assert found(token, now=begun + timedelta(hours=11, minutes=55)) is not None
    assert found(token, now=begun + timedelta(hours=12, minutes=1)) is None


def test_use_keeps_a_session(control_plane: Any, attempt: Any, person: str) -> None:
    """Whoever comes again within the hour is not idle."""
    token, begun = attempt(person).json()["token"], datetime.now(UTC)
    for minutes in (50, 100, 150):
        assert control_plane.services.sessions.find_principal(token, now=begun + timedelta(minutes=minutes))
        control_plane.services.store.check()


@pytest.mark.parametrize(
    "token", ["bfs_", "bfs_" + "x" * 43, "bfs_" + "x" * 42, "bfs_" + "é" * 43, "bfs_" + "x" * 9000]
)
def test_what_is_no_session(client: Client, token: str) -> None:
    """A token that was never given is 401, whatever it looks like."""
    headers = {"Authorization": f"Bearer {token}".encode()}
    assert client(None).get("/api/workflows", headers=headers).status_code == 401


@pytest.mark.parametrize("leave", ["sign out", "role"])
def test_a_live_stream_ends_too(
    client: Client, attempt: Any, person: str, organization: str, occupy: Any, leave: str
) -> None:
    """A stream of events that stays open ends when its session, or the right to see it, does."""
    (id_,) = occupy(organization, 1)
    token = attempt(person).json()["token"]
    headers = {"Accept": "text/event-stream"}
    with client(token).stream("GET", f"/api/executions/{id_}/events", headers=headers) as stream:
        lines = stream.iter_lines()
        assert next(line for line in lines if line.startswith("data:"))
        if leave == "sign out":
            client(token).delete("/api/sessions/current").raise_for_status()
        else:
            client().patch(f"/api/users/{person}", json={"roles": {organization: []}}).raise_for_status()
        assert not any('"status": "cancelled"' in line for line in lines)


# one's own sessions


def test_own_sessions(client: Client, attempt: Any, person: str, new_session: Any, organization: str) -> None:
    """One sees one's own sessions with address and browser, in pages, and nobody else's."""
    new_session(organization, "OrgAdmin")
    token = attempt(person, **{"User-Agent": "Browser"}).json()["token"]
    one = client(token)
    shown = one.get("/api/sessions").json()["items"]
    (own,) = [row for row in shown if row["current"]]
    assert (len(shown), own["agent"], own["address"]) == (2, "Browser", "127.0.0.1")
    first = one.get("/api/sessions", params={"limit": 1}).json()
    second = one.get("/api/sessions", params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert [row["id"] for row in first["items"] + second["items"]] == [row["id"] for row in shown]


def test_another_password(client: Client, attempt: Any, person: str, status: Any) -> None:
    """A new password takes the current one, keeps this session and ends the others."""
    here, there = (attempt(person).json()["token"] for _ in range(2))
    path, new = "/api/sessions/current/password", "another horse battery"
    for current, wanted in (("wrong", new), (PASSWORD, "short"), (PASSWORD, person)):
        assert client(here).put(path, json={"current": current, "new": wanted}).status_code == 400
    assert client(here).put(path, json={"current": PASSWORD, "new": new}).status_code == 204
    assert (status(here), status(there)) == (200, 401)
    assert (attempt(person).status_code, attempt(person, new).status_code) == (401, 201)


@pytest.mark.parametrize("key", ["developer", "organization"])
def test_keys_have_no_session(client: Client, new_key: Callable[..., str], organization: str, key: str) -> None:
    """What is about one's session is 403 for keys."""
    one = client("test" if key == "developer" else new_key(organization))
    password = {"current": PASSWORD, "new": PASSWORD}
    answers = [
        one.get("/api/sessions/current"),
        one.get("/api/sessions"),
        one.delete("/api/sessions/current"),
        one.delete("/api/sessions"),
        one.put("/api/sessions/current/password", json=password),
    ]
    assert [answer.status_code for answer in answers] == [403] * 5


# too many


def test_an_account_is_limited(attempt: Any, person: str) -> None:
    """After ten failures an account waits, also with the right password, and whoever it is told when."""
    assert [attempt(person, "wrong").status_code for _ in range(10)] == [401] * 10
    refused = attempt(person)
    assert (refused.status_code, refused.json()["error"]) == (429, "TooManyRequests")
    assert 0 < int(refused.headers["Retry-After"]) <= 900


def test_success_clears_an_account(attempt: Any, person: str) -> None:
    """Failures count until the password was right."""
    for _ in range(2):
        assert [attempt(person, "wrong").status_code for _ in range(9)] == [401] * 9
        assert attempt(person).status_code == 201


def test_unknown_accounts_are_limited_too(attempt: Any) -> None:
    """The limit does not tell who is there."""
    answers = [attempt("nobody-at-all@example.com") for _ in range(11)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429]
