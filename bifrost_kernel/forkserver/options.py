"""What the control plane tells the fork server at its start; a shape only, so that it need not import the server."""

from __future__ import annotations

from pydantic import Field

from bifrost_kernel import models
from bifrost_kernel.forkserver import sandbox


class ServerOptions(models.Frozen):
    """The settings of one fork server, passed as JSON in its second argument."""

    folder: str
    """Where the kernels' private folders are made; at level full they have file systems in memory instead."""
    spares: int = 2
    environment: dict[str, str] = Field(default_factory=dict)
    """The whole environment of the kernels, beside HOME and TMPDIR."""
    working_folder: str | None = None
    """Where kernels start; None means in their private folder."""
    preload: tuple[str, ...] = ()
    """Third-party modules that are imported once for all kernels; one that cannot be is reported and left out."""
    first_slot: int = 0
    """Kernels are numbered from here on, so that those of two fork servers need not be one user of the machine."""
    limits: sandbox.Limits = sandbox.Limits()
    control_group: str | None = None
    """The folder of the kernels' control groups (`control_groups.settle`); None where there are none."""
    namespaces: bool = True
    level: sandbox.Level = sandbox.Level.NONE
    """What kernels are enclosed by; where it cannot be had none is made."""
    visible: tuple[str, ...] = ()
    """Folders that kernels read at level full, beside the system and Python."""
    hidden: tuple[str, ...] = ()
    """Folders that they don't, wherever they lie."""
    home_bytes: int = 256 * 1024 * 1024
    """Size of a kernel's home at level full."""
