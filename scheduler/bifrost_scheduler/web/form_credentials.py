"""Who asks a form: anybody with a valid credential, or a form session that was opened for this very form.

The routes of a form depend on it. No other route does, so that a form session is refused everywhere else like any
unknown key.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, NamedTuple

from fastapi import Depends, Request, Security
from fastapi.security.http import HTTPAuthorizationCredentials

from bifrost_kernel import errors, models
from bifrost_scheduler import form_sessions, identity
from bifrost_scheduler.form_desk import form_not_found
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.web.authentication import (
    OrganizationHeader,
    TheServices,
    bearer,
    functions_key,
    get_principal,
)
from bifrost_scheduler.web.bodies import StrictRoute


def get_form_principal(
    request: Request,
    services: TheServices,
    key: Annotated[str | None, Security(functions_key)],
    token: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
) -> Principal:
    """
    Raises:
        Unauthorized: no credential, or none that is valid now.
        NotFound: the form session was opened for another form or organization.
    """
    credential = key or (token.credentials if token else None) or ""
    if not credential.startswith(form_sessions.PREFIX):
        return get_principal(request, services, key, token)
    session, principal = services.form_sessions.find(credential, now=datetime.now(UTC))
    request.state.principal = principal
    name, organization = str(request.path_params["name"]), request.headers.get("x-organization-id")
    if organization is not None and organization != session.organization:
        raise identity.organization_not_found(organization)
    if name != session.form:
        raise form_not_found(name)
    request.state.organization = session.organization
    return principal


class FormRoute(StrictRoute):
    """A strict route that takes form sessions too."""

    authenticate = staticmethod(get_form_principal)


class FormCaller(NamedTuple):
    """Who asks, and for which organization."""

    principal: Principal
    organization: str


def get_form_caller(
    request: Request,
    principal: Annotated[Principal, Depends(get_form_principal)],
    organization: OrganizationHeader = None,
) -> FormCaller:
    """Raises `ValidationError`: no organization is named."""
    given = organization or getattr(request.state, "organization", None)
    return FormCaller(principal, given or require_global(principal))


def require_global(principal: Principal) -> str:
    """`GLOBAL`, for those to whom it is there, when no organization is named.

    Raises:
        ValidationError: it is not.
    """
    if not identity.may_see(principal, models.GLOBAL):
        raise errors.ValidationError("Name an organization in the header X-Organization-Id.")
    return models.GLOBAL


TheFormCaller = Annotated[FormCaller, Depends(get_form_caller)]
