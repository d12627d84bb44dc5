"""What becomes of due times: one row each, whatever runs, overlaps, sleeps, jumps or breaks (contract §7)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bifrost_kernel import errors, models
from bifrost_scheduler import ledger
from bifrost_scheduler.catalog import Catalog
from bifrost_scheduler.store import contract
from bifrost_scheduler.store.schedule_contract import AccountedElsewhere, Blackout, CatchUp, Firing
from bifrost_scheduler.tokens import make_api_key
from tests.scheduler.schedule_world import ADMIN, WORKFLOWS, World, hours, minutes

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
HOURLY = "0 * * * *"
STEP = timedelta(seconds=20)

Status = models.ExecutionStatus
Overlap = models.Overlap


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder = tmp_path_factory.mktemp("schedules")
    (folder / "workspace").mkdir()
    (folder / "workspace" / "workflows.py").write_text(WORKFLOWS)
    return Catalog(workspace=folder / "workspace", code_dir=folder / "code")


@pytest.fixture
def open_world(tmp_path: Path, catalog: Catalog) -> Iterator[Callable[..., World]]:
    """Opens schedulers on one store: the first, and further ones as after a restart or beside it."""
    opened: list[World] = []

    def make(**settings: object) -> World:
        opened.append(World(tmp_path, catalog=catalog, **settings))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


@pytest.fixture
def world(open_world: Callable[..., World]) -> World:
    """A scheduler that has been alive since `NOW`."""
    made = open_world()
    made.ticker.tick(NOW)
    return made


def live(world: World, start: datetime, end: datetime, *, work: bool = True) -> None:
    """Look at the clock all the while, and run what is submitted."""
    while start <= end:
        world.ticker.tick(start)
        if work:
            world.work(start)
        start += STEP


# attended


def test_on_time(world: World) -> None:
    """While a scheduler is alive, each due time runs, with its execution and how late it was."""
    schedule = world.add(NOW, cron="*/30 * * * *")
    live(world, NOW, NOW + hours(1))
    first, second = world.rows(schedule)
    assert [row.outcome.value for row in (first, second)] == ["ran", "ran"]
    assert first.late_seconds == 0
    execution = world.store.find_execution(first.execution_id or "")
    assert execution is not None
    assert (execution.caller.subject, execution.trigger) == ("schedule:it", models.Trigger.SCHEDULE)


def test_nothing_before_it_was_saved(world: World) -> None:
    """A schedule is due for the first time after it was saved."""
    schedule = world.add(NOW + minutes(1), cron="* * * * *")
    live(world, NOW, NOW + minutes(2))
    assert [row[0] for row in world.told(schedule)] == ["09:02"]


def test_once(world: World) -> None:
    """A one-off runs once and is never due again."""
    schedule = world.add(NOW, run_at=NOW + minutes(2))
    live(world, NOW, NOW + minutes(6))
    assert world.told(schedule) == [("09:02", "ran", None)]
    assert world.store.find_schedule_by_id(schedule.id).wake_at is None


def test_start_and_end(world: World) -> None:
    """Before its start and from its end on a schedule has no due times."""
    schedule = world.add(NOW, cron="* * * * *", starts_at=NOW + minutes(2), ends_at=NOW + minutes(4))
    live(world, NOW, NOW + minutes(6))
    assert [row[0] for row in world.told(schedule)] == ["09:02", "09:03"]


def test_blackout(world: World) -> None:
    """What is due in a blackout is skipped, and says so."""
    window = Blackout(starts_at=NOW + minutes(1), ends_at=NOW + minutes(2))
    schedule = world.add(NOW, cron="* * * * *", blackouts=(window,))
    live(world, NOW, NOW + minutes(2))
    assert world.told(schedule) == [("09:01", "skipped", "blackout"), ("09:02", "ran", None)]


def test_jitter(world: World) -> None:
    """Jitter moves each due time by an amount of its own, the same at every look; lateness counts from there."""
    schedules = [world.add(NOW, cron="5 9 * * *", name=f"j{number}", jitter_seconds=120) for number in range(20)]
    live(world, NOW, NOW + minutes(8))
    rows = [world.rows(schedule)[0] for schedule in schedules]
    shifts = [(row.planned_at - row.due_at).total_seconds() for row in rows]
    assert all(0 <= shift < 120 for shift in shifts)
    assert len(set(shifts)) > 15
    assert all(row.outcome == "ran" and (row.late_seconds or 0) <= 20 for row in rows)


# overlap


@pytest.mark.parametrize(
    ("overlap", "told"),
    [
        (Overlap.SKIP, [("09:01", "ran", None), ("09:02", "skipped", "overlap")]),
        (Overlap.PARALLEL, [("09:01", "ran", None), ("09:02", "ran", None)]),
        (Overlap.QUEUE, [("09:01", "ran", None)]),
    ],
)
def test_overlap(world: World, overlap: Overlap, told: list[object]) -> None:
    """While the last run is not over: skip says so, parallel runs beside it, queue waits."""
    schedule = world.add(NOW, cron="* * * * *", overlap=overlap, ends_at=NOW + minutes(3))
    live(world, NOW, NOW + minutes(3), work=False)
    assert world.told(schedule) == told


def test_queue_goes_on(world: World) -> None:
    """What queued runs when the run before it is over, one after the other, each as late as it is."""
    schedule = world.add(NOW, cron="* * * * *", overlap=Overlap.QUEUE, ends_at=NOW + minutes(4))
    live(world, NOW, NOW + minutes(4), work=False)
    live(world, NOW + minutes(4) + STEP, NOW + minutes(6))
    assert [row.outcome.value for row in world.rows(schedule)] == ["ran"] * 3
    assert [round(row.late_seconds or 0) for row in world.rows(schedule)] == [0, 160, 120]


def test_queue_is_bounded(open_world: Callable[..., World]) -> None:
    """When more wait than may, the oldest give way."""
    world = open_world(organization_queue_limit=2)
    world.ticker.tick(NOW)
    schedule = world.add(NOW, cron="* * * * *", overlap=Overlap.QUEUE)
    live(world, NOW, NOW + minutes(5), work=False)
    full = ("skipped", "queue full")
    assert world.told(schedule) == [("09:01", "ran", None), ("09:02", *full), ("09:03", *full)]


def test_approval(world: World) -> None:
    """A workflow that needs an approval waits for it, and further due times are skipped meanwhile."""
    schedule = world.add(NOW, workflow="guarded", cron="* * * * *", overlap=Overlap.PARALLEL)
    live(world, NOW, NOW + minutes(2))
    assert world.told(schedule) == [("09:01", "ran", None), ("09:02", "skipped", "approval pending")]
    (execution,) = world.every_execution()
    assert execution.status is Status.AWAITING_APPROVAL


# pause


def test_pause(world: World) -> None:
    """What comes due during a pause is skipped."""
    schedule = world.add(NOW, cron="* * * * *")
    live(world, NOW, NOW + minutes(1))
    paused = world.store.find_schedule_by_id(schedule.id).model_copy(
        update={"paused_at": NOW + minutes(1.5), "paused_by": "user:a", "version": 2}
    )
    world.store.change_schedule(paused, change="paused", audit=ledger.audit(ADMIN, "schedule.pause"))
    live(world, NOW + minutes(1.5), NOW + minutes(2.5))
    assert world.told(schedule) == [("09:01", "ran", None), ("09:02", "skipped", "paused")]


# nobody there


@pytest.mark.parametrize(
    ("catch_up", "told"),
    [
        (CatchUp.ONE, ["coalesced", "coalesced", "caught_up"]),
        (CatchUp.ALL, ["caught_up", "caught_up", "caught_up"]),
        (CatchUp.NONE, ["missed", "missed", "missed"]),
    ],
)
def test_asleep(world: World, catch_up: CatchUp, told: list[str]) -> None:
    """A machine that slept three hours catches up as the schedule says; none of these times is called `ran`."""
    schedule = world.add(NOW + minutes(1), cron=HOURLY, catch_up=catch_up)
    live(world, NOW, NOW + minutes(1))
    live(world, NOW + hours(3.5), NOW + hours(3.6))
    assert [row.outcome.value for row in world.rows(schedule)] == told
    live(world, NOW + hours(3.6), NOW + hours(4))
    assert world.told(schedule)[-1] == ("13:00", "ran", None)


def test_restart(world: World, open_world: Callable[..., World]) -> None:
    """A time that came due while no control plane ran is caught up by the next, by how late it is."""
    schedule = world.add(NOW, cron=HOURLY)
    live(world, NOW, NOW + minutes(58))
    world.close()
    again = open_world()
    live(again, NOW + minutes(61), NOW + minutes(62))
    (row,) = again.rows(schedule)
    assert (row.outcome.value, row.late_seconds) == ("caught_up", 60)


def test_horizon(open_world: Callable[..., World]) -> None:
    """What is older than the horizon is missed, not caught up."""
    world = open_world(schedule_horizon_seconds=3600)
    world.ticker.tick(NOW)
    schedule = world.add(NOW, cron=HOURLY, catch_up=CatchUp.ALL)
    live(world, NOW + hours(3.5), NOW + hours(3.6))
    assert [row.outcome.value for row in world.rows(schedule)] == ["missed", "missed", "caught_up"]


def test_a_long_absence(world: World) -> None:
    """Every due time of a fortnight gets its row, however many there are."""
    schedule = world.add(NOW, cron="*/10 * * * *")
    live(world, NOW + timedelta(days=14), NOW + timedelta(days=14))
    rows = world.rows(schedule)
    assert len(rows) == 14 * 24 * 6
    assert [row.outcome.value for row in rows].count("caught_up") == 1


def test_clock_set_back(world: World) -> None:
    """A clock that goes back an hour makes nothing run twice; schedules go on when it has caught up."""
    schedule = world.add(NOW, cron="*/20 * * * *")
    live(world, NOW, NOW + hours(1))
    live(world, NOW, NOW + hours(1.4))
    assert [row[0] for row in world.told(schedule)] == ["09:20", "09:40", "10:00", "10:20"]
    assert len(world.every_execution()) == 4


def test_clock_set_back_before_the_beginning(world: World) -> None:
    """After a clock went back before this scheduler began, new schedules run on time by the new clock."""
    live(world, NOW - hours(2), NOW - hours(2))
    schedule = world.add(NOW - hours(2), cron=HOURLY)
    live(world, NOW - hours(2), NOW - hours(1))
    assert world.told(schedule) == [("08:00", "ran", None)]


def test_clock_set_forward(world: World) -> None:
    """A clock that jumps a day forward is as a machine that slept: one run stands for what was jumped over."""
    schedule = world.add(NOW, cron=HOURLY)
    live(world, NOW, NOW + minutes(1))
    live(world, NOW + hours(24.01), NOW + hours(24.02))
    outcomes = [row.outcome.value for row in world.rows(schedule)]
    assert outcomes == ["coalesced"] * 23 + ["caught_up"]


def test_two_schedulers(open_world: Callable[..., World]) -> None:
    """Two schedulers on one store make one execution per due time, whoever comes first."""
    first, second = open_world(alone=False), open_world(alone=False)
    schedule = first.add(NOW, cron="* * * * *", overlap=Overlap.PARALLEL)
    at = NOW
    while at <= NOW + minutes(5):
        for one in (first, second) if at.minute % 2 else (second, first):
            one.ticker.tick(at)
        at += STEP
    assert [row[1] for row in first.told(schedule)] == ["ran"] * 5
    assert len(first.every_execution()) == 5


def test_a_late_comer_leaves_others_their_times(open_world: Callable[..., World]) -> None:
    """Who starts just after a due time does not call it missed while another scheduler may have it in hand."""
    first, second = open_world(alone=False), open_world(alone=False)
    schedule = first.add(NOW, cron=HOURLY, catch_up=CatchUp.NONE)
    live(first, NOW, NOW + minutes(59.9))
    second.ticker.tick(NOW + minutes(60.1))
    assert first.told(schedule) == []
    first.ticker.tick(NOW + minutes(60.1))
    assert first.told(schedule) == [("10:00", "ran", None)]


def test_one_step_counts(world: World) -> None:
    """A step decided on what is no longer so is refused as a whole: no row, no move."""
    schedule = world.add(NOW, cron=HOURLY)
    live(world, NOW, NOW + hours(1))
    later = NOW + hours(2)
    row = world.rows(schedule)[0].model_copy(update={"due_at": later, "execution_id": None})
    stale = Firing(
        schedule_id=schedule.id, version=1, accounted_from=NOW, rows=(row,), accounted_until=later, wake_at=None
    )
    with pytest.raises(AccountedElsewhere):
        world.store.account(stale)
    assert len(world.rows(schedule)) == 1


# what cannot run


def test_reasons(world: World) -> None:
    """What cannot run is skipped with the reason that helps, and the schedule goes on."""
    wrong = world.add(NOW, name="wrong", cron=HOURLY, parameters={"text": "much too long"})
    gone = world.add(NOW, name="gone", cron=HOURLY, workflow="nobody")
    live(world, NOW, NOW + hours(1))
    ((_, outcome, reason),) = world.told(wrong)
    assert outcome == "skipped"
    assert (reason or "").startswith("invalid parameters: ")
    assert world.told(gone) == [("10:00", "skipped", "unknown workflow")]
    assert world.every_execution() == []


def test_inactive_organization(world: World) -> None:
    """An organization that was switched off runs nothing by schedule; another one is not touched by it."""
    for id_ in ("acme", "other"):
        world.add_organization(id_, NOW)
    schedules = [world.add(NOW, organization=id_, cron=HOURLY) for id_ in ("acme", "other")]
    world.store.change_organization(
        "acme", contract.OrganizationChange(active=False), audit=ledger.audit(ADMIN, "organization.change")
    )
    live(world, NOW, NOW + hours(1))
    assert [world.told(one)[0][1:] for one in schedules] == [("skipped", "organization inactive"), ("ran", None)]


def test_full_queue(open_world: Callable[..., World]) -> None:
    """A due time waits for room in its organization's queue, and is skipped when none comes in time."""
    world = open_world(organization_queue_limit=1, schedule_wait_seconds=60)
    world.ticker.tick(NOW)
    world.add(NOW, name="a", cron="1 9 * * *")
    second = world.add(NOW, name="b", cron="2 9 * * *")
    live(world, NOW, NOW + minutes(2.5), work=False)
    assert world.told(second) == []
    live(world, NOW + minutes(2.5), NOW + minutes(4), work=False)
    assert world.told(second) == [("09:02", "skipped", "queue full")]


def test_room_in_time(open_world: Callable[..., World]) -> None:
    """A due time that found room while it waited has run, late."""
    world = open_world(organization_queue_limit=1)
    world.ticker.tick(NOW)
    world.add(NOW, name="a", cron="1 9 * * *")
    second = world.add(NOW, name="b", cron="2 9 * * *")
    live(world, NOW, NOW + minutes(3), work=False)
    live(world, NOW + minutes(3), NOW + minutes(4))
    (row,) = world.rows(second)
    assert row.outcome == "ran"
    assert (row.late_seconds or 0) >= 60


# whose rights


def key_of(world: World, *organizations: str, permissions: tuple[str, ...], **fields: object) -> contract.ApiKey:
    key, _ = make_api_key(
        name="k",
        organizations=organizations,
        workflows=None,
        permissions=permissions,
        created_by="user:a",
        now=NOW,
        **fields,
    )
    world.store.create_key(key, audit=ledger.audit(ADMIN, "key.create"))
    return key


@pytest.mark.parametrize(
    ("permissions", "told"),
    [
        (("canManageSchedules", "canExecuteWorkflows"), ("ran", None)),
        (("canExecuteWorkflows",), ("skipped", "not permitted: this needs the permission canManageSchedules in acme")),
        (("canManageSchedules",), ("skipped", "not permitted: this needs the permission canExecuteWorkflows in acme")),
    ],
)
def test_rights_are_those_of_who_saved(world: World, permissions: tuple[str, ...], told: tuple[str, str]) -> None:
    """A schedule may do what the one who saved it may do now, and nothing else."""
    world.add_organization("acme", NOW)
    key = key_of(world, "acme", permissions=permissions)
    by = ADMIN.model_copy(update={"subject": f"key:{key.id}"})
    schedule = world.add(NOW, organization="acme", cron=HOURLY, by=by)
    live(world, NOW, NOW + hours(1))
    assert world.told(schedule)[0][1:] == told


def test_rights_end_with_the_key(world: World) -> None:
    """When the key that saved it is deleted, its schedule runs nothing any more."""
    world.add_organization("acme", NOW)
    key = key_of(world, "acme", permissions=("canManageSchedules", "canExecuteWorkflows"))
    by = ADMIN.model_copy(update={"subject": f"key:{key.id}"})
    schedule = world.add(NOW, organization="acme", cron=HOURLY, by=by)
    world.store.delete_key(key.id, audit=ledger.audit(ADMIN, "key.delete"))
    live(world, NOW, NOW + hours(1))
    assert "has no access any more" in (world.told(schedule)[0][2] or "")


def test_who_saved_it_does_not_approve_it(world: World) -> None:
    """An execution of a schedule is approved by another one than who saved the schedule."""
    world.add_organization("acme", NOW)
    key = key_of(world, "acme", permissions=tuple(models.Permission))
    by = ADMIN.model_copy(update={"subject": f"key:{key.id}"})
    world.add(NOW, organization="acme", cron=HOURLY, by=by, workflow="guarded")
    live(world, NOW, NOW + hours(1))
    (execution,) = world.every_execution()
    with pytest.raises(errors.Forbidden, match="another one"):
        world.executions.approve(by, execution.id)
    assert world.executions.approve(ADMIN, execution.id).status is Status.PENDING


# retries


def test_retries(world: World) -> None:
    """An idempotent workflow that fails is tried again, later each time, as executions that name the first."""
    schedule = world.add(NOW, workflow="sturdy", cron="1 9 * * *")
    for second in range(0, 400, 10):
        at = NOW + timedelta(seconds=second)
        world.ticker.tick(at)
        world.work(at, Status.FAILED)
    executions = world.every_execution()[::-1]
    assert [one.attempt for one in executions] == [0, 1, 2]
    assert {one.retry_of for one in executions[1:]} == {executions[0].id}
    pauses = [(b.started_at - a.started_at).total_seconds() for a, b in itertools.pairwise(executions)]
    assert pauses == [30, 60]
    assert len(world.rows(schedule)) == 1


def test_no_retry_without_idempotence(world: World) -> None:
    """Without `idempotent=True` nothing is tried again, and a success is not either."""
    world.add(NOW, workflow="fragile", cron="1 9 * * *", name="a")
    world.add(NOW, workflow="sturdy", cron="2 9 * * *", name="b")
    for second in range(0, 400, 20):
        at = NOW + timedelta(seconds=second)
        world.ticker.tick(at)
        world.work(at, Status.FAILED if second < 100 else Status.SUCCESS)
    assert len(world.every_execution()) == 2


def test_a_retry_is_given_up(world: World) -> None:
    """When the next run has begun, the retry is given up, and the due time says so."""
    schedule = world.add(NOW, workflow="sturdy", cron="1,2 9 * * *")
    live(world, NOW, NOW + minutes(1), work=False)
    world.work(NOW + minutes(1.9), Status.FAILED)
    live(world, NOW + minutes(2), NOW + minutes(4), work=False)
    assert world.told(schedule) == [("09:01", "ran", "not tried again: the next run has begun"), ("09:02", "ran", None)]
