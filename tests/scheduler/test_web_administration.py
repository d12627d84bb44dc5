"""Administration over HTTP: organizations, keys, config, secrets and connections (contract §4 and §8)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

Run = Callable[..., httpx.Response]
Client = Callable[..., httpx.Client]
NewKey = Callable[..., str]

EVERYTHING = [
    "canExecuteWorkflows",
    "canApproveExecutions",
    "canManageConfig",
    "canManageSecrets",
    "canManageConnections",
    "canManageForms",
    "canManageSchedules",
    "canViewHistory",
    "canManageUsers",
]
CONNECTION = {
    "oauth_flow_type": "client_credentials",
    "client_id": "the-client",
    "client_secret": "client-secret-of-the-test",
    "token_url": "https://login.example.com/token",
    "access_token": "access-token-of-the-test",
    "refresh_token": "refresh-token-of-the-test",
    "expires_at": "2099-01-01T00:00:00Z",
}


def code_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]


# organizations


def test_organization(client: Client, organization: str) -> None:
    """An organization is made once, shown and listed."""
    one = client()
    assert one.get(f"/api/organizations/{organization}").json()["active"] is True
    assert code_of(one.post("/api/organizations", json={"id": organization, "name": "Twice"})) == (409, "Conflict")
    assert organization in [row["id"] for row in every(one, "/api/organizations")]


def every(one: httpx.Client, path: str) -> Iterator[dict[str, Any]]:
    """The rows of a list over all its pages."""
    page = one.get(path, params={"limit": 200}).json()
    yield from page["items"]
    while page["next_cursor"]:
        page = one.get(path, params={"limit": 200, "cursor": page["next_cursor"]}).json()
        yield from page["items"]


@pytest.mark.parametrize(
    "id_", ["", "GLOBAL", "global", "*", "a b", "../x", "a/b", "ä", "x" * 64, "a\n", "-a", 1, None]
)
def test_wrong_organization_id(client: Client, id_: Any) -> None:
    """An id that could mean something else is refused."""
    assert code_of(client().post("/api/organizations", json={"id": id_, "name": "N"})) == (400, "ValidationError")


@pytest.mark.parametrize("name", ["", "a\nb", "\x1b[31m", "x" * 201, None])
def test_wrong_organization_name(client: Client, name: Any) -> None:
    """A name that could steer a terminal or a page is refused."""
    assert client().post("/api/organizations", json={"id": "wrong-name", "name": name}).status_code == 400


def test_unknown_field(client: Client) -> None:
    """A field that is not known is an error, and is named."""
    body = client().post("/api/organizations", json={"id": "a", "name": "A", "colour": "red"}).json()
    assert [(field["field"], field["code"]) for field in body["details"]["fields"]] == [("colour", "extra_forbidden")]


def test_inactive_organization(run: Run, client: Client, new_key: NewKey, organization: str) -> None:
    """An organization that was switched off is unknown to its own keys, and comes back as it was."""
    key = new_key(organization, permissions=EVERYTHING)
    id_ = run("nothing", organization).headers["X-Execution-Id"]
    one = client(key, organization)
    paths = [
        "/api/executions",
        "/api/config",
        "/api/keys",
        f"/api/executions/{id_}",
        f"/api/organizations/{organization}",
    ]
    client().patch(f"/api/organizations/{organization}", json={"active": False}).raise_for_status()
    assert [one.get(path).status_code for path in paths] == [404] * len(paths)
    assert run("nothing", organization, key=key).status_code == 404
    assert client(key).get("/api/organizations").json()["items"] == []
    assert client(key).get("/api/executions").json()["items"] == []
    client().patch(f"/api/organizations/{organization}", json={"active": True}).raise_for_status()
    assert [one.get(path).status_code for path in paths] == [200] * len(paths)


def test_only_platform_admins_change_organizations(
    client: Client, new_key: NewKey, organization: str, neighbour: str
) -> None:
    """A key of an organization, whatever it may do there, makes none and switches none on or off."""
    one = client(new_key(organization, permissions=EVERYTHING))
    assert one.post("/api/organizations", json={"id": "mine", "name": "Mine"}).status_code == 403
    assert one.patch(f"/api/organizations/{organization}", json={"active": False}).status_code == 403
    assert one.patch(f"/api/organizations/{neighbour}", json={"active": False}).status_code == 404
    assert one.patch(f"/api/organizations/{organization}", json={"egress": []}).status_code == 403
    assert one.patch(f"/api/organizations/{neighbour}", json={"egress": []}).status_code == 404


def audited(client: httpx.Client, organization: str) -> list[dict[str, Any]]:
    """What the ledger says of this organization."""
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = client.get("/api/audit", params={"limit": 200} | ({"cursor": cursor} if cursor else {})).json()
        found += [one for one in page["items"] if organization in json.dumps(one["body"])]
        if (cursor := page["next_cursor"]) is None:
            return found


def test_a_list_of_hosts(client: Client, organization: str, neighbour: str) -> None:
    """PlatformAdmins set it, empty it and take it away; it is audited, and touches neither state nor neighbour."""
    path = f"/api/organizations/{organization}"
    for hosts in (["graph.microsoft.com", "*.halopsa.com:443"], [], None):
        changed = client().patch(path, json={"egress": hosts}).raise_for_status().json()
        assert (changed["egress"], changed["active"]) == (hosts, True)
        assert {"egress": hosts} in [one["body"].get("details") for one in audited(client(), organization)]
    assert client().get(f"/api/organizations/{neighbour}").json()["egress"] is None


@pytest.mark.parametrize("body", [{}, {"egress": ["https://a.example"]}, {"egress": ["a.example:0"]}, {"egress": "a"}])
def test_a_wrong_change_changes_nothing(client: Client, organization: str, body: dict[str, object]) -> None:
    """400, and neither the list nor the state is another one."""
    path = f"/api/organizations/{organization}"
    before = client().get(path).json()
    assert client().patch(path, json=body).status_code == 400
    assert client().patch(path, json=body | {"active": False} if body else body).status_code == 400
    assert client().get(path).json() == before


# keys


def test_key_is_shown_once(client: Client, organization: str) -> None:
    """A key is told when it is made and never again."""
    one = client("test", organization)
    made = one.post("/api/keys", json={"name": "psa", "organizations": [organization]})
    assert (made.status_code, set(made.json())) == (201, {"id", "key"})
    listed = one.get("/api/keys")
    (row,) = listed.json()["items"]
    assert (row["id"], row["permissions"]) == (made.json()["id"], ["canExecuteWorkflows", "canViewHistory"])
    assert made.json()["key"] not in listed.text
    assert made.json()["key"].rpartition("_")[2] not in listed.text


def test_last_use(client: Client, new_key: NewKey, organization: str, control_plane: Any) -> None:
    """A list of keys says when each was used last."""
    key = new_key(organization)
    client(key).get("/api/executions").raise_for_status()
    # Nobody waits for that note to be written; this is written after it.
    control_plane.services.store.check()
    (row,) = client("test", organization).get("/api/keys").json()["items"]
    assert row["last_used_at"] is not None


def test_deleted_key(client: Client, new_key: NewKey, organization: str) -> None:
    """A deleted key is refused at its next call."""
    key = new_key(organization)
    one = client(key)
    assert one.get("/api/executions").status_code == 200
    client().delete(f"/api/keys/{key.split('_')[1]}").raise_for_status()
    assert code_of(one.get("/api/executions")) == (401, "Unauthorized")
    assert client().delete(f"/api/keys/{key.split('_')[1]}").status_code == 404


def test_expired_key(client: Client, new_key: NewKey, organization: str) -> None:
    """A key counts until it expires, and not a moment longer."""
    now = datetime.now(UTC)
    valid = new_key(organization, expires_at=(now + timedelta(hours=1)).isoformat())
    expired = new_key(organization, expires_at=(now - timedelta(seconds=1)).isoformat())
    assert client(valid).get("/api/executions").status_code == 200
    assert client(expired).get("/api/executions").status_code == 401


@pytest.mark.parametrize("expires_at", ["2030-01-01T00:00:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "soon"])
def test_wrong_expiry(client: Client, organization: str, expires_at: str) -> None:
    """An expiry without a zone, or at the end of time, is refused."""
    body = {"name": "k", "organizations": [organization], "expires_at": expires_at}
    assert code_of(client().post("/api/keys", json=body)) == (400, "ValidationError")


def test_organizations_of_a_key(client: Client, organization: str) -> None:
    """A key has at least one organization, each of them known; naming one twice is no more than once."""
    one = client()
    assert one.post("/api/keys", json={"name": "k", "organizations": []}).status_code == 400
    assert one.post("/api/keys", json={"name": "k", "organizations": ["nowhere"]}).status_code == 404
    twice = {"name": "k", "organizations": [organization] * 2, "permissions": ["canViewHistory"] * 2}
    assert one.post("/api/keys", json=twice).status_code == 201


def test_no_more_than_ones_own(client: Client, new_key: NewKey, organization: str, neighbour: str) -> None:
    """Whoever makes keys gives away no permission, organization or workflow beyond their own."""
    maker = client(new_key(organization, permissions=["canManageUsers", "canViewHistory"]))

    def make(**fields: Any) -> int:
        body = {"name": "k", "organizations": [organization], "permissions": ["canViewHistory"], **fields}
        return maker.post("/api/keys", json=body).status_code

    assert make() == 201
    assert make(permissions=["canExecuteWorkflows"]) == 403
    assert make(organizations=[organization, neighbour]) == 404
    assert make(organizations=["GLOBAL"]) == 404
    assert make(organizations=["*"]) == 400


def test_limited_to_workflows(client: Client, new_key: NewKey, organization: str) -> None:
    """A key that is limited to workflows makes keys for these only."""
    maker = client(new_key(organization, permissions=EVERYTHING, workflows=["nothing"]))

    def make(workflows: list[str] | None) -> int:
        return maker.post(
            "/api/keys", json={"name": "k", "organizations": [organization], "workflows": workflows}
        ).status_code

    assert [make(["nothing"]), make(["nothing", "echo"]), make(None)] == [201, 403, 403]


def test_keys_of_a_neighbour(client: Client, new_key: NewKey, organization: str, neighbour: str) -> None:
    """A neighbour's key is neither listed nor deleted, and a key of both belongs to neither alone."""
    own = new_key(organization, permissions=EVERYTHING)
    foreign, shared = new_key(neighbour), new_key(organization, neighbour)
    one = client(own, organization)
    unknown = one.delete("/api/keys/0123456789abcdef")
    for key in (foreign, shared):
        id_ = key.split("_")[1]
        refused = one.delete(f"/api/keys/{id_}")
        assert (refused.status_code, refused.text.replace(id_, "")) == (
            404,
            unknown.text.replace("0123456789abcdef", ""),
        )
    assert foreign.split("_")[1] not in one.get("/api/keys").text


# config


@pytest.mark.parametrize(
    ("type_", "given", "kept"),
    [
        ("string", "a", "a"),
        ("string", "", ""),
        ("int", 42, 42),
        ("int", "42", 42),
        ("int", "-7", -7),
        ("bool", False, False),
        ("bool", "false", False),
        ("json", {"a": [1]}, {"a": [1]}),
        ("json", '{"a": 1}', {"a": 1}),
        ("json", "plain", "plain"),
        ("json", '{"a": NaN}', '{"a": NaN}'),
        ("json", "[" * 5000, "[" * 5000),
        ("json", None, None),
        ("secret_ref", "name", "name"),
    ],
)
def test_config_type(client: Client, organization: str, type_: str, given: Any, kept: Any) -> None:
    """A config value is of its type, or its text, and is shown as its type."""
    one = client("test", organization)
    assert one.put("/api/config/k", json={"type": type_, "value": given}).json()["value"] == kept
    assert one.get("/api/config/k").json()["value"] == kept


@pytest.mark.parametrize(
    ("type_", "given"),
    [
        ("string", 1),
        ("string", None),
        ("int", "4.2"),
        ("int", True),
        ("int", "٤"),
        ("int", "1_000"),
        ("int", "9" * 200),
        ("int", 4.0),
        ("bool", "yes"),
        ("bool", 1),
        ("secret_ref", ["a"]),
        ("color", "red"),
    ],
)
def test_wrong_config_type(client: Client, organization: str, type_: str, given: Any) -> None:
    """A value of another type is refused."""
    response = client("test", organization).put("/api/config/k", json={"type": type_, "value": given})
    assert code_of(response) == (400, "ValidationError")


def test_json_text_with_half_a_character(client: Client, organization: str) -> None:
    """JSON in text may say what has no UTF-8; what is kept can be shown."""
    one = client("test", organization)
    one.put("/api/config/k", json={"type": "json", "value": '"\\ud800"'}).raise_for_status()
    assert one.get("/api/config/k").status_code == 200


@pytest.mark.parametrize("key", ["a%20b", "..", ".a", "%F0%9F%98%80", "x" * 129, "a%00", "-a"])
def test_wrong_config_key(client: Client, organization: str, key: str) -> None:
    """A new name is plain; one that is only looked up may look like anything and is unknown."""
    one = client("test", organization)
    assert one.put(f"/api/config/{key}", json={"value": "a"}).status_code in (400, 404, 405)
    assert one.get(f"/api/config/{key}").status_code == 404
    assert one.delete(f"/api/config/{key}").status_code in (404, 405)


def test_config_falls_back(run: Run, client: Client, organization: str, neighbour: str) -> None:
    """An organization's value covers the global one, even when it is empty; without one the global value counts."""
    client().put("/api/config/fallback?scope=GLOBAL", json={"value": "global"}).raise_for_status()
    client("test", organization).put("/api/config/fallback", json={"value": ""}).raise_for_status()
    assert run("tell_config", organization, name="fallback").json() == {"value": ""}
    assert run("tell_config", neighbour, name="fallback").json() == {"value": "global"}
    client("test", organization).delete("/api/config/fallback").raise_for_status()
    assert run("tell_config", organization, name="fallback").json() == {"value": "global"}


def test_config_of_a_neighbour(run: Run, client: Client, organization: str, neighbour: str) -> None:
    """Config of another organization is there for nobody else."""
    client("test", neighbour).put("/api/config/private", json={"value": "theirs"}).raise_for_status()
    assert client("test", organization).get("/api/config/private").status_code == 404
    response = run("tell_config", organization, name="private")
    assert (response.status_code, "theirs" in response.text) == (500, False)


def test_scope_is_named_once(client: Client, organization: str) -> None:
    """An administrative call names its scope, and one only."""
    assert client().get("/api/config").status_code == 400
    assert client("test", organization).get("/api/config?scope=GLOBAL").status_code == 400
    assert client().get("/api/config?scope=everything").status_code == 400


def test_global_scope_is_for_platform_admins(client: Client, new_key: NewKey, organization: str) -> None:
    """A key of an organization manages nothing that is GLOBAL."""
    one = client(new_key(organization, permissions=EVERYTHING))
    for path in ("/api/config", "/api/secrets", "/api/connections"):
        assert one.get(f"{path}?scope=GLOBAL").status_code == 403
        assert one.get(path, headers={"X-Organization-Id": "GLOBAL"}).status_code == 403


# secrets


def test_secret_never_comes_back(client: Client, organization: str) -> None:
    """The value of a secret is in no answer; its versions count up."""
    one = client("test", organization)
    first = one.put("/api/secrets/vault", json={"value": "first-value-of-it"})
    second = one.put("/api/secrets/vault", json={"value": "other-value-of-it"})
    assert [first.json()["version"], second.json()["version"]] == [1, 2]
    listed = one.get("/api/secrets")
    assert [row["name"] for row in listed.json()["items"]] == ["vault"]
    assert "value-of-it" not in first.text + second.text + listed.text
    assert one.get("/api/secrets/vault").status_code == 405


@pytest.mark.parametrize("value", ["", "short", "1234567", "       x", None, 12345678])
def test_short_secret(client: Client, organization: str, value: Any) -> None:
    """A secret that could not be masked is refused, and its text is not repeated."""
    response = client("test", organization).put("/api/secrets/vault", json={"value": value})
    assert code_of(response) == (400, "ValidationError")


def test_refused_secret_is_not_repeated(client: Client, organization: str) -> None:
    """A body that is refused is not quoted: it may hold a secret."""
    one = client("test", organization)
    for body in ({"values": "canary-1"}, {"value": ["canary-1"]}, {"value": "canary", "type": "canary-1"}):
        response = one.put("/api/secrets/vault", json=body)
        assert (response.status_code, "canary-1" in response.text) == (400, False)


def test_reference_to_a_secret(run: Run, client: Client, organization: str) -> None:
    """A `secret_ref` gives a workflow the secret's text, from the scope that the reference stands in."""
    client().put("/api/secrets/referred?scope=GLOBAL", json={"value": "text-of-global"}).raise_for_status()
    client("test", organization).put("/api/secrets/referred", json={"value": "text-of-own"}).raise_for_status()
    body = {"type": "secret_ref", "value": "referred"}
    client().put("/api/config/reference?scope=GLOBAL", json=body).raise_for_status()
    response = run("tell_config", organization, name="reference")
    assert response.json() == {"value": "***"}
    page = client().get(f"/api/executions/{response.headers['X-Execution-Id']}/events").text
    assert '"scope":"GLOBAL"' in page.replace(" ", "")
    assert client().get("/api/config/reference?scope=GLOBAL").json()["value"] == "referred"


def test_secrets_of_a_neighbour(client: Client, new_key: NewKey, organization: str, neighbour: str) -> None:
    """A neighbour's secrets are neither listed, replaced nor deleted."""
    client("test", neighbour).put("/api/secrets/theirs", json={"value": "text-of-theirs"}).raise_for_status()
    one = client(new_key(organization, permissions=EVERYTHING))
    for scope, status in ((neighbour, 404), (organization, 404)):
        headers = {"X-Organization-Id": scope}
        assert one.delete("/api/secrets/theirs", headers=headers).status_code == status
    headers = {"X-Organization-Id": neighbour}
    assert one.get("/api/secrets", headers=headers).status_code == 404
    assert one.put("/api/secrets/theirs", json={"value": "other-text"}, headers=headers).status_code == 404
    assert client("test", neighbour).get("/api/secrets").json()["items"][0]["version"] == 1


# connections


def test_connection_shows_no_token(client: Client, organization: str) -> None:
    """A connection is set and listed without its client secret and its tokens."""
    one = client("test", organization)
    put = one.put("/api/connections/HaloPSA", json=CONNECTION)
    listed = one.get("/api/connections")
    assert (put.status_code, put.json()["client_id"]) == (200, "the-client")
    assert [row["name"] for row in listed.json()["items"]] == ["HaloPSA"]
    assert "of-the-test" not in put.text + listed.text


def test_connection_in_a_workflow(run: Run, client: Client, organization: str, neighbour: str) -> None:
    """A workflow gets the access token, masked wherever it shows it; a neighbour's workflow finds no connection."""
    client("test", organization).put("/api/connections/HaloPSA", json=CONNECTION).raise_for_status()
    own = run("tell_connection", organization, name="HaloPSA")
    assert own.json() == {"type": "Bearer", "expired": False, "token": "***"}
    assert run("tell_connection", neighbour, name="HaloPSA").status_code == 500


def test_deleted_connection(run: Run, client: Client, organization: str) -> None:
    """A deleted connection is gone; deleting it again is 404."""
    one = client("test", organization)
    one.put("/api/connections/HaloPSA", json=CONNECTION).raise_for_status()
    assert [one.delete("/api/connections/HaloPSA").status_code for _ in range(2)] == [204, 404]
    assert run("tell_connection", organization, name="HaloPSA").status_code == 500


@pytest.mark.parametrize(
    "change",
    [
        {"access_token": "short"},
        {"client_secret": ""},
        {"refresh_token": "         "},
        {"oauth_flow_type": "implicit"},
        {"client_id": ""},
        {"expires_at": "2030-01-01"},
        {"token_type": "Bearer\r\nX-Evil: 1"},
        {"unknown": 1},
    ],
)
def test_wrong_connection(client: Client, organization: str, change: dict[str, Any]) -> None:
    """A connection that could not work, or whose tokens could not be masked, is refused."""
    response = client("test", organization).put("/api/connections/HaloPSA", json={**CONNECTION, **change})
    assert code_of(response) == (400, "ValidationError")


# data providers and workflows


def test_options(client: Client, organization: str, neighbour: str) -> None:
    """A data provider answers for the organization that asks, also from its cache."""
    answers = [client("test", one).get("/api/data-providers/get_colors").json() for one in (organization, neighbour)]
    again = client("test", organization).get("/api/data-providers/get_colors").json()
    assert answers[0] == again
    assert set(answers[0]) == {"items", "cached_at"}
    assert [answer["items"][1]["value"] for answer in answers] == [organization, neighbour]


def test_failing_options(client: Client, organization: str) -> None:
    """A data provider that fails is 500 without a traceback, an unknown one 404, an unknown input 400."""
    one = client("test", organization)
    failed = one.get("/api/data-providers/get_nothing")
    assert code_of(failed) == (500, "WorkflowError")
    assert "Traceback" not in failed.text
    assert code_of(one.get("/api/data-providers/nobody")) == (404, "NotFound")
    assert code_of(one.get("/api/data-providers/get_colors?a=1")) == (400, "ValidationError")
    assert code_of(one.get("/api/data-providers/get_colors?a=1&a=2")) == (400, "ValidationError")


def test_options_of_a_neighbour(client: Client, new_key: NewKey, organization: str, neighbour: str) -> None:
    """Options of another organization are not given away."""
    assert client(new_key(organization), neighbour).get("/api/data-providers/get_colors").status_code == 404


def test_workflows(client: Client) -> None:
    """The list has every workflow with the JSON Schema of its inputs, and what is broken with file, line, reason."""
    page = client().get("/api/workflows?limit=200").json()
    echo = next(row for row in page["items"] if row["name"] == "echo")
    assert echo["parameters"]["required"] == ["text"]
    assert echo["parameters"]["properties"]["count"]["maximum"] == 9
    (broken,) = [row for row in page["broken"] if row["name"] == "broken_one"]
    assert (broken["source"]["file"], broken["source"]["line"] > 0) == ("workflows/broken.py", True)
    assert "nobody" in broken["reason"]


def test_workflows_of_a_key(client: Client, new_key: NewKey, organization: str) -> None:
    """A key that is limited to workflows is shown these."""
    page = client(new_key(organization, workflows=["echo"])).get("/api/workflows").json()
    assert [row["name"] for row in page["items"]] == ["echo"]


def test_workflows_by_category_and_tag(client: Client) -> None:
    """The list can be narrowed to a category and a tag."""
    names = [
        row["name"] for row in client().get("/api/workflows?category=Examples&tag=getting-started").json()["items"]
    ]
    assert names == ["hello_world"]
