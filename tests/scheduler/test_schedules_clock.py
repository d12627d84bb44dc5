"""The live clock: what it wakes for, and that it goes on whatever happens to a look (contract §7)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bifrost_kernel import models
from bifrost_scheduler.schedules.clock import Clock
from tests.scheduler.schedule_world import WORKFLOWS, World


@pytest.fixture
def live(tmp_path: Path) -> Iterator[World]:
    """A scheduler with its clock running."""
    world = World(tmp_path)
    world.write({"workflows.py": WORKFLOWS})
    world.catalog.current()
    clock = Clock(ticker=world.ticker, derivation=world.derivation)
    world.executions.on_finished = clock.execution_finished
    world.schedules.on_change = clock.wake
    clock.start()
    yield world
    clock.stop()
    world.close()


@pytest.fixture
def submitted(live: World) -> Callable[[], None]:
    """Wait until something is submitted."""
    news = threading.Event()
    live.executions.on_pending = news.set

    def wait() -> None:
        assert news.wait(30)
        news.clear()

    return wait


def test_wakes_for_the_earliest(live: World, submitted: Callable[[], None]) -> None:
    """The clock wakes for what is due first, also when that was saved last, and for nothing else."""
    now = datetime.now(UTC)
    later = live.add(now, name="later", run_at=now + timedelta(hours=1))
    soon = live.add(now, name="soon", run_at=now + timedelta(seconds=0.3))
    live.schedules.on_change()
    submitted()
    (row,) = live.rows(soon)
    assert (row.outcome.value, live.rows(later)) == ("ran", [])
    assert (row.late_seconds or 0) < 1


def test_what_queued_goes_on_at_once(live: World, submitted: Callable[[], None]) -> None:
    """When a run is over, the due time that waited for it is submitted without waiting for the next beat."""
    now = datetime.now(UTC)
    schedule = live.add(now - timedelta(hours=2.5), cron="0 * * * *", catch_up="all", overlap=models.Overlap.QUEUE)
    live.schedules.on_change()
    for expected in (1, 2):
        submitted()
        assert len(live.rows(schedule)) == expected
        live.work(datetime.now(UTC))
    assert {row.outcome.value for row in live.rows(schedule)} == {"caught_up"}


def test_it_stops(live: World) -> None:
    """A clock that was stopped submits nothing any more."""
    clock = Clock(ticker=live.ticker, derivation=live.derivation)
    clock.start()
    clock.stop()
    clock.wake()
    clock.stop()
