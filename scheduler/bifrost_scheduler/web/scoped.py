"""Routes for what lies in a scope: config, secrets (write-only) and OAuth connections."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Path, Response

from bifrost_scheduler.store import contract
from bifrost_scheduler.web.answers import Cursor, Limit, TheScope, decode_cursor, list_name, page, problems
from bifrost_scheduler.web.authentication import ThePrincipal, TheServices
from bifrost_scheduler.web.bodies import StrictRoute
from bifrost_scheduler.web.schemas import (
    ConfigInput,
    ConfigShape,
    ConnectionInput,
    ConnectionShape,
    Page,
    SecretInput,
    SecretShape,
)

router = APIRouter(prefix="/api", tags=["config, secrets, connections"], route_class=StrictRoute)

Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]
"""What a new name may look like; one that is only looked up may look like anything and is then unknown."""

SEALED_FIELDS = ("client_secret", "access_token", "refresh_token")


def config_shape(entry: contract.ConfigEntry) -> ConfigShape:
    return ConfigShape(**entry.model_dump(exclude={"value"}), value=json.loads(entry.value))


def secret_shape(secret: contract.SealedSecret) -> SecretShape:
    return SecretShape(**secret.model_dump(exclude={"sealed"}))


def connection_shape(connection: contract.Connection) -> ConnectionShape:
    return ConnectionShape(**connection.model_dump(include=set(ConnectionShape.model_fields)))


@router.put("/config/{key}", operation_id="put_config", responses=problems(415))
def put_config(
    key: Name, new: ConfigInput, scope: TheScope, services: TheServices, principal: ThePrincipal
) -> ConfigShape:
    """Set a config value."""
    return config_shape(services.administration.put_config(principal, scope, key, new.type, new.value))


@router.get("/config", operation_id="list_config", responses=problems())
def list_config(
    scope: TheScope, services: TheServices, principal: ThePrincipal, limit: Limit = 50, cursor: Cursor = None
) -> Page[ConfigShape]:
    """The config of one scope, by key, without what it falls back to."""
    of = list_name(principal, "config", scope)
    rows = services.administration.list_config(principal, scope, after=decode_cursor(cursor, of), limit=limit + 1)
    return page(rows, limit=limit, key=lambda row: row.key, item=config_shape, of=of)


@router.get("/config/{key}", operation_id="get_config", responses=problems())
def get_config(key: str, scope: TheScope, services: TheServices, principal: ThePrincipal) -> ConfigShape:
    """One config value of this very scope."""
    return config_shape(services.administration.get_config(principal, scope, key))


@router.delete(
    "/config/{key}", operation_id="delete_config", status_code=204, response_class=Response, responses=problems()
)
def delete_config(key: str, scope: TheScope, services: TheServices, principal: ThePrincipal) -> Response:
    """Remove a config value; lookups fall back again."""
    services.administration.delete_config(principal, scope, key)
    return Response(status_code=204)


@router.put("/secrets/{name}", operation_id="put_secret", responses=problems(409, 415))
def put_secret(
    name: Name, new: SecretInput, scope: TheScope, services: TheServices, principal: ThePrincipal
) -> SecretShape:
    """Set a secret; its value never comes back."""
    return secret_shape(services.administration.put_secret(principal, scope, name, new.value))


@router.get("/secrets", operation_id="list_secrets", responses=problems())
def list_secrets(
    scope: TheScope, services: TheServices, principal: ThePrincipal, limit: Limit = 50, cursor: Cursor = None
) -> Page[SecretShape]:
    """Names and versions, never values."""
    of = list_name(principal, "secrets", scope)
    rows = services.administration.list_secrets(principal, scope, after=decode_cursor(cursor, of), limit=limit + 1)
    return page(rows, limit=limit, key=lambda row: row.name, item=secret_shape, of=of)


@router.delete(
    "/secrets/{name}", operation_id="delete_secret", status_code=204, response_class=Response, responses=problems()
)
def delete_secret(name: str, scope: TheScope, services: TheServices, principal: ThePrincipal) -> Response:
    """Remove a secret for good."""
    services.administration.delete_secret(principal, scope, name)
    return Response(status_code=204)


@router.put("/connections/{name}", operation_id="put_connection", responses=problems(409, 415))
def put_connection(
    name: Name, new: ConnectionInput, scope: TheScope, services: TheServices, principal: ThePrincipal
) -> ConnectionShape:
    """Set an OAuth connection; its tokens and client secret never come back."""
    given = new.model_dump()
    secrets = {field: value for field in SEALED_FIELDS if (value := given.pop(field)) is not None}
    given["scopes"] = tuple(given["scopes"])
    return connection_shape(services.administration.put_connection(principal, scope, name, secrets=secrets, **given))


@router.get("/connections", operation_id="list_connections", responses=problems())
def list_connections(
    scope: TheScope, services: TheServices, principal: ThePrincipal, limit: Limit = 50, cursor: Cursor = None
) -> Page[ConnectionShape]:
    """The connections of one scope, by name."""
    of = list_name(principal, "connections", scope)
    rows = services.administration.list_connections(principal, scope, after=decode_cursor(cursor, of), limit=limit + 1)
    return page(rows, limit=limit, key=lambda row: row.name, item=connection_shape, of=of)


@router.delete(
    "/connections/{name}",
    operation_id="delete_connection",
    status_code=204,
    response_class=Response,
    responses=problems(),
)
def delete_connection(name: str, scope: TheScope, services: TheServices, principal: ThePrincipal) -> Response:
    """Remove a connection and its tokens."""
    services.administration.delete_connection(principal, scope, name)
    return Response(status_code=204)
