"""Alarms: each in its time, whatever became of the others."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import pytest

from bifrost_scheduler.runner.alarms import Alarms


@pytest.fixture
def alarms() -> Iterator[Alarms]:
    alarms = Alarms()
    alarms.start()
    yield alarms
    alarms.stop()


def test_the_earliest_comes_first(alarms: Alarms) -> None:
    """Also when it was set last, while the thread sleeps for a later one."""
    came: queue.Queue[str] = queue.Queue()
    alarms.after(0.3, lambda: came.put("late"))
    alarms.after(0.1, lambda: came.put("early"))
    assert [came.get(timeout=10), came.get(timeout=10)] == ["early", "late"]


def test_a_cancelled_one_never_comes(alarms: Alarms) -> None:
    """To cancel it again, or after it came, does nothing."""
    came: queue.Queue[str] = queue.Queue()
    cancelled = alarms.after(0.05, lambda: came.put("cancelled"))
    alarms.cancel(cancelled)
    alarms.cancel(cancelled)
    kept = alarms.after(0.1, lambda: came.put("kept"))
    assert came.get(timeout=10) == "kept"
    alarms.cancel(kept)
    assert came.empty()


def test_one_that_fails_stops_no_other(alarms: Alarms) -> None:
    """Its failure is logged, and the next deadline is kept."""
    came: queue.Queue[str] = queue.Queue()
    alarms.after(0, lambda: 1 // 0)
    alarms.after(0.05, lambda: came.put("next"))
    assert came.get(timeout=10) == "next"


def test_it_stops_at_once() -> None:
    """What is not due yet is forgotten."""
    alarms = Alarms()
    alarms.start()
    alarms.after(3600, lambda: None)
    alarms.stop()
    alarms.stop()
