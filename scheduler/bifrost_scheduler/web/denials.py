"""The audit of refusals: each by a known principal is an entry, anonymous ones are counted per source and minute.

`web.problems` reports every refused request here. An attacker without a credential cannot fill the disk with entries.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from bifrost_kernel import errors
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.store import contract
from bifrost_scheduler.web.authentication import address_of


class Denials:
    def __init__(self, store: contract.Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._minute = 0
        self._counts: dict[str, int] = {}

    async def note(self, request: Request, error: errors.BifrostError) -> None:
        """Remember a refusal; other errors are not its business."""
        principal: Principal | None = getattr(request.state, "principal", None)
        if isinstance(error, errors.Unauthorized):
            await run_in_threadpool(self._count, address_of(request))
        elif principal is not None and (isinstance(error, errors.Forbidden) or _is_foreign(error)):
            await run_in_threadpool(self._store.append_audit, _entry(principal, request, error))

    def _count(self, source: str) -> None:
        minute = int(datetime.now(UTC).timestamp() // 60)
        with self._lock:
            finished, self._counts = (self._counts, {}) if minute != self._minute else ({}, self._counts)
            self._minute = minute
            self._counts[source] = self._counts.get(source, 0) + 1
        for address, count in finished.items():
            self._store.append_audit(
                contract.AuditEntry(
                    at=datetime.now(UTC),
                    actor="anonymous",
                    action="access.unauthorized",
                    details={"count": count},
                    address=address,
                )
            )


def _is_foreign(error: errors.BifrostError) -> bool:
    return isinstance(error, errors.NotFound) and "organization" in error.message


def _entry(principal: Principal, request: Request, error: errors.BifrostError) -> contract.AuditEntry:
    return contract.AuditEntry(
        at=datetime.now(UTC),
        actor=principal.subject,
        action="access.denied",
        details={"method": request.method, "path": request.url.path[:200], "reason": error.code},
        address=address_of(request),
    )
