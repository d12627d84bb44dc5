"""An execution as it is shown to programs: the envelope of contract §4, the same over HTTP and over the broker."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bifrost_kernel import models
from bifrost_scheduler.store import contract


class Envelope(models.Frozen):
    """An execution."""

    execution_id: str
    workflow_name: str
    status: models.ExecutionStatus
    result: Any = None
    error: str | None = None
    error_type: str | None = None
    details: Any = None
    duration_ms: int | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    organization: str
    caller: models.Caller
    trigger: models.Trigger
    created_at: datetime
    code_hash: str
    rerun_of: str | None = None
    form: str | None = None
    """The form that it was submitted with."""
    retry_of: str | None = None
    schedule_id: str | None = None
    acts_for: str | None = None
    approved_by: str | None = None
    record_sha256: str | None = None


def envelope(execution: contract.Execution) -> Envelope:
    return Envelope(
        execution_id=execution.id,
        workflow_name=execution.workflow,
        status=execution.status,
        result=execution.result,
        error=execution.error,
        error_type=execution.error_type,
        details=execution.error_details,
        duration_ms=execution.duration_ms,
        started_at=execution.started_at,
        completed_at=execution.completed_at,
        organization=execution.organization,
        caller=execution.caller,
        trigger=execution.trigger,
        created_at=execution.created_at,
        code_hash=execution.code_hash,
        rerun_of=execution.rerun_of,
        form=execution.form,
        retry_of=execution.retry_of,
        schedule_id=execution.schedule_id,
        acts_for=execution.acts_for,
        approved_by=execution.approved_by,
        record_sha256=execution.record_sha256,
    )
