"""Routes for organizations and API keys."""

from __future__ import annotations

from fastapi import APIRouter, Response

from bifrost_scheduler.store import contract
from bifrost_scheduler.web.answers import Cursor, Limit, decode_cursor, list_name, page, problems
from bifrost_scheduler.web.authentication import OrganizationHeader, ThePrincipal, TheServices
from bifrost_scheduler.web.bodies import StrictRoute
from bifrost_scheduler.web.schemas import (
    CreatedKey,
    KeyShape,
    NewKey,
    NewOrganization,
    OrganizationChange,
    OrganizationShape,
    Page,
    key_shape,
)

router = APIRouter(prefix="/api", tags=["organizations"], route_class=StrictRoute)


def _shape(organization: contract.Organization) -> OrganizationShape:
    return OrganizationShape(**organization.model_dump())


@router.post("/organizations", operation_id="create_organization", status_code=201, responses=problems(409, 415))
def create_organization(new: NewOrganization, services: TheServices, principal: ThePrincipal) -> OrganizationShape:
    """A new tenant (PlatformAdmins)."""
    return _shape(
        services.administration.create_organization(principal, id=new.id, name=new.name, tenant_id=new.tenant_id)
    )


@router.get("/organizations", operation_id="list_organizations", responses=problems())
def list_organizations(
    services: TheServices, principal: ThePrincipal, limit: Limit = 50, cursor: Cursor = None
) -> Page[OrganizationShape]:
    """The organizations that this key may see, by id."""
    of = list_name(principal, "organizations")
    rows = services.administration.list_organizations(principal, after=decode_cursor(cursor, of), limit=limit + 1)
    return page(rows, limit=limit, key=lambda row: row.id, item=_shape, of=of)


@router.get("/organizations/{organization_id}", operation_id="get_organization", responses=problems())
def get_organization(organization_id: str, services: TheServices, principal: ThePrincipal) -> OrganizationShape:
    """One organization."""
    return _shape(services.administration.get_organization(principal, organization_id))


@router.patch("/organizations/{organization_id}", operation_id="change_organization", responses=problems(415))
def change_organization(
    organization_id: str, change: OrganizationChange, services: TheServices, principal: ThePrincipal
) -> OrganizationShape:
    """Switch it off or on (an inactive one is unknown to every other call), or say which hosts its code may reach."""
    wanted = contract.OrganizationChange(**change.model_dump(include=change.model_fields_set))
    return _shape(services.administration.change_organization(principal, organization_id, wanted))


@router.post("/keys", operation_id="create_key", status_code=201, responses=problems(415))
def create_key(new: NewKey, services: TheServices, principal: ThePrincipal) -> CreatedKey:
    """A new API key; its text is shown this once."""
    key, text = services.administration.create_key(
        principal,
        name=new.name,
        organizations=new.organizations,
        workflows=new.workflows,
        permissions=new.permissions,
        expires_at=new.expires_at,
    )
    return CreatedKey(id=key.id, key=text)


@router.get("/keys", operation_id="list_keys", responses=problems())
def list_keys(
    services: TheServices,
    principal: ThePrincipal,
    organization: OrganizationHeader = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[KeyShape]:
    """The keys of an organization; of all for PlatformAdmins."""
    of = list_name(principal, "keys", organization)
    rows = services.administration.list_keys(principal, organization, after=decode_cursor(cursor, of), limit=limit + 1)
    return page(rows, limit=limit, key=lambda row: row.id, item=key_shape, of=of)


@router.delete(
    "/keys/{key_id}", operation_id="delete_key", status_code=204, response_class=Response, responses=problems()
)
def delete_key(key_id: str, services: TheServices, principal: ThePrincipal) -> Response:
    """End a key; its next call is refused."""
    services.administration.delete_key(principal, key_id)
    return Response(status_code=204)
