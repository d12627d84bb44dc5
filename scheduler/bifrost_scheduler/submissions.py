"""What a submission is made of: pure functions from a workflow, a principal and inputs to the row to write.

`executions.submit` calls them; `form_desk` makes a `FormUse`. Nothing here reads the store or writes anything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import uuid_utils

from bifrost_kernel import errors, models
from bifrost_scheduler.catalog import Snapshot
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.store import contract
from bifrost_scheduler.store.schedule_contract import Scheduled

MAX_IDEMPOTENCY_KEY_CHARS = 255


@dataclass(frozen=True)
class FormUse:
    """How a form was used that led to an execution; `form_desk` checked that it might be."""

    name: str
    sent: Mapping[str, Any]
    """What the person filled in: by this a repeated submit is known."""
    hidden: tuple[str, ...] = ()
    """Inputs that whoever filled it in must not see."""
    lifted: frozenset[str] = frozenset()
    """Required inputs that the form did not ask for."""


def approval_hash(code_hash: str, workflow: str, parameters: Mapping[str, Any]) -> str:
    """What an approval is bound to: this code and these parameters."""
    bound = json.dumps([code_hash, workflow, parameters], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(bound.encode()).hexdigest()


def new_execution(
    principal: Principal,
    organization: str,
    snapshot: Snapshot,
    metadata: models.WorkflowMetadata,
    values: dict[str, Any],
    trigger: models.Trigger,
    rerun_of: str | None,
    form: FormUse | None,
) -> contract.NewExecution:
    waits = metadata.requires_approval
    return contract.NewExecution(
        id=str(uuid_utils.uuid7()),
        organization=organization,
        workflow=metadata.name,
        status=models.ExecutionStatus.AWAITING_APPROVAL if waits else models.ExecutionStatus.PENDING,
        trigger=trigger,
        caller=principal.caller,
        parameters=values,
        code_hash=snapshot.tree_hash,
        timeout_seconds=metadata.timeout_seconds,
        approval_hash=approval_hash(snapshot.tree_hash, metadata.name, values) if waits else None,
        rerun_of=rerun_of,
        form=form.name if form else None,
        hidden_inputs=form.hidden if form else (),
        created_at=datetime.now(UTC),
    )


def lifted(metadata: models.WorkflowMetadata, form: FormUse | None) -> models.WorkflowMetadata:
    """The workflow without the requirements that the form lifts."""
    if form is None or not form.lifted:
        return metadata
    params_ = (
        param.model_copy(update={"required": False}) if param.name in form.lifted else param
        for param in metadata.params
    )
    return metadata.model_copy(update={"params": tuple(params_)})


def sent(form: FormUse) -> dict[str, Any]:
    return {"form": form.name, "values": dict(form.sent)}


def form_of(original: contract.Execution) -> FormUse | None:
    """The form of an execution for its re-run: an input that is required and was not asked for then has no value."""
    if original.form is None:
        return None
    lifted = frozenset(name for name, value in original.parameters.items() if value is None)
    return FormUse(name=original.form, sent={}, hidden=original.hidden_inputs, lifted=lifted)


def as_scheduled(
    new: contract.NewExecution, metadata: models.WorkflowMetadata, scheduled: Scheduled
) -> contract.NewExecution:
    retries = metadata.retries if metadata.idempotent else 0
    return new.model_copy(
        update={
            "caller": scheduled.caller,
            "schedule_id": scheduled.schedule_id,
            "acts_for": scheduled.acts_for,
            "retry_of": scheduled.retry_of,
            "attempt": scheduled.attempt,
            "retries_left": retries if scheduled.retries_left is None else scheduled.retries_left,
        }
    )


def requester(subject: str) -> models.Caller:
    kind, _, identifier = subject.partition(":")
    return models.Caller(subject=subject, email=identifier if kind == "user" else None)


def require_organization(metadata: models.WorkflowMetadata, organization: str) -> None:
    if metadata.requires_org and organization == models.GLOBAL:
        raise errors.ValidationError(
            f"The workflow {metadata.name!r} needs an organization: name it in X-Organization-Id (or --org)."
        )


def idempotency_of(principal: Principal, key: str | None, parameters: Mapping[str, Any]) -> contract.Idempotency | None:
    if key is None:
        return None
    if not key or len(key) > MAX_IDEMPOTENCY_KEY_CHARS:
        raise errors.ValidationError(f"An Idempotency-Key has 1 to {MAX_IDEMPOTENCY_KEY_CHARS} characters.")
    body = json.dumps(parameters, sort_keys=True, ensure_ascii=True)
    return contract.Idempotency(
        credential=principal.subject, key=key, body_sha256=hashlib.sha256(body.encode()).hexdigest()
    )
