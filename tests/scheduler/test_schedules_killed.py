"""A virtual day of schedules: three real schedulers on one store, killed again and again, and three hours of nobody.

The suite lives through some hours of it; `BIFROST_SOAK=1 pytest tests/scheduler/test_schedules_killed.py` (`make soak`)
through 24 hours with 500 schedules and 200 kills. The night is one in which Europe changes its clocks.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from bifrost_kernel import cron, models
from bifrost_scheduler.store.schedule_contract import CatchUp, Schedule
from tests.kernel import cron_oracle as oracle
from tests.scheduler.schedule_world import WORKFLOWS, World, read_clock, set_clock

SOAK = bool(os.environ.get("BIFROST_SOAK"))
SCHEDULES, KILLS, HOURS = (500, 200, 24) if SOAK else (40, 6, 5)
SEED = int(os.environ.get("BIFROST_KILLS_SEED", "20261122"))

ROOT = Path(__file__).resolve().parents[2]
START = datetime(2026, 3, 28, 21, 10, 5, tzinfo=UTC)
STEP = timedelta(seconds=20)
AWAY = timedelta(hours=3)
SCHEDULERS = 3

EXPRESSIONS = ("*/30 * * * *", "15 * * * *", "30 2 * * *", "*/20 1-3 * * *", "0 */2 * * *", "45 0,2,4 * * SUN")
ZONES = ("Europe/Zagreb", "UTC", "America/New_York", "Asia/Kathmandu")
LATE = {CatchUp.ONE: "coalesced", CatchUp.ALL: "caught_up", CatchUp.NONE: "missed"}


class Day:
    """The schedulers, and the clock that they look at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = START
        self.kills = 0
        self._random = random.Random(SEED)
        self._schedulers: list[subprocess.Popen[bytes]] = []
        set_clock(folder / "clock", self.now)

    def start(self) -> None:
        while len(self._schedulers) < SCHEDULERS:
            command = [sys.executable, "-m", "tests.scheduler.schedule_world", str(self.folder)]
            self._schedulers.append(subprocess.Popen(command, cwd=ROOT))
        self.wait_for(SCHEDULERS)

    def live(self, end: datetime, kills: int) -> None:
        """Let the time pass step by step, and kill a scheduler now and then, in the middle of what it does."""
        steps = int((end - self.now) / STEP)
        struck = set(self._random.sample(range(steps), kills))
        for step in range(steps):
            self.now += STEP
            set_clock(self.folder / "clock", self.now)
            if step in struck:
                time.sleep(self._random.uniform(0, 0.03))  # at a moment that nobody chose
                self._kill(self._random.randrange(SCHEDULERS))
                self.start()
            self.wait_for(1)

    def leave(self) -> None:
        """Nobody looks at the clock for hours."""
        self.end()
        self.now += AWAY
        set_clock(self.folder / "clock", self.now)

    def end(self) -> None:
        while self._schedulers:
            self._kill(0)

    def wait_for(self, many: int) -> None:
        """Until so many schedulers have done all that was due now."""
        deadline = time.monotonic() + 120
        while sum(self._has_done(one) for one in self._schedulers) < many:
            assert time.monotonic() < deadline, "the schedulers do not keep up"
            assert all(one.poll() is None for one in self._schedulers), "a scheduler ended by itself"
            time.sleep(0.002)

    def _has_done(self, scheduler: subprocess.Popen[bytes]) -> bool:
        said = self.folder / f"said-{scheduler.pid}"
        return said.exists() and read_clock(said) >= self.now

    def _kill(self, number: int) -> None:
        scheduler = self._schedulers.pop(number)
        scheduler.kill()
        scheduler.wait()
        (self.folder / f"said-{scheduler.pid}").unlink(missing_ok=True)
        self.kills += 1


def expected(schedule: Schedule, left_at: datetime, back_at: datetime, end: datetime) -> list[tuple[datetime, str]]:
    """What the ledger has to say, computed without the product: by croniter and by hand."""
    definition = schedule.definition
    assert definition.cron is not None
    fixed = cron.parse(definition.cron).is_fixed
    due = oracle.due(definition.cron, ZoneInfo(definition.timezone), START, end + STEP, fixed=fixed)
    rows = [(at, "ran" if not left_at < at < back_at else LATE[definition.catch_up]) for at in due if at <= end]
    unattended = [number for number, (at, _) in enumerate(rows) if left_at < at < back_at]
    if definition.catch_up is CatchUp.ONE and unattended:
        rows[unattended[-1]] = (rows[unattended[-1]][0], "caught_up")
    return rows


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_day_of_kills(tmp_path: Path) -> None:
    """Whatever is killed when, each due time has one row, with the outcome that it has to have, and one execution."""
    world = World(tmp_path, alone=False)
    world.write({"workflows.py": WORKFLOWS})
    world.catalog.current()
    schedules = [
        world.add(
            START,
            name=f"s{number}",
            cron=EXPRESSIONS[number % len(EXPRESSIONS)],
            timezone=ZONES[number // 2 % len(ZONES)],
            catch_up=list(CatchUp)[number // 3 % 3],
            overlap=models.Overlap.PARALLEL,
        )
        for number in range(SCHEDULES)
    ]
    day = Day(tmp_path)
    day.start()
    day.live(START + timedelta(hours=HOURS - 3) / 2, KILLS // 2)
    left_at = day.now
    day.leave()
    back_at = day.now
    day.start()
    day.live(START + timedelta(hours=HOURS), KILLS - KILLS // 2)
    day.wait_for(SCHEDULERS)
    day.end()
    for schedule in schedules:
        found = [(row.due_at, row.outcome.value) for row in world.rows(schedule)]
        assert found == expected(schedule, left_at, back_at, day.now), (schedule.name, schedule.definition)
    rows = [row for schedule in schedules for row in world.rows(schedule)]
    submitted = {row.execution_id for row in rows if row.execution_id}
    assert submitted == {execution.id for execution in world.every_execution()}
    assert len(submitted) == sum(row.outcome in ("ran", "caught_up") for row in rows)
    effects = Counter((tmp_path / "effects").read_text().split())
    assert set(effects.values()) == {1}
    print(f"{len(rows)} due times, {len(submitted)} executions, {day.kills} kills")
    print(dict(Counter(row.outcome.value for row in rows)))
    world.close()
