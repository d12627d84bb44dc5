"""What every store promises about schedules: names, versions, compare-and-set steps, one row per due time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bifrost_kernel import errors
from bifrost_scheduler.schedules.derivation import changed_schedule, new_schedule
from bifrost_scheduler.store import contract
from bifrost_scheduler.store.schedule_contract import (
    AccountedElsewhere,
    Definition,
    DueOutcome,
    DueTime,
    Firing,
    Schedule,
    Stretch,
)

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def save(store: contract.Store, audit: contract.AuditEntry) -> Callable[..., Schedule]:
    def make(name: str = "s", organization: str = "acme", **fields: Any) -> Schedule:
        definition = Definition(**{"workflow": "w", "cron": "0 * * * *", **fields})
        made = new_schedule(organization, name, definition, saved_by="user:a", now=NOW)
        store.create_schedule(made, audit=audit)
        return made

    return make


def step(schedule: Schedule, *, hours: int = 1) -> Firing:
    """The next due time as one that runs."""
    at = schedule.accounted_until + HOUR * hours
    due = DueTime(
        schedule_id=schedule.id,
        organization=schedule.organization,
        due_at=at,
        planned_at=at,
        outcome=DueOutcome.RAN,
        decided_at=at,
    )
    return Firing(
        schedule_id=schedule.id,
        version=schedule.version,
        accounted_from=schedule.accounted_until,
        fired=due,
        accounted_until=at,
        wake_at=at + HOUR,
    )


def test_everything_is_kept(store: contract.Store, save: Callable[..., Schedule]) -> None:
    """A schedule comes back as it was saved, by name and by id."""
    saved = save(parameters={"a": [1, "é"]}, timezone="Europe/Zagreb")
    assert store.find_schedule("acme", "s") == store.find_schedule_by_id(saved.id) == saved


def test_a_name_is_taken_once(store: contract.Store, save: Callable[..., Schedule]) -> None:
    """Two schedules of one organization have two names; another organization's may be the same."""
    save()
    save(organization="other")
    with pytest.raises(errors.Conflict):
        save()
    assert [one.organization for one in store.list_schedules(None)] == ["acme", "other"]
    assert [one.organization for one in store.list_schedules(("other",))] == ["other"]


def test_pages(store: contract.Store, save: Callable[..., Schedule]) -> None:
    """Lists go by organization and name, and on from where one stopped."""
    for organization in ("b", "a"):
        for name in ("y", "x"):
            save(name, organization)
    listed = [(one.organization, one.name) for one in store.list_schedules(None, after=("a", "x"), limit=2)]
    assert listed == [("a", "y"), ("b", "x")]


def test_a_change_is_made_to_what_was_read(
    store: contract.Store, save: Callable[..., Schedule], audit: contract.AuditEntry
) -> None:
    """Of two changes to one version the second is refused; every version is kept."""
    saved = save()
    store.change_schedule(changed_schedule(saved, NOW), change="edited", audit=audit)
    with pytest.raises(AccountedElsewhere):
        store.change_schedule(changed_schedule(saved, NOW), change="edited", audit=audit)
    assert [one.version for one in store.list_schedule_versions(saved.id)] == [2, 1]


def test_a_deleted_schedule_leaves_its_name(
    store: contract.Store, save: Callable[..., Schedule], audit: contract.AuditEntry
) -> None:
    """A deleted schedule is found by id alone, is due no more, and its name is free."""
    saved = save()
    store.change_schedule(changed_schedule(saved, NOW, deleted_at=NOW), change="deleted", audit=audit)
    assert store.find_schedule("acme", "s") is None
    assert store.list_due_schedules(NOW + HOUR * 5) == []
    assert save().id != saved.id


def test_due_in_order(store: contract.Store, save: Callable[..., Schedule]) -> None:
    """What is due comes in the order of its time; what is due next is known without it."""
    save("late", cron="30 * * * *")
    save("early", cron="10 * * * *")
    assert [one.name for one in store.list_due_schedules(NOW + HOUR)] == ["early", "late"]
    assert store.list_due_schedules(NOW) == []
    assert store.find_next_wake(after=NOW + timedelta(minutes=10)) == NOW + timedelta(minutes=30)


def test_one_of_many_fires(
    store: contract.Store, save: Callable[..., Schedule], new_execution: Callable[..., contract.NewExecution]
) -> None:
    """Of many who submit for one due time, one does; the others write neither a row nor an execution."""
    firing = step(save())

    def submit(_: int) -> bool:
        try:
            store.submit_execution(new_execution(), queue_limit=100, firing=firing)
        except AccountedElsewhere:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(submit, range(16))) == 1
    (row,) = store.list_due_times(firing.schedule_id)
    (execution,) = store.list_executions(contract.ExecutionFilter(organizations=None))
    assert row.execution_id == execution.id


def test_a_refused_execution_leaves_the_due_time(
    store: contract.Store, save: Callable[..., Schedule], new_execution: Callable[..., contract.NewExecution]
) -> None:
    """When the queue is full nothing is written, and the schedule is as it was."""
    saved = save()
    with pytest.raises(errors.TooManyRequests):
        store.submit_execution(new_execution(), queue_limit=0, firing=step(saved))
    assert store.list_due_times(saved.id) == []
    assert store.find_schedule_by_id(saved.id) == saved


def test_an_edited_schedule_is_not_moved_on(
    store: contract.Store, save: Callable[..., Schedule], audit: contract.AuditEntry
) -> None:
    """A step that was decided before an edit is refused."""
    saved = save()
    store.change_schedule(changed_schedule(saved, NOW), change="edited", audit=audit)
    with pytest.raises(AccountedElsewhere):
        store.account(step(saved))


def test_stretches_only_grow(store: contract.Store) -> None:
    """A scheduler's note that it is alive is never taken back by an older one."""
    for minutes in (0, 5, 3):
        store.beat(Stretch(owner="a", started_at=NOW, until_at=NOW + timedelta(minutes=minutes)))
    (found,) = store.list_stretches(since=NOW)
    assert found.until_at == NOW + timedelta(minutes=5)


def test_the_mark_of_organizations(store: contract.Store, audit: contract.AuditEntry) -> None:
    """It changes with every organization that comes, goes or comes back."""
    marks = [store.mark_organizations()]
    store.create_organization(contract.Organization(id="acme", name="Acme", created_at=NOW), audit=audit)
    marks.append(store.mark_organizations())
    store.change_organization("acme", contract.OrganizationChange(active=False), audit=audit)
    marks.append(store.mark_organizations())
    assert len(set(marks)) == 3
