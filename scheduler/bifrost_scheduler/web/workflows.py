"""Routes that show what the workspace offers."""

from __future__ import annotations

import functools
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from bifrost_kernel import models
from bifrost_scheduler import identity
from bifrost_scheduler.web.answers import Cursor, Limit, decode_cursor, list_name, page, problems
from bifrost_scheduler.web.authentication import OrganizationHeader, ThePrincipal, TheServices
from bifrost_scheduler.web.schemas import BrokenShape, OptionList, WorkflowList, WorkflowShape, workflow_shape

router = APIRouter(prefix="/api", tags=["workflows"])

WorkflowName = Annotated[str, Path(description="Name of a workflow.")]


@router.get("/workflows", operation_id="list_workflows", responses=problems())
def list_workflows(
    services: TheServices,
    principal: ThePrincipal,
    category: Annotated[str | None, Query(max_length=100)] = None,
    tag: Annotated[str | None, Query(max_length=100)] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> WorkflowList:
    """The workflows by name, and what is broken, with file, line and reason."""
    snapshot = services.catalog.current()
    of = list_name(principal, "workflows", category, tag)
    after = decode_cursor(cursor, of) or ""
    rows = [
        workflow
        for workflow in sorted(snapshot.description.workflows, key=lambda workflow: workflow.name)
        if workflow.name > after
        and _is_wanted(workflow, category, tag)
        and (principal.workflows is None or workflow.name in principal.workflows)
    ]
    shown = page(
        rows[: limit + 1],
        limit=limit,
        key=lambda row: row.name,
        item=functools.partial(workflow_shape, snapshot),
        of=of,
    )
    return WorkflowList(
        items=shown.items,
        next_cursor=shown.next_cursor,
        broken=[BrokenShape(**broken.model_dump()) for broken in snapshot.description.broken],
        code_hash=snapshot.tree_hash,
        git_commit=snapshot.description.git_commit,
        git_dirty=snapshot.description.git_dirty,
    )


def _is_wanted(workflow: models.WorkflowMetadata, category: str | None, tag: str | None) -> bool:
    return (category is None or workflow.category == category) and (tag is None or tag in workflow.tags)


@router.get("/workflows/{name}", operation_id="get_workflow", responses=problems(409))
def get_workflow(name: WorkflowName, services: TheServices, principal: ThePrincipal) -> WorkflowShape:
    """One workflow, with its inputs as JSON Schema and as fields of a form."""
    snapshot = services.catalog.current()
    return workflow_shape(snapshot, snapshot.get_workflow(name))


@router.get(
    "/data-providers/{name}",
    operation_id="get_options",
    responses=problems(409, 500),
    openapi_extra={
        "parameters": [
            {
                "name": "inputs",
                "in": "query",
                "description": "Inputs of the provider, one query parameter each.",
                "schema": {"type": "object", "additionalProperties": {"type": "string"}},
                "style": "form",
                "explode": True,
            }
        ]
    },
)
def get_options(
    request: Request,
    name: str,
    services: TheServices,
    principal: ThePrincipal,
    organization: OrganizationHeader = None,
) -> OptionList:
    """What a data provider offers this organization now (cached as it declares)."""
    scope = organization or models.GLOBAL
    services.executions.get_organization(principal, scope)
    identity.authorize(principal, models.Permission.EXECUTE_WORKFLOWS, scope)
    inputs = dict(request.query_params)
    cached = services.options.get(services.catalog.current(), name, scope, inputs)
    return OptionList(items=list(cached.options), cached_at=cached.cached_at)
