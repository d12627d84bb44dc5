"""Secrets that are encrypted with a key file of the home and kept as rows of the store. The default.

`services.build` makes it. When the key file is gone or another one while sealed rows exist, it is in *sealed mode*:
every use of a secret is `Unavailable`, everything else goes on, and nothing is overwritten until the right key is back.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from bifrost_kernel import errors
from bifrost_scheduler.secret_store.contract import Secret, SecretStore, require_maskable
from bifrost_scheduler.secret_store.keyring import KeyRing
from bifrost_scheduler.store import contract

_SECRET = "secret"
_CONNECTION = "connection"
_SAMPLES = 20
"""How many stored rows are tried at start, so that one damaged row does not look like a wrong key."""
_ATTEMPTS = 20
"""Others may write the same name at the same time; each attempt loses only when one of them won."""


class LocalSecretStore(SecretStore):
    def __init__(self, store: contract.Store, keys_dir: Path) -> None:
        """Read the keys, or create the first one when nothing has been sealed yet; never raises for a missing key."""
        self._store = store
        self._keys_dir = keys_dir
        self._sealed_because: str | None = None
        self._keys = self._read_keys()

    def check(self) -> None:
        self._ring()

    def put(self, scope: str, name: str, value: str, *, audit: contract.AuditEntry) -> contract.SealedSecret:
        text = require_maskable(name, value)
        for _ in range(_ATTEMPTS):
            sealed = self._seal(scope, name, text, by=audit.actor, at=audit.at)
            try:
                self._store.put_secret(sealed, audit=audit)
            except errors.Conflict:
                continue
            return sealed
        raise errors.Conflict(f"secret {name!r} in {scope} is being changed by others; try again")

    def open(self, sealed: contract.SealedSecret) -> Secret:
        plain = self._ring().open(
            sealed.sealed, kind=_SECRET, scope=sealed.scope, name=sealed.name, version=sealed.version
        )
        return Secret(plain.decode())

    def seal_connection(
        self, scope: str, name: str, secrets: dict[str, str], *, updated_by: str, now: datetime, **public: Any
    ) -> contract.Connection:
        version = self._store.next_connection_version(scope, name)
        sealed = self.seal_json(secrets, kind=_CONNECTION, scope=scope, name=name, version=version)
        return contract.Connection(
            scope=scope, name=name, version=version, sealed=sealed, updated_at=now, updated_by=updated_by, **public
        )

    def open_connection(self, connection: contract.Connection) -> dict[str, str]:
        opened: dict[str, str] = self.open_json(
            connection.sealed,
            kind=_CONNECTION,
            scope=connection.scope,
            name=connection.name,
            version=connection.version,
        )
        return opened

    def seal_json(self, value: Any, *, kind: str, scope: str, name: str, version: int) -> bytes:
        return self._ring().seal(json.dumps(value).encode(), kind=kind, scope=scope, name=name, version=version)

    def open_json(self, sealed: bytes, *, kind: str, scope: str, name: str, version: int) -> Any:
        return json.loads(self._ring().open(sealed, kind=kind, scope=scope, name=name, version=version))

    def value_hmac(self, organization: str, value: str) -> str:
        return self._ring().hmac(organization, value)

    def rotate(self, *, audit: contract.AuditEntry) -> int:
        self._ring().add_key()
        count = 0
        for scope in self._store.list_sealed_scopes():
            count += sum(self._again(self._reseal_secret, scope, name, audit) for name in self._secret_names(scope))
            count += sum(
                self._again(self._reseal_connection, scope, name, audit) for name in self._connection_names(scope)
            )
        return count

    # inside

    def _ring(self) -> KeyRing:
        if self._sealed_because is not None:
            raise errors.Unavailable(
                f"secrets are sealed: {self._sealed_because}. Put the right master.key back into {self._keys_dir} "
                "and start again; nothing was overwritten"
            )
        return self._keys

    def _read_keys(self) -> KeyRing:
        ring = KeyRing(self._keys_dir)
        samples = list(itertools.islice(self._samples(), _SAMPLES))
        if ring.empty and not samples:
            ring.add_key()
        elif ring.empty:
            self._sealed_because = "the master key is missing"
        elif samples and not any(_opens(ring, *sample) for sample in samples):
            self._sealed_because = "the master key does not open what is stored"
        return ring

    def _samples(self) -> Iterator[tuple[str, contract.SealedSecret | contract.Connection]]:
        for scope in self._store.list_sealed_scopes():
            yield from ((_SECRET, row) for row in self._store.list_secrets(scope, limit=2))
            yield from ((_CONNECTION, row) for row in self._store.list_connections(scope, limit=2))

    def _seal(self, scope: str, name: str, text: str, *, by: str, at: datetime) -> contract.SealedSecret:
        version = self._store.next_secret_version(scope, name)
        sealed = self._ring().seal(text.encode(), kind=_SECRET, scope=scope, name=name, version=version)
        return contract.SealedSecret(
            scope=scope, name=name, version=version, sealed=sealed, updated_at=at, updated_by=by
        )

    def _secret_names(self, scope: str) -> Iterator[str]:
        after: str | None = None
        while page := self._store.list_secrets(scope, after=after):
            yield from (row.name for row in page)
            after = page[-1].name

    def _connection_names(self, scope: str) -> Iterator[str]:
        after: str | None = None
        while page := self._store.list_connections(scope, after=after):
            yield from (row.name for row in page)
            after = page[-1].name

    def _again(
        self, reseal: Callable[[str, str, contract.AuditEntry], bool], scope: str, name: str, audit: contract.AuditEntry
    ) -> bool:
        for _ in range(_ATTEMPTS):
            try:
                return reseal(scope, name, audit.model_copy(update={"organization": scope, "target": name}))
            except errors.Conflict:
                continue  # Somebody wrote a new version, which may still be under the old key: look again.
        raise errors.Conflict(f"{name!r} in {scope} is being changed by others; rotate again")

    def _reseal_secret(self, scope: str, name: str, audit: contract.AuditEntry) -> bool:
        row = self._store.find_secret(scope, name)
        if row is None or row.sealed[0] == self._ring().current:
            return False
        version = self._store.next_secret_version(scope, name)
        plain = self._ring().open(row.sealed, kind=_SECRET, scope=scope, name=name, version=row.version)
        sealed = self._ring().seal(plain, kind=_SECRET, scope=scope, name=name, version=version)
        self._store.put_secret(row.model_copy(update={"version": version, "sealed": sealed}), audit=audit)
        return True

    def _reseal_connection(self, scope: str, name: str, audit: contract.AuditEntry) -> bool:
        row = self._store.find_connection(scope, name)
        if row is None or row.sealed[0] == self._ring().current:
            return False
        version = self._store.next_connection_version(scope, name)
        sealed = self.seal_json(self.open_connection(row), kind=_CONNECTION, scope=scope, name=name, version=version)
        self._store.put_connection(row.model_copy(update={"version": version, "sealed": sealed}), audit=audit)
        return True


def _opens(ring: KeyRing, kind: str, row: contract.SealedSecret | contract.Connection) -> bool:
    try:
        ring.open(row.sealed, kind=kind, scope=row.scope, name=row.name, version=row.version)
    except errors.Unavailable:
        return False
    return True
