"""Administrative acts beneath the API: each is authorized, and none happens without its audit entry."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bifrost_kernel import errors, models
from bifrost_scheduler.administration import Administration, config_value
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.secret_store.local import LocalSecretStore
from bifrost_scheduler.store import contract

ADMIN = Principal(subject="user:admin", kind="user", platform_admin=True)
OWNER = Principal(subject="key:owner", kind="key", grants={"acme": frozenset(models.Permission)})

ACTS: dict[str, Callable[[Administration, Principal, str], Any]] = {
    "config.set": lambda do, who, where: do.put_config(who, where, "k", "string", "v"),
    "config.delete": lambda do, who, where: do.delete_config(who, where, "there"),
    "secret.set": lambda do, who, where: do.put_secret(who, where, "s", "long-enough"),
    "secret.delete": lambda do, who, where: do.delete_secret(who, where, "there"),
    "connection.set": lambda do, who, where: do.put_connection(
        who, where, "c", secrets={}, oauth_flow_type="client_credentials", client_id="client"
    ),
    "connection.delete": lambda do, who, where: do.delete_connection(who, where, "there"),
    "key.create": lambda do, who, where: do.create_key(
        who, name="k", organizations=[where], workflows=None, permissions=[], expires_at=None
    ),
}


@pytest.fixture
def administration(store: contract.Store, tmp_path: Path, audit: contract.AuditEntry) -> Administration:
    """Administration over the organizations `acme` and `beta`, each with something of every kind."""
    (tmp_path / "keys").mkdir(mode=0o700)
    secrets = LocalSecretStore(store, tmp_path / "keys")
    made = Administration(store=store, secrets=secrets)
    for id_ in ("acme", "beta"):
        store.create_organization(contract.Organization(id=id_, name=id_, created_at=datetime.now(UTC)), audit=audit)
        made.put_config(ADMIN, id_, "there", "string", "v")
        made.put_secret(ADMIN, id_, "there", "long-enough")
        made.put_connection(ADMIN, id_, "there", secrets={}, oauth_flow_type="refresh_token", client_id="client")
    return made


def entries(store: contract.Store) -> list[dict[str, Any]]:
    return [json.loads(entry.body) for entry in store.list_ledger()]


@pytest.mark.parametrize("act", ACTS)
def test_one_act_one_entry(administration: Administration, store: contract.Store, act: str) -> None:
    """An act leaves exactly one entry, with who did it and where."""
    before = len(entries(store))
    ACTS[act](administration, OWNER, "acme")
    (entry,) = entries(store)[before:]
    assert (entry["action"], entry["actor"], entry["organization"]) == (act, "key:owner", "acme")


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("where", ["beta", "nowhere", "", models.GLOBAL])
def test_refused_act(administration: Administration, store: contract.Store, act: str, where: str) -> None:
    """An act in another organization is NotFound, as in one that never was, and changes nothing."""
    before = entries(store)
    with pytest.raises(errors.NotFound):
        ACTS[act](administration, OWNER, where)
    assert entries(store) == before


@pytest.mark.parametrize("act", ACTS)
def test_act_without_permission(administration: Administration, store: contract.Store, act: str) -> None:
    """An act without its permission is Forbidden, and changes nothing."""
    before = entries(store)
    grants = {"acme": frozenset({models.Permission.VIEW_HISTORY, models.Permission.EXECUTE_WORKFLOWS})}
    with pytest.raises(errors.Forbidden):
        ACTS[act](administration, Principal(subject="key:reader", kind="key", grants=grants), "acme")
    assert entries(store) == before


@pytest.mark.parametrize(("type_", "text"), [("int", "42"), ("bool", "true"), ("json", "[1]"), ("string", "a")])
def test_config_value_is_its_own_text(type_: str, text: str) -> None:
    """A value of a type and its text are the same value."""
    value = config_value(type_, text)
    assert config_value(type_, value) == value
