"""Routes that start, show and steer executions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from bifrost_kernel import errors, models
from bifrost_scheduler import ledger
from bifrost_scheduler.envelopes import Envelope, envelope
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.services import Services
from bifrost_scheduler.store import contract
from bifrost_scheduler.web import bodies, problems
from bifrost_scheduler.web.answers import Cursor, Limit, decode_cursor, decode_position, list_name, page
from bifrost_scheduler.web.answers import problems as documented
from bifrost_scheduler.web.authentication import (
    OrganizationHeader,
    TheCredential,
    ThePrincipal,
    TheServices,
    authenticate,
)
from bifrost_scheduler.web.live import Looks, follow
from bifrost_scheduler.web.schemas import EventShape, InputList, Instant, Page
from bifrost_scheduler.web.waiting import listening, wait_until_final

router = APIRouter(prefix="/api", tags=["executions"])

ExecutionId = Annotated[str, Path(description="A UUIDv7.")]
Prefer = Annotated[str | None, Header(description="`respond-async` or `return=representation` (RFC 7240).")]
IDEMPOTENCY = "The same key and body within 24 hours give the same execution."

FAILURE_CODES: dict[models.ExecutionStatus, tuple[int, str]] = {
    models.ExecutionStatus.FAILED: (500, "WorkflowError"),
    models.ExecutionStatus.CRASHED: (500, "WorkflowError"),
    models.ExecutionStatus.TIMEOUT: (504, "Timeout"),
    models.ExecutionStatus.CANCELLED: (409, "Conflict"),
}

EXECUTION_HEADERS = {
    name: {"schema": {"type": "string"}, "description": text}
    for name, text in {
        "X-Execution-Id": "The execution.",
        "X-Execution-Status": "Its status.",
        "X-Execution-Duration-Ms": "How long it ran.",
    }.items()
}


RESULT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The bare result, or the envelope.",
        "headers": EXECUTION_HEADERS,
        "content": {"application/json": {"schema": {}}},
    },
    202: {"description": "Accepted; follow Location.", "model": Envelope, "headers": EXECUTION_HEADERS},
}


@router.post(
    "/workflows/{name}",
    operation_id="execute_workflow",
    responses={
        **RESULT,
        **documented(409, 415, 429, 500, 504),
    },
    openapi_extra={
        "requestBody": {
            "description": "The workflow's inputs as one flat object.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        }
    },
)
async def execute_workflow(
    request: Request,
    name: str,
    services: TheServices,
    credential: TheCredential,
    organization: OrganizationHeader = None,
    prefer: Prefer = None,
    idempotency_key: Annotated[str | None, Header(description=IDEMPOTENCY)] = None,
    bifrost_client: Annotated[
        str | None, Header(alias="X-Bifrost-Client", description="`cli` from the command line.")
    ] = None,
) -> Response:
    """Run a workflow for an organization and answer with its result."""
    if not bodies.is_short(request):
        await run_in_threadpool(authenticate, request, services, credential)
    body = await request.body()

    def submit() -> contract.Submitted:
        return services.executions.submit(
            authenticate(request, services, credential),
            organization=organization or models.GLOBAL,
            workflow=name,
            parameters=bodies.parse_object(request, body),
            trigger=models.Trigger.CLI if bifrost_client == "cli" else models.Trigger.API,
            idempotency_key=idempotency_key,
        )

    # One trip to a thread for both: the way there costs more than either.
    submitted = await run_in_threadpool(submit)
    return await _answer_submitted(services, submitted.execution, prefer)


async def _answer_submitted(services: Services, execution: contract.Execution, prefer: str | None) -> Response:
    preferences = {one.strip() for one in (prefer or "").lower().split(",")}
    if "respond-async" in preferences or _is_async(services, execution):
        return accepted(execution)
    if execution.status is not models.ExecutionStatus.AWAITING_APPROVAL:
        execution = await wait_until_final(services, execution)
    if not execution.status.is_final:
        return accepted(execution)
    return finished(execution, whole="return=representation" in preferences)


def _is_async(services: Services, execution: contract.Execution) -> bool:
    metadata = services.catalog.at(execution.code_hash).get_workflow(execution.workflow)
    return metadata.execution_mode is models.ExecutionMode.ASYNC


def accepted(execution: contract.Execution) -> Response:
    """202 with the envelope and where to look."""
    return Response(
        envelope(execution).model_dump_json(),
        status_code=202,
        media_type="application/json",
        headers={**_headers(execution), "Location": f"/api/executions/{execution.id}"},
    )


def finished(execution: contract.Execution, *, whole: bool) -> Response:
    """The bare result (or the envelope) of what ended well, the failure of what did not."""
    headers = _headers(execution)
    if execution.status in FAILURE_CODES:
        return _failed(execution, headers)
    if whole:
        return Response(envelope(execution).model_dump_json(), media_type="application/json", headers=headers)
    return JSONResponse(execution.result, headers=headers)


def _failed(execution: contract.Execution, headers: dict[str, str]) -> Response:
    status, code = FAILURE_CODES[execution.status]
    message = execution.error or "The execution failed."
    if execution.error_type == "UserError":
        status, code = 400, "UserError"
    elif execution.error_type and execution.status is models.ExecutionStatus.FAILED:
        message = f"{execution.error_type}: {message}"
    content = problems.body(code, message, details=execution.error_details, execution_id=execution.id)
    return JSONResponse(content, status_code=status, headers=headers)


def _headers(execution: contract.Execution) -> dict[str, str]:
    return {
        "X-Execution-Id": execution.id,
        "X-Execution-Status": execution.status.value,
        "X-Execution-Duration-Ms": str(execution.duration_ms or 0),
    }


@router.get("/executions", operation_id="list_executions", responses=documented())
def list_executions(
    services: TheServices,
    principal: ThePrincipal,
    organization: OrganizationHeader = None,
    status: models.ExecutionStatus | None = None,
    workflow: Annotated[str | None, Query(max_length=100)] = None,
    org: Annotated[str | None, Query(description="The same as X-Organization-Id.")] = None,
    caller: Annotated[str | None, Query(max_length=200, description="Subject or email; `me` for one's own.")] = None,
    since: Instant | None = None,
    until: Instant | None = None,
    text: Annotated[str | None, Query(max_length=200, description="Part of workflow, error or inputs.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Envelope]:
    """The history, newest first."""
    own = caller == "me"
    of = list_name(principal, "executions", organization or org)
    visible = services.executions.own_organizations if own else services.executions.visible_organizations
    wanted = contract.ExecutionFilter(
        organizations=visible(principal, organization or org),
        workflow=workflow,
        status=status,
        caller=principal.subject if own else caller,
        since=since,
        until=until,
        text=text,
        before=decode_cursor(cursor, of),
        limit=limit + 1,
    )
    if wanted.organizations is None and not own:
        services.store.append_audit(ledger.audit(principal, "executions.list_all"))
    rows = services.store.list_executions(wanted)
    return page(rows, limit=limit, key=lambda row: row.id, item=envelope, of=of)


@router.get("/executions/{execution_id}", operation_id="get_execution", responses=documented())
def get_execution(execution_id: ExecutionId, services: TheServices, principal: ThePrincipal) -> Envelope:
    """One execution."""
    return envelope(services.executions.get(principal, execution_id))


@router.get("/executions/{execution_id}/inputs", operation_id="list_inputs", responses=documented())
def list_inputs(execution_id: ExecutionId, services: TheServices, principal: ThePrincipal) -> InputList:
    """What it was asked to do, masked; without what its form hid."""
    return InputList(items=services.execution_inputs.list_inputs(principal, execution_id))


@router.get(
    "/executions/{execution_id}/events",
    operation_id="list_events",
    response_model=Page[EventShape],
    responses={
        200: {
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
            "description": "A page, or the live stream by Accept.",
        },
        **documented(),
    },
)
async def list_events(
    request: Request,
    execution_id: ExecutionId,
    services: TheServices,
    principal: ThePrincipal,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    cursor: Cursor = None,
    last_event_id: Annotated[str | None, Header(description="Resume a stream after this event.")] = None,
) -> Any:
    """The events in their order; as `text/event-stream` it stays open until the execution is over."""
    execution = await run_in_threadpool(services.executions.get, principal, execution_id)
    if "text/event-stream" in request.headers.get("accept", ""):
        after = int(last_event_id) if last_event_id and last_event_id.isdecimal() and len(last_event_id) < 12 else 0
        return EventSourceResponse(_live(services, request.app.state.looks, principal, execution, after), ping=15)
    of = list_name(principal, "events", execution.id)
    after = decode_position(cursor, of)
    events = await run_in_threadpool(services.store.list_events, execution.id, after=after, limit=limit + 1)
    return page(events, limit=limit, key=lambda event: str(event.seq), item=lambda event: event.flat(), of=of)


async def _live(
    services: Services, looks: Looks, principal: Principal, execution: contract.Execution, after: int
) -> AsyncIterator[ServerSentEvent]:
    may_see = partial(_may_still_see, services, principal, execution.id)
    with listening(services.signals, execution.id) as news:
        async for event in follow(looks, news, execution.id, after, may_see):
            yield event


def _may_still_see(services: Services, principal: Principal, execution_id: str) -> bool:
    """Whoever signed out, or lost a role, meanwhile sees no more: a stream lasts as long as its execution."""
    try:
        services.executions.get(services.authenticator.renew(principal), execution_id)
    except (errors.Unauthorized, errors.Forbidden, errors.NotFound):
        return False
    return True


@router.get(
    "/executions/{execution_id}/notebook",
    operation_id="get_notebook",
    response_class=Response,
    responses={
        200: {
            "content": {
                "application/x-ipynb+json": {"schema": {"type": "object"}},
                "text/html": {"schema": {"type": "string"}},
            },
            "description": "The record; HTML by Accept.",
        },
        **documented(409),
    },
)
async def get_notebook(
    request: Request, execution_id: ExecutionId, services: TheServices, principal: ThePrincipal
) -> Response:
    """The sealed record: the notebook as it lies on disk, or a page made of it."""
    execution = await run_in_threadpool(services.executions.get_recorded, principal, execution_id)
    record = await run_in_threadpool(services.records.read, execution)
    if "text/html" not in request.headers.get("accept", ""):
        return Response(
            record,
            media_type="application/x-ipynb+json",
            headers={"Content-Disposition": f'attachment; filename="{execution.workflow}-{execution.id}.ipynb"'},
        )
    page_text = await run_in_threadpool(services.render_html, record)
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'none'"
    return Response(page_text, media_type="text/html", headers={"Content-Security-Policy": policy})


@router.post(
    "/executions/{execution_id}/cancel",
    operation_id="cancel_execution",
    status_code=202,
    response_model=Envelope,
    responses=documented(409),
)
def cancel_execution(execution_id: ExecutionId, services: TheServices, principal: ThePrincipal) -> Envelope:
    """End an execution; a running one is interrupted, and killed after the grace time."""
    return envelope(services.executions.cancel(principal, execution_id))


@router.post(
    "/executions/{execution_id}/rerun",
    operation_id="rerun_execution",
    responses={
        **RESULT,
        **documented(409, 429, 500, 504),
    },
)
async def rerun_execution(
    execution_id: ExecutionId, services: TheServices, principal: ThePrincipal, prefer: Prefer = None
) -> Response:
    """The same workflow and inputs again, with the code of now."""
    submitted = await run_in_threadpool(services.forms.rerun, principal, execution_id)
    return await _answer_submitted(services, submitted.execution, prefer)


@router.post("/executions/{execution_id}/approve", operation_id="approve_execution", responses=documented(409))
def approve_execution(execution_id: ExecutionId, services: TheServices, principal: ThePrincipal) -> Envelope:
    """Let a waiting execution run; never one's own."""
    return envelope(services.executions.approve(principal, execution_id))


@router.post("/executions/{execution_id}/reject", operation_id="reject_execution", responses=documented(409))
def reject_execution(execution_id: ExecutionId, services: TheServices, principal: ThePrincipal) -> Envelope:
    """End a waiting execution; never one's own."""
    return envelope(services.executions.reject(principal, execution_id))
