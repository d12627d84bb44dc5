"""From a presented credential to a principal: sessions of people, API keys, the operator's and the development key.

`web` asks it for every request. It keeps no key in clear: presented keys are compared by their hashes, in constant
time.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime

from bifrost_kernel import errors, models
from bifrost_scheduler import roles, sessions, tokens
from bifrost_scheduler.identity import EVERYWHERE, Principal
from bifrost_scheduler.store import contract

MAX_KEY_CHARS = 512


class Authenticator:
    """`special` maps sha256 of a key to the principal that it stands for (operator, development)."""

    def __init__(self, store: contract.Store, people: sessions.Sessions) -> None:
        self._store = store
        self._sessions = people
        self._special: list[tuple[bytes, Principal]] = []
        self._portals: list[bytes] = []

    def accept(self, key: str, principal: Principal) -> None:
        """Take this very key as that principal for the life of the process."""
        self._special.append((_digest(key), principal))

    def accept_portal(self, key: str) -> None:
        """Believe whoever shows this key in `X-Bifrost-Portal` which address a browser has; it opens nothing else."""
        self._portals.append(_digest(key))

    def is_portal(self, key: str) -> bool:
        """Whether this is the key of a portal that this process started."""
        presented = _digest(key)
        return any(hmac.compare_digest(digest, presented) for digest in self._portals)

    def authenticate(self, key: str) -> Principal:
        """
        Raises:
            Unauthorized: unknown, malformed, expired or deleted; never which of them.
        """
        if len(key) > MAX_KEY_CHARS:
            raise _refused()
        if key.startswith(sessions.PREFIX):
            return self._authenticate_person(key)
        presented = _digest(key)
        for digest, principal in self._special:
            if hmac.compare_digest(digest, presented):
                return principal
        return self._authenticate_stored(key)

    def find_person(self, email: str, *, session_id: str | None, now: datetime) -> Principal | None:
        """The person as he is now, for those who keep no key of his; None when he, or his session, is not valid."""
        if session_id is not None:
            found = self._sessions.find_principal_by_id(session_id, now=now)
            return found if found is not None and found.email == email else None
        user = self._store.find_user(email)
        return None if user is None or not user.active else roles.principal_of(self._store, user)

    def renew(self, principal: Principal) -> Principal:
        """The same one with the rights of now, for calls that stay open.

        Raises:
            Unauthorized: its credential is not valid any more.
        """
        found: Principal | None = principal
        if principal.kind == "user":
            found = self.find_person(principal.email or "", session_id=principal.session_id, now=datetime.now(UTC))
        elif principal.kind == "key":
            key = self._store.find_key(principal.subject.removeprefix("key:"))
            is_over = key is None or (key.expires_at is not None and key.expires_at <= datetime.now(UTC))
            found = None if key is None or is_over else principal_of(key)
        if found is None:
            raise _refused()
        return found

    def _authenticate_person(self, token: str) -> Principal:
        found = self._sessions.find_principal(token, now=datetime.now(UTC))
        if found is None:
            raise _refused()
        return found

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
        made_by=key.made_by or key.created_by,
        expires_at=key.expires_at,
    )


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _refused() -> errors.Unauthorized:
    return errors.Unauthorized("This key is not valid.")
