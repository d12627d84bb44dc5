"""Who asks, and from where: from a request's credential to a `Principal`, from its headers to a `Source`.

Every route but health depends on `get_principal`, or on `get_credential` and does the rest itself. Keys are taken from
headers only, never from an address: addresses end up in logs.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated

from fastapi import Depends, Header, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from bifrost_kernel import errors
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.services import Services
from bifrost_scheduler.sessions import Source

functions_key = APIKeyHeader(name="x-functions-key", auto_error=False, description="An API key.")
bearer = HTTPBearer(auto_error=False, description="An API key, or the token of a session (RFC 6750).")


def services_of(request: Request) -> Services:
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


async def get_services(request: Request) -> Services:
    """On the loop: what is not `async` costs a trip to a thread at every request."""
    return services_of(request)


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
    return authenticate(request, services, _credential_of(key, token))


async def get_credential(
    key: Annotated[str | None, Security(functions_key)],
    token: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
) -> str:
    """What `authenticate` takes, for a route that does that where it goes to a thread anyway.

    Raises:
        Unauthorized: there is none.
    """
    return _credential_of(key, token)


TheCredential = Annotated[str, Depends(get_credential)]


def authenticate(request: Request, services: Services, credential: str) -> Principal:
    """
    Raises:
        Unauthorized: it is not valid now.
    """
    principal = services.authenticator.authenticate(credential)
    request.state.principal = principal
    _refuse_repeated(request)
    return principal


def _credential_of(key: str | None, token: HTTPAuthorizationCredentials | None) -> str:
    credential = key or (token.credentials if token else None)
    if not credential:
        raise errors.Unauthorized("A key is needed: send it in the header x-functions-key or as a bearer token.")
    return credential


def _refuse_repeated(request: Request) -> None:
    """No parameter of any route means more than one value: of two, one would be ignored without a word.

    Raises:
        ValidationError: the name of the first that is given twice.
    """
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name in seen:
            message = f"The parameter {name[:80]!r} is given twice."
            raise errors.ValidationError(message, [errors.FieldError(name[:80], "duplicate", message)])
        seen.add(name)


ThePrincipal = Annotated[Principal, Depends(get_principal)]


def address_of(request: Request) -> str:
    """The browser's address where our own portal names it, else that of whoever is connected."""
    peer = request.client.host if request.client else "unknown"
    portal, forwarded = request.headers.get("x-bifrost-portal"), request.headers.get("x-forwarded-for")
    if portal is None or forwarded is None or not services_of(request).authenticator.is_portal(portal):
        return peer
    try:
        return str(ipaddress.ip_address(forwarded.strip()))
    except ValueError:
        return peer


def get_source(request: Request) -> Source:
    return Source(address=address_of(request), agent=request.headers.get("user-agent"))


TheSource = Annotated[Source, Depends(get_source)]

OrganizationHeader = Annotated[
    str | None,
    Header(alias="X-Organization-Id", description="The organization to act for."),
]
