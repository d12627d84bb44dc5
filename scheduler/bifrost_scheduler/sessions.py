"""Sessions of people: from a presented token to the person's rights as they are now, and how sessions end.

`authenticator` finds them for every request, `sign_in` begins them. Only a token's sha256 is stored. A session ends by
its expiry, by lying idle, by signing out, and when its user is disabled, deleted or moved to another epoch; each of
these counts at the next request.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets
from datetime import datetime, timedelta

from bifrost_kernel import errors, models
from bifrost_scheduler import ledger, roles
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.store import contract
from bifrost_scheduler.store.people_contract import User
from bifrost_scheduler.store.session_contract import Session

PREFIX = "bfs_"
TOUCH_EVERY = timedelta(minutes=1)
MAX_AGENT_CHARS = 200

_SECRET_BYTES = 32
_TOKEN = re.compile(r"bfs_[A-Za-z0-9_-]{43}", re.ASCII)


class Source(models.Frozen):
    """Where a person comes from: the browser's address and what it calls itself."""

    address: str | None = None
    agent: str | None = None

    @property
    def network(self) -> str:
        """What attempts are counted by: the address, of IPv6 the /64 that one customer of a provider has."""
        try:
            parsed = ipaddress.ip_address(self.address or "")
        except ValueError:
            return "unknown"
        return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else str(parsed)


class Sessions:
    def __init__(self, store: contract.Store, *, lifetime: timedelta, idle: timedelta) -> None:
        self._store = store
        self._lifetime = lifetime
        self._idle = idle

    def make(self, user: User, source: Source, *, now: datetime) -> tuple[Session, str]:
        """The row of a new session of this user, and its token `bfs_…`, which exists only here."""
        token = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        session = Session(
            id=secrets.token_hex(8),
            sha256=sha256(token),
            email=user.email,
            epoch=user.epoch,
            created_at=now,
            used_at=now,
            expires_at=now + self._lifetime,
            address=source.address,
            agent=source.agent and source.agent[:MAX_AGENT_CHARS],
        )
        return session, token

    def find_principal(self, token: str, *, now: datetime) -> Principal | None:
        """Who this token stands for, with the rights of now; None for anything that is no living session."""
        if _TOKEN.fullmatch(token) is None:
            return None
        # Looked up by its hash: how long that takes says nothing about the token.
        session = self._store.find_session(sha256(token))
        principal = None if session is None else self._principal_of(session, now)
        if session is not None and principal is not None and now - session.used_at >= TOUCH_EVERY:
            self._store.touch_session(session.id, now)
        return principal

    def find_principal_by_id(self, session_id: str, *, now: datetime) -> Principal | None:
        """The same for whoever was handed the id alone, and vouches for it."""
        session = self._store.find_session_by_id(session_id)
        return None if session is None else self._principal_of(session, now)

    def _principal_of(self, session: Session, now: datetime) -> Principal | None:
        if not self._lives(session, now):
            return None
        user = self._store.find_user(session.email)
        if user is None or not user.active or user.epoch != session.epoch:
            return None
        return roles.principal_of(self._store, user, session_id=session.id)

    def _lives(self, session: Session, now: datetime) -> bool:
        return now < session.expires_at and now - session.used_at < self._idle

    # one's own

    def get_current(self, principal: Principal) -> Session:
        """The session that the principal came with.

        Raises:
            Forbidden: it came with a key.
        """
        session = self._store.find_session_by_id(principal.session_id) if principal.session_id else None
        if session is None:
            raise errors.Forbidden("This is for people who signed in; a key has no session.")
        return session

    def list_own(self, principal: Principal, *, after: str | None, limit: int, now: datetime) -> list[Session]:
        """The principal's living sessions, by id. Raises as `get_current`."""
        email = self.get_current(principal).email
        return self._store.list_sessions(email, now=now, used_after=now - self._idle, after=after, limit=limit)

    def end_current(self, principal: Principal, source: Source) -> None:
        """Sign out. Raises as `get_current`."""
        session = self.get_current(principal)
        self._store.end_session(
            session.id, audit=ledger.audit(principal, "session.end", target=session.email, address=source.address)
        )

    def end_all(self, principal: Principal, source: Source) -> None:
        """Sign out everywhere. Raises as `get_current`."""
        user = self._store.find_user(self.get_current(principal).email)
        assert user is not None
        self._store.change_user(
            next_epoch(user),
            audit=ledger.audit(principal, "session.end_all", target=user.email, address=source.address),
        )


def next_epoch(user: User) -> User:
    """The user, whose sessions and links are all over."""
    return user.model_copy(update={"epoch": user.epoch + 1})


def sha256(token: str) -> str:
    """All that the store knows of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
