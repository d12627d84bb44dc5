"""From a stored user to a `Principal`: the built-in roles, and those that PlatformAdmins defined besides.

`sessions` asks for every request of a person, so that a role that was taken away is gone at once; `people` asks what a
role would give. It changes nothing and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bifrost_kernel import models
from bifrost_scheduler import identity
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.store import contract
from bifrost_scheduler.store.people_contract import Role, User

Permissions = frozenset[models.Permission]


def known(store: contract.Store, names: Iterable[str]) -> Mapping[str, Permissions]:
    """The permissions of every role; the store is asked only when one of `names` is not built in."""
    if identity.ROLES.keys() >= set(names):
        return identity.ROLES
    return {**identity.ROLES, **{role.name: permissions_of(role) for role in store.list_roles()}}


def permissions_of(role: Role) -> Permissions:
    return frozenset(models.Permission(permission) for permission in role.permissions)


def principal_of(store: contract.Store, user: User, *, session_id: str | None = None) -> Principal:
    """What this person may do now."""
    names = [name for held in user.roles.values() for name in held]
    return identity.user_principal(
        user.email, name=user.name, roles=user.roles, known=known(store, names), session_id=session_id
    )
