"""What a worker says about a run; a shape only, so that the control plane need not import papermill."""

from __future__ import annotations

from enum import StrEnum

from bifrost_kernel import models


class Verdict(StrEnum):
    COMPLETED = "completed"
    FAILED = "failed"
    """A cell raised."""
    DIED = "died"
    """The kernel ended while a cell ran."""


class Executed(models.Frozen):
    """How the cells went. The outcome of the execution is the parent's to decide."""

    verdict: Verdict
    ename: str | None = None
    evalue: str | None = None
