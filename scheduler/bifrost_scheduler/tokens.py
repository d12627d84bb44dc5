"""Bearer credentials of programs: API keys, of which only a hash is stored, and the tokens of live kernels.

`authenticator` finds keys here, `administration` makes them; the runner issues kernel tokens and the broker finds them.
Neither text is ever stored, logged or compared in a time that depends on it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
from datetime import datetime

from bifrost_kernel import models
from bifrost_scheduler.store import contract

_ID_BYTES = 8
_SECRET_BYTES = 32
_KEY = re.compile(r"bfk_(?P<id>[0-9a-f]{16})_(?P<secret>[A-Za-z0-9_-]{43})", re.ASCII)
_NO_KEY_SHA256 = "0" * 64


def make_api_key(
    *,
    name: str,
    organizations: tuple[str, ...] | None,
    workflows: tuple[str, ...] | None,
    permissions: tuple[str, ...],
    created_by: str,
    now: datetime,
    expires_at: datetime | None = None,
    platform_admin: bool = False,
    acts_as: str | None = None,
    made_by: str | None = None,
) -> tuple[contract.ApiKey, str]:
    """The row of a new key, and its text `bfk_<id>_<secret>`, which exists only here."""
    key_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
    key = contract.ApiKey(
        id=key_id,
        name=name,
        sha256=_sha256(secret),
        organizations=organizations,
        workflows=workflows,
        permissions=permissions,
        platform_admin=platform_admin,
        acts_as=acts_as,
        created_by=created_by,
        made_by=made_by,
        created_at=now,
        expires_at=expires_at,
    )
    return key, f"bfk_{key_id}_{secret}"


def find_api_key(store: contract.Store, text: str, *, now: datetime) -> contract.ApiKey | None:
    """The key that this text is; None for anything malformed, unknown, deleted or expired."""
    match = _KEY.fullmatch(text)
    if match is None:
        return None
    found = store.find_key(match["id"])
    # Compared in any case, so that an unknown id takes as long as a wrong secret.
    right = hmac.compare_digest(found.sha256 if found else _NO_KEY_SHA256, _sha256(match["secret"]))
    if found is None or not right:
        return None
    if found.expires_at is not None and found.expires_at <= now:
        return None
    return found


class Grant(models.Frozen):
    """What one kernel's token stands for; `fence` is None where no event is kept (data providers, authoring)."""

    execution_id: str
    organization: str
    caller: models.Caller
    name: str
    fence: str | None = None


class ExecutionTokens:
    """The tokens of kernels that are alive now; they end with the process. Called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._grants: dict[str, Grant] = {}

    def issue(self, grant: Grant) -> str:
        """A new token for this grant; any number of them may stand for the same one."""
        token = secrets.token_urlsafe(_SECRET_BYTES)
        with self._lock:
            self._grants[_sha256(token)] = grant
        return token

    def find(self, token: str) -> Grant | None:
        # Looked up by its hash: how long that takes says nothing about the token.
        with self._lock:
            return self._grants.get(_sha256(token))

    def revoke(self, token: str) -> None:
        """End one token; an unknown one is fine."""
        with self._lock:
            self._grants.pop(_sha256(token), None)

    def revoke_execution(self, execution_id: str) -> None:
        """End every token of an execution."""
        with self._lock:
            self._grants = {
                digest: grant for digest, grant in self._grants.items() if grant.execution_id != execution_id
            }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
