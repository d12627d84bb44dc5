"""Users and roles: who may change whom, and every change with its audit entry.

`web` calls it. Whoever has `canManageUsers` in an organization manages the people there, within what he holds himself;
what concerns a whole person (name, password, being there at all) takes authority over everything that the person holds.
It begins no session: that is `sign_in`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from bifrost_kernel import errors, models
from bifrost_scheduler import identity, ledger, roles, sessions
from bifrost_scheduler.identity import EVERYWHERE, PLATFORM_ADMIN, Principal
from bifrost_scheduler.store import contract
from bifrost_scheduler.store.people_contract import Role, User
from bifrost_scheduler.store.session_contract import Link

Permission = models.Permission

LINK_LIFETIME = timedelta(hours=24)


class People:
    def __init__(self, store: contract.Store) -> None:
        self._store = store

    # users

    def create_user(self, principal: Principal, *, email: str, name: str, roles: Mapping[str, Sequence[str]]) -> User:
        """A new person, who signs in by a link or by OpenID Connect.

        Raises:
            NotFound: an organization is unknown or foreign.
            Forbidden: a role would give more than the principal holds there; without a role only PlatformAdmins may.
            Conflict: the email is taken, also by a person of other organizations.
        """
        identity.require_whole_principal(principal)
        if not any(roles.values()):
            _require_platform_admin(principal, "make people who belong to no organization")
        held = self._with_roles(principal, {}, roles)
        user = User(email=email.lower(), name=name, roles=held, created_at=datetime.now(UTC))
        self._store.create_user(user, audit=_entry(principal, "user.create", user, roles=held))
        return self.get_user(principal, user.email)

    def get_user(self, principal: Principal, email: str) -> User:
        """
        Raises:
            NotFound: unknown, or of no organization of the principal's.
            Forbidden: of one where the principal manages no users.
        """
        user = self._store.find_user(email.lower())
        if user is None or not _is_visible(principal, user):
            raise errors.NotFound(f"There is no user {email!r}.")
        if not principal.platform_admin and not any(_manages(principal, one) for one in user.roles):
            raise errors.Forbidden(f"this needs the permission {Permission.MANAGE_USERS}")
        return user

    def list_users(
        self, principal: Principal, organization: str | None, *, after: str | None, limit: int
    ) -> Sequence[User]:
        """The people of one organization; of all for PlatformAdmins."""
        if organization is None:
            _require_platform_admin(principal, "list the people of every organization")
        else:
            self._require_organization(principal, organization)
            identity.authorize(principal, Permission.MANAGE_USERS, organization)
        return self._store.list_users(organization=organization, after=after, limit=limit)

    def change_user(
        self,
        principal: Principal,
        email: str,
        *,
        name: str | None = None,
        active: bool | None = None,
        roles: Mapping[str, Sequence[str]] | None = None,
    ) -> User:
        """Change what is given; of `roles` the organizations that it names, and no others.

        Raises:
            NotFound, Forbidden: as in `get_user`; also for what the principal does not hold himself.
            Conflict: it would be the last active PlatformAdmin, or the user has changed meanwhile.
        """
        identity.require_whole_principal(principal)
        user = self.get_user(principal, email)
        changes: dict[str, object] = {}
        if name is not None or active is not None:
            self._require_authority(principal, user)
            changes |= {"name": user.name if name is None else name}
            changes |= {"active": user.active if active is None else active}
        if roles is not None:
            changes["roles"] = self._with_roles(principal, user.roles, roles)
        changed = user.model_copy(update=changes)
        if changed == user:
            return user
        return self._store.change_user(changed, audit=_entry(principal, "user.change", user, **changes))

    def delete_user(self, principal: Principal, email: str) -> None:
        """Remove a person for good. Raises as `change_user`."""
        user = self._get_to_rule(principal, email)
        self._store.delete_user(user.email, version=user.version, audit=_entry(principal, "user.delete", user))

    def sign_out(self, principal: Principal, email: str) -> None:
        """End every session and link of a person. Raises as `change_user`."""
        user = self._get_to_rule(principal, email)
        self._store.change_user(sessions.next_epoch(user), audit=_entry(principal, "user.sign_out", user))

    def make_link(self, principal: Principal, email: str) -> tuple[str, datetime]:
        """A token for one sign-in, also to set a password by, and when it ends; earlier ones end now.

        Raises as `change_user`; Conflict also when the user is disabled.
        """
        user = self._get_to_rule(principal, email)
        if not user.active:
            raise errors.Conflict(f"The user {user.email!r} is disabled; enable it first.")
        link, token = new_link(user, now=datetime.now(UTC))
        self._store.put_link(link, audit=_entry(principal, "user.link", user))
        return token, link.expires_at

    def _get_to_rule(self, principal: Principal, email: str) -> User:
        identity.require_whole_principal(principal)
        user = self.get_user(principal, email)
        self._require_authority(principal, user)
        return user

    def _require_authority(self, principal: Principal, user: User) -> None:
        """Who rules a person could act as that person: he must hold all that the person holds."""
        if principal.platform_admin:
            return
        for organization, names in user.roles.items():
            if not _manages(principal, organization):
                raise errors.Forbidden(
                    "this person has roles beyond your organizations; change the roles in yours, or ask a PlatformAdmin"
                )
            identity.authorize_grant(principal, organization, self._permissions_of(names))

    def _with_roles(
        self, principal: Principal, before: Mapping[str, tuple[str, ...]], wanted: Mapping[str, Sequence[str]]
    ) -> dict[str, tuple[str, ...]]:
        after = dict(before)
        for organization, names in wanted.items():
            self._require_organization(principal, organization)
            held = before.get(organization, ())
            identity.authorize_grant(principal, organization, self._permissions_of((*held, *names)))
            if PLATFORM_ADMIN in names and organization != EVERYWHERE:
                message = f"{PLATFORM_ADMIN} is given in every organization ({EVERYWHERE!r}) or in none."
                raise errors.ValidationError(message, [errors.FieldError("roles", "choice", message)])
            after[organization] = tuple(dict.fromkeys(names))
        return {organization: names for organization, names in after.items() if names}

    def _permissions_of(self, names: Iterable[str]) -> frozenset[Permission]:
        wanted = tuple(names)
        return identity.permissions_of(wanted, known=roles.known(self._store, wanted))

    def _require_organization(self, principal: Principal, organization: str) -> None:
        """Raises `NotFound`: unknown, foreign, or inactive (for all but PlatformAdmins)."""
        if organization == EVERYWHERE or (organization == models.GLOBAL and principal.platform_admin):
            return
        found = self._store.find_organization(organization) if identity.may_see(principal, organization) else None
        if found is None or not (found.active or principal.platform_admin):
            raise identity.organization_not_found(organization)

    # roles

    def list_roles(self) -> list[Role]:
        """The built-in ones, then the others by name."""
        return [*_built_in(), *self._store.list_roles()]

    def get_role(self, name: str) -> Role:
        """Raises `NotFound`."""
        found = next((role for role in _built_in() if role.name == name), None) or self._store.find_role(name)
        if found is None:
            raise _no_role(name)
        return found

    def put_role(self, principal: Principal, name: str, *, description: str, permissions: Iterable[Permission]) -> Role:
        """
        Raises:
            Forbidden: only PlatformAdmins define roles.
            Conflict: it is built in.
        """
        _require_platform_admin(principal, "define roles")
        identity.require_whole_principal(principal)
        _require_not_built_in(name)
        given = tuple(sorted({permission.value for permission in permissions}))
        role = Role(name=name, description=description, permissions=given)
        details = {"permissions": list(given)}
        self._store.put_role(role, audit=ledger.audit(principal, "role.set", target=name, details=details))
        return role

    def delete_role(self, principal: Principal, name: str) -> None:
        """
        Raises:
            NotFound: there is no such role.
            Forbidden: only PlatformAdmins define roles.
            Conflict: it is built in, or somebody has it.
        """
        _require_platform_admin(principal, "define roles")
        identity.require_whole_principal(principal)
        _require_not_built_in(name)
        self._store.delete_role(name, audit=ledger.audit(principal, "role.delete", target=name))


def shown_roles(principal: Principal, user: User) -> dict[str, list[str]]:
    """The roles of a user in the organizations that the principal manages, and no others."""
    return {
        organization: list(names)
        for organization, names in user.roles.items()
        if principal.platform_admin or _manages(principal, organization)
    }


def new_link(user: User | None, *, now: datetime) -> tuple[Link, str]:
    """The row of a new link to sign in as this user (None: to set up), and its token `bfl_…`, which is only here."""
    token = f"bfl_{secrets.token_urlsafe(32)}"
    link = Link(
        sha256=sessions.sha256(token),
        kind="setup" if user is None else "sign_in",
        email="" if user is None else user.email,
        epoch=0 if user is None else user.epoch,
        created_at=now,
        expires_at=now + LINK_LIFETIME,
    )
    return link, token


def _built_in() -> list[Role]:
    return [
        Role(name=name, description="built in", permissions=tuple(sorted(permissions)))
        for name, permissions in identity.ROLES.items()
    ]


def _is_visible(principal: Principal, user: User) -> bool:
    return principal.platform_admin or any(one != EVERYWHERE and identity.may_see(principal, one) for one in user.roles)


def _manages(principal: Principal, organization: str) -> bool:
    return organization != EVERYWHERE and Permission.MANAGE_USERS in principal.permissions_in(organization)


def _entry(principal: Principal, action: str, user: User, **details: object) -> contract.AuditEntry:
    return ledger.audit(principal, action, target=user.email, details=details)


def _require_platform_admin(principal: Principal, act: str) -> None:
    if not principal.platform_admin:
        raise errors.Forbidden(f"Only PlatformAdmins {act}.")


def _require_not_built_in(name: str) -> None:
    if name in identity.ROLES:
        raise errors.Conflict(f"Role {name!r} is built in and fixed.")


def _no_role(name: str) -> errors.NotFound:
    return errors.NotFound(f"There is no role {name!r}.")
