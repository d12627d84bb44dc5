"""The shapes of requests and answers of the HTTP API, as OpenAPI shows them (contract §4)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from bifrost_kernel import egress_list, models, params
from bifrost_scheduler import forms
from bifrost_scheduler.catalog import Snapshot
from bifrost_scheduler.execution_inputs import InputValue
from bifrost_scheduler.store import contract

T = TypeVar("T")

OrganizationId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]
HostEntry = Annotated[str, StringConstraints(min_length=1, max_length=300, pattern=r"^[!-~]+$")]
"""`example.com`, `*.example.com:443` or an address; the administration says what is wrong with another."""
Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


def _in_range(instant: datetime) -> datetime:
    # Python's calendar ends at the years 1 and 9999: arithmetic and changes of zone near them overflow.
    if not 1970 < instant.year < 9999:
        raise ValueError("the year has to lie between 1971 and 9998")
    return instant


Instant = Annotated[AwareDatetime, AfterValidator(_in_range)]
"""An instant that a caller names: with its zone."""


class Shape(BaseModel):
    model_config = ConfigDict(frozen=True)


class Input(BaseModel):
    """A request body: an unknown field is an error, not a silent nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Problem(Shape):
    """Every failure."""

    error: str
    message: str
    details: Any = None
    execution_id: str | None = None


class Page(Shape, Generic[T]):
    items: list[T]
    next_cursor: str | None = None


class EventShape(BaseModel):
    """An event: `seq`, `at`, `type`, and the fields of its type beside them."""

    model_config = ConfigDict(extra="allow")

    seq: int
    at: str
    type: models.EventType


class InputList(Shape):
    items: list[InputValue]


class WorkflowShape(Shape):
    name: str
    description: str
    category: str
    tags: list[str]
    execution_mode: models.ExecutionMode
    timeout_seconds: int
    schedule: str | None
    timezone: str
    egress: list[str] | None
    """Hosts that it may reach, of those that its organization may; null is all of these."""
    network: models.Network
    requires_org: bool
    expose_in_forms: bool
    requires_approval: bool
    required_permission: models.Permission
    kind: str
    source: models.Source
    parameters: dict[str, Any]
    """JSON Schema of the inputs, with hints for forms."""
    fields: list[forms.Field]
    """The same as fields of a form."""


def workflow_shape(snapshot: Snapshot, workflow: models.WorkflowMetadata) -> WorkflowShape:
    kept = workflow.model_dump(include=set(WorkflowShape.model_fields))
    names = [param.name for param in workflow.params]
    fields = [forms.field_of(param, names, snapshot.data_providers) for param in workflow.params]
    return WorkflowShape(**kept, parameters=params.json_schema(workflow), fields=fields)


class BrokenShape(Shape):
    kind: str
    name: str | None
    source: models.Source
    reason: str


class WorkflowList(Page[WorkflowShape]):
    broken: list[BrokenShape]
    code_hash: str
    git_commit: str | None
    git_dirty: bool | None


class OptionList(Shape):
    items: list[models.Option]
    cached_at: datetime


class NewOrganization(Input):
    id: OrganizationId
    name: Text
    tenant_id: Text | None = None


class OrganizationChange(Input):
    """Fields that are not given stay as they are."""

    active: bool = True
    egress: Annotated[list[HostEntry], Field(max_length=egress_list.MAX_ENTRIES)] | None = None
    """Hosts that its executions may reach; null is every public one, an empty list none."""


class OrganizationShape(Shape):
    id: str
    name: str
    tenant_id: str | None
    active: bool
    egress: list[str] | None
    """Hosts that its executions may reach; null is every public one."""
    created_at: datetime


class NewKey(Input):
    name: Text
    organizations: Annotated[list[OrganizationId], Field(min_length=1, max_length=200)]
    workflows: Annotated[list[Name], Field(max_length=200)] | None = None
    permissions: list[models.Permission] = [models.Permission.EXECUTE_WORKFLOWS, models.Permission.VIEW_HISTORY]
    expires_at: Instant | None = None


class CreatedKey(Shape):
    id: str
    key: str
    """Shown this once."""


class KeyShape(Shape):
    id: str
    name: str
    organizations: list[str] | None
    workflows: list[str] | None
    permissions: list[str]
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


def key_shape(key: contract.ApiKey) -> KeyShape:
    return KeyShape(**key.model_dump(include=set(KeyShape.model_fields)))


ConfigType = Literal["string", "int", "bool", "json", "secret_ref"]


class ConfigInput(Input):
    type: ConfigType = "string"
    value: Any


class ConfigShape(Shape):
    key: str
    scope: str
    type: ConfigType
    value: Any
    """Of a `secret_ref` the name of the secret, never its value."""
    updated_at: datetime
    updated_by: str


class SecretInput(Input):
    value: str


class SecretShape(Shape):
    """A secret without its value: it never comes back."""

    name: str
    scope: str
    version: int
    updated_at: datetime
    updated_by: str


class ConnectionInput(Input):
    oauth_flow_type: Literal["authorization_code", "client_credentials", "refresh_token"]
    client_id: Text
    client_secret: str | None = None
    authorization_url: Text | None = None
    token_url: Text | None = None
    scopes: list[Text] = []
    access_token: str | None = None
    refresh_token: str | None = None
    token_type: Text = "Bearer"
    expires_at: Instant | None = None


class ConnectionShape(Shape):
    """A connection without its tokens."""

    name: str
    scope: str
    oauth_flow_type: str
    client_id: str
    authorization_url: str | None
    token_url: str | None
    scopes: list[str]
    token_type: str
    expires_at: datetime | None
    status: str
    last_error: str | None
    updated_at: datetime
    updated_by: str


class LedgerShape(Shape):
    seq: int
    kind: str
    execution_id: str | None
    body: Any
    prev_hash: str
    hash: str


class Health(Shape):
    status: Literal["ok"]
    version: str


class AuthoringSession(Shape):
    """How a JupyterLab kernel reaches the broker; the token ends with the session."""

    socket: str
    token: str
    organization: str


class NewAuthoringSession(Input):
    organization: str | None = None
