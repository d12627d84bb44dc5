"""Who asks: from a request's credential to a `Principal`.

Every route but health depends on `get_principal`. It takes keys from headers only, never from an address: addresses
end up in logs.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from bifrost_kernel import errors
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.services import Services

functions_key = APIKeyHeader(name="x-functions-key", auto_error=False, description="An API key.")
bearer = HTTPBearer(auto_error=False, description="The same API key as a bearer token (RFC 6750).")


def get_services(request: Request) -> Services:
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


TheServices = Annotated[Services, Depends(get_services)]


def get_principal(
    request: Request,
    services: TheServices,
    key: Annotated[str | None, Security(functions_key)],
    token: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
) -> Principal:
    """
    Raises:
        Unauthorized: no credential, or none that is valid now.
    """
    credential = key or (token.credentials if token else None)
    if not credential:
        raise errors.Unauthorized("A key is needed: send it in the header x-functions-key or as a bearer token.")
    principal = services.authenticator.authenticate(credential)
    request.state.principal = principal
    return principal


ThePrincipal = Annotated[Principal, Depends(get_principal)]

OrganizationHeader = Annotated[
    str | None,
    Header(alias="X-Organization-Id", description="The organization to act for."),
]
