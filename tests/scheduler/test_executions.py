"""The life of an execution beneath the API: bound to its code, decided once, visible to its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from bifrost_kernel import errors, models
from bifrost_scheduler import services, submissions
from bifrost_scheduler.identity import Principal

Run = Callable[..., httpx.Response]

CODE = """
from bifrost_kernel import workflow

@workflow(name="{name}", description="Changes", requires_approval={approval})
async def it(context):
    return "{answer}"
"""


@pytest.fixture
def approver(organization: str) -> Principal:
    """Somebody of the organization who may decide."""
    return Principal(subject="key:approver", kind="key", grants={organization: frozenset(models.Permission)})


def test_approval_is_for_the_code_that_was_asked_for(
    control_plane: Any, run: Run, organization: str, approver: Principal, until_over: Any
) -> None:
    """What is approved runs with the code of its submit, also when the file was changed since."""
    path = "workflows/changing_guarded.py"
    control_plane.write({path: CODE.format(name="changing_guarded", approval=True, answer="asked for")})
    id_ = run("changing_guarded", organization).json()["execution_id"]
    control_plane.write({path: CODE.format(name="changing_guarded", approval=True, answer="changed")})
    control_plane.services.executions.approve(approver, id_)
    assert until_over(id_)["result"] == "asked for"


def test_rerun_takes_the_code_of_now(control_plane: Any, run: Run, client: Any, organization: str) -> None:
    """A saved file counts at the next run, and at a re-run; both name their code."""
    path = "workflows/changing.py"
    control_plane.write({path: CODE.format(name="changing", approval=False, answer="first")})
    first = run("changing", organization)
    control_plane.write({path: CODE.format(name="changing", approval=False, answer="second")})
    again = client().post(f"/api/executions/{first.headers['X-Execution-Id']}/rerun")
    assert (first.json(), again.json()) == ("first", "second")
    ids = [answer.headers["X-Execution-Id"] for answer in (first, again)]
    assert len({client().get(f"/api/executions/{id_}").json()["code_hash"] for id_ in ids}) == 2


def test_decided_once(control_plane: Any, run: Run, organization: str, approver: Principal, until_over: Any) -> None:
    """Of many who approve and reject at once, one decides."""
    id_ = run("guarded", organization).json()["execution_id"]
    deciding = control_plane.services.executions

    def decide(number: int) -> bool:
        try:
            (deciding.approve if number % 2 else deciding.reject)(approver, id_)
        except errors.Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(decide, range(8))) == 1
    assert until_over(id_)["status"] in ("success", "cancelled")


def test_one_person_with_two_credentials(control_plane: Any, run: Run, organization: str) -> None:
    """Nobody approves what they asked for by another of their credentials."""
    id_ = run("guarded", organization).json()["execution_id"]
    same = Principal(subject="key:other", kind="key", email=services.DEV_EMAIL.upper(), platform_admin=True)
    with pytest.raises(errors.Forbidden):
        control_plane.services.executions.approve(same, id_)


def test_people_come_through_forms(control_plane: Any, organization: str) -> None:
    """A person who is no PlatformAdmin executes no workflow directly (contract §10)."""
    person = Principal(subject="user:a@b.c", kind="user", grants={organization: frozenset(models.Permission)})

    def submit(trigger: models.Trigger) -> Any:
        return control_plane.services.executions.submit(
            person, organization=organization, workflow="nothing", parameters={}, trigger=trigger
        )

    for trigger in (models.Trigger.API, models.Trigger.CLI, models.Trigger.RERUN, models.Trigger.NOTEBOOK):
        with pytest.raises(errors.Forbidden):
            submit(trigger)
    assert submit(models.Trigger.FORM).execution.status is models.ExecutionStatus.PENDING


def test_visible_organizations(control_plane: Any, organization: str, neighbour: str, approver: Principal) -> None:
    """A list shows the organizations whose history the principal may view; None is all of them."""
    visible = control_plane.services.executions.visible_organizations
    assert visible(approver, None) == (organization,)
    assert visible(services.OPERATOR, None) is None
    assert visible(services.OPERATOR, neighbour) == (neighbour,)
    with pytest.raises(errors.NotFound):
        visible(approver, neighbour)


def test_approval_hash() -> None:
    """An approval is for this code, this workflow and these inputs, in whatever order they were written."""
    one = submissions.approval_hash("code", "workflow", {"a": 1, "b": 2})
    assert one == submissions.approval_hash("code", "workflow", {"b": 2, "a": 1})
    others = [("other", "workflow", {"a": 1, "b": 2}), ("code", "other", {"a": 1, "b": 2}), ("code", "workflow", {})]
    assert one not in [submissions.approval_hash(*other) for other in others]
