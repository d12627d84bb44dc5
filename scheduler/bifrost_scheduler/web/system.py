"""Routes about the product itself: health, metrics, the ledger."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response, Security
from fastapi.security.http import HTTPAuthorizationCredentials
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool

from bifrost_kernel import errors
from bifrost_scheduler import __version__
from bifrost_scheduler.store import contract
from bifrost_scheduler.web.answers import Cursor, Limit, decode_position, list_name, page, problems
from bifrost_scheduler.web.authentication import ThePrincipal, TheServices, bearer, functions_key, get_principal
from bifrost_scheduler.web.schemas import Health, LedgerShape, Page

router = APIRouter(tags=["system"])

HEALTH_HOLDS_SECONDS = 1.0
"""So long what was written shows that more can be."""


@router.get("/api/health", operation_id="get_health", responses={503: problems(503)[503]})
async def get_health(services: TheServices) -> Health:
    """Whether the control plane can do its work; open to everybody, says nothing else."""
    # Whoever asks has no key, and shall neither make the disk busy nor wait for those who do.
    if not services.store.has_committed_within(HEALTH_HOLDS_SECONDS):
        await run_in_threadpool(services.store.check)
    services.secrets.check()
    return Health(status="ok", version=__version__)


def metrics_reader(
    request: Request,
    services: TheServices,
    key: Annotated[str | None, Security(functions_key)],
    token: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
) -> None:
    """Figures of the whole installation are for PlatformAdmins; in development for everybody on this machine."""
    if services.settings.dev and not key and not token:
        return
    if not get_principal(request, services, key, token).platform_admin:
        raise errors.Forbidden("Only PlatformAdmins read the metrics.")


@router.get(
    "/metrics",
    operation_id="get_metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems()},
    dependencies=[Depends(metrics_reader)],
)
def get_metrics(services: TheServices) -> Response:
    """Figures in Prometheus' text format; no label names an organization or a person."""
    return Response(services.metrics.render(), media_type=CONTENT_TYPE_LATEST)


def _shape(entry: contract.LedgerEntry) -> LedgerShape:
    return LedgerShape(**entry.model_dump(exclude={"body"}), body=json.loads(entry.body))


@router.get("/api/audit", operation_id="list_audit", responses=problems())
def list_audit(
    services: TheServices, principal: ThePrincipal, limit: Limit = 50, cursor: Cursor = None
) -> Page[LedgerShape]:
    """The ledger in its order (PlatformAdmins)."""
    of = list_name(principal, "audit")
    rows = services.administration.list_ledger(principal, after=decode_position(cursor, of), limit=limit + 1)
    return page(rows, limit=limit, key=lambda row: str(row.seq), item=_shape, of=of)
