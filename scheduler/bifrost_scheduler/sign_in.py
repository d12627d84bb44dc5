"""How a person's session begins: by password, by a one-time link, or by setting up the first PlatformAdmin.

`web` calls it; `openid` begins its sessions here as well. Every attempt counts against its account and its address
before it is known whether it succeeds, in the store, so that neither a restart nor many at once give more. Whoever is
unknown, disabled or wrong gets one answer after about the same work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Literal

from bifrost_kernel import errors, models
from bifrost_scheduler import ledger, passwords, people, sessions
from bifrost_scheduler.identity import EVERYWHERE, PLATFORM_ADMIN, Principal, user_principal
from bifrost_scheduler.passwords import Passwords
from bifrost_scheduler.sessions import Sessions, Source
from bifrost_scheduler.store import contract
from bifrost_scheduler.store.people_contract import User
from bifrost_scheduler.store.session_contract import Allowance, Link

WINDOW = timedelta(minutes=15)

REFUSED = "Email and password don't match, or this user may not sign in."
LINK_REFUSED = "This link was used already, or is over; ask for another one."


class Limits(models.Frozen):
    """Attempts within `WINDOW`."""

    account: int
    address: int


class Opening(models.Frozen):
    """How a person gets in first: by the portal's `/signin/link#TOKEN`, or by its `/setup#TOKEN`."""

    kind: Literal["sign_in", "setup"]
    token: str
    expires_at: datetime


class SignedIn(models.Frozen):
    """What a person gets; `token` is shown this once."""

    token: str
    expires_at: datetime
    email: str
    name: str


class SignIn:
    """`has_openid` says whether people may come from an OpenID provider as well."""

    def __init__(
        self, store: contract.Store, sessions: Sessions, passwords: Passwords, limits: Limits, *, has_openid: bool
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._passwords = passwords
        self._limits = limits
        self._has_openid = has_openid

    def with_password(self, email: str, password: str, source: Source, *, now: datetime) -> SignedIn:
        """
        Raises:
            Unauthorized: unknown, wrong or disabled; never which of them.
            TooManyRequests: this account, or this address, failed too often.
            Unavailable: too many people sign in at this moment.
        """
        with self.attempt(source, email.lower(), now=now):
            user = self._store.find_user(email.lower())
            stored = user.password_hash if user is not None and user.active else None
            if not self._passwords.verify(stored, password) or user is None:
                self.refuse(source, _why(user), user=user, now=now)
                raise errors.Unauthorized(REFUSED)
            return self.begin(user, source, by="password", now=now)

    def with_link(self, token: str, source: Source, *, password: str | None, now: datetime) -> SignedIn:
        """Sign in by a one-time link; a `password` is set, and every other session ends.

        Raises:
            Unauthorized: the link is unknown, used or over.
            ValidationError: the password is refused; the link stays good.
            TooManyRequests: this address failed too often.
        """
        with self.attempt(source, now=now):
            link = self._find_link(token, "sign_in", source, now=now)
            user = self._store.find_user(link.email)
            if user is None:
                raise errors.Unauthorized(LINK_REFUSED)
            if password is None:
                return self.begin(user, source, by="link", link=link, now=now)
            passwords.check(password, email=user.email)
            changed = sessions.next_epoch(self._with_password(user, password))
            return self.begin(changed, source, by="link", link=link, write=True, now=now)

    def set_up(self, token: str, source: Source, *, email: str, name: str, password: str, now: datetime) -> SignedIn:
        """Make the first PlatformAdmin with the token that the start printed, and sign in.

        Raises:
            Unauthorized: the token is unknown, used or over, or there is a PlatformAdmin who can sign in.
            ValidationError: the password is refused; the token stays good.
            TooManyRequests: this address failed too often.
        """
        with self.attempt(source, now=now):
            link = self._find_link(token, "setup", source, now=now)
            if not self.is_unset():
                raise errors.Unauthorized(LINK_REFUSED)
            passwords.check(password, email=email)
            known = self._store.find_user(email.lower()) or User(email=email.lower(), name=name, created_at=now)
            everywhere = dict.fromkeys((*known.roles.get(EVERYWHERE, ()), PLATFORM_ADMIN))
            roles = {**known.roles, EVERYWHERE: tuple(everywhere)}
            admin = known.model_copy(update={"name": name, "roles": roles, "active": True})
            changed = sessions.next_epoch(self._with_password(admin, password))
            return self.begin(changed, source, by="setup", link=link, write=True, now=now)

    def change_password(self, principal: Principal, source: Source, *, current: str, new: str, now: datetime) -> None:
        """Set a new password and end every other session.

        Raises:
            Forbidden: the principal came with a key.
            ValidationError: the current one is wrong, or the new one is refused.
            TooManyRequests, Unavailable: as in `with_password`.
        """
        session = self._sessions.get_current(principal)
        passwords.check(new, email=session.email, field="new")
        with self.attempt(source, session.email, now=now):
            user = self._store.find_user(session.email)
            if user is None or not self._passwords.verify(user.password_hash, current):
                self.refuse(source, "password", user=user, now=now)
                message = "The current password is wrong; without one, ask for a link that sets one."
                raise _WrongPassword(message, [errors.FieldError("current", "password", message)])
            entry = ledger.audit(principal, "user.password", target=user.email, address=source.address)
            changed = sessions.next_epoch(self._with_password(user, new))
            self._store.change_user(changed, keep=session.id, audit=entry)

    def is_unset(self) -> bool:
        """Whether there is no PlatformAdmin who has a way to sign in."""
        return not any(self._has_openid or admin.password_hash for admin in self._store.list_admins())

    def opening(self, principal: Principal, *, email: str | None, now: datetime) -> Opening | None:
        """What the start prints: a link for this user (in development), or a set-up token while nobody could sign in.

        The one before it ends.
        """
        user = None if email is None else self._store.find_user(email)
        if user is None and not self.is_unset():
            return None
        link, token = people.new_link(user, now=now)
        act = "setup.open" if user is None else "user.link"
        self._store.put_link(link, audit=ledger.audit(principal, act, target=email))
        return Opening(kind=link.kind, token=token, expires_at=link.expires_at)

    def begin(
        self,
        user: User,
        source: Source,
        *,
        by: str,
        link: Link | None = None,
        write: bool = False,
        now: datetime,
    ) -> SignedIn:
        """A session for a person who showed who he is.

        Args:
            write: the user is new or changed, and is written in the same transaction.

        Raises:
            Unauthorized: the user is disabled, or the link is used.
            Conflict: the user has changed since it was read.
        """
        session, token = self._sessions.make(user, source, now=now)
        principal = user_principal(user.email, name=user.name, roles={})
        acts = ["session.begin", *(["user.password"] if link and write else [])]
        self._store.open_session(
            session,
            user=user if write else None,
            link=None if link is None else link.sha256,
            audit=[
                ledger.audit(principal, act, target=user.email, details={"by": by}, address=source.address)
                for act in acts
            ],
        )
        return SignedIn(token=token, expires_at=session.expires_at, email=user.email, name=user.name)

    def refuse(self, source: Source, reason: str, *, user: User | None = None, now: datetime) -> None:
        """Note a failure. An unknown email is not kept: people type passwords into that field."""
        entry = contract.AuditEntry(
            at=now,
            actor="anonymous",
            action="session.refuse",
            target=None if user is None else user.email,
            details={"reason": reason},
            address=source.address,
        )
        self._store.append_audit(entry)

    @contextmanager
    def attempt(self, source: Source, account: str | None = None, *, now: datetime) -> Iterator[None]:
        """Count one attempt; what did not fail by the person's fault is given back.

        Raises:
            TooManyRequests: there were too many.
        """
        address = _allowance(f"address:{source.network}", self._limits.address)
        # An account's bucket has no readable name: people type passwords into the field of the email.
        name = f"account:{sessions.sha256(account)}" if account is not None else None
        own = [_allowance(name, self._limits.account)] if name else []
        full_until = self._store.take_attempt([address, *own], now=now)
        if full_until is not None:
            raise errors.TooManyRequests(
                "Too many attempts to sign in failed (BIFROST_SIGN_IN_ATTEMPTS); try again later.",
                retry_after_seconds=(full_until - now).total_seconds(),
            )
        try:
            yield
        except (errors.Unauthorized, _WrongPassword):
            raise
        except BaseException:
            self._store.return_attempt([address.bucket, *([name] if name else [])])
            raise
        self._store.return_attempt([address.bucket], cleared=[name] if name else [])

    def _find_link(self, token: str, kind: str, source: Source, *, now: datetime) -> Link:
        link = self._store.find_link(sessions.sha256(token))
        if link is None or link.kind != kind or link.expires_at <= now:
            self.refuse(source, "link", now=now)
            raise errors.Unauthorized(LINK_REFUSED)
        return link

    def _with_password(self, user: User, password: str) -> User:
        return user.model_copy(update={"password_hash": self._passwords.hash(password)})


class _WrongPassword(errors.ValidationError):
    """Counts as a failed attempt."""


def _allowance(bucket: str, limit: int) -> Allowance:
    return Allowance(bucket=bucket, limit=limit, window_seconds=round(WINDOW.total_seconds()))


def _why(user: User | None) -> str:
    if user is None:
        return "unknown"
    return "password" if user.active else "disabled"
