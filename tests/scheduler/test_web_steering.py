"""Steering executions over HTTP: cancel, approve, reject and re-run (contract §4 and §10)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

Run = Callable[..., httpx.Response]
Client = Callable[..., httpx.Client]
NewKey = Callable[..., str]


@pytest.fixture
def act(client: Client) -> Callable[..., httpx.Response]:
    """`act("cancel", id, key)`."""

    def make(what: str, execution_id: str, key: str = "test", **headers: str) -> httpx.Response:
        return client(key).post(f"/api/executions/{execution_id}/{what}", headers=headers)

    return make


@pytest.fixture
def asked(run: Run, organization: str) -> str:
    """An execution of the test's organization that waits for an approval; the developer asked for it."""
    response = run("guarded", organization, text="please")
    assert (response.status_code, response.json()["status"]) == (202, "awaiting_approval")
    return str(response.json()["execution_id"])


# cancel


def test_cancel_running(act: Any, occupy: Any, until_over: Any, organization: str) -> None:
    """A running execution is stopped: 202 at once, then `cancelled`, with its record."""
    (id_,) = occupy(organization, 1)
    assert act("cancel", id_).status_code == 202
    over = until_over(id_)
    assert (over["status"], bool(over["record_sha256"])) == ("cancelled", True)


def test_cancel_pending(act: Any, occupy: Any, client: Client, organization: str) -> None:
    """An execution that waits is cancelled at once, and has a record."""
    *_, waiting = occupy(organization, 3)
    assert act("cancel", waiting).json()["status"] == "cancelled"
    assert client().get(f"/api/executions/{waiting}/notebook").status_code == 200


def test_cancel_what_is_over(act: Any, run: Run, organization: str) -> None:
    """What is over stays as it is: 409."""
    assert act("cancel", run("nothing", organization).headers["X-Execution-Id"]).status_code == 409


def test_call_for_a_cancelled_execution(act: Any, client: Client, new_session: NewKey, organization: str) -> None:
    """Whoever calls for an execution that was cancelled is told 409, with the execution."""
    one = client("test", organization, **{"Idempotency-Key": "cancelled"})
    id_ = one.post("/api/workflows/guarded", json={}).json()["execution_id"]
    act("reject", id_, new_session(organization, "OrgAdmin")).raise_for_status()
    again = one.post("/api/workflows/guarded", json={})
    assert (again.status_code, again.json()["error"], again.json()["execution_id"]) == (409, "Conflict", id_)


@pytest.mark.parametrize("permissions", [["canViewHistory"], ["canViewHistory", "canManageConfig"]])
def test_cancel_needs_a_permission(
    act: Any, occupy: Any, new_key: NewKey, organization: str, permissions: list[str]
) -> None:
    """A key that may not execute may not cancel either."""
    (id_,) = occupy(organization, 1)
    assert act("cancel", id_, new_key(organization, permissions=permissions)).status_code == 403


# approval


def test_approve(act: Any, asked: str, new_session: NewKey, organization: str, until_over: Any) -> None:
    """Another one's approval lets it run, with the inputs that were asked for; the envelope says who."""
    approved = act("approve", asked, new_session(organization, "OrgAdmin"))
    assert (approved.status_code, approved.json()["status"]) == (200, "pending")
    over = until_over(asked)
    assert (over["result"], over["approved_by"][:4]) == ({"ran": "please"}, "user")


def test_approve_twice(act: Any, asked: str, new_session: NewKey, organization: str) -> None:
    """An approval counts once."""
    key = new_session(organization, "OrgAdmin")
    assert [act("approve", asked, key).status_code for _ in range(2)] == [200, 409]


def test_own_approval(act: Any, asked: str) -> None:
    """Nobody decides about what they asked for, not even a PlatformAdmin."""
    assert act("approve", asked).status_code == 403
    assert act("reject", asked).status_code == 403


def test_own_approval_by_a_key(act: Any, run: Run, new_key: NewKey, organization: str, asked: str) -> None:
    """A key is its maker: it decides nothing that he asked for, he nothing that it asked for, nor his other keys."""
    own = new_key(organization, permissions=["canApproveExecutions", "canViewHistory", "canExecuteWorkflows"])
    other = new_key(organization, permissions=["canApproveExecutions", "canViewHistory"])
    theirs = str(run("guarded", organization, key=own).json()["execution_id"])
    assert act("approve", asked, own).status_code == 403
    assert [act("approve", theirs, key).status_code for key in ("test", own, other)] == [403, 403, 403]


def test_approval_for_a_key_that_is_gone(
    act: Any, run: Run, new_key: NewKey, new_session: NewKey, organization: str, client: Client
) -> None:
    """Whose the key was that asked is not known any more: nobody approves it, whoever may cancels it."""
    key = new_key(organization)
    asked = str(run("guarded", organization, key=key).json()["execution_id"])
    client().delete(f"/api/keys/{key.split('_')[1]}").raise_for_status()
    assert act("approve", asked, new_session(organization, "OrgAdmin")).status_code == 403
    assert act("cancel", asked).json()["status"] == "cancelled"


def test_approval_needs_a_permission(act: Any, asked: str, new_key: NewKey, organization: str) -> None:
    """A key without `canApproveExecutions` decides nothing."""
    assert act("approve", asked, new_key(organization)).status_code == 403


def test_reject(act: Any, asked: str, new_session: NewKey, organization: str, client: Client) -> None:
    """What is rejected is over: `cancelled`, with a record and the reason."""
    rejected = act("reject", asked, new_session(organization, "OrgAdmin"))
    assert (rejected.status_code, rejected.json()["status"]) == (200, "cancelled")
    assert "Rejected" in rejected.json()["error"]
    assert client().get(f"/api/executions/{asked}/notebook").status_code == 200


def test_decide_about_what_does_not_wait(act: Any, run: Run, new_session: NewKey, organization: str) -> None:
    """What does not wait for an approval is neither approved nor rejected: 409."""
    id_ = run("nothing", organization).headers["X-Execution-Id"]
    key = new_session(organization, "OrgAdmin")
    assert [act(what, id_, key).status_code for what in ("approve", "reject")] == [409, 409]


def test_no_approval_in_an_inactive_organization(
    act: Any, asked: str, new_session: NewKey, organization: str, client: Client
) -> None:
    """Nothing is approved for an organization that was switched off."""
    key = new_session(organization, "OrgAdmin")
    client().patch(f"/api/organizations/{organization}", json={"active": False}).raise_for_status()
    assert act("approve", asked, key).status_code == 404


# re-run


def test_rerun(act: Any, run: Run, client: Client, organization: str) -> None:
    """A re-run is a new execution with the same inputs, and names the original."""
    first = run("echo", organization, text="again", flag=False).headers["X-Execution-Id"]
    again = act("rerun", first)
    assert (again.status_code, again.json()["text"], again.json()["flag"]) == (200, "again", False)
    envelope = client().get(f"/api/executions/{again.headers['X-Execution-Id']}").json()
    assert (envelope["rerun_of"], envelope["trigger"]) == (first, "rerun")


def test_rerun_needs_an_approval_again(act: Any, asked: str) -> None:
    """A re-run of what needs an approval waits for one."""
    again = act("rerun", asked)
    assert (again.status_code, again.json()["status"]) == (202, "awaiting_approval")


def test_rerun_asynchronously(act: Any, run: Run, organization: str, until_over: Any) -> None:
    """A re-run honours `Prefer`."""
    again = act("rerun", run("nothing", organization).headers["X-Execution-Id"], Prefer="respond-async")
    assert again.status_code == 202
    assert until_over(again.json()["execution_id"])["status"] == "success"


def test_rerun_of_a_key(act: Any, run: Run, new_key: NewKey, organization: str) -> None:
    """A re-run asks for the same permissions as the run: a key that may only look is refused."""
    id_ = run("nothing", organization).headers["X-Execution-Id"]
    assert act("rerun", id_, new_key(organization, permissions=["canViewHistory"])).status_code == 403
    assert act("rerun", id_, new_key(organization, workflows=["echo"])).status_code == 403


@pytest.mark.parametrize("what", ["cancel", "approve", "reject", "rerun"])
def test_a_neighbour_steers_nothing(act: Any, asked: str, new_session: NewKey, neighbour: str, what: str) -> None:
    """An execution of another organization is as unknown as one that never was, and stays as it is."""
    key = new_session(neighbour, "OrgAdmin")
    unknown = asked[:-4] + ("0000" if asked[-4:] != "0000" else "1111")
    foreign, never = act(what, asked, key), act(what, unknown, key)
    assert foreign.status_code == never.status_code == 404
    assert foreign.text.replace(asked, "") == never.text.replace(unknown, "")
