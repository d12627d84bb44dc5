"""Routes by which people sign in and out; some are open, since whoever comes there has nothing to show yet."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, Response

from bifrost_scheduler import sign_in
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.services import Services
from bifrost_scheduler.store.session_contract import Session
from bifrost_scheduler.web.answers import Cursor, Limit, decode_cursor, list_name, page, problems
from bifrost_scheduler.web.authentication import ThePrincipal, TheServices, TheSource
from bifrost_scheduler.web.bodies import OpenRoute, StrictRoute
from bifrost_scheduler.web.people_schemas import (
    AuthorizationShape,
    CreatedOpenIdSession,
    CreatedSession,
    CurrentSession,
    MembershipShape,
    NewAuthorization,
    NewOpenIdSession,
    NewSession,
    OpenIdShape,
    PasswordChange,
    PersonShape,
    SessionShape,
    Setup,
    SignInShape,
)
from bifrost_scheduler.web.schemas import Page

ALL_ORGANIZATIONS = 1_000_000

open_router = APIRouter(prefix="/api", tags=["signing in"], route_class=OpenRoute)
router = APIRouter(prefix="/api/sessions", tags=["signing in"], route_class=StrictRoute)


def created(signed_in: sign_in.SignedIn) -> CreatedSession:
    person = PersonShape(email=signed_in.email, name=signed_in.name)
    return CreatedSession(token=signed_in.token, expires_at=signed_in.expires_at, user=person)


@open_router.get("/sign-in", operation_id="get_sign_in", responses={503: problems(503)[503]})
def get_sign_in(services: TheServices) -> SignInShape:
    """The ways to sign in that there are; open to everybody."""
    settings = services.settings
    openid = OpenIdShape(name=settings.oidc_name) if settings.oidc_issuer else None
    return SignInShape(oidc=openid, setup=services.sign_in.is_unset(), password=True)


@open_router.post("/sessions", operation_id="create_session", status_code=201, responses=problems(415, 429))
def create_session(new: NewSession, services: TheServices, source: TheSource) -> CreatedSession:
    """Sign in by email and password, or by a one-time link, which may set a password."""
    now = datetime.now(UTC)
    if new.link is not None:
        return created(services.sign_in.with_link(new.link, source, password=new.password, now=now))
    assert new.email is not None
    assert new.password is not None
    return created(services.sign_in.with_password(new.email, new.password, source, now=now))


@open_router.post("/setup", operation_id="set_up", status_code=201, responses=problems(415, 429))
def set_up(new: Setup, services: TheServices, source: TheSource) -> CreatedSession:
    """Make the first PlatformAdmin with the token that the start printed, and sign in."""
    signed_in = services.sign_in.set_up(
        new.token, source, email=new.email, name=new.name, password=new.password, now=datetime.now(UTC)
    )
    return created(signed_in)


@open_router.post(
    "/oidc/authorizations", operation_id="create_authorization", status_code=201, responses=problems(415, 429)
)
def create_authorization(new: NewAuthorization, services: TheServices, source: TheSource) -> AuthorizationShape:
    """Begin to sign in at the OpenID provider: where the portal sends the browser."""
    begun = services.openid.begin(source, redirect_uri=new.redirect_uri, return_to=new.return_to, now=datetime.now(UTC))
    return AuthorizationShape(authorization_url=begun.authorization_url, binding=begun.binding)


@open_router.post(
    "/oidc/sessions", operation_id="create_openid_session", status_code=201, responses=problems(409, 415, 429)
)
def create_openid_session(new: NewOpenIdSession, services: TheServices, source: TheSource) -> CreatedOpenIdSession:
    """Finish to sign in at the OpenID provider, with what it sent the browser back with."""
    signed_in, return_to = services.openid.finish(
        source, binding=new.binding, redirect_uri=new.redirect_uri, query=new.query, now=datetime.now(UTC)
    )
    return CreatedOpenIdSession(**created(signed_in).model_dump(), return_to=return_to)


@router.get("/current", operation_id="get_current_session", responses=problems())
def get_current(services: TheServices, principal: ThePrincipal) -> CurrentSession:
    """Who is signed in, and what he may do where; 403 for keys."""
    session = services.sessions.get_current(principal)
    return CurrentSession(
        user=PersonShape(email=session.email, name=principal.name or session.email),
        platform_admin=principal.platform_admin,
        organizations=_memberships(services, principal),
        expires_at=session.expires_at,
    )


def _memberships(services: Services, principal: Principal) -> list[MembershipShape]:
    found = services.administration.list_organizations(principal, after=None, limit=ALL_ORGANIZATIONS)
    return [
        MembershipShape(id=one.id, name=one.name, permissions=sorted(principal.permissions_in(one.id)))
        for one in found
        if one.active
    ]


@router.delete(
    "/current", operation_id="end_current_session", status_code=204, response_class=Response, responses=problems()
)
def end_current(services: TheServices, principal: ThePrincipal, source: TheSource) -> Response:
    """Sign out."""
    services.sessions.end_current(principal, source)
    return Response(status_code=204)


@router.put(
    "/current/password",
    operation_id="change_password",
    status_code=204,
    response_class=Response,
    responses=problems(415, 429),
)
def change_password(
    change: PasswordChange, services: TheServices, principal: ThePrincipal, source: TheSource
) -> Response:
    """Set a new password (12 to 256 characters); every other session of this person ends."""
    services.sign_in.change_password(principal, source, current=change.current, new=change.new, now=datetime.now(UTC))
    return Response(status_code=204)


@router.get("", operation_id="list_sessions", responses=problems())
def list_sessions(
    services: TheServices, principal: ThePrincipal, limit: Limit = 50, cursor: Cursor = None
) -> Page[SessionShape]:
    """One's own sessions; 403 for keys."""
    of = list_name(principal, "sessions")
    rows = services.sessions.list_own(
        principal, after=decode_cursor(cursor, of), limit=limit + 1, now=datetime.now(UTC)
    )

    def shape(session: Session) -> SessionShape:
        kept = session.model_dump(include=set(SessionShape.model_fields))
        return SessionShape(**kept, current=session.id == principal.session_id)

    return page(rows, limit=limit, key=lambda row: row.id, item=shape, of=of)


@router.delete("", operation_id="end_sessions", status_code=204, response_class=Response, responses=problems())
def end_sessions(services: TheServices, principal: ThePrincipal, source: TheSource) -> Response:
    """Sign out everywhere."""
    services.sessions.end_all(principal, source)
    return Response(status_code=204)
