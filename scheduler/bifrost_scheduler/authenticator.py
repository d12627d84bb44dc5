"""From a presented key to a principal: API keys of the store, the operator's credential, and the development key.

`web` asks it for every request. It keeps no key in clear: presented keys are compared by their hashes, in constant
time.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime

from bifrost_kernel import errors, models
from bifrost_scheduler import tokens
from bifrost_scheduler.identity import EVERYWHERE, Principal, user_principal
from bifrost_scheduler.store import contract

MAX_KEY_CHARS = 512


class Authenticator:
    """`special` maps sha256 of a key to the principal that it stands for (operator, development)."""

    def __init__(self, store: contract.Store) -> None:
        self._store = store
        self._special: list[tuple[bytes, Principal]] = []

    def accept(self, key: str, principal: Principal) -> None:
        """Take this very key as that principal for the life of the process."""
        self._special.append((_digest(key), principal))

    def authenticate(self, key: str) -> Principal:
        """
        Raises:
            Unauthorized: unknown, malformed, expired or deleted; never which of them.
        """
        if len(key) > MAX_KEY_CHARS:
            raise _refused()
        presented = _digest(key)
        for digest, principal in self._special:
            if hmac.compare_digest(digest, presented):
                return principal
        return self._authenticate_stored(key)

    def find_person(self, email: str, *, session_id: str | None, now: datetime) -> Principal | None:
        """The person as he is now, for those who keep no key of his; None when he, or his session, is not valid."""
        found = self._store.find_user(email)
        if found is None or not found.active:
            return None
        return user_principal(found.email, name=found.name, roles=found.roles)

    def _authenticate_stored(self, key: str) -> Principal:
        now = datetime.now(UTC)
        found = tokens.find_api_key(self._store, key, now=now)
        if found is None:
            raise _refused()
        self._store.touch_key(found.id, now)
        return principal_of(found)


def principal_of(key: contract.ApiKey) -> Principal:
    """What a stored key may do."""
    permissions = frozenset(models.Permission(permission) for permission in key.permissions)
    organizations = (EVERYWHERE,) if key.organizations is None else key.organizations
    return Principal(
        subject=f"key:{key.id}",
        kind="key",
        email=key.acts_as,
        name=key.name,
        grants=dict.fromkeys(organizations, permissions),
        workflows=key.workflows,
        platform_admin=key.platform_admin,
    )


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _refused() -> errors.Unauthorized:
    return errors.Unauthorized("This key is not valid.")
