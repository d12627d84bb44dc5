"""What the control plane asks of its database about signing in: sessions, one-time links, failures, OpenID attempts.

The part of `contract.Store` that `sessions`, `sign_in` and `openid` use. Tokens are known by their sha256 alone, and
every instant comes from the caller. The rules of `contract` hold here too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pydantic import AwareDatetime

from bifrost_kernel import models

if TYPE_CHECKING:  # `contract.Store` is made of these parts.
    from bifrost_scheduler.store.contract import AuditEntry
    from bifrost_scheduler.store.people_contract import User


class Session(models.Frozen):
    """A person who is signed in; `id` may be shown, the token is known by `sha256` alone."""

    id: str
    sha256: str
    email: str
    epoch: int
    """The user's at sign-in."""
    created_at: AwareDatetime
    used_at: AwareDatetime
    expires_at: AwareDatetime
    address: str | None = None
    agent: str | None = None


class Link(models.Frozen):
    """A token that is good for one sign-in of `email`, or (`setup`, no email) for making the first PlatformAdmin."""

    sha256: str
    kind: Literal["sign_in", "setup"]
    email: str = ""
    epoch: int = 0
    created_at: AwareDatetime
    expires_at: AwareDatetime


class Authorization(models.Frozen):
    """A browser that was sent to the OpenID provider and has not come back; good for once."""

    state_sha256: str
    binding_sha256: str
    redirect_uri: str
    return_to: str | None = None
    created_at: AwareDatetime
    expires_at: AwareDatetime


class Allowance(models.Frozen):
    """How many attempts `bucket` (an account, an address) has within `window_seconds`."""

    bucket: str
    limit: int
    window_seconds: int


class SessionStore(ABC):
    """Sessions and the ways to them."""

    @abstractmethod
    def open_session(
        self,
        session: Session,
        *,
        user: User | None = None,
        link: str | None = None,
        audit: Sequence[AuditEntry],
    ) -> None:
        """Begin a session, in one transaction with everything that leads to it; expired sessions go.

        Args:
            user: created (version 0), or changed as `change_user` does, before.
            link: sha256 of the link that this uses up.

        Raises:
            Unauthorized: the link is used, expired or of an earlier epoch; the user is unknown, inactive, or at another
                epoch than the session.
            Conflict: `user` exists already, or has changed since it was read.
        """

    @abstractmethod
    def find_session(self, sha256: str) -> Session | None:
        """Also one that is over: the caller knows the time and the user."""

    @abstractmethod
    def find_session_by_id(self, session_id: str) -> Session | None: ...

    @abstractmethod
    def list_sessions(
        self, email: str, *, now: datetime, used_after: datetime, after: str | None = None, limit: int = 50
    ) -> list[Session]:
        """Those that are not over at `now` and were used after that other instant; by id, ascending."""

    @abstractmethod
    def touch_session(self, session_id: str, used_at: datetime) -> None:
        """Remember the last use; may be lost in a power cut, never blocks on other writes for durability."""

    @abstractmethod
    def end_session(self, session_id: str, *, audit: AuditEntry) -> None:
        """Raises `NotFound`."""

    @abstractmethod
    def put_link(self, link: Link, *, audit: AuditEntry) -> None:
        """Keep it instead of every other link of its kind and email."""

    @abstractmethod
    def find_link(self, sha256: str) -> Link | None: ...

    @abstractmethod
    def take_attempt(self, allowances: Sequence[Allowance], *, now: datetime) -> datetime | None:
        """Count an attempt in every bucket, or in none and say from when on the fullest one has room again.

        Counted before it is known whether it succeeds: attempts that run at the same time cannot exceed the limit.
        """

    @abstractmethod
    def return_attempt(self, buckets: Sequence[str], *, cleared: Sequence[str] = ()) -> None:
        """It succeeded: take one off each of `buckets`, and all off those that are `cleared`."""

    @abstractmethod
    def put_authorization(self, authorization: Authorization) -> None:
        """Keep it; expired ones go."""

    @abstractmethod
    def take_authorization(self, state_sha256: str) -> Authorization | None:
        """Give it and forget it, expired or not: a state is good for once, whatever becomes of it."""
