"""The one answer to "where is it looked up": organization, then GLOBAL. Config, secrets and connections all ask here.

Pure: it is handed a function that looks into one scope, and knows nothing of what is looked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from bifrost_kernel import models

T = TypeVar("T")


def search_order(organization: str) -> tuple[str, ...]:
    """The scopes that are searched for an organization, first match first."""
    if organization == models.GLOBAL:
        return (models.GLOBAL,)
    return (organization, models.GLOBAL)


def resolve(organization: str, find: Callable[[str], T | None]) -> tuple[str, T] | None:
    """The first scope in which `find` finds something, and what it found; None when no scope has it.

    Only absence falls through: a false or empty value is found, and an error of `find` is the caller's error.
    """
    for scope in search_order(organization):
        found = find(scope)
        if found is not None:
            return scope, found
    return None
