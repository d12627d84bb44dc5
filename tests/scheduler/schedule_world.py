"""Schedules without the rest of the product: a real store, catalog and way in, and a clock that tests set.

Tests use `World` in their own process; `python -m tests.scheduler.schedule_world` is one scheduler of several on one
store, which looks at the virtual clock in a file until it is killed, and does what it submitted into another file.
"""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from bifrost_kernel import errors, models
from bifrost_scheduler import ledger
from bifrost_scheduler.catalog import Catalog
from bifrost_scheduler.executions import Executions
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.options import Options
from bifrost_scheduler.records import Records
from bifrost_scheduler.schedules.derivation import Derivation, new_schedule
from bifrost_scheduler.schedules.service import Schedules
from bifrost_scheduler.schedules.ticker import Ticker
from bifrost_scheduler.settings import Settings
from bifrost_scheduler.signals import Signals
from bifrost_scheduler.store import contract
from bifrost_scheduler.store.schedule_contract import Definition, DueTime, Schedule
from bifrost_scheduler.store.sqlite import SqliteStore

Status = models.ExecutionStatus

ADMIN = Principal(subject="user:operator", kind="operator", name="Operator", platform_admin=True)

WORKFLOWS = """
from bifrost_kernel import param, workflow


@workflow(name="note", description="Take a note", requires_org=False)
@param("text", type="string", default_value="x", validation={"max_length": 5})
async def note(context, text="x"):
    return text


@workflow(name="guarded", description="Needs an approval", requires_org=False, requires_approval=True)
async def guarded(context):
    return None


@workflow(name="sturdy", description="May be tried again", requires_org=False, retries=2, idempotent=True)
async def sturdy(context):
    return None


@workflow(name="fragile", description="Must not be tried again", requires_org=False, retries=2)
async def fragile(context):
    return None
"""


class World:
    """One scheduler on the store of a folder."""

    def __init__(self, folder: Path, *, alone: bool = True, catalog: Catalog | None = None, **settings: Any) -> None:
        self.workspace = folder / "workspace"
        home = folder / "home"
        home.mkdir(exist_ok=True)
        chosen = {"home": home, "workspace": self.workspace, **settings}
        self.settings = Settings(**chosen)
        self.store = SqliteStore(home / "bifrost.db", busy_timeout_seconds=60)
        self.catalog = catalog or Catalog(workspace=self.workspace, code_dir=home / "code")
        self.offered: Callable[..., list[models.Option]] = lambda *_: []
        self.executions = Executions(
            settings=self.settings,
            store=self.store,
            catalog=self.catalog,
            options=Options(store=self.store, run_provider=lambda *given: self.offered(*given)),
            notices=Signals(),
            records=Records(home / "records"),
            record_unrun=lambda execution, outcome: b"{}",
        )
        self.ticker = Ticker(settings=self.settings, store=self.store, executions=self.executions, alone=alone)
        self.derivation = Derivation(store=self.store, catalog=self.catalog, ticker=self.ticker)
        self.schedules = Schedules(store=self.store, executions=self.executions, ticker=self.ticker)

    def write(self, files: Mapping[str, str]) -> None:
        for relative, text in files.items():
            path = self.workspace / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text), encoding="utf-8")

    def add_organization(self, id_: str, now: datetime) -> str:
        organization = contract.Organization(id=id_, name=id_, created_at=now)
        self.store.create_organization(organization, audit=ledger.audit(ADMIN, "organization.create", target=id_))
        return id_

    def add(
        self, now: datetime, name: str = "it", organization: str = models.GLOBAL, by: Principal = ADMIN, **fields: Any
    ) -> Schedule:
        """Save a schedule at this very time."""
        definition = Definition(**{"workflow": "note", **fields})
        schedule = new_schedule(organization, name, definition, saved_by=by.subject, now=now)
        self.store.create_schedule(schedule, audit=ledger.audit(by, "schedule.create", target=name))
        return schedule

    def rows(self, schedule: Schedule) -> list[DueTime]:
        """Its ledger, oldest first."""
        return self.store.list_due_times(schedule.id, limit=100_000)[::-1]

    def told(self, schedule: Schedule) -> list[tuple[str, str, str | None]]:
        """Its ledger as people read it: time, outcome, reason."""
        return [(f"{row.due_at:%H:%M}", row.outcome.value, row.reason) for row in self.rows(schedule)]

    def work(self, now: datetime, status: Status = Status.SUCCESS, owner: str = "worker") -> list[contract.Execution]:
        """Run all that waits to the end, as a runner does; gives what ran."""
        done = []
        while execution := self.store.claim_execution(
            owner=owner, now=now, lease_seconds=60, organization_limit=10_000
        ):
            outcome = contract.Outcome(status=status, completed_at=now)
            with contextlib.suppress(errors.Conflict):
                done.append(
                    self.store.finish_execution(
                        execution.id, fence=execution.fence, outcome=outcome, record_sha256="0" * 64
                    )
                )
            self.executions.on_finished(execution)
        return done

    def every_execution(self) -> list[contract.Execution]:
        found: list[contract.Execution] = []
        wanted = contract.ExecutionFilter(organizations=None, limit=1000)
        while page := self.store.list_executions(wanted.model_copy(update={"before": found[-1].id if found else None})):
            found += page
        return found

    def close(self) -> None:
        self.store.close()


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


def hours(number: float) -> timedelta:
    return timedelta(hours=number)


def read_clock(path: Path) -> datetime:
    return datetime.fromisoformat(path.read_text())


def set_clock(path: Path, now: datetime) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(now.isoformat())
    partial.replace(path)


def main(folder: Path) -> None:
    """Look at the clock again and again, and say so in a file of one's own; run what was submitted."""
    world = World(folder, alone=False)
    clock, said = folder / "clock", folder / f"said-{os.getpid()}"
    effects = os.open(folder / "effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while True:
        now = read_clock(clock)
        try:
            world.ticker.tick(now)
            for execution in world.work(now, owner=str(os.getpid())):
                os.write(effects, f"{execution.id}\n".encode())
        except errors.Unavailable:
            continue
        set_clock(said, now)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
