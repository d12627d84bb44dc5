"""Routes for people who fill in forms, and for the pages that they do it on."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from bifrost_scheduler.envelopes import Envelope
from bifrost_scheduler.form_view import FormView
from bifrost_scheduler.forms import Form
from bifrost_scheduler.web import bodies
from bifrost_scheduler.web.answers import Cursor, Limit, decode_cursor, list_name, page, problems
from bifrost_scheduler.web.authentication import OrganizationHeader, ThePrincipal, TheServices
from bifrost_scheduler.web.executions import EXECUTION_HEADERS, IDEMPOTENCY, accepted
from bifrost_scheduler.web.form_credentials import FormRoute, TheFormCaller, require_global
from bifrost_scheduler.web.form_shapes import (
    DraftShape,
    FormItem,
    OptionsQuestion,
    form_item,
)
from bifrost_scheduler.web.schemas import OptionList, Page

router = APIRouter(prefix="/api", tags=["forms"], route_class=FormRoute)

VALUES = {
    "requestBody": {
        "description": "Values by the names of the fields, as one flat object.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}


@router.get("/forms", operation_id="list_forms", responses=problems())
def list_forms(
    services: TheServices,
    principal: ThePrincipal,
    organization: OrganizationHeader = None,
    category: Annotated[str | None, Query(max_length=200)] = None,
    text: Annotated[str | None, Query(max_length=200, description="Part of name, title, text or a tag.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[FormItem]:
    """The forms that one may use for this organization, by name."""
    scope = organization or require_global(principal)
    of = list_name(principal, "forms", scope, category, text)
    after = decode_cursor(cursor, of) or ""
    rows = [
        form
        for form in services.forms.list_forms(principal, scope)
        if form.name > after and _is_wanted(form, category, text)
    ]
    return page(rows[: limit + 1], limit=limit, key=lambda form: form.name, item=form_item, of=of)


def _is_wanted(form: Form, category: str | None, text: str | None) -> bool:
    if category is not None and form.category != category:
        return False
    tags = form.workflow.tags if form.workflow else ()
    return text is None or any(text.casefold() in one.casefold() for one in (form.name, form.title, form.text, *tags))


@router.get("/forms/{name}", operation_id="get_form", responses=problems(409))
def get_form(name: str, services: TheServices, caller: TheFormCaller) -> FormView:
    """A form to be filled in: its fields, their choices as far as they are known, and the schema of its values."""
    return services.forms.show(caller.principal, caller.organization, name)


@router.post(
    "/forms/{name}",
    operation_id="submit_form",
    status_code=202,
    response_model=Envelope,
    responses={
        202: {"description": "Accepted; follow Location.", "headers": EXECUTION_HEADERS},
        **problems(409, 415, 429, 500),
    },
    openapi_extra=VALUES,
)
async def submit_form(
    request: Request,
    name: str,
    services: TheServices,
    caller: TheFormCaller,
    idempotency_key: Annotated[str | None, Header(description=IDEMPOTENCY)] = None,
) -> Response:
    """Run the form's workflow with these values and what the form binds."""
    values = await bodies.read_object(request)
    submitted = await run_in_threadpool(
        services.forms.submit,
        caller.principal,
        caller.organization,
        name,
        values,
        idempotency_key=idempotency_key,
    )
    return accepted(submitted.execution)


@router.post("/forms/{name}/options/{field}", operation_id="ask_options", responses=problems(409, 415, 429, 500))
def ask_options(
    name: str, field: str, question: OptionsQuestion, services: TheServices, caller: TheFormCaller
) -> OptionList:
    """What a field offers, given the current values of the others."""
    cached = services.forms.options(
        caller.principal, caller.organization, name, field, question.values, refresh=question.refresh
    )
    return OptionList(items=list(cached.options), cached_at=cached.cached_at)


@router.get("/forms/{name}/draft", operation_id="get_draft", responses=problems(409))
def get_draft(name: str, services: TheServices, caller: TheFormCaller) -> DraftShape:
    """What one has filled in so far; `updated_at` is null when that is nothing."""
    draft = services.forms.get_draft(caller.principal, caller.organization, name)
    return DraftShape(values=draft.values, updated_at=draft.updated_at)


@router.put("/forms/{name}/draft", operation_id="put_draft", responses=problems(409, 415), openapi_extra=VALUES)
async def put_draft(request: Request, name: str, services: TheServices, caller: TheFormCaller) -> DraftShape:
    """Keep what one has filled in so far, for 30 days."""
    values: dict[str, Any] = await bodies.read_object(request)
    draft = await run_in_threadpool(services.forms.put_draft, caller.principal, caller.organization, name, values)
    return DraftShape(values=draft.values, updated_at=draft.updated_at)


@router.delete(
    "/forms/{name}/draft",
    operation_id="delete_draft",
    status_code=204,
    response_class=Response,
    responses=problems(409),
)
def delete_draft(name: str, services: TheServices, caller: TheFormCaller) -> Response:
    """Forget it."""
    services.forms.delete_draft(caller.principal, caller.organization, name)
    return Response(status_code=204)
