"""What the control plane tells the fork server at its start; a shape only, so that it need not import the server.

It is read before the maker of inits is split off, which pydantic would make twice as large.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

from bifrost_kernel.forkserver import sandbox


class ServerOptions(NamedTuple):
    """The settings of one fork server, passed as JSON in its second argument."""

    folder: str
    """Where the kernels' private folders are made; at level full they have file systems in memory instead."""
    spares: int = 2
    environment: Mapping[str, str] = {}
    """The whole environment of the kernels, beside HOME and TMPDIR."""
    working_folder: str | None = None
    """Where kernels start; None means in their private folder."""
    preload: Sequence[str] = ()
    """Third-party modules that are imported once for all kernels; one that cannot be is reported and left out."""
    first_slot: int = 0
    """Kernels are numbered from here on, so that those of two fork servers need not be one user of the machine."""
    limits: sandbox.Limits = sandbox.Limits()
    control_group: str | None = None
    """The folder of the kernels' control groups (`control_groups.settle`); None where there are none."""
    namespaces: bool = True
    level: sandbox.Level = sandbox.Level.NONE
    """What kernels are enclosed by; where it cannot be had none is made."""
    visible: Sequence[str] = ()
    """Folders that kernels read at level full, beside the system and Python."""
    hidden: Sequence[str] = ()
    """Folders that they don't, wherever they lie."""
    home_bytes: int = 256 * 1024 * 1024
    """Size of a kernel's home at level full."""

    def to_json(self) -> str:
        return json.dumps(self._asdict())

    @classmethod
    def from_json(cls, text: str) -> Self:
        fields = json.loads(text)
        limits, level = sandbox.Limits(*fields.pop("limits")), sandbox.Level(fields.pop("level"))
        return cls(**fields, limits=limits, level=level)
