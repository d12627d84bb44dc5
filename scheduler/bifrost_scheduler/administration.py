"""What administrators do: organizations, keys, config, secrets, connections. Each act is authorized and audited here.

`web` calls it. Every write goes with its audit entry in one transaction; no method gives a secret's value back.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from bifrost_kernel import egress_list, errors, jsonable, models
from bifrost_scheduler import identity, ledger, tokens
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.secret_store.contract import SecretStore
from bifrost_scheduler.store import contract

Permission = models.Permission

ConfigType = Literal["string", "int", "bool", "json", "secret_ref"]

MIN_TOKEN_CHARS = 8
"""A shorter token could not be masked in records."""


class Administration:
    def __init__(self, *, store: contract.Store, secrets: SecretStore) -> None:
        self._store = store
        self._secrets = secrets

    # organizations

    def create_organization(
        self, principal: Principal, *, id: str, name: str, tenant_id: str | None
    ) -> contract.Organization:
        """
        Raises:
            Forbidden: only PlatformAdmins make organizations.
            Conflict: the id is taken.
        """
        _require_platform_admin(principal, "create organizations")
        if id.upper() == models.GLOBAL:
            raise errors.ValidationError("GLOBAL is the scope of everybody and can't be an organization's id.")
        organization = contract.Organization(id=id, name=name, tenant_id=tenant_id, created_at=datetime.now(UTC))
        self._store.create_organization(
            organization, audit=ledger.audit(principal, "organization.create", organization=id, target=id)
        )
        return organization

    def change_organization(
        self, principal: Principal, organization: str, change: contract.OrganizationChange
    ) -> contract.Organization:
        """
        Raises:
            NotFound: unknown or foreign.
            Forbidden: only PlatformAdmins change organizations.
            ValidationError: nothing is to be changed, or an entry of `egress` is no host.
        """
        if not identity.may_see(principal, organization) or self._store.find_organization(organization) is None:
            raise identity.organization_not_found(organization)
        _require_platform_admin(principal, "change organizations")
        _check_change(change)
        return self._store.change_organization(
            organization,
            change,
            audit=ledger.audit(principal, "organization.change", organization=organization, details=change.given),
        )

    def get_organization(self, principal: Principal, organization: str) -> contract.Organization:
        """Raises `NotFound`."""
        found = self._store.find_organization(organization)
        if found is None or not identity.may_see(principal, organization) or _is_hidden(principal, found):
            raise identity.organization_not_found(organization)
        return found

    def list_organizations(self, principal: Principal, *, after: str | None, limit: int) -> list[contract.Organization]:
        """Those that the principal may see, by id."""
        if principal.organizations is None:
            return self._store.list_organizations(after=after, limit=limit)
        ids = [id for id in principal.organizations if after is None or id > after]
        found = (self._store.find_organization(id) for id in ids)
        return [one for one in found if one is not None and not _is_hidden(principal, one)][:limit]

    # keys

    def create_key(
        self,
        principal: Principal,
        *,
        name: str,
        organizations: Sequence[str],
        workflows: Sequence[str] | None,
        permissions: Sequence[Permission],
        expires_at: datetime | None,
    ) -> tuple[contract.ApiKey, str]:
        """A new key and its text, which is shown this once.

        Raises:
            NotFound: an organization is unknown or foreign.
            Forbidden: it would hold more than its maker does.
        """
        for organization in organizations:
            self._require_scope(principal, organization)
            identity.authorize(principal, Permission.MANAGE_USERS, organization)
            for permission in permissions:
                identity.authorize(principal, permission, organization)
        _require_no_longer_life(principal, expires_at)
        if principal.workflows is not None and not set(principal.workflows).issuperset(
            ("*",) if workflows is None else workflows
        ):
            raise errors.Forbidden("A key that is limited to workflows makes keys for these workflows only.")
        key, text = tokens.make_api_key(
            name=name,
            organizations=tuple(organizations),
            workflows=None if workflows is None else tuple(workflows),
            permissions=tuple(permission.value for permission in permissions),
            created_by=principal.subject,
            made_by=principal.made_by,
            now=datetime.now(UTC),
            expires_at=expires_at,
        )
        details = {"name": name, "organizations": list(organizations), "permissions": list(key.permissions)}
        self._store.create_key(
            key,
            audit=ledger.audit(principal, "key.create", organization=organizations[0], target=key.id, details=details),
        )
        return key, text

    def list_keys(
        self, principal: Principal, organization: str | None, *, after: str | None, limit: int
    ) -> list[contract.ApiKey]:
        """Keys of one organization; of all for PlatformAdmins."""
        if organization is None:
            _require_platform_admin(principal, "list the keys of every organization")
        else:
            self._require_scope(principal, organization)
            identity.authorize(principal, Permission.MANAGE_USERS, organization)
        return self._store.list_keys(organization=organization, after=after, limit=limit)

    def delete_key(self, principal: Principal, key_id: str) -> None:
        """Raises `NotFound`: unknown, or of an organization that the principal does not manage."""
        key = self._store.find_key(key_id)
        if key is None or not all(identity.may_see(principal, one) for one in key.organizations or ("*",)):
            raise errors.NotFound(f"There is no key {key_id!r}.")
        for organization in key.organizations or ():
            identity.authorize(principal, Permission.MANAGE_USERS, organization)
        self._store.delete_key(key_id, audit=ledger.audit(principal, "key.delete", target=key_id))

    # config

    def put_config(
        self, principal: Principal, scope: str, key: str, type_: ConfigType, value: Any
    ) -> contract.ConfigEntry:
        """
        Raises:
            ValidationError: the value is not of the type, nor its text.
        """
        self._authorize(principal, Permission.MANAGE_CONFIG, scope)
        entry = contract.ConfigEntry(
            scope=scope,
            key=key,
            type=type_,
            value=json.dumps(config_value(type_, value), ensure_ascii=True),
            updated_at=datetime.now(UTC),
            updated_by=principal.subject,
        )
        self._store.put_config(
            entry,
            audit=ledger.audit(principal, "config.set", organization=scope, target=key, details={"type": type_}),
        )
        return entry

    def get_config(self, principal: Principal, scope: str, key: str) -> contract.ConfigEntry:
        """Raises `NotFound`."""
        self._authorize(principal, Permission.MANAGE_CONFIG, scope)
        found = self._store.find_config(scope, key)
        if found is None:
            raise errors.NotFound(f"There is no config {key!r} in {scope}.")
        return found

    def list_config(
        self, principal: Principal, scope: str, *, after: str | None, limit: int
    ) -> list[contract.ConfigEntry]:
        self._authorize(principal, Permission.MANAGE_CONFIG, scope)
        return self._store.list_config(scope, after=after, limit=limit)

    def delete_config(self, principal: Principal, scope: str, key: str) -> None:
        """Raises `NotFound`."""
        self._authorize(principal, Permission.MANAGE_CONFIG, scope)
        self._store.delete_config(
            scope, key, audit=ledger.audit(principal, "config.delete", organization=scope, target=key)
        )

    # secrets

    def put_secret(self, principal: Principal, scope: str, name: str, value: str) -> contract.SealedSecret:
        """
        Raises:
            ValidationError: too short to be masked, or too long.
        """
        self._authorize(principal, Permission.MANAGE_SECRETS, scope)
        return self._secrets.put(
            scope, name, value, audit=ledger.audit(principal, "secret.set", organization=scope, target=name)
        )

    def list_secrets(
        self, principal: Principal, scope: str, *, after: str | None, limit: int
    ) -> list[contract.SealedSecret]:
        self._authorize(principal, Permission.MANAGE_SECRETS, scope)
        return self._store.list_secrets(scope, after=after, limit=limit)

    def delete_secret(self, principal: Principal, scope: str, name: str) -> None:
        """Raises `NotFound`."""
        self._authorize(principal, Permission.MANAGE_SECRETS, scope)
        self._store.delete_secret(
            scope, name, audit=ledger.audit(principal, "secret.delete", organization=scope, target=name)
        )

    # connections

    def put_connection(
        self,
        principal: Principal,
        scope: str,
        name: str,
        *,
        secrets: dict[str, str],
        **public: Any,
    ) -> contract.Connection:
        """Store a connection; `secrets` holds client secret and tokens and is encrypted as one.

        Raises:
            ValidationError: a token is too short to be masked.
        """
        self._authorize(principal, Permission.MANAGE_CONNECTIONS, scope)
        short = [
            errors.FieldError(field, "min_length", f"{field} is too short to be masked.")
            for field, value in secrets.items()
            if len(value.strip()) < MIN_TOKEN_CHARS
        ]
        if short:
            raise errors.ValidationError("The connection is refused.", short)
        connection = self._secrets.seal_connection(
            scope, name, secrets, updated_by=principal.subject, now=datetime.now(UTC), **public
        )
        self._store.put_connection(
            connection, audit=ledger.audit(principal, "connection.set", organization=scope, target=name)
        )
        return connection

    def list_connections(
        self, principal: Principal, scope: str, *, after: str | None, limit: int
    ) -> list[contract.Connection]:
        self._authorize(principal, Permission.MANAGE_CONNECTIONS, scope)
        return self._store.list_connections(scope, after=after, limit=limit)

    def delete_connection(self, principal: Principal, scope: str, name: str) -> None:
        """Raises `NotFound`."""
        self._authorize(principal, Permission.MANAGE_CONNECTIONS, scope)
        self._store.delete_connection(
            scope, name, audit=ledger.audit(principal, "connection.delete", organization=scope, target=name)
        )

    # audit

    def list_ledger(self, principal: Principal, *, after: int, limit: int) -> Sequence[contract.LedgerEntry]:
        """The chain of records and administrative acts, for PlatformAdmins."""
        _require_platform_admin(principal, "read the ledger")
        return self._store.list_ledger(after=after, limit=limit)

    def _authorize(self, principal: Principal, permission: Permission, scope: str) -> None:
        self._require_scope(principal, scope)
        identity.authorize(principal, permission, scope)

    def _require_scope(self, principal: Principal, scope: str) -> None:
        """Raises `NotFound` for an organization that is unknown, inactive or foreign."""
        if not identity.may_see(principal, scope):
            raise identity.organization_not_found(scope)
        if scope == models.GLOBAL:
            return
        organization = self._store.find_organization(scope)
        if organization is None or not organization.active:
            raise identity.organization_not_found(scope)


def config_value(type_: str, value: Any) -> Any:
    """The value of its type, also from its text (`"42"`, `"false"`).

    Raises:
        ValidationError: it is neither.
    """
    match type_, value:
        case ("string" | "secret_ref", str()):
            return value
        case ("int", int()) if not isinstance(value, bool):
            return value
        case ("int", str()) if value.removeprefix("-").isdecimal() and value.isascii() and len(value) <= 100:
            return int(value)
        case ("bool", bool()):
            return value
        case ("bool", "true" | "false"):
            return value == "true"
        case ("json", str()):
            return _from_text(value)
        case ("json", _):
            return value
    message = f"The value is not of type {type_}."
    raise errors.ValidationError(message, [errors.FieldError("value", "type", message)])


def _check_change(change: contract.OrganizationChange) -> None:
    if not change.model_fields_set:
        raise errors.ValidationError("Nothing is to be changed: name active, egress, or both.")
    try:
        egress_list.check(change.egress or ())
    except errors.ValidationError as error:
        raise errors.ValidationError(
            f"egress: {error.message}", [errors.FieldError("egress", "host", error.message)]
        ) from None


def _from_text(text: str) -> Any:
    """Text that is JSON (RFC 8259, no NaN, no lone surrogates) is what it says; any other text is a JSON string."""
    try:
        return jsonable.to_json(json.loads(text, parse_constant=_no_constant))
    except (ValueError, RecursionError, errors.WorkflowError):
        return text


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _is_hidden(principal: Principal, organization: contract.Organization) -> bool:
    """An inactive organization is there for PlatformAdmins only, who may switch it on again."""
    return not organization.active and not principal.platform_admin


def _require_no_longer_life(principal: Principal, expires_at: datetime | None) -> None:
    """Raises `Forbidden`: a key would make one that outlives it."""
    if principal.expires_at is not None and (expires_at is None or expires_at > principal.expires_at):
        ends = models.isoformat(principal.expires_at)
        raise errors.Forbidden(f"A key that expires makes keys that expire no later: name expires_at, up to {ends}.")


def _require_platform_admin(principal: Principal, act: str) -> None:
    if not principal.platform_admin:
        raise errors.Forbidden(f"Only PlatformAdmins {act}.")
