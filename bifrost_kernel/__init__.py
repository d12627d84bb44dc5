"""What authors may use: `from bifrost_kernel import workflow, param, data_provider, OrganizationContext`.

Author code imports it in kernels, notebooks and tests. It opens nothing, and importing it does no I/O.
"""

import typing

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


def load_ipython_extension(ipython: typing.Any) -> None:
    """What `%load_ext bifrost_kernel` calls."""
    # Deferred: the extension imports IPython, which a workflow and a command have no use for.
    from bifrost_kernel.extension import load_ipython_extension as load  # noqa: PLC0415

    load(ipython)
