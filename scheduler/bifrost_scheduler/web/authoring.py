"""The route by which a JupyterLab kernel of an author gets its line to the broker."""

from __future__ import annotations

from fastapi import APIRouter

from bifrost_scheduler.web.answers import problems
from bifrost_scheduler.web.authentication import ThePrincipal, TheServices
from bifrost_scheduler.web.bodies import StrictRoute
from bifrost_scheduler.web.schemas import AuthoringSession, NewAuthoringSession

router = APIRouter(prefix="/api", tags=["authoring"], route_class=StrictRoute)


@router.post("/authoring-sessions", operation_id="open_authoring_session", status_code=201, responses=problems(415))
def open_authoring_session(
    new: NewAuthoringSession, services: TheServices, principal: ThePrincipal
) -> AuthoringSession:
    """A token for one kernel in JupyterLab, for one author and the organization that he chose."""
    session, token = services.authoring.open(principal, new.organization)
    return AuthoringSession(socket=str(services.authoring.path), token=token, organization=session.organization)
