"""Who was there: the times through which a scheduler was alive, so that a time at which none ran is never called `ran`.

`ticker` beats with every look at the clock. A scheduler that was not heard of for `GAP` (a machine asleep, a clock that
jumped, a store that could not be written) begins a new stretch: what lies between is unattended.

One control plane has a home, so a scheduler is alone; several that share a store say so, and heed each other.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

from bifrost_scheduler.store import contract
from bifrost_scheduler.store.schedule_contract import Stretch

GAP = timedelta(seconds=30)


class Attendance:
    """The stretch of one scheduler, and what the others left in the store."""

    def __init__(self, store: contract.Store, owner: str, *, alone: bool) -> None:
        self._store = store
        self._owner = owner
        self._alone = alone
        self._lock = threading.Lock()
        self._own: Stretch | None = None
        self._others: list[Stretch] = []

    def beat(self, now: datetime) -> None:
        """Say that this scheduler is alive, and see who else is.

        Raises:
            Unavailable: the store cannot be written; then nobody was there.
        """
        stretch = self._extended(now)
        self._store.beat(stretch)
        others = [] if self._alone else self._store.list_stretches(since=now - GAP)
        with self._lock:
            self._own = stretch
            self._others = [one for one in others if one.owner != self._owner]

    def attended(self, instant: datetime) -> bool | None:
        """Whether a scheduler that is alive now was alive then; None while another one may still say that it was."""
        with self._lock:
            own, others = self._own, self._others
        if any(one.started_at <= instant <= one.until_at for one in (*others, *([own] if own else []))):
            return True
        return None if any(one.until_at < instant <= one.until_at + GAP for one in others) else False

    def _extended(self, now: datetime) -> Stretch:
        own = self._own
        # A clock that was set back before the beginning begins anew as well.
        if own is None or now - own.until_at > GAP or now < own.started_at:
            return Stretch(owner=self._owner, started_at=now, until_at=now)
        return own.model_copy(update={"until_at": max(own.until_at, now)})
