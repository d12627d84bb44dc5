"""Users and roles over HTTP: who manages whom, and that nobody gets beyond himself by managing others."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

Client = Callable[..., httpx.Client]


@pytest.fixture
def admin(client: Client, new_session: Callable[..., str], organization: str) -> httpx.Client:
    """The administrator of the test's organization."""
    return client(new_session(organization, "OrgAdmin"), organization)


@pytest.fixture
def member(new_user: Callable[..., str], organization: str) -> str:
    return new_user({organization: ["WorkflowUser"]})


@pytest.fixture
def stranger(new_user: Callable[..., str], neighbour: str) -> str:
    return new_user({neighbour: ["WorkflowUser"]})


@pytest.fixture
def role(client: Client, organization: str) -> Callable[..., str]:
    """Define a role for this test."""

    def make(*permissions: str) -> str:
        name = f"Role-of-{organization}"
        client().put(f"/api/roles/{name}", json={"permissions": permissions}).raise_for_status()
        return name

    return make


def roles_of(client: Client, email: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = client().get(f"/api/users/{email}").json()["roles"]
    return found


# users


def test_a_new_person(admin: httpx.Client, organization: str) -> None:
    """An administrator makes people with roles of his organization; emails are one in any case."""
    body = {"email": f"Ada@{organization}.example.com", "name": "Ada", "roles": {organization: ["WorkflowUser"]}}
    made = admin.post("/api/users", json=body)
    assert made.status_code == 201
    assert made.json() | {"created_at": None} == {
        "email": f"ada@{organization}.example.com",
        "name": "Ada",
        "disabled": False,
        "roles": {organization: ["WorkflowUser"]},
        "has_password": False,
        "has_openid": False,
        "created_at": None,
    }
    assert admin.post("/api/users", json=body).status_code == 409


@pytest.mark.parametrize(
    "email", ["", "a", "a@", "@b.c", "a b@c.de", "a@b.c\r\nBcc: x@y.de", "a@b..de", "x" * 300 + "@b.de"]
)
def test_what_is_no_email(client: Client, email: str) -> None:
    """What is no email address is refused by name."""
    refused = client().post("/api/users", json={"email": email, "name": "A"})
    assert (refused.status_code, refused.json()["details"]["fields"][0]["field"]) == (400, "email")


def test_a_person_is_listed_where_he_belongs(admin: httpx.Client, client: Client, member: str, stranger: str) -> None:
    """An administrator sees the people of his organization, a PlatformAdmin everybody; in pages."""
    shown = [row["email"] for row in admin.get("/api/users").json()["items"]]
    assert member in shown
    assert stranger not in shown
    first = client().get("/api/users", params={"limit": 1}).json()
    assert client().get("/api/users", params={"limit": 1, "cursor": first["next_cursor"]}).json()["items"]
    assert "password_hash" not in client().get("/api/users").text


def test_roles_elsewhere_are_not_shown(
    admin: httpx.Client, client: Client, new_user: Callable[..., str], organization: str, neighbour: str
) -> None:
    """Of somebody who belongs to two organizations each administrator sees, and changes, his own."""
    both = new_user({organization: ["WorkflowUser"], neighbour: ["OrgAdmin"]})
    assert admin.get(f"/api/users/{both}").json()["roles"] == {organization: ["WorkflowUser"]}
    changed = admin.patch(f"/api/users/{both}", json={"roles": {organization: ["ReadOnlyUser"]}})
    assert changed.json()["roles"] == {organization: ["ReadOnlyUser"]}
    assert roles_of(client, both) == {organization: ["ReadOnlyUser"], neighbour: ["OrgAdmin"]}


RULING: list[tuple[str, str, Any]] = [
    ("PATCH", "", {"name": "Eve"}),
    ("PATCH", "", {"disabled": True}),
    ("DELETE", "", None),
    ("POST", "/link", None),
    ("POST", "/sign-out", None),
]


@pytest.mark.parametrize(("method", "path", "body"), RULING)
def test_the_whole_person(
    admin: httpx.Client,
    new_user: Callable[..., str],
    organization: str,
    neighbour: str,
    method: str,
    path: str,
    body: Any,
) -> None:
    """What concerns a whole person takes authority over all that he holds: here, elsewhere, everywhere."""
    own = new_user({organization: ["OrgAdmin"]})
    elsewhere = new_user({organization: ["WorkflowUser"], neighbour: ["WorkflowUser"]})
    everywhere = new_user({organization: ["WorkflowUser"], "*": ["ReadOnlyUser"]})
    answers = [admin.request(method, f"/api/users/{one}{path}", json=body) for one in (elsewhere, everywhere, own)]
    assert [answer.status_code for answer in answers[:2]] == [403, 403]
    assert answers[2].is_success


@pytest.mark.parametrize(("method", "path", "body"), RULING)
def test_people_of_others_are_unknown(
    admin: httpx.Client, client: Client, stranger: str, organization: str, method: str, path: str, body: Any
) -> None:
    """Another organization's person, one of none, a PlatformAdmin and nobody at all read the same."""
    names = (stranger, "dev@example.com", "nobody@example.com")
    answers = [admin.request(method, f"/api/users/{one}{path}", json=body) for one in names]
    assert [answer.status_code for answer in answers] == [404] * 3
    texts = {answer.text.replace(one, "…") for answer, one in zip(answers, names, strict=True)}
    assert len(texts) == 1
    given = admin.patch(f"/api/users/{stranger}", json={"roles": {organization: ["WorkflowUser"]}})
    assert given.status_code == 404


# getting beyond oneself


@pytest.mark.parametrize(
    ("place", "given", "status"),
    [
        ("*", "PlatformAdmin", 403),
        ("*", "ReadOnlyUser", 403),
        ("own", "PlatformAdmin", 400),
        ("neighbour", "WorkflowUser", 404),
        ("GLOBAL", "WorkflowUser", 404),
        ("nowhere", "WorkflowUser", 404),
        ("own", "NoSuchRole", 400),
    ],
)
def test_an_administrator_stays_in_his_organization(
    admin: httpx.Client,
    client: Client,
    member: str,
    organization: str,
    neighbour: str,
    place: str,
    given: str,
    status: int,
) -> None:
    """No administrator gives, to others or to a new one, what is beyond his organization."""
    where = {"own": organization, "neighbour": neighbour}.get(place, place)
    roles = {where: [given]}
    assert admin.patch(f"/api/users/{member}", json={"roles": roles}).status_code == status
    new = {"email": f"new@{organization}.example.com", "name": "New", "roles": roles}
    assert admin.post("/api/users", json=new).status_code == status
    assert roles_of(client, member) == {organization: ["WorkflowUser"]}
    assert client().get(f"/api/users/{new['email']}").status_code == 404


def test_nobody_gives_what_he_lacks(
    client: Client, new_user: Any, sign_in: Any, role: Any, organization: str, member: str
) -> None:
    """Who manages users and little else gives, takes and rules no more than he holds."""
    email = new_user({organization: [role("canManageUsers", "canViewHistory")]})
    manager, chief = client(sign_in(email), organization), new_user({organization: ["OrgAdmin"]})
    for person, roles, status in [
        (email, ["OrgAdmin"], 403),
        (member, ["WorkflowUser", "OrgAdmin"], 403),
        (member, ["ReadOnlyUser"], 403),
        (chief, [], 403),
    ]:
        answer = manager.patch(f"/api/users/{person}", json={"roles": {organization: roles}})
        assert answer.status_code == status, (person, roles)
    for method, path, body in RULING:
        assert manager.request(method, f"/api/users/{chief}{path}", json=body).status_code == 403
    new = {"email": f"reader@{organization}.example.com", "name": "R", "roles": {organization: ["ReadOnlyUser"]}}
    assert manager.post("/api/users", json=new).status_code == 201


def test_people_of_no_organization(admin: httpx.Client, organization: str) -> None:
    """Only PlatformAdmins make people who belong nowhere, or disappear from an administrator's sight."""
    body = {"email": f"nowhere@{organization}.example.com", "name": "N"}
    assert admin.post("/api/users", json=body).status_code == 403
    assert admin.post("/api/users", json={**body, "roles": {organization: []}}).status_code == 403


def test_keys_that_are_narrow_manage_no_people(client: Client, new_key: Callable[..., str], organization: str) -> None:
    """What a narrow key made would be wider, or outlive it: people are not for keys that end or run some workflows."""
    body = {"email": f"k@{organization}.example.com", "name": "K", "roles": {organization: ["ReadOnlyUser"]}}
    permissions = ["canManageUsers", "canViewHistory"]
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    for narrow in ({"workflows": ["echo"]}, {"expires_at": later}):
        key = new_key(organization, permissions=permissions, **narrow)
        assert client(key).post("/api/users", json=body).status_code == 403
    assert client(new_key(organization, permissions=permissions)).post("/api/users", json=body).status_code == 201


def test_a_key_makes_none_that_outlives_it(client: Client, new_key: Callable[..., str], organization: str) -> None:
    """An expiring key makes keys that expire with it or before."""
    ends = datetime.now(UTC) + timedelta(hours=1)
    key = client(new_key(organization, permissions=["canManageUsers", "canViewHistory"], expires_at=ends.isoformat()))
    body = {"name": "child", "organizations": [organization], "permissions": ["canViewHistory"]}
    expiries = (None, ends + timedelta(seconds=1), ends, ends - timedelta(minutes=1))
    answers = [
        key.post("/api/keys", json={**body, "expires_at": at.isoformat() if at else None}).status_code
        for at in expiries
    ]
    assert answers == [403, 403, 201, 201]


# roles


def test_built_in_roles_are_fixed(client: Client) -> None:
    """The five roles are listed first, and neither changed nor removed."""
    listed = client().get("/api/roles").json()["items"]
    names = ["PlatformAdmin", "OrgAdmin", "WorkflowDeveloper", "WorkflowUser", "ReadOnlyUser"]
    assert [row["name"] for row in listed if row["built_in"]] == names
    for name in names:
        assert client().put(f"/api/roles/{name}", json={"permissions": []}).status_code == 409
        assert client().delete(f"/api/roles/{name}").status_code == 409


def test_a_role_counts_as_it_is_now(
    client: Client, new_session: Callable[..., str], role: Any, organization: str
) -> None:
    """What a role is changed to counts at the next request of whoever has it."""
    one = client(new_session(organization, role("canViewHistory")), organization)
    assert one.get("/api/config").status_code == 403
    role("canViewHistory", "canManageConfig")
    assert one.get("/api/config").status_code == 200


def test_a_role_in_use_stays(client: Client, new_user: Callable[..., str], role: Any, organization: str) -> None:
    """A role goes when nobody has it any more."""
    name = role("canViewHistory")
    email = new_user({organization: ["ReadOnlyUser", name]})
    assert client().delete(f"/api/roles/{name}").status_code == 409
    client().patch(f"/api/users/{email}", json={"roles": {organization: []}}).raise_for_status()
    assert client().delete(f"/api/roles/{name}").status_code == 204
    assert [client().delete(f"/api/roles/{name}").status_code, client().get(f"/api/roles/{name}").status_code] == [
        404
    ] * 2


@pytest.mark.parametrize("name", ["a b", "-x", "x" * 200, "é"])
def test_names_of_roles(client: Client, name: str) -> None:
    """A new role has a plain name."""
    assert client().put(f"/api/roles/{name}", json={"permissions": []}).status_code == 400


# the audit


def test_every_change_is_in_the_audit(
    client: Client, new_user: Callable[..., str], organization: str, control_plane: Any
) -> None:
    """Each change of a person is one entry, that names who, whom and what; a refused one is none."""
    email = new_user({organization: ["WorkflowUser"]})
    client().patch(f"/api/users/{email}", json={"roles": {organization: ["OrgAdmin"]}}).raise_for_status()
    client().patch(f"/api/users/{email}", json={"roles": {organization: ["Nonsense"]}})
    client().post(f"/api/users/{email}/link").raise_for_status()
    client().post(f"/api/users/{email}/sign-out").raise_for_status()
    client().delete(f"/api/users/{email}").raise_for_status()
    bodies = [json.loads(entry.body) for entry in control_plane.services.store.list_ledger(limit=1_000_000)]
    entries = [body for body in bodies if body.get("target") == email]
    assert [one["action"] for one in entries] == [
        "user.create",
        "user.change",
        "user.link",
        "user.sign_out",
        "user.delete",
    ]
    assert {one["actor"] for one in entries} == {"user:dev@example.com"}
    assert entries[1]["details"] == {"roles": {organization: ["OrgAdmin"]}}
