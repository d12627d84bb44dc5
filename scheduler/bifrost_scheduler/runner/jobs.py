"""What kernels and engine workers are told: made from rows and metadata, holding no secret but those to mask.

`runner` calls it. Pure but for reading the source file of a snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from bifrost_kernel import models
from bifrost_scheduler.broker import Report
from bifrost_scheduler.catalog import Snapshot
from bifrost_scheduler.runner.destinations import Destination, HostList
from bifrost_scheduler.runner.kernels import Standing
from bifrost_scheduler.runner.record import Closing, Job
from bifrost_scheduler.store import contract

Metadata = models.WorkflowMetadata | models.DataProviderMetadata


class Surroundings(NamedTuple):
    """What enclosed a kernel, and whom it talked to."""

    standing: Standing
    network: tuple[Destination, ...]


LOST_SOURCE = "The code of this execution is no longer there."


def organization_info(found: contract.Organization | None) -> models.OrganizationInfo:
    """What author code sees of its organization; None is the global scope."""
    if found is None:
        return models.OrganizationInfo(id=models.GLOBAL, name="Global")
    return models.OrganizationInfo(id=found.id, name=found.name, tenant_id=found.tenant_id)


def host_lists(
    organization: contract.Organization | None, workflow: models.WorkflowMetadata | None = None
) -> tuple[HostList, ...]:
    """The lists of hosts that bind a kernel; none where neither side has one."""
    lists = []
    if workflow is not None and workflow.egress is not None:
        lists.append(HostList(of="workflow", name=workflow.name, hosts=workflow.egress))
    if organization is not None and organization.egress is not None:
        lists.append(HostList(of="organization", name=organization.id, hosts=organization.egress))
    return tuple(lists)


def setup(
    token: str,
    execution_id: str,
    organization: models.OrganizationInfo,
    caller: models.Caller,
    metadata: Metadata,
    snapshot: Snapshot,
    parameters: dict[str, Any],
) -> models.KernelSetup:
    """What a kernel is told before its first cell."""
    provider = isinstance(metadata, models.DataProviderMetadata)
    return models.KernelSetup(
        token=token,
        execution_id=execution_id,
        organization=organization,
        caller=caller,
        purpose="data_provider" if provider else "execution",
        name=metadata.name,
        code_dir=str(snapshot.directory),
        source=metadata.source,
        parameters=parameters,
        builtin=isinstance(metadata, models.DataProviderMetadata) and metadata.builtin,
    )


def execution_setup(
    token: str,
    execution: contract.Execution,
    metadata: models.WorkflowMetadata,
    organization: models.OrganizationInfo,
    snapshot: Snapshot,
) -> models.KernelSetup:
    return setup(token, execution.id, organization, execution.caller, metadata, snapshot, execution.parameters)


def execution_job(
    execution: contract.Execution,
    metadata: models.WorkflowMetadata,
    organization: models.OrganizationInfo,
    snapshot: Snapshot,
) -> Job:
    """The job of one execution."""
    file = metadata.source.file
    return Job(
        execution_id=execution.id,
        workflow=metadata,
        organization=organization,
        caller=execution.caller,
        trigger=execution.trigger,
        parameters=execution.parameters,
        code_hash=execution.code_hash,
        source_text=(snapshot.directory / file).read_text("utf-8", "replace"),
        source_sha256=snapshot.files[file],
        git_commit=snapshot.description.git_commit,
        git_dirty=snapshot.description.git_dirty,
        lock_sha256=snapshot.lock_sha256,
        submitted_at=execution.created_at,
    )


def provider_job(
    execution_id: str,
    provider: models.DataProviderMetadata,
    organization: models.OrganizationInfo,
    caller: models.Caller,
    inputs: dict[str, Any],
    snapshot: Snapshot,
) -> Job:
    """The job of a data provider, whose notebook is thrown away."""
    return Job(
        execution_id=execution_id,
        workflow=_as_workflow(provider.name, provider.params, provider.source),
        call="provide",
        organization=organization,
        caller=caller,
        trigger=models.Trigger.FORM,
        parameters=inputs,
        code_hash=snapshot.tree_hash,
        source_text="",
        source_sha256="",
        submitted_at=datetime.now(UTC),
    )


def unrun_job(execution: contract.Execution, organization: models.OrganizationInfo, snapshot: Snapshot | None) -> Job:
    """The job of an execution that did not run to its end, also when its code is gone."""
    if snapshot is not None:
        for workflow in snapshot.description.workflows:
            if workflow.name == execution.workflow:
                return execution_job(execution, workflow, organization, snapshot)
    return Job(
        execution_id=execution.id,
        workflow=_as_workflow(execution.workflow, (), models.Source(file="–")),
        organization=organization,
        caller=execution.caller,
        trigger=execution.trigger,
        parameters=execution.parameters,
        code_hash=execution.code_hash,
        source_text=LOST_SOURCE,
        source_sha256="–",
        submitted_at=execution.created_at,
    )


def closing(
    execution: contract.Execution,
    outcome: contract.Outcome,
    events: Sequence[models.Event],
    report: Report | None,
    surroundings: Surroundings | None = None,
) -> Closing:
    """What the record says of the end."""
    return Closing(
        status=outcome.status,
        started_at=execution.started_at,
        completed_at=outcome.completed_at,
        result=outcome.result,
        error=outcome.error,
        error_type=outcome.error_type,
        events=tuple(events),
        secrets=tuple(report.secrets) if report is not None else (),
        sandbox=surroundings.standing.level if surroundings else None,
        memory_held_by=_memory_holder(surroundings.standing) if surroundings else None,
        network=surroundings.network if surroundings else (),
    )


def _memory_holder(standing: Standing) -> Literal["control group", "watch"]:
    return "control group" if standing.has_groups else "watch"


def _as_workflow(name: str, params: tuple[models.ParamMetadata, ...], source: models.Source) -> models.WorkflowMetadata:
    return models.WorkflowMetadata(name=name, description=name, params=params, source=source)
