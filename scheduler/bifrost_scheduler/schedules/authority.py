"""Whose rights a schedule has: found anew at every due time, so that who lost a right runs nothing by schedule either.

A schedule acts with the rights of whoever saved its definition last, a schedule from code with those of the platform.
`ticker` asks; nothing is cached.
"""

from __future__ import annotations

from datetime import datetime

from bifrost_kernel import errors, models
from bifrost_scheduler import roles
from bifrost_scheduler.authenticator import principal_of
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.store import contract
from bifrost_scheduler.store.schedule_contract import Schedule

OPERATOR_SUBJECT = "user:operator"
CODE_SUBJECT = "system:code"
"""Who saves what the workspace declares."""


def caller_of(schedule: Schedule) -> models.Caller:
    """Who asked for an execution that a schedule submitted."""
    return models.Caller(subject=f"schedule:{schedule.name}", name=schedule.name)


def acts_for(schedule: Schedule) -> str | None:
    """The subject whose rights it has; None for the platform."""
    return None if schedule.origin == "code" else schedule.saved_by


def principal_for(store: contract.Store, schedule: Schedule, now: datetime) -> Principal:
    """
    Raises:
        Forbidden: who saved it is gone, switched off or expired.
    """
    if schedule.origin == "code" or schedule.saved_by == OPERATOR_SUBJECT:
        return Principal(subject=f"schedule:{schedule.name}", kind="operator", name=schedule.name, platform_admin=True)
    kind, _, identifier = schedule.saved_by.partition(":")
    found = _key(store, identifier, now) if kind == "key" else _person(store, identifier)
    if found is None:
        raise errors.Forbidden(f"{schedule.saved_by}, who saved this schedule, has no access any more")
    return found


def _key(store: contract.Store, key_id: str, now: datetime) -> Principal | None:
    key = store.find_key(key_id)
    if key is None or (key.expires_at is not None and key.expires_at <= now):
        return None
    return principal_of(key)


def _person(store: contract.Store, email: str) -> Principal | None:
    user = store.find_user(email)
    if user is None or not user.active:
        return None
    return roles.principal_of(store, user)
