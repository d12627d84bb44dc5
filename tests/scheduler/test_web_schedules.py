"""Schedules over HTTP and on a live clock: saved, checked, paused, run, made by code and rules (contract §4, §7)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from bifrost_scheduler import ledger, services
from bifrost_scheduler.schedules.derivation import new_schedule
from bifrost_scheduler.store.schedule_contract import CatchUp, Definition

Client = Callable[..., httpx.Client]

MONDAYS = {"workflow": "nothing", "cron": "0 9 * * 1"}

DECLARED = """
from bifrost_kernel import workflow


@workflow(name="{name}", description="By code", execution_mode="scheduled", schedule="{cron}", requires_org={org})
async def it(context):
    return context.org_id
"""


@pytest.fixture
def one(client: Client, organization: str) -> httpx.Client:
    """The developer in the test's own organization."""
    return client("test", organization)


def refused(answer: httpx.Response) -> dict[str, str]:
    """The fields of a 400 with their messages."""
    assert answer.status_code == 400, answer.text
    return {field["field"]: field["message"] for field in answer.json()["details"]["fields"]}


def saved_since(control_plane: Any, organization: str, hours: float, **fields: Any) -> Any:
    """A schedule that was saved so long ago, while no control plane ran."""
    then = datetime.now(UTC) - timedelta(hours=hours)
    made = new_schedule(organization, "old", Definition(**fields), saved_by="user:dev@example.com", now=then)
    entry = ledger.audit(services.OPERATOR, "schedule.create", organization=organization, target="old")
    control_plane.services.store.create_schedule(made, audit=entry)
    control_plane.services.clock.wake()
    return made


def hourly() -> str:
    """Every hour, last due twenty minutes ago and due again in forty: nothing comes due in the middle of a test."""
    return f"{(datetime.now(UTC) - timedelta(minutes=20)).minute} * * * *"


def until(condition: Callable[[], Any]) -> Any:
    """What the condition gives as soon as it gives something."""
    for _ in range(600):
        if found := condition():
            return found
        threading.Event().wait(0.05)
    raise AssertionError("it never came")


# saving


def test_save_and_read(one: httpx.Client) -> None:
    """A saved schedule reads in plain words, with its next times and all of its fields."""
    saved = one.put("/api/schedules/audit", json={**MONDAYS, "timezone": "Europe/Zagreb", "jitter_seconds": 60})
    assert saved.status_code == 200, saved.text
    shown = one.get("/api/schedules/audit").json()
    assert shown == saved.json()
    assert (shown["description"], shown["version"]) == ("Mondays at 09:00, Europe/Zagreb", 1)
    assert (shown["overlap"], shown["catch_up"], shown["origin"]) == ("skip", "one", "saved")
    assert len(shown["next"]) == 5
    assert shown["next"] == one.get("/api/schedules/audit/next").json()["items"]


def test_listed(one: httpx.Client, client: Client, neighbour: str) -> None:
    """The list goes by name in pages, and shows nobody else's."""
    for name in ("b", "a", "c"):
        one.put(f"/api/schedules/{name}", json=MONDAYS).raise_for_status()
    client("test", neighbour).put("/api/schedules/theirs", json=MONDAYS).raise_for_status()
    first = one.get("/api/schedules", params={"limit": 2}).json()
    rest = one.get("/api/schedules", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [row["name"] for row in first["items"] + rest["items"]] == ["a", "b", "c"]


def test_parameters_are_for_those_who_manage(
    one: httpx.Client, new_key: Any, client: Client, organization: str
) -> None:
    """Who may only look sees when and what, and not with which inputs."""
    body = {"workflow": "echo", "cron": "@daily", "parameters": {"text": "private"}}
    assert one.put("/api/schedules/echo", json=body).json()["parameters"] == {"text": "private"}
    reader = client(new_key(organization, permissions=["canViewHistory"]), organization)
    assert reader.get("/api/schedules/echo").json()["parameters"] is None
    assert "private" not in reader.get("/api/schedules/echo/versions").text


@pytest.mark.parametrize(
    ("body", "field", "told"),
    [
        ({"cron": "* * * * * *"}, "cron", "it has 6"),
        ({"cron": "0 0 31 2 *"}, "cron", "never comes due"),
        ({"cron": "*/0 * * * *"}, "cron", "1 to 59"),
        ({"cron": "9" * 1000}, "cron", "200"),
        ({"cron": "@daily", "timezone": "Europe/Atlantis"}, "timezone", "IANA"),
        ({"cron": "@daily", "workflow": "nobody"}, "workflow", "no workflow"),
        ({"cron": "@daily", "workflow": "echo"}, "text", "required"),
        ({"cron": "@daily", "parameters": {"no": 1}}, "no", "no input"),
        ({"cron": "@daily", "workflow": "paint", "parameters": {"color": "mauve"}}, "color", "no option"),
        ({"cron": "@daily", "overlap": "never"}, "overlap", "'skip'"),
        ({"cron": "@daily", "run_at": "2090-01-01T00:00:00Z"}, "run_at", "not both"),
        ({"run_at": "2020-01-01T00:00:00Z"}, "run_at", "passed already"),
        ({"run_at": "2090-01-01T00:00:00"}, "run_at", "timezone"),
        ({"cron": "@daily", "ends_at": "2020-01-01T00:00:00Z"}, "ends_at", "never come due"),
        ({"cron": "@daily", "jitter_seconds": -1}, "jitter_seconds", "greater"),
        ({"cron": "@daily", "for_all": True}, "for_all", "scope=GLOBAL"),
        ({}, "cron", "declares no schedule"),
    ],
)
def test_refused(one: httpx.Client, body: dict[str, Any], field: str, told: str) -> None:
    """What would not run is refused when it is saved, with the field and what to do, and nothing is saved."""
    answer = one.put("/api/schedules/wrong", json={"workflow": "nothing", **body})
    assert told in refused(answer)[field]
    assert one.get("/api/schedules/wrong").status_code == 404


def test_a_megabyte(one: httpx.Client) -> None:
    """An expression of a megabyte is refused at the door."""
    answer = one.put("/api/schedules/long", json={"workflow": "nothing", "cron": "*" * 1024 * 1024})
    assert answer.status_code == 413


def test_broken_workflow(one: httpx.Client) -> None:
    """A broken workflow cannot be scheduled; the answer names file and line."""
    answer = one.put("/api/schedules/x", json={"workflow": "broken_one", "cron": "@daily"})
    assert answer.status_code == 409
    assert "broken.py:" in answer.json()["message"]


def test_what_one_may_not_run_one_may_not_schedule(new_key: Any, client: Client, organization: str) -> None:
    """A schedule takes the rights to execute besides the right to manage schedules."""
    key = new_key(organization, permissions=["canManageSchedules", "canViewHistory"])
    assert client(key, organization).put("/api/schedules/x", json=MONDAYS).status_code == 403
    limited = new_key(organization, permissions=["canManageSchedules", "canExecuteWorkflows"], workflows=["echo"])
    assert client(limited, organization).put("/api/schedules/x", json=MONDAYS).status_code == 403


def test_change(one: httpx.Client) -> None:
    """PATCH replaces what is given, null takes away, and every change is a version with its author."""
    one.put("/api/schedules/s", json={**MONDAYS, "ends_at": "2090-01-01T00:00:00Z"}).raise_for_status()
    changed = one.patch("/api/schedules/s", json={"cron": "0 8 * * 2", "ends_at": None}).json()
    assert (changed["cron"], changed["ends_at"], changed["workflow"]) == ("0 8 * * 2", None, "nothing")
    one.post("/api/schedules/s/pause").raise_for_status()
    versions = one.get("/api/schedules/s/versions").json()["items"]
    assert [(row["version"], row["change"]) for row in versions] == [(3, "paused"), (2, "edited"), (1, "created")]
    assert {row["by"] for row in versions} == {"user:dev@example.com"}
    assert [row["description"] for row in versions[1:]] == ["Tuesdays at 08:00, UTC", "Mondays at 09:00, UTC"]


def test_delete(one: httpx.Client) -> None:
    """A deleted schedule is unknown, and its name is free for another one with a history of its own."""
    one.put("/api/schedules/s", json=MONDAYS).raise_for_status()
    assert one.delete("/api/schedules/s").status_code == 204
    assert one.delete("/api/schedules/s").status_code == 404
    assert one.put("/api/schedules/s", json=MONDAYS).json()["version"] == 1


def test_pause_and_resume(one: httpx.Client) -> None:
    """A paused schedule has no next times; pausing twice is pausing once."""
    one.put("/api/schedules/s", json=MONDAYS).raise_for_status()
    paused = [one.post("/api/schedules/s/pause").json() for _ in range(2)]
    assert paused[0] == paused[1]
    assert paused[0]["next"] == []
    resumed = one.post("/api/schedules/s/resume").json()
    assert (resumed["paused_at"], len(resumed["next"])) == (None, 5)


def test_run_now(one: httpx.Client, until_over: Any) -> None:
    """Run now runs with the schedule's inputs, as who asks, and touches no due time."""
    body = {"workflow": "echo", "cron": "@daily", "parameters": {"text": "a", "count": 3}}
    one.put("/api/schedules/s", json=body).raise_for_status()
    answer = one.post("/api/schedules/s/run")
    assert answer.status_code == 202
    done = until_over(answer.headers["Location"].rsplit("/", 1)[1])
    assert (done["trigger"], done["caller"]["email"]) == ("schedule", "dev@example.com")
    assert done["result"]["count"] == 3
    assert one.get("/api/schedules/s/history").json()["items"] == []


def test_every_act_is_audited(control_plane: Any, one: httpx.Client, organization: str) -> None:
    """Every act on a schedule is an entry of the ledger that names who, what and when it is due."""
    one.put("/api/schedules/s", json=MONDAYS).raise_for_status()
    for act in ("pause", "resume", "run"):
        one.post(f"/api/schedules/s/{act}").raise_for_status()
    one.delete("/api/schedules/s").raise_for_status()
    bodies = [entry.body for entry in control_plane.services.store.list_ledger(limit=100_000)]
    acts = [body for body in bodies if f'"organization":"{organization}"' in body and '"schedule.' in body]
    verbs = ("create", "pause", "resume", "run", "delete")
    assert all(f'"schedule.{verb}"' in body for verb, body in zip(verbs, acts, strict=True))
    assert "Mondays at 09:00, UTC" in acts[0]


# the clock


def test_it_runs(one: httpx.Client, until_over: Any) -> None:
    """On its due time a schedule runs within a second, and its record says for whom and by what."""
    one.put("/api/schedules/s", json=MONDAYS).raise_for_status()  # whoever is first waits for the workspace to be read
    at = datetime.now(UTC) + timedelta(seconds=1)
    one.put("/api/schedules/s", json={"workflow": "nothing", "run_at": at.isoformat()}).raise_for_status()
    (row,) = until(lambda: one.get("/api/schedules/s/history").json()["items"])
    assert (row["outcome"], row["reason"]) == ("ran", None)
    assert row["late_seconds"] < 1
    done = until_over(row["execution_id"])
    assert (done["status"], done["trigger"]) == ("success", "schedule")
    assert (done["caller"]["subject"], done["acts_for"]) == ("schedule:s", "user:dev@example.com")


def test_calendar(control_plane: Any, one: httpx.Client, organization: str) -> None:
    """The calendar shows what became of past times and what is to come, of the own organization alone."""
    saved_since(control_plane, organization, 3.5, workflow="nothing", cron=hourly(), catch_up=CatchUp.NONE)
    until(lambda: len(one.get("/api/schedules/old/history").json()["items"]) >= 3)
    now = datetime.now(UTC)
    window = {"since": (now - timedelta(hours=5)).isoformat(), "until": (now + timedelta(hours=3)).isoformat()}
    shown = one.get("/api/schedule-calendar", params=window).json()
    assert {row["organization"] for row in shown["items"]} == {organization}
    past = [row["outcome"] for row in shown["items"] if datetime.fromisoformat(row["due_at"]) < now]
    assert set(past) == {"missed"}
    assert {row["outcome"] for row in shown["items"][len(past) :]} == {None}
    assert shown["complete"] is True


@pytest.mark.parametrize("hours", [-1, 0, 24 * 93])
def test_calendar_has_an_end(one: httpx.Client, hours: int) -> None:
    """A calendar of no time, or of too much, is refused."""
    since = datetime(2026, 3, 1, tzinfo=UTC)
    window = {"since": since.isoformat(), "until": (since + timedelta(hours=hours)).isoformat()}
    assert "until" in refused(one.get("/api/schedule-calendar", params=window))


def test_a_broken_workflow_is_skipped(control_plane: Any, one: httpx.Client, organization: str) -> None:
    """A due time of a workflow that is broken says where, and that it is broken."""
    saved_since(control_plane, organization, 1.5, workflow="broken_one", cron=hourly())
    row = until(lambda: one.get("/api/schedules/old/history").json()["items"])[0]
    assert row["outcome"] == "skipped"
    assert row["reason"].startswith("broken workflow: ")
    assert "broken.py:" in row["reason"]


def test_options_of_the_moment(control_plane: Any, one: httpx.Client, organization: str) -> None:
    """What a data provider does not offer at the due time is not run with."""
    saved_since(control_plane, organization, 1.5, workflow="paint", cron=hourly(), parameters={"color": "mauve"})
    row = until(lambda: one.get("/api/schedules/old/history").json()["items"])[0]
    assert row["outcome"] == "skipped"
    assert row["reason"].startswith("invalid parameters: ")


def test_one_at_a_time(one: httpx.Client, until_over: Any) -> None:
    """Run now is refused while the last run is not over, and accepted when it is."""
    body = {"workflow": "overdue", "cron": hourly(), "overlap": "queue"}
    one.put("/api/schedules/s", json=body).raise_for_status()
    first = one.post("/api/schedules/s/run").json()
    assert one.post("/api/schedules/s/run").status_code == 409
    assert until_over(first["execution_id"])["status"] == "timeout"
    assert one.post("/api/schedules/s/run").status_code == 202


# from code and rules


def test_from_code(control_plane: Any, client: Client) -> None:
    """A workflow without organization runs in GLOBAL as it declares; when its code changes, so does its schedule."""
    path, known = "workflows/by_code.py", client("test")
    read = lambda: known.get("/api/schedules/by_code", params={"scope": "GLOBAL"})  # noqa: E731
    control_plane.write({path: DECLARED.format(name="by_code", cron="0 9 * * 1", org=False)})
    until(lambda: read().status_code == 200)
    assert (read().json()["origin"], read().json()["description"]) == ("code", "Mondays at 09:00, UTC")
    assert known.delete("/api/schedules/by_code", params={"scope": "GLOBAL"}).status_code == 409
    control_plane.write({path: DECLARED.format(name="by_code", cron="0 9 * * 2", org=False)})
    until(lambda: read().json()["description"] == "Tuesdays at 09:00, UTC")
    control_plane.write({path: "import nothing_of_that_name"})
    control_plane.services.catalog.current()
    (control_plane.workspace / path).unlink()
    until(lambda: read().status_code == 404)


def test_enabled_by_an_organization(control_plane: Any, one: httpx.Client) -> None:
    """An organization enables a workflow's own schedule by one without cron; it follows the code."""
    shown = one.put("/api/schedules/license_audit", json={"workflow": "license_audit"}).json()
    assert (shown["cron"], shown["from_code"]) == ("0 9 * * 1", True)
    assert shown["description"] == "Mondays at 09:00, UTC"


def test_for_all(control_plane: Any, client: Client, new_organization: Callable[[], str]) -> None:
    """A rule gives its schedule to every organization, also to one that comes later, until it is deleted."""
    everywhere, scope = client("test"), {"scope": "GLOBAL"}
    before = new_organization()
    body = {**MONDAYS, "for_all": True}
    everywhere.put("/api/schedules/everybody", params=scope, json=body).raise_for_status()
    after = new_organization()
    for organization in (before, after):
        one = client("test", organization)
        until(lambda one=one: one.get("/api/schedules/everybody").status_code == 200)
        assert one.get("/api/schedules/everybody").json()["origin"] == "all"
        assert one.delete("/api/schedules/everybody").status_code == 409
    everywhere.delete("/api/schedules/everybody", params=scope).raise_for_status()
    until(lambda: one.get("/api/schedules/everybody").status_code == 404)


def test_license_audit_for_three(client: Client, new_organization: Callable[[], str], until_over: Any) -> None:
    """The document's `license_audit` on a schedule reads each organization's own config, as its events show."""
    organizations = [new_organization() for _ in range(3)]
    client("test").get("/api/workflows").raise_for_status()  # whoever is first waits for the workspace to be read
    at = datetime.now(UTC) + timedelta(seconds=3)
    for organization in organizations:
        one = client("test", organization)
        one.put("/api/config/admin_email", json={"value": f"admin@{organization}.example"}).raise_for_status()
        body = {"workflow": "license_audit", "run_at": at.isoformat()}
        one.put("/api/schedules/audit", json=body).raise_for_status()
    for organization in organizations:
        one = client("test", organization)
        (row,) = until(lambda one=one: one.get("/api/schedules/audit/history").json()["items"])
        assert until_over(row["execution_id"])["organization"] == organization
        events = one.get(f"/api/executions/{row['execution_id']}/events").json()["items"]
        (read,) = [event for event in events if event["type"] == "config_read"]
        assert (read["key"], read["scope"]) == ("admin_email", organization)
        told = [event["data"] for event in events if event["type"] == "log" and event["data"]]
        assert {data["recipient"] for data in told} == {f"admin@{organization}.example"}
