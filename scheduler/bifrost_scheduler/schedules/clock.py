"""The clock: APScheduler wakes it at the earliest due time of the table, and the ticker does the rest.

`services` starts and stops it. APScheduler holds one job in memory and no truth: it is armed anew after every look.
A look only hands due schedules to threads, so that one that has to ask a data provider keeps no other one waiting.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor as JobThreads
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from bifrost_kernel import errors
from bifrost_scheduler.schedules.derivation import Derivation
from bifrost_scheduler.schedules.ticker import Ticker
from bifrost_scheduler.store import contract

log = structlog.get_logger(__name__)

BEAT = timedelta(seconds=5)
"""The clock is looked at so often even if nothing is due: a machine that slept or a clock that was set is noticed."""

THREADS = 16
"""Most of their time they wait for a commit, which all of them share."""


class NextDue(BaseTrigger):  # type: ignore[misc]
    """Fires at the earliest due time of the table, or at the next beat."""

    def __init__(self, ticker: Ticker, looked_at: datetime) -> None:
        self._ticker = ticker
        self._looked_at = looked_at

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """The next beat after it has fired: by then the look itself has armed the clock anew."""
        beat = now + BEAT
        if previous_fire_time is not None:
            return beat
        try:
            return min(self._ticker.find_next(self._looked_at) or beat, beat)
        except errors.Unavailable:
            return beat


class Clock:
    """Looks at the time until it is stopped."""

    def __init__(self, *, ticker: Ticker, derivation: Derivation) -> None:
        self._ticker = ticker
        self._derivation = derivation
        self._scheduler = BackgroundScheduler(timezone=UTC, executors={"default": JobThreads(1)})
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="schedule")
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._stopping = False
        self._again = False

    def start(self) -> None:
        self._scheduler.start()
        self._arm(datetime.now(UTC), at_once=True)

    def stop(self) -> None:
        """Nothing begins any more; what is being submitted is written as a whole or not at all."""
        with self._lock:
            self._stopping = True
        if self._scheduler.running:
            # APScheduler would wait with its lock held, for a look that may need it to arm the clock.
            self._scheduler.shutdown(wait=False)
        # One of them may be asking a data provider, which takes longer than the end of everything may.
        self._threads.shutdown(wait=False, cancel_futures=True)

    def wake(self) -> None:
        """Schedules have changed: what is due next may be another one."""
        # A look that is going on arms the clock at its end, and must not undo this.
        self._again = True
        self._arm(datetime.now(UTC), at_once=True)

    def execution_finished(self, execution: contract.Execution) -> None:
        """What waited for this execution may go on."""
        if execution.schedule_id is not None and self._ticker.look_soon(execution.schedule_id):
            self.wake()

    def _look(self) -> None:
        now, self._again = datetime.now(UTC), False
        try:
            self._ticker.beat(now)
            for schedule in self._ticker.due(now):
                self._hand_over(schedule.id, partial(self._advance, schedule.id, now))
            self._hand_over("retries", lambda: self._ticker.retry(now))
            self._hand_over("derivation", lambda: self._derivation.refresh(now))
        except errors.Unavailable as error:
            log.warning("schedules have to wait", reason=error.message)
        finally:
            self._arm(now, at_once=self._again)

    def _advance(self, schedule_id: str, now: datetime) -> None:
        # Many may have been due at once: how late this one is counts from when its turn has come.
        self._ticker.advance(schedule_id, now, decided_at=max(now, datetime.now(UTC)))

    def _hand_over(self, what: str, work: Callable[[], None]) -> None:
        """Do it in a thread, unless it is being done; its failure concerns the next look."""
        with self._lock:
            if self._stopping or what in self._busy:
                return
            self._busy.add(what)
            self._threads.submit(self._do, what, work)

    def _do(self, what: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # the edge of the clock: it goes on, and what is due stays due
            log.warning("a look at the schedules failed", about=what, exc_info=error)
        finally:
            with self._lock:
                self._busy.discard(what)

    def _arm(self, looked_at: datetime, *, at_once: bool = False) -> None:
        with self._lock:
            if self._stopping:
                return
        trigger = NextDue(self._ticker, looked_at)
        first = {"next_run_time": datetime.now(UTC)} if at_once else {}
        self._scheduler.add_job(
            self._look,
            trigger,
            id="look",
            replace_existing=True,
            misfire_grace_time=None,
            coalesce=True,
            max_instances=2,
            **first,
        )
