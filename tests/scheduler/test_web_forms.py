"""Forms over HTTP: who gets them, what they bind, what they refuse, and what is left of them afterwards."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

HIDDEN = "hidden-4711"
Client = Callable[..., httpx.Client]

FORMED = '''
"""A workflow that has more inputs than a form should ask for."""

from bifrost_kernel import OrganizationContext, data_provider, param, workflow


@data_provider(name="get_cities", description="Cities of a country", cache_ttl_seconds=300)
def get_cities(context: OrganizationContext, country: str, rank: int = 1):
    return [{"label": f"{country} {rank}", "value": f"{country}-{rank}"}, {"label": context.org_id, "value": "own"}]


@workflow(name="hire", description="Hire somebody", tags=["people"])
@param("name", type="string", label="Name", required=True)
@param("remote", type="bool", label="Remote", default_value=False)
@param("land", type="string", label="Country")
@param("city", type="string", label="City", required=True, data_provider="get_cities",
       data_provider_inputs={"country": "land"})
@param("cost_center", type="string", label="Cost center")
async def hire(context: OrganizationContext, name, remote=False, land=None, city=None, cost_center=None):
    return {"name": name, "remote": remote, "land": land, "city": city, "paid": cost_center is not None}


@workflow(name="unexposed", description="Has no form", expose_in_forms=False)
async def unexposed(context: OrganizationContext):
    return None
'''

HIRE = {
    "workflow": "hire",
    "title": "Hire a colleague",
    "fixed": {"land": "DE"},
    "hidden": {"cost_center": HIDDEN},
    "fields": {"city": {"visible_when": {"field": "remote", "equals": False}}},
    "prefill": ["name"],
}
FILLED = {"name": "Ada", "city": "DE-1"}


@pytest.fixture(scope="module", autouse=True)
def _workspace(control_plane: Any) -> None:
    control_plane.write({"workflows/formed.py": FORMED, "forms/wrong.yaml": "workflow: hire\ntitel: x"})


@pytest.fixture
def admin(client: Client, organization: str) -> httpx.Client:
    """The developer, in the test's own organization."""
    return client("test", organization)


@pytest.fixture
def hiring(admin: httpx.Client) -> str:
    """The organization's own form `hiring`."""
    admin.put("/api/forms/hiring", json=HIRE).raise_for_status()
    return "/api/forms/hiring"


@pytest.fixture
def person(client: Client) -> Callable[..., str]:
    """Make a person with roles by organization, or give other roles to the one that there is; gives the email."""

    def make(email: str, **roles: tuple[str, ...]) -> str:
        held = {organization: list(names) for organization, names in roles.items()}
        made = client().post("/api/users", json={"email": email, "name": email, "roles": held})
        if made.status_code == 409:
            made = client().patch(f"/api/users/{email}", json={"roles": held})
        made.raise_for_status()
        return email

    return make


@pytest.fixture
def user(client: Client, person: Callable[..., str], sign_in: Callable[..., str], organization: str) -> httpx.Client:
    """A person who may fill in forms in the test's own organization, and nothing else."""
    return client(
        sign_in(person(f"user@{organization}.example.com", **{organization: ("WorkflowUser",)})), organization
    )


def names(answer: httpx.Response) -> set[str]:
    return {field["field"] for field in answer.json()["details"]["fields"]}


# which forms there are


def test_every_workflow_has_a_form(user: httpx.Client) -> None:
    """The automatic form is titled after the workflow and asks for all its inputs."""
    form = user.get("/api/forms/echo").raise_for_status().json()
    assert (form["title"], form["source"], form["version"]) == ("Echo", "automatic", None)
    assert [field["name"] for field in form["fields"]] == ["text", "count", "ratio", "flag", "email", "data", "items"]
    assert form["schema"]["required"] == ["text"]


def test_the_example_form_stands_beside_the_automatic_one(user: httpx.Client) -> None:
    """The workspace's form of a name of its own asks for the same inputs in its own words and order."""
    assert user.get("/api/forms/onboard_new_user").json()["source"] == "automatic"
    form = user.get("/api/forms/new_colleague").raise_for_status().json()
    assert (form["source"], form["submit_label"]) == ("workspace", "Onboard")
    assert form["fields"][0]["name"] == "first_name"
    assert form["fields"][-1]["widget"] == "combobox"


def test_the_list_says_what_replaces_what(admin: httpx.Client, user: httpx.Client) -> None:
    """The organization's own form comes before the workspace's; the list names both."""
    admin.put("/api/forms/new_colleague", json={"workflow": "onboard_new_user", "title": "Ours"}).raise_for_status()
    listed = {item["name"]: item for item in user.get("/api/forms", params={"limit": 200}).json()["items"]}
    assert listed["new_colleague"]["title"] == "Ours"
    assert (listed["new_colleague"]["source"], listed["new_colleague"]["replaces"]) == ("store", "workspace")
    assert "unexposed" not in listed


def test_the_list_is_searched(user: httpx.Client) -> None:
    """By category, and by a part of name, title, text or tag."""
    assert [item["name"] for item in user.get("/api/forms?text=PEOPLE").json()["items"]] == ["hire"]
    found = user.get("/api/forms", params={"category": "Examples"}).json()["items"]
    assert {"hello_world"} <= {item["name"] for item in found}
    assert {item["category"] for item in found} == {"Examples"}


def test_anothers_form_is_unknown(client: Client, hiring: str, neighbour: str, new_key: Callable[..., str]) -> None:
    """An organization's form is there for it alone; elsewhere its name is free."""
    other = client(new_key(neighbour), neighbour)
    never = other.get("/api/forms/never_was")
    assert other.get(hiring).status_code == other.post(hiring, json=FILLED).status_code == 404
    assert other.get(hiring).text == never.text.replace("never_was", "hiring")
    client("test", neighbour).put(hiring, json={"workflow": "nothing"}).raise_for_status()
    assert other.post(hiring, json={}).status_code == 202


def test_a_platform_form_is_for_its_organizations(client: Client, organization: str, neighbour: str) -> None:
    """A form that is limited to organizations is there for them alone, PlatformAdmins included."""
    body = {"workflow": "nothing", "organizations": [organization]}
    client().put("/api/forms/limited?scope=GLOBAL", json=body).raise_for_status()
    assert client("test", organization).get("/api/forms/limited").status_code == 200
    assert client("test", neighbour).get("/api/forms/limited").status_code == 404
    assert "limited" not in client("test", neighbour).get("/api/forms", params={"limit": 200}).text
    client().delete("/api/forms/limited?scope=GLOBAL").raise_for_status()


def test_a_form_is_for_its_roles(admin: httpx.Client, user: httpx.Client) -> None:
    """To other roles it is as unknown as any; also when it replaces the automatic form."""
    admin.put("/api/forms/nothing", json={"workflow": "nothing", "roles": ["OrgAdmin"]}).raise_for_status()
    assert user.get("/api/forms/nothing").status_code == 404
    admin.put("/api/forms/nothing", json={"workflow": "nothing", "roles": ["WorkflowUser"]}).raise_for_status()
    assert user.get("/api/forms/nothing").status_code == 200


def test_what_is_switched_off_does_not_come_back(admin: httpx.Client, user: httpx.Client) -> None:
    """A form that is not enabled hides what it replaces, until it is deleted."""
    admin.put("/api/forms/nothing", json={"workflow": "nothing", "enabled": False}).raise_for_status()
    assert user.post("/api/forms/nothing", json={}).status_code == 404
    admin.delete("/api/forms/nothing").raise_for_status()
    assert user.post("/api/forms/nothing", json={}).status_code == 202


def test_a_workflows_own_permission_is_needed(user: httpx.Client, admin: httpx.Client) -> None:
    """`required_permission` and `expose_in_forms` hold for forms too."""
    assert user.get("/api/forms/for_admins").status_code == 403
    assert user.get("/api/forms/unexposed").status_code == 404
    answer = admin.put("/api/forms/sneaky", json={"workflow": "unexposed"})
    assert (answer.status_code, "not exposed" in answer.text) == (400, True)


def test_broken_forms_are_for_managers(admin: httpx.Client, user: httpx.Client) -> None:
    """A wrong file is listed with its place for who manages forms; others are told to ask them."""
    items = {item["name"]: item for item in admin.get("/api/forms", params={"limit": 200}).json()["items"]}
    assert items["wrong"]["broken"].startswith("forms/wrong.yaml:2: titel")
    assert "broken_one" in items
    assert "wrong" not in user.get("/api/forms", params={"limit": 200}).text
    answers = [one.post("/api/forms/wrong", json={}) for one in (admin, user)]
    assert [answer.status_code for answer in answers] == [409, 409]
    assert ["titel" in answer.text for answer in answers] == [True, False]


def test_a_form_breaks_with_its_workflow(control_plane: Any, admin: httpx.Client, user: httpx.Client) -> None:
    """When the workflow loses an input that a form binds, the form is broken and not half-used."""
    source = FORMED.replace("hire", "fleeting").replace("get_cities", "get_fleeting")
    control_plane.write({"workflows/fleeting.py": source})
    admin.put("/api/forms/fleeting", json={"workflow": "fleeting", "hidden": {"cost_center": "x"}}).raise_for_status()
    control_plane.write({"workflows/fleeting.py": source.replace("cost_center", "budget")})
    assert user.post("/api/forms/fleeting", json=FILLED).status_code == 409
    assert "hidden names 'cost_center'" in admin.get("/api/forms/fleeting").text
    (control_plane.workspace / "workflows/fleeting.py").unlink()
    assert "There is no workflow named 'fleeting'" in admin.get("/api/forms/fleeting").text


def test_an_organizations_form_breaks_with_the_platforms(
    control_plane: Any, admin: httpx.Client, user: httpx.Client
) -> None:
    """While the workspace's form of a workflow cannot be read, nobody comes around what it binds."""
    admin.put("/api/forms/ours", json={"workflow": "partly"}).raise_for_status()
    assert user.get("/api/forms/ours").status_code == 200
    control_plane.write({"forms/partly.yaml": "workflow: partly\nhiden: {}"})
    assert [user.get(f"/api/forms/{name}").status_code for name in ("ours", "partly")] == [409, 409]
    assert "the platform's form 'partly' is broken" in admin.get("/api/forms/ours").text
    (control_plane.workspace / "forms/partly.yaml").unlink()
    assert [user.get(f"/api/forms/{name}").status_code for name in ("ours", "partly")] == [200, 200]


# what is submitted


def test_a_form_runs_its_workflow(user: httpx.Client, hiring: str, until_over: Callable[[str], dict[str, Any]]) -> None:
    """The answer is 202 with the envelope and where to look; the workflow gets what was filled in and what is bound."""
    answer = user.post(hiring, json=FILLED)
    assert (answer.status_code, answer.json()["trigger"], answer.json()["form"]) == (202, "form", "hiring")
    assert answer.headers["Location"] == f"/api/executions/{answer.json()['execution_id']}"
    over = until_over(answer.json()["execution_id"])
    assert over["result"] == {"name": "Ada", "remote": False, "land": "DE", "city": "DE-1", "paid": True}


def test_what_is_not_shown_is_not_required(
    user: httpx.Client, hiring: str, until_over: Callable[[str], dict[str, Any]]
) -> None:
    """A field that a rule hides is ignored and not required, also by the workflow itself."""
    answer = user.post(hiring, json={"name": "Ada", "remote": True, "city": ["no", "city"]})
    assert until_over(answer.json()["execution_id"])["result"]["city"] is None


def test_people_need_the_form(user: httpx.Client) -> None:
    """Who is no PlatformAdmin executes nothing directly, whatever forms he has."""
    assert user.post("/api/workflows/hire", json=FILLED).status_code == 403


@pytest.mark.parametrize(
    "wrong", [{"cost_center": "mine"}, {"land": "FR"}, {"nobody": 1}, {"city": "FR-1"}, {"name": None}]
)
def test_wrong_values_are_refused_by_name(user: httpx.Client, hiring: str, wrong: dict[str, Any]) -> None:
    """Bound and unknown names, options that are not offered, and what is missing: 400, and nothing runs."""
    answer = user.post(hiring, json={**FILLED, **wrong})
    assert (answer.status_code, names(answer)) == (400, set(wrong))
    assert HIDDEN not in answer.text
    assert user.get("/api/executions?caller=me").json()["items"] == []


def test_a_double_click_is_one_execution(user: httpx.Client, hiring: str) -> None:
    """Twenty submits at once with one key are one execution; other values with that key are refused."""
    headers = {"Idempotency-Key": "click"}
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: user.post(hiring, json=FILLED, headers=headers), range(20)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["execution_id"] for answer in answers}) == 1
    assert user.post(hiring, json={**FILLED, "name": "Bob"}, headers=headers).status_code == 409


def test_a_bound_value_that_is_refused_is_the_forms_fault(admin: httpx.Client, user: httpx.Client) -> None:
    """Who fills the form in is told that it is broken, and not what it binds."""
    body = {"workflow": "hire", "hidden": {"city": "nowhere-secret", "land": "DE"}}
    admin.put("/api/forms/misbound", json=body).raise_for_status()
    answer = user.post("/api/forms/misbound", json={"name": "Ada"})
    assert (answer.status_code, "nowhere-secret" in answer.text) == (409, False)


def test_approval_holds_for_forms(user: httpx.Client) -> None:
    """A workflow that needs an approval waits for it, and the form says so."""
    assert user.get("/api/forms/guarded").json()["requires_approval"] is True
    assert user.post("/api/forms/guarded", json={}).json()["status"] == "awaiting_approval"


def test_the_platform_binds_for_organizations_forms(client: Client, admin: httpx.Client, user: httpx.Client) -> None:
    """What the platform's form of the workflow binds, an organization's own form of it cannot choose."""
    platform = {"workflow": "tell_config", "hidden": {"name": "bound-by-platform"}}
    client().put("/api/forms/tell_config?scope=GLOBAL", json=platform).raise_for_status()
    admin.put("/api/forms/mine", json={"workflow": "tell_config", "fixed": {"name": "mine"}}).raise_for_status()
    form = user.get("/api/forms/mine").json()
    assert user.post("/api/forms/mine", json={"name": "x"}).status_code == 400
    client().delete("/api/forms/tell_config?scope=GLOBAL").raise_for_status()
    assert form["fields"] == []


# options


def test_options_follow_the_other_fields(user: httpx.Client) -> None:
    """The data provider is asked with what stands in the form, under the names that `@param` gives."""
    ask = "/api/forms/hire/options/city"
    assert user.post(ask, json={"values": {"land": "FR"}}).json()["items"][0]["value"] == "FR-1"
    refused = user.post(ask, json={"values": {}})
    assert (refused.status_code, names(refused)) == (400, {"land"})


def test_bound_values_feed_data_providers(user: httpx.Client, hiring: str) -> None:
    """What the form binds cannot be replaced in a question, and the options are those of the organization."""
    answer = user.post(f"{hiring}/options/city", json={"values": {"land": "FR"}}).json()
    assert answer["items"][0]["value"] == "DE-1"
    (city,) = [field for field in user.get(hiring).json()["fields"] if field["name"] == "city"]
    assert city["options"]["depends_on"] == []
    assert city["options"]["items"] == answer["items"]


@pytest.mark.parametrize("field", ["cost_center", "land", "name", "nobody", "..x", "%00"])
def test_only_fields_with_options_have_some(user: httpx.Client, hiring: str, field: str) -> None:
    """A hidden, fixed or unknown field is 404."""
    assert user.post(f"{hiring}/options/{field}", json={}).status_code == 404


def test_refreshing_has_a_limit(user: httpx.Client) -> None:
    """One provider is asked anew once in a while, whatever its inputs; the cache goes on answering."""
    ask = "/api/forms/paint/options/color"
    statuses = [user.post(ask, json={"refresh": True}).status_code for _ in range(2)]
    assert (statuses, user.post(ask, json={}).status_code) == ([200, 429], 200)


# afterwards


def test_hidden_values_stay_hidden(
    admin: httpx.Client, user: httpx.Client, hiring: str, until_over: Callable[[str], dict[str, Any]]
) -> None:
    """Form, options, inputs, envelope, events and search don't tell them, and the record is refused, to its caller."""
    execution = f"/api/executions/{user.post(hiring, json=FILLED).json()['execution_id']}"
    until_over(execution.rpartition("/")[2])
    shown = [hiring, "/api/forms", execution, f"{execution}/inputs", f"{execution}/events", "/api/executions"]
    assert [HIDDEN in user.get(path).text for path in shown] == [False] * len(shown)
    assert user.get("/api/executions", params={"text": HIDDEN}).json()["items"] == []
    assert user.get(f"{execution}/notebook").status_code == 403
    assert HIDDEN in admin.get(f"{execution}/notebook").text
    assert {item["name"] for item in admin.get(f"{execution}/inputs").json()["items"]} >= {"cost_center"}


def test_inputs_have_labels_and_no_secret(
    client: Client, admin: httpx.Client, run: Callable[..., httpx.Response], organization: str
) -> None:
    """What an execution was asked to do is readable; a value that is a secret of the organization is masked."""
    admin.put("/api/secrets/token", json={"value": "s3cret-value"}).raise_for_status()
    execution = run("echo", organization, text="use s3cret-value", count=3).headers["X-Execution-Id"]
    items = {item["name"]: item for item in admin.get(f"/api/executions/{execution}/inputs").json()["items"]}
    assert items["text"] == {"name": "text", "label": "Text", "value": "use ***"}
    assert items["count"]["value"] == 3


def test_inputs_are_for_caller_history_and_approvers(
    client: Client, user: httpx.Client, organization: str, neighbour: str, new_key: Callable[..., str]
) -> None:
    """An approver reads what he decides about; who may only execute does not, and for others it is unknown."""
    path = f"/api/executions/{user.post('/api/forms/guarded', json={}).json()['execution_id']}/inputs"
    keys = {
        "approver": new_key(organization, permissions=["canApproveExecutions"]),
        "executor": new_key(organization, permissions=["canExecuteWorkflows"]),
        "stranger": new_key(neighbour),
    }
    assert [client(key).get(path).status_code for key in keys.values()] == [200, 403, 404]
    assert user.get(path).json()["items"] == [{"name": "text", "label": "Text", "value": "x"}]


def test_own_executions_need_no_permission(
    client: Client, organization: str, neighbour: str, new_key: Callable[..., str]
) -> None:
    """`caller=me` lists one's own, and nobody else's, without `canViewHistory`."""
    key = new_key(organization, neighbour, permissions=["canExecuteWorkflows"])
    made = client(key, organization).post("/api/workflows/nothing", json={}).headers["X-Execution-Id"]
    client("test", organization).post("/api/workflows/nothing", json={})
    assert [row["execution_id"] for row in client(key).get("/api/executions?caller=me").json()["items"]] == [made]
    assert client(key, neighbour).get("/api/executions?caller=me").json()["items"] == []
    assert client(key, organization).get("/api/executions").status_code == 403


def test_a_rerun_goes_through_the_form(admin: httpx.Client, user: httpx.Client, hiring: str) -> None:
    """What the form binds now is bound again, and what it does not allow any more is refused."""
    first = user.post(hiring, json=FILLED).json()["execution_id"]
    admin.put(hiring, json={**HIRE, "hidden": {"cost_center": "hidden-0815"}}).raise_for_status()
    again = user.post(f"/api/executions/{first}/rerun", headers={"Prefer": "respond-async"})
    assert (again.status_code, again.json()["trigger"], again.json()["rerun_of"]) == (202, "rerun", first)
    inputs = admin.get(f"/api/executions/{again.json()['execution_id']}/inputs").json()["items"]
    assert {"hidden-0815"} == {item["value"] for item in inputs if item["name"] == "cost_center"}
    admin.put(hiring, json={"workflow": "echo"}).raise_for_status()
    assert user.post(f"/api/executions/{first}/rerun").status_code == 409
    admin.delete(hiring).raise_for_status()
    assert user.post(f"/api/executions/{first}/rerun").status_code == 404


def test_a_direct_rerun_keeps_what_was_hidden(
    client: Client, user: httpx.Client, hiring: str, organization: str, new_key: Callable[..., str]
) -> None:
    """A key that runs a form's execution again learns nothing that the form hid, required or not."""
    first = user.post(hiring, json={"name": "Ada", "remote": True}).json()["execution_id"]
    one = client(new_key(organization), organization)
    again = one.post(f"/api/executions/{first}/rerun", headers={"Prefer": "respond-async"}).raise_for_status()
    assert HIDDEN not in one.get(f"/api/executions/{again.json()['execution_id']}/inputs").text
    assert one.get(f"/api/executions/{again.json()['execution_id']}/notebook").status_code == 403


# drafts


def test_a_draft_is_kept_until_it_is_submitted(user: httpx.Client, hiring: str, control_plane: Any) -> None:
    """It comes back as it was left, is on the disk encrypted only, and goes with the submit."""
    user.put(f"{hiring}/draft", json={"name": "half-typed-name"}).raise_for_status()
    assert user.get(f"{hiring}/draft").json()["values"] == {"name": "half-typed-name"}
    home = control_plane.services.settings.home
    assert not any(b"half-typed-name" in path.read_bytes() for path in home.glob("bifrost.db*"))
    user.post(hiring, json=FILLED).raise_for_status()
    assert user.get(f"{hiring}/draft").json() == {"values": {}, "updated_at": None}


def test_a_draft_is_ones_own(
    client: Client, admin: httpx.Client, user: httpx.Client, organization: str, neighbour: str
) -> None:
    """Nobody else's draft of the form is seen, nor one's own in another organization."""
    admin.put("/api/forms/echo/draft", json={"text": "mine"}).raise_for_status()
    assert user.get("/api/forms/echo/draft").json()["values"] == {}
    assert client("test", neighbour).get("/api/forms/echo/draft").json()["values"] == {}


def test_a_draft_holds_fields_only(user: httpx.Client, hiring: str) -> None:
    """Bound and unknown names are refused by name, and so is what is too long; what was kept stays."""
    refused = user.put(f"{hiring}/draft", json={"cost_center": 1, "land": "x", "nobody": 1})
    assert (refused.status_code, names(refused)) == (400, {"cost_center", "land", "nobody"})
    long = user.put(f"{hiring}/draft", json={"name": "x" * 70_000})
    assert (long.status_code, long.json()["error"]) == (400, "LimitExceeded")
    assert user.get(f"{hiring}/draft").json()["values"] == {}


# form sessions


@pytest.fixture
def session(client: Client, user: httpx.Client, hiring: str) -> Callable[..., httpx.Client]:
    """Open a client that has nothing but a form session of the user for the form `hiring`."""

    def make(organization: str | None = None) -> httpx.Client:
        token = user.post("/api/form-sessions", json={"form": "hiring"}).raise_for_status().json()["token"]
        return client(None, organization, Authorization=f"Bearer {token}")

    return make


def test_a_form_session_fills_in_its_form(session: Callable[..., httpx.Client], hiring: str, organization: str) -> None:
    """It reads the form, asks for options, keeps a draft and submits; the organization is its own."""
    page = session()
    assert page.get(hiring).json()["organization"]["id"] == organization
    assert page.post(f"{hiring}/options/city", json={}).status_code == 200
    assert page.put(f"{hiring}/draft", json={"name": "A"}).status_code == 200
    assert page.post(hiring, json=FILLED).json()["caller"]["subject"] == f"user:user@{organization}.example.com"


def test_a_form_session_is_good_for_nothing_else(
    session: Callable[..., httpx.Client], hiring: str, neighbour: str, organization: str
) -> None:
    """On every other route it is an unknown key; another form or organization is unknown to it."""
    page = session()
    others = ["/api/forms", "/api/executions", "/api/workflows", "/api/organizations", "/api/form-definitions"]
    assert {page.get(path).status_code for path in others} == {401}
    assert page.put(hiring, json=HIRE).status_code == page.delete(hiring).status_code == 401
    assert page.post("/api/form-sessions", json={"form": "hiring"}).status_code == 401
    assert page.post("/api/workflows/hire", json=FILLED).status_code == 401
    assert page.get("/api/forms/echo").status_code == 404
    assert session(neighbour).get(hiring).status_code == session(neighbour).post(hiring, json=FILLED).status_code == 404


def test_a_form_session_ends(
    session: Callable[..., httpx.Client],
    client: Client,
    person: Callable[..., str],
    hiring: str,
    organization: str,
) -> None:
    """With the right to use the form, and with the person; also for a token that is altered."""
    page = session()
    email = person(f"user@{organization}.example.com", **{organization: ("ReadOnlyUser",)})
    assert page.get(hiring).status_code == 403
    client().patch(f"/api/users/{email}", json={"disabled": True}).raise_for_status()
    assert page.get(hiring).status_code == 401
    page.headers["Authorization"] = page.headers["Authorization"][:-4] + "AAAA"
    assert page.get(hiring).status_code == 401


def test_a_form_session_lasts_an_hour(control_plane: Any, person: Callable[..., str], organization: str) -> None:
    """To the second; time is what the caller says it is."""
    sessions, now = control_plane.services.form_sessions, datetime.now(UTC)
    email = person(f"hour@{organization}.example.com", **{organization: ("WorkflowUser",)})
    principal = control_plane.services.authenticator.find_person(email, session_id=None, now=now)
    token, _ = sessions.open(principal, organization=organization, form="echo", now=now)
    assert sessions.find(token, now=now + timedelta(minutes=59))[1].email == email
    with pytest.raises(Exception, match="not valid any more"):
        sessions.find(token, now=now + timedelta(hours=1))


# who manages them


def test_definitions_are_for_managers(
    client: Client, admin: httpx.Client, user: httpx.Client, hiring: str, organization: str, neighbour: str
) -> None:
    """Managers read back what they set, hidden values included; others are refused, and other scopes don't have it."""
    kept = admin.get("/api/form-definitions/hiring").json()
    assert (kept["definition"]["hidden"], kept["version"]) == ({"cost_center": HIDDEN}, 1)
    assert admin.put(hiring, json=HIRE).json()["version"] == 2
    assert user.get("/api/form-definitions/hiring").status_code == user.put(hiring, json=HIRE).status_code == 403
    assert client("test", neighbour).get("/api/form-definitions/hiring").status_code == 404


def test_definitions_of_the_workspace_are_read_only(client: Client) -> None:
    """They are listed with GLOBAL, a broken one with its reason; to delete one is to change the file."""
    listed = {row["name"]: row for row in client().get("/api/form-definitions?scope=GLOBAL").json()["items"]}
    assert (listed["new_colleague"]["source"], listed["new_colleague"]["broken"]) == ("workspace", None)
    assert listed["wrong"]["broken"].startswith("forms/wrong.yaml:2")
    assert client().delete("/api/forms/new_colleague?scope=GLOBAL").status_code == 404


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({"workflow": "never_was"}, "There is no workflow"),
        ({"workflow": "hire", "hidden": {"nobody": 1}}, "hidden names 'nobody'"),
        ({"workflow": "hire", "organizations": ["test-org-active"]}, "leave organizations out"),
        ({"workflow": "hire", "titel": "x"}, "titel"),
        ({"workflow": "hire", "text": "x" * 10_001}, "text"),
        ({}, "workflow"),
    ],
)
def test_wrong_definitions_are_refused(admin: httpx.Client, body: dict[str, Any], part: str) -> None:
    """What is wrong is named, and nothing is kept."""
    answer = admin.put("/api/forms/hiring", json=body)
    assert (answer.status_code, part in answer.text) == (400, True), answer.text
    assert admin.get("/api/form-definitions").json()["items"] == []


def test_what_is_bound_is_not_in_the_audit(control_plane: Any, hiring: str, organization: str) -> None:
    """The entry names what is bound and never its value."""
    entries = control_plane.services.store.list_ledger(limit=1_000_000)
    bodies = [entry.body for entry in entries if organization in entry.body]
    assert [HIDDEN in body for body in bodies if '"form.set"' in body] == [False]
    assert any('"hidden":["cost_center"]' in body for body in bodies)
