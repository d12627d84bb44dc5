"""The registry of integrations: pre-authenticated clients for vendors, found by entry point.

`context.get_integration` calls it. A package offers one as an entry point of group `bifrost.integrations` whose object
is called with the context and returns the client. The registry itself makes no request and holds no credentials.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

from bifrost_kernel import errors

GROUP = "bifrost.integrations"


def list_integrations() -> list[str]:
    """The names of what is installed, sorted."""
    return sorted({entry.name for entry in metadata.entry_points(group=GROUP)})


def open_integration(name: str, context: Any) -> Any:
    """The client called `name`, authenticated for the organization of `context`.

    Raises:
        NotFound: nothing of that name is installed; lists what is.
    """
    found = next(iter(metadata.entry_points(group=GROUP, name=name)), None)
    if found is None:
        available = ", ".join(list_integrations()) or "none is installed"
        raise errors.NotFound(f"there is no integration {name!r}; available: {available}")
    return found.load()(context)
