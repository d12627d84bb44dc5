"""What the control plane asks of its database about people: the part of `contract.Store` for users and roles.

`people` changes them, `roles` makes principals of them, `sign_in` checks their passwords. It decides no permission. The
rules of `contract` hold here too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import AwareDatetime, Field

from bifrost_kernel import models

if TYPE_CHECKING:  # `contract.Store` is made of these parts.
    from bifrost_scheduler.store.contract import AuditEntry


class User(models.Frozen):
    """A person; `email` is lower case and unique. `roles` maps an organization id, or `*` for all, to role names."""

    email: str
    name: str
    roles: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    active: bool = True
    created_at: AwareDatetime
    password_hash: str | None = Field(default=None, repr=False)
    """argon2id in PHC form; None has no password."""
    issuer: str | None = None
    subject: str | None = None
    """Who this is to the OpenID provider `issuer`; unique together."""
    epoch: int = 0
    """Sessions and links of an earlier epoch are worth nothing."""
    version: int = 0
    """Counts the changes; whoever writes names the one that he read."""


class Role(models.Frozen):
    """A role besides the built-in ones."""

    name: str
    description: str = ""
    permissions: tuple[str, ...]


class PeopleStore(ABC):
    """Users and roles."""

    @abstractmethod
    def create_user(self, user: User, *, audit: AuditEntry) -> None:
        """Raises `Conflict` when the email is taken."""

    @abstractmethod
    def change_user(self, user: User, *, keep: str | None = None, audit: AuditEntry) -> User:
        """Write every field of the user, as the next version.

        A change of `epoch`, or to inactive, ends the user's sessions and links in the same transaction.

        Args:
            keep: the id of a session that goes on in the new epoch.

        Raises:
            NotFound: there is no such user.
            Conflict: it has changed since `user.version`, the provider's account is another user's, or no active
                PlatformAdmin would be left.
        """

    @abstractmethod
    def delete_user(self, email: str, *, version: int, audit: AuditEntry) -> None:
        """Remove the user with sessions and links. Raises as `change_user`."""

    @abstractmethod
    def find_user(self, email: str) -> User | None: ...

    @abstractmethod
    def find_user_of(self, issuer: str, subject: str) -> User | None:
        """The user to whom this account of an OpenID provider belongs."""

    @abstractmethod
    def list_users(self, *, organization: str | None = None, after: str | None = None, limit: int = 50) -> list[User]:
        """By email, ascending; with `organization` only those with a role in this very one."""

    @abstractmethod
    def list_admins(self) -> list[User]:
        """The active PlatformAdmins, by email."""

    @abstractmethod
    def put_role(self, role: Role, *, audit: AuditEntry) -> None:
        """Create or replace."""

    @abstractmethod
    def find_role(self, name: str) -> Role | None: ...

    @abstractmethod
    def list_roles(self) -> Sequence[Role]:
        """All of them, by name."""

    @abstractmethod
    def delete_role(self, name: str, *, audit: AuditEntry) -> None:
        """
        Raises:
            NotFound: there is no such role.
            Conflict: a user has it.
        """
