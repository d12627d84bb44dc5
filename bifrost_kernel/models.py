"""The frozen shapes that cross floors and wires: metadata of workflows, executions, events, credentials.

Every room imports it; it holds no behaviour beyond what follows from a shape alone, and does no I/O.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from bifrost_kernel.network import Network as Network

GLOBAL = "GLOBAL"
"""The scope that every organization falls back to."""


class Frozen(BaseModel):
    """The base of every shape: immutable, and a misspelt field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ParamType(StrEnum):
    STRING = "string"
    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    EMAIL = "email"
    JSON = "json"
    LIST = "list"


class ExecutionMode(StrEnum):
    SYNC = "sync"
    ASYNC = "async"
    SCHEDULED = "scheduled"


class Overlap(StrEnum):
    SKIP = "skip"
    QUEUE = "queue"
    PARALLEL = "parallel"


class Permission(StrEnum):
    EXECUTE_WORKFLOWS = "canExecuteWorkflows"
    APPROVE_EXECUTIONS = "canApproveExecutions"
    MANAGE_CONFIG = "canManageConfig"
    MANAGE_SECRETS = "canManageSecrets"
    MANAGE_CONNECTIONS = "canManageConnections"
    MANAGE_FORMS = "canManageForms"
    MANAGE_SCHEDULES = "canManageSchedules"
    VIEW_HISTORY = "canViewHistory"
    MANAGE_USERS = "canManageUsers"


class Trigger(StrEnum):
    API = "api"
    FORM = "form"
    SCHEDULE = "schedule"
    CLI = "cli"
    NOTEBOOK = "notebook"
    RERUN = "rerun"


class ExecutionStatus(StrEnum):
    PENDING = "pending"
    AWAITING_APPROVAL = "awaiting_approval"
    RUNNING = "running"
    SUCCESS = "success"
    COMPLETED_WITH_ERRORS = "completed_with_errors"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    CRASHED = "crashed"

    @property
    def is_final(self) -> bool:
        return self in FINAL_STATUSES


FINAL_STATUSES = frozenset(
    {
        ExecutionStatus.SUCCESS,
        ExecutionStatus.COMPLETED_WITH_ERRORS,
        ExecutionStatus.FAILED,
        ExecutionStatus.TIMEOUT,
        ExecutionStatus.CANCELLED,
        ExecutionStatus.CRASHED,
    }
)


class EventType(StrEnum):
    LOG = "log"
    CHECKPOINT = "checkpoint"
    VARIABLE = "variable"
    PROGRESS = "progress"
    STEP = "step"
    CONFIG_READ = "config_read"
    SECRET_READ = "secret_read"
    CONNECTION_READ = "connection_read"
    STATUS = "status"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class Source(Frozen):
    """Where something is declared: `file` relative to the workspace ('/' separated), `line` from 1."""

    file: str
    line: int = 1


class ParamMetadata(Frozen):
    """One input; `required` is the decided answer, `default_value` counts only when `has_default`."""

    name: str
    type: ParamType
    label: str
    required: bool
    has_default: bool = False
    default_value: Any = None
    validation: dict[str, Any] = {}
    data_provider: str | None = None
    data_provider_inputs: dict[str, str] = {}
    """Inputs of the data provider by name, with the field that gives each; any other comes from its namesake."""
    help_text: str | None = None


class WorkflowMetadata(Frozen):
    """All that `@workflow` and its `@param`s say, as the catalog and every path enforce it."""

    name: str
    description: str
    category: str = "General"
    tags: tuple[str, ...] = ()
    execution_mode: ExecutionMode = ExecutionMode.SYNC
    timeout_seconds: int = 300
    schedule: str | None = None
    timezone: str = "UTC"
    retries: int = 0
    idempotent: bool = False
    overlap: Overlap = Overlap.SKIP
    egress: tuple[str, ...] | None = None
    """Hosts that it may reach, of those that its organization may (`egress_list`); None is all of them."""
    network: Network = Network.PROXY
    requires_org: bool = True
    expose_in_forms: bool = True
    requires_approval: bool = False
    required_permission: Permission = Permission.EXECUTE_WORKFLOWS
    params: tuple[ParamMetadata, ...] = ()
    kind: Literal["function", "notebook"] = "function"
    source: Source


class DataProviderMetadata(Frozen):
    """All that `@data_provider` says; `params` are the inputs beyond the context."""

    name: str
    description: str
    category: str = "General"
    cache_ttl_seconds: int = 300
    params: tuple[ParamMetadata, ...] = ()
    builtin: bool = False
    replaces_builtin: bool = False
    source: Source


class BrokenDeclaration(Frozen):
    """Something in the workspace that cannot be used, with the place and the reason."""

    kind: Literal["workflow", "data_provider", "module", "form"]
    name: str | None
    source: Source
    reason: str


class WorkspaceForm(Frozen):
    """A form object of the workspace; `definition` is one of `form_definitions`, as JSON."""

    name: str
    definition: dict[str, Any]
    source: Source


class WorkspaceDescription(Frozen):
    """What `workspace_reader` prints: the whole workspace as metadata; the commit is added by who asks git."""

    workflows: tuple[WorkflowMetadata, ...] = ()
    data_providers: tuple[DataProviderMetadata, ...] = ()
    forms: tuple[WorkspaceForm, ...] = ()
    broken: tuple[BrokenDeclaration, ...] = ()
    git_commit: str | None = None
    git_dirty: bool | None = None


class Option(Frozen):
    """One choice of a data provider."""

    label: str
    value: Any
    metadata: dict[str, Any] = {}


class Caller(Frozen):
    """Who asked for an execution; `subject` is `user:<email>` or `key:<id>`."""

    subject: str
    email: str | None = None
    name: str | None = None


class OrganizationInfo(Frozen):
    """The organization as author code sees it; `id` is `GLOBAL` for the global scope."""

    id: str
    name: str
    tenant_id: str | None = None


class KernelSetup(Frozen):
    """What a kernel is told before it runs anything: whose execution, which code, how to reach the broker."""

    token: str
    execution_id: str
    organization: OrganizationInfo
    caller: Caller
    purpose: Literal["execution", "data_provider", "authoring"] = "execution"
    name: str
    """The workflow or data provider to run."""
    code_dir: str
    """The workspace as it was at submit, read-only by convention."""
    source: Source
    parameters: dict[str, Any] | None = None
    """The inputs as the control plane validated them; None where they come from elsewhere."""
    builtin: bool = False
    """The code stands in `bifrost_kernel` and not in the workspace."""


class Event(Frozen):
    """One line of an execution's history; `seq` counts from 1 within its execution."""

    seq: int
    at: AwareDatetime
    type: EventType
    body: dict[str, Any]

    def flat(self) -> dict[str, Any]:
        """The public form: `{seq, at, type, …body}`."""
        return {"seq": self.seq, "at": isoformat(self.at), "type": self.type.value, **self.body}


class Credentials(Frozen):
    """What `get_oauth_connection` hands over; no refresh token and no client secret ever."""

    name: str
    access_token: str
    token_type: str = "Bearer"
    expires_at: AwareDatetime | None = None
    scopes: tuple[str, ...] = ()

    def get_auth_header(self) -> str:
        """The value of an `Authorization` header (RFC 6750 §2.1)."""
        return f"{self.token_type} {self.access_token}"

    def is_expired(self, *, now: datetime | None = None) -> bool:
        """True when the token is past its expiry; a token without a known expiry counts as expired."""
        return self.expires_at is None or (now or datetime.now(UTC)) >= self.expires_at

    def __repr__(self) -> str:
        return f"Credentials(name={self.name!r}, access_token='***', expires_at={self.expires_at!r})"

    __str__ = __repr__


def isoformat(instant: datetime) -> str:
    """RFC 3339 in UTC with microseconds, e.g. `2026-03-01T09:00:00.000000Z`."""
    return instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
