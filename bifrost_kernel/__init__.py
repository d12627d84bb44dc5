"""What authors may use: `from bifrost_kernel import workflow, param, data_provider, OrganizationContext`.

Author code imports it in kernels, notebooks and tests. It opens nothing, and importing it does no I/O. Its names are
looked up when they are first used (PEP 562): a process that needs one small module of this package, as the maker of
inits does, stays small.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from bifrost_kernel.context import OrganizationContext
    from bifrost_kernel.decorators import data_provider, param, workflow
    from bifrost_kernel.errors import (
        BifrostError,
        ConnectionRefused,
        DeclarationError,
        LimitExceeded,
        NotFound,
        TemporaryError,
        UserError,
        ValidationError,
        WorkflowError,
    )
    from bifrost_kernel.models import Credentials

__all__ = [
    "BifrostError",
    "ConnectionRefused",
    "Credentials",
    "DeclarationError",
    "LimitExceeded",
    "NotFound",
    "OrganizationContext",
    "TemporaryError",
    "UserError",
    "ValidationError",
    "WorkflowError",
    "data_provider",
    "load_ipython_extension",
    "param",
    "workflow",
]

_HOMES = {
    "OrganizationContext": "context",
    "Credentials": "models",
    "data_provider": "decorators",
    "param": "decorators",
    "workflow": "decorators",
}
"""Where a name is defined; all others are errors."""


def __getattr__(name: str) -> typing.Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_ipython_extension(ipython: typing.Any) -> None:
    """What `%load_ext bifrost_kernel` calls."""
    # Deferred: the extension imports IPython, which a workflow and a command have no use for.
    from bifrost_kernel.extension import load_ipython_extension as load  # noqa: PLC0415

    load(ipython)
