"""Routes for users and roles."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from bifrost_scheduler import people
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.store.people_contract import User
from bifrost_scheduler.web.answers import Cursor, Limit, decode_cursor, list_name, page, problems
from bifrost_scheduler.web.authentication import OrganizationHeader, ThePrincipal, TheServices
from bifrost_scheduler.web.bodies import StrictRoute
from bifrost_scheduler.web.people_schemas import (
    CreatedLink,
    NewUser,
    RoleInput,
    RoleShape,
    UserChange,
    UserShape,
    role_shape,
    user_shape,
)
from bifrost_scheduler.web.schemas import Page

router = APIRouter(prefix="/api", tags=["users and roles"], route_class=StrictRoute)

RoleName = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]
"""What a new name may look like; one that is only looked up may look like anything and is then unknown."""


def _shape(principal: Principal, user: User) -> UserShape:
    return user_shape(user, people.shown_roles(principal, user))


@router.post("/users", operation_id="create_user", status_code=201, responses=problems(409, 415))
def create_user(new: NewUser, services: TheServices, principal: ThePrincipal) -> UserShape:
    """A new person; a link or the OpenID provider lets him in."""
    user = services.people.create_user(principal, email=new.email, name=new.name, roles=new.roles)
    return _shape(principal, user)


@router.get("/users", operation_id="list_users", responses=problems())
def list_users(
    services: TheServices,
    principal: ThePrincipal,
    organization: OrganizationHeader = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[UserShape]:
    """The people of an organization, by email; of all for PlatformAdmins."""
    of = list_name(principal, "users", organization)
    rows = services.people.list_users(principal, organization, after=decode_cursor(cursor, of), limit=limit + 1)
    return page(rows, limit=limit, key=lambda row: row.email, item=lambda row: _shape(principal, row), of=of)


@router.get("/users/{email}", operation_id="get_user", responses=problems())
def get_user(email: str, services: TheServices, principal: ThePrincipal) -> UserShape:
    """One person, with the roles in the organizations that the asker manages."""
    return _shape(principal, services.people.get_user(principal, email))


@router.patch("/users/{email}", operation_id="change_user", responses=problems(409, 415))
def change_user(email: str, change: UserChange, services: TheServices, principal: ThePrincipal) -> UserShape:
    """Change the name, switch off or on, give and take roles; each counts at the next request."""
    active = None if change.disabled is None else not change.disabled
    user = services.people.change_user(principal, email, name=change.name, active=active, roles=change.roles)
    return _shape(principal, user)


@router.delete(
    "/users/{email}", operation_id="delete_user", status_code=204, response_class=Response, responses=problems(409)
)
def delete_user(email: str, services: TheServices, principal: ThePrincipal) -> Response:
    """Remove a person with his sessions; what he did stays in the history."""
    services.people.delete_user(principal, email)
    return Response(status_code=204)


@router.post("/users/{email}/link", operation_id="create_link", status_code=201, responses=problems(409))
def create_link(email: str, services: TheServices, principal: ThePrincipal) -> CreatedLink:
    """A token for one sign-in within 24 hours, also to set a password by; earlier ones end."""
    token, expires_at = services.people.make_link(principal, email)
    return CreatedLink(token=token, expires_at=expires_at)


@router.post(
    "/users/{email}/sign-out",
    operation_id="sign_out_user",
    status_code=204,
    response_class=Response,
    responses=problems(409),
)
def sign_out_user(email: str, services: TheServices, principal: ThePrincipal) -> Response:
    """End every session and link of a person."""
    services.people.sign_out(principal, email)
    return Response(status_code=204)


@router.get("/roles", operation_id="list_roles", responses=problems())
def list_roles(services: TheServices, principal: ThePrincipal) -> Page[RoleShape]:
    """The built-in roles, then the others, on one page."""
    return Page(items=[role_shape(role) for role in services.people.list_roles()])


@router.get("/roles/{name}", operation_id="get_role", responses=problems())
def get_role(name: str, services: TheServices, principal: ThePrincipal) -> RoleShape:
    """One role."""
    return role_shape(services.people.get_role(name))


@router.put("/roles/{name}", operation_id="put_role", responses=problems(409, 415))
def put_role(name: RoleName, new: RoleInput, services: TheServices, principal: ThePrincipal) -> RoleShape:
    """Define a role (PlatformAdmins); whoever has it, has it as it is now."""
    role = services.people.put_role(principal, name, description=new.description, permissions=new.permissions)
    return role_shape(role)


@router.delete(
    "/roles/{name}", operation_id="delete_role", status_code=204, response_class=Response, responses=problems(409)
)
def delete_role(name: str, services: TheServices, principal: ThePrincipal) -> Response:
    """Remove a role that nobody has (PlatformAdmins)."""
    services.people.delete_role(principal, name)
    return Response(status_code=204)
