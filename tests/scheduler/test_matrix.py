"""Who may do what where: every route, for six kinds of callers, in four kinds of organizations (contract §4, §10).

The routes come from the application itself. A route without an expectation here fails the test: whoever adds one says
who may use it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi.routing import APIRoute

from bifrost_kernel import models
from bifrost_scheduler.web import app as web

CALLERS = ("default", "reader", "full", "developer", "user", "admin")
ROLES = {"user": "WorkflowUser", "admin": "OrgAdmin"}
"""The callers who are people that signed in."""
PERMISSIONS: dict[str, list[str] | None] = {
    "default": None,
    "reader": ["canViewHistory"],
    "full": [permission.value for permission in models.Permission],
}
ANY_SHAPE = (
    "x",
    "-",
    "0" * 16,
    "01970000-0000-7000-8000-000000000000",
    "x" * 10_000,
    "a%2Fb",
    "%00",
    "a%00b",
    "%FF",
    "..x",
)


class Expected(NamedTuple):
    """The answer in the caller's own organization, by caller; `body` makes the request a right one.

    `where` says what ties the route to an organization: its `header`, an id in its `path`, or nothing.
    """

    default: int
    reader: int
    full: int
    developer: int
    where: str = "header"
    body: dict[str, Any] | None = None
    query: str = ""
    user: int | None = None
    admin: int | None = None

    def of(self, caller: str) -> int:
        """People who signed in are answered as keys with their permissions, unless it is said otherwise."""
        said = {"user": self.user, "admin": self.admin}.get(caller)
        like = {"user": "default", "admin": "full"}.get(caller, caller)
        return int(getattr(self, like) if said is None else said)


FORM = {"workflow": "nothing", "title": "Nothing at all"}
CONNECTION = {"oauth_flow_type": "client_credentials", "client_id": "client"}

PASSWORDS = {"current": "wrong horse battery", "new": "correct horse battery"}
OPENID = {"binding": "x", "redirect_uri": "x", "query": {}}
SETUP = {"token": "wrong", "email": "a@example.com", "name": "Ada", "password": "correct horse battery"}
DAY = "since=2026-01-01T00:00:00Z&until=2026-01-02T00:00:00Z"
SCHEDULE = {"workflow": "nothing", "cron": "0 9 * * 1"}

EXPECTED = {
    "POST /api/workflows/{name}": Expected(200, 403, 200, 200, body={}, user=403, admin=403),
    "GET /api/workflows": Expected(200, 200, 200, 200, "nothing"),
    "GET /api/workflows/{name}": Expected(200, 200, 200, 200, "nothing"),
    "GET /api/data-providers/{name}": Expected(200, 403, 200, 200),
    "GET /api/executions": Expected(200, 200, 200, 200),
    "GET /api/executions/{execution_id}": Expected(200, 200, 200, 200, "path"),
    "GET /api/executions/{execution_id}/events": Expected(200, 200, 200, 200, "path"),
    "GET /api/executions/{execution_id}/notebook": Expected(200, 200, 200, 200, "path"),
    # It is over, and the developer asked for it: whoever may decide is told 409, and he that it is his own; so are keys
    # that he made.
    "POST /api/executions/{execution_id}/cancel": Expected(409, 403, 409, 409, "path"),
    "POST /api/executions/{execution_id}/rerun": Expected(200, 403, 200, 200, "path", user=403, admin=403),
    "POST /api/executions/{execution_id}/approve": Expected(403, 403, 403, 403, "path", admin=409),
    "POST /api/executions/{execution_id}/reject": Expected(403, 403, 403, 403, "path", admin=409),
    "POST /api/organizations": Expected(403, 403, 403, 409, "nothing", {"id": "test-org-active", "name": "Twice"}),
    "GET /api/organizations": Expected(200, 200, 200, 200, "nothing"),
    "GET /api/organizations/{organization_id}": Expected(200, 200, 200, 200, "path"),
    "PATCH /api/organizations/{organization_id}": Expected(403, 403, 403, 200, "path", {"active": True}),
    "POST /api/keys": Expected(403, 403, 201, 201, "body", {"name": "k", "permissions": ["canViewHistory"]}),
    "GET /api/keys": Expected(403, 403, 200, 200),
    "DELETE /api/keys/{key_id}": Expected(403, 403, 204, 204, "path"),
    "POST /api/users": Expected(403, 403, 201, 201, "body", {"name": "Ada"}),
    "GET /api/users": Expected(403, 403, 200, 200),
    "GET /api/users/{email}": Expected(403, 403, 200, 200, "path"),
    "PATCH /api/users/{email}": Expected(403, 403, 200, 200, "path", {"name": "Eve"}),
    "DELETE /api/users/{email}": Expected(403, 403, 204, 204, "path"),
    "POST /api/users/{email}/link": Expected(403, 403, 201, 201, "path"),
    "POST /api/users/{email}/sign-out": Expected(403, 403, 204, 204, "path"),
    "GET /api/roles": Expected(200, 200, 200, 200, "nothing"),
    "GET /api/roles/{name}": Expected(200, 200, 200, 200, "nothing"),
    "PUT /api/roles/{name}": Expected(403, 403, 403, 200, "nothing", {"permissions": ["canViewHistory"]}),
    "DELETE /api/roles/{name}": Expected(403, 403, 403, 204, "nothing"),
    # What they send is wrong; whoever comes to sign in needs nothing else.
    "GET /api/sign-in": Expected(200, 200, 200, 200, "nothing"),
    "POST /api/sessions": Expected(401, 401, 401, 401, "nothing", {"link": "wrong"}),
    "POST /api/setup": Expected(401, 401, 401, 401, "nothing", SETUP),
    "POST /api/oidc/authorizations": Expected(404, 404, 404, 404, "nothing", {"redirect_uri": "x"}),
    "POST /api/oidc/sessions": Expected(404, 404, 404, 404, "nothing", OPENID),
    "GET /api/sessions": Expected(403, 403, 403, 403, "nothing", user=200, admin=200),
    "DELETE /api/sessions": Expected(403, 403, 403, 403, "nothing", user=204, admin=204),
    "GET /api/sessions/current": Expected(403, 403, 403, 403, "nothing", user=200, admin=200),
    "DELETE /api/sessions/current": Expected(403, 403, 403, 403, "nothing", user=204, admin=204),
    "PUT /api/sessions/current/password": Expected(403, 403, 403, 403, "nothing", PASSWORDS, user=400, admin=400),
    "PUT /api/config/{key}": Expected(403, 403, 200, 200, body={"value": "v"}),
    "GET /api/config": Expected(403, 403, 200, 200),
    "GET /api/config/{key}": Expected(403, 403, 200, 200),
    "DELETE /api/config/{key}": Expected(403, 403, 204, 204),
    "PUT /api/secrets/{name}": Expected(403, 403, 200, 200, body={"value": "long-enough"}),
    "GET /api/secrets": Expected(403, 403, 200, 200),
    "DELETE /api/secrets/{name}": Expected(403, 403, 204, 204),
    "PUT /api/connections/{name}": Expected(403, 403, 200, 200, body=CONNECTION),
    "GET /api/connections": Expected(403, 403, 200, 200),
    "DELETE /api/connections/{name}": Expected(403, 403, 204, 204),
    "GET /api/schedules": Expected(200, 200, 200, 200),
    "PUT /api/schedules/{name}": Expected(403, 403, 200, 200, body=SCHEDULE),
    "PATCH /api/schedules/{name}": Expected(403, 403, 200, 200, body={"timezone": "Europe/Zagreb"}),
    "GET /api/schedules/{name}": Expected(200, 200, 200, 200),
    "DELETE /api/schedules/{name}": Expected(403, 403, 204, 204),
    "GET /api/schedules/{name}/next": Expected(200, 200, 200, 200),
    "GET /api/schedules/{name}/history": Expected(200, 200, 200, 200),
    "GET /api/schedules/{name}/versions": Expected(200, 200, 200, 200),
    "POST /api/schedules/{name}/pause": Expected(403, 403, 200, 200),
    "POST /api/schedules/{name}/resume": Expected(403, 403, 200, 200),
    "POST /api/schedules/{name}/run": Expected(403, 403, 202, 202),
    "GET /api/schedule-calendar": Expected(
        200, 200, 200, 200, query="?since=2026-01-01T00:00:00Z&until=2026-01-02T00:00:00Z"
    ),
    "POST /api/authoring-sessions": Expected(403, 403, 403, 201, "nothing", {}),
    "GET /api/health": Expected(200, 200, 200, 200, "nothing"),
    "GET /metrics": Expected(403, 403, 403, 200, "nothing"),
    "GET /api/audit": Expected(403, 403, 403, 200, "nothing"),
    "GET /api/executions/{execution_id}/inputs": Expected(200, 200, 200, 200, "path"),
    "GET /api/forms": Expected(200, 403, 200, 200),
    "GET /api/forms/{name}": Expected(200, 403, 200, 200),
    "POST /api/forms/{name}": Expected(202, 403, 202, 202, body={}),
    "POST /api/forms/{name}/options/{field}": Expected(200, 403, 200, 200, body={}),
    # Drafts and form sessions are for people: keys have none.
    "GET /api/forms/{name}/draft": Expected(403, 403, 403, 200, user=200, admin=200),
    "PUT /api/forms/{name}/draft": Expected(403, 403, 403, 200, body={}, user=200, admin=200),
    "DELETE /api/forms/{name}/draft": Expected(403, 403, 403, 204, user=204, admin=204),
    "POST /api/form-sessions": Expected(403, 403, 403, 201, body={"form": "nothing"}, user=201, admin=201),
    "PUT /api/forms/{name}": Expected(403, 403, 200, 200, body=FORM),
    "DELETE /api/forms/{name}": Expected(403, 403, 204, 204),
    "GET /api/form-definitions": Expected(403, 403, 200, 200),
    "GET /api/form-definitions/{name}": Expected(403, 403, 200, 200),
}
OPEN = {
    "GET /api/health",
    "GET /metrics",
    "GET /api/sign-in",
    "POST /api/sessions",
    "POST /api/setup",
    "POST /api/oidc/authorizations",
    "POST /api/oidc/sessions",
}
"""Routes that answer without a key (the metrics in development only)."""

ROUTES = sorted(
    f"{method} {route.path}"
    for router in web.ROUTERS
    for route in router.routes
    if isinstance(route, APIRoute)
    for method in route.methods
)


def known(route: str) -> Expected:
    assert route in EXPECTED, f"{route} is new: say in EXPECTED who may use it."
    return EXPECTED[route]


class Things(NamedTuple):
    """One organization with something of every kind in it."""

    organization: str
    execution_id: str
    key_id: str
    email: str = "nobody@example.com"

    def path(self, route: str) -> str:
        names = {
            "/api/workflows": "nothing",
            "/api/data-providers": "get_colors",
            "/api/roles": "Known",
            "/api/forms/{name}/options": "paint",
            "/api/forms/{name}/draft": "nothing",
        }
        path = route.partition(" ")[2]
        return path.format(
            name=next((name for prefix, name in names.items() if path.startswith(prefix)), "known"),
            field="color",
            key="known",
            execution_id=self.execution_id,
            organization_id=self.organization,
            key_id=self.key_id,
            email=self.email,
        )

    @property
    def ids(self) -> tuple[str, ...]:
        return self


@pytest.fixture
def furnish(
    client: Callable[..., httpx.Client],
    new_organization: Callable[[], str],
    new_key: Callable[..., str],
    new_user: Callable[..., str],
    run: Callable[..., httpx.Response],
) -> Callable[[str], Things]:
    """An organization in which the thing that a route is about is there."""

    def make(route: str) -> Things:
        organization, execution_id, key_id, email = new_organization(), "none", "none", "none@example.com"
        one = client("test", organization)
        if "/executions" in route:
            execution_id = run("nothing", organization).headers["X-Execution-Id"]
        if "{key_id}" in route:
            key_id = new_key(organization).split("_")[1]
        if "{email}" in route:
            email = new_user({organization: ["ReadOnlyUser"]})
        if "/roles/" in route:
            one.put("/api/roles/Known", json={"permissions": []}).raise_for_status()
        for kind, body in {
            "config": {"value": "v"},
            "secrets": {"value": "long-enough"},
            "connections": CONNECTION,
            "forms": FORM,
            "schedules": SCHEDULE,
        }.items():
            if f"/{kind}/" in route.replace("/form-definitions/", "/forms/"):
                one.put(f"/api/{kind}/known", json=body).raise_for_status()
        return Things(organization, execution_id, key_id, email)

    return make


@pytest.fixture
def ask(client: Callable[..., httpx.Client]) -> Callable[..., httpx.Response]:
    """`ask(route, key, things)`: a right request to a route about these things."""

    def make(route: str, key: str | None, things: Things, path: str | None = None) -> httpx.Response:
        expected = known(route)
        body = expected.body
        if expected.where == "body" and body is not None:
            body = {**body, **_bound(route, things.organization)}
        header = things.organization if expected.where == "header" else None
        return client(key, header).request(
            route.partition(" ")[0], (path or things.path(route)) + expected.query, json=body
        )

    return make


def _bound(route: str, organization: str) -> dict[str, Any]:
    """What binds a body to an organization."""
    if route == "POST /api/users":
        return {"email": f"{uuid.uuid4().hex}@example.com", "roles": {organization: ["ReadOnlyUser"]}}
    return {"organizations": [organization]}


@pytest.fixture
def keys(new_key: Callable[..., str], new_session: Callable[..., str]) -> Callable[[str, str], str]:
    """The key, or the session, of a caller in an organization."""

    def make(caller: str, organization: str) -> str:
        if caller == "developer":
            return "test"
        if caller in ROLES:
            return new_session(organization, ROLES[caller])
        permissions = PERMISSIONS[caller]
        return new_key(organization, **({"permissions": permissions} if permissions else {}))

    return make


def test_every_route_is_expected() -> None:
    """The expectations are those of the routes that there are: none is missing, none is left over."""
    assert sorted(EXPECTED) == ROUTES


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("route", ROUTES)
def test_own_organization(
    ask: Callable[..., httpx.Response],
    keys: Callable[..., str],
    furnish: Callable[[str], Things],
    route: str,
    caller: str,
) -> None:
    """In their own organization callers may do what their permissions say and nothing else."""
    things = furnish(route)
    response = ask(route, keys(caller, things.organization), things)
    assert response.status_code == known(route).of(caller), response.text


@pytest.mark.parametrize("route", [route for route in ROUTES if known(route).where != "nothing"])
def test_foreign_is_unknown(
    ask: Callable[..., httpx.Response], keys: Callable[..., str], furnish: Callable[[str], Things], route: str
) -> None:
    """What is another organization's and what never was give the same 404, byte for byte but for the id."""
    own, foreign = furnish(route), furnish(route)
    never = Things("organization-never", "01970000-0000-7000-8000-000000000000", "0123456789abcdef")
    for caller in ("default", "reader", "full", "user", "admin"):
        key = keys(caller, own.organization)
        answers = [(ask(route, key, things), things) for things in (foreign, never)]
        assert [answer.status_code for answer, _ in answers] == [404, 404], answers[0][0].text
        assert len({_without(answer.text, things.ids) for answer, things in answers}) == 1


@pytest.mark.parametrize("shape", ANY_SHAPE)
@pytest.mark.parametrize("route", [route for route in ROUTES if known(route).where == "path"])
def test_ids_of_any_shape(ask: Callable[..., httpx.Response], route: str, shape: str, control_plane: Any) -> None:
    """An id that could not be one is unknown: 404, for PlatformAdmins as well."""
    things = Things("nowhere", "nothing", "nobody")
    path = things.path(route)
    for id_ in things.ids:
        path = path.replace(f"/{id_}", f"/{shape}")
    response = ask(route, "test", things, path)
    assert (response.status_code, response.json()["error"]) == (404, "NotFound")


@pytest.mark.parametrize("organization", ["", "x" * 10_000, "..", "*", "global", "%00", "é"])
@pytest.mark.parametrize("route", [route for route in ROUTES if known(route).where == "header"])
def test_organizations_of_any_shape(
    client: Callable[..., httpx.Client], new_key: Callable[..., str], organization: str, route: str
) -> None:
    """A header that names no organization of the key is 404, an empty one names none."""
    things = Things("test-org-active", "nothing", "nobody")
    one = client(new_key("test-org-active", permissions=PERMISSIONS["full"]))
    headers = {"X-Organization-Id": organization.encode()}
    path = things.path(route) + known(route).query
    response = one.request(route.partition(" ")[0], path, json=known(route).body, headers=headers)
    assert response.status_code in ((200, 400, 403, 404) if not organization else (404,)), response.text


@pytest.mark.parametrize("route", [route for route in ROUTES if route not in OPEN])
def test_key_is_needed(ask: Callable[..., httpx.Response], client: Callable[..., httpx.Client], route: str) -> None:
    """Without a key, with a wrong one, and with one in the address, every route is 401."""
    things = Things("test-org-active", "nothing", "nobody")
    assert [ask(route, key, things).status_code for key in (None, "wrong")] == [401, 401]
    address = f"{things.path(route)}?x-functions-key=test&code=test&key=test"
    assert ask(route, None, things, address).status_code == 401


def _without(text: str, ids: tuple[str, ...]) -> str:
    for id_ in ids:
        text = text.replace(id_, "…")
    return text
