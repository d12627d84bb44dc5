"""Routes for those who manage forms, and the one that opens a form session for a page of the portal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Response

from bifrost_kernel.form_definitions import FormDefinition
from bifrost_scheduler import ledger
from bifrost_scheduler.form_administration import Definition
from bifrost_scheduler.web.answers import Cursor, Limit, TheScope, decode_cursor, list_name, page, problems
from bifrost_scheduler.web.authentication import OrganizationHeader, ThePrincipal, TheServices
from bifrost_scheduler.web.bodies import StrictRoute
from bifrost_scheduler.web.form_credentials import require_global
from bifrost_scheduler.web.form_shapes import FormSessionShape, NewFormSession
from bifrost_scheduler.web.schemas import Page

router = APIRouter(prefix="/api", tags=["forms"], route_class=StrictRoute)

NewName = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
"""What a new name may look like; one that is only looked up may look like anything and is then unknown."""


@router.put("/forms/{name}", operation_id="put_form", responses=problems(415))
def put_form(
    name: NewName, definition: FormDefinition, scope: TheScope, services: TheServices, principal: ThePrincipal
) -> Definition:
    """Set a form object of an organization, or of the platform; it replaces what else has its name."""
    return services.form_definitions.put(principal, scope, name, definition)


@router.delete(
    "/forms/{name}", operation_id="delete_form", status_code=204, response_class=Response, responses=problems()
)
def delete_form(name: str, scope: TheScope, services: TheServices, principal: ThePrincipal) -> Response:
    """Remove a form object; what it replaced is there again."""
    services.form_definitions.delete(principal, scope, name)
    return Response(status_code=204)


@router.get("/form-definitions", operation_id="list_form_definitions", responses=problems())
def list_form_definitions(
    scope: TheScope, services: TheServices, principal: ThePrincipal, limit: Limit = 50, cursor: Cursor = None
) -> Page[Definition]:
    """The form objects of one scope, hidden values included; with GLOBAL those of the workspace too."""
    of = list_name(principal, "form-definitions", scope)
    after = decode_cursor(cursor, of) or ""
    rows = [one for one in services.form_definitions.list_definitions(principal, scope) if one.name > after]
    return page(rows[: limit + 1], limit=limit, key=lambda one: one.name, item=lambda one: one, of=of)


@router.get("/form-definitions/{name}", operation_id="get_form_definition", responses=problems())
def get_form_definition(name: str, scope: TheScope, services: TheServices, principal: ThePrincipal) -> Definition:
    """One form object of exactly this scope."""
    return services.form_definitions.get(principal, scope, name)


@router.post("/form-sessions", operation_id="open_form_session", status_code=201, responses=problems(409, 415))
def open_form_session(
    new: NewFormSession, services: TheServices, principal: ThePrincipal, organization: OrganizationHeader = None
) -> FormSessionShape:
    """A token that is good for one form of one organization and nothing else, for a person who may use it."""
    scope = organization or require_global(principal)
    services.forms.get(principal, scope, new.form)
    token, session = services.form_sessions.open(principal, organization=scope, form=new.form, now=datetime.now(UTC))
    services.store.append_audit(ledger.audit(principal, "form_session.open", organization=scope, target=new.form))
    return FormSessionShape(token=token, expires_at=session.expires_at)
