"""What the control plane asks of its database: shapes of rows and the `Store` contract.

`SqliteStore` is the first implementation; every implementation passes `tests/scheduler/test_store_contract.py`. Only
`services.build` picks one. The contract never decides permissions and never decrypts anything.

Rules for every implementation:

- Each method is one transaction. When a method returns, its writes survive a power cut.
- Every state change is a compare-and-set: it names the state that it expects, and raises `Conflict` when that is gone.
- Methods are synchronous and safe to call from many threads at once.
- Methods that take `audit` append that entry to the ledger in the same transaction: no act without its entry.
- Lists are newest first unless said otherwise, keyset-paginated by `(…, before)`; nothing counts rows.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, Field

from bifrost_kernel import models
from bifrost_scheduler.store import form_contract, people_contract, schedule_contract, session_contract

Frozen = models.Frozen


class Organization(Frozen):
    id: str
    name: str
    tenant_id: str | None = None
    active: bool = True
    egress: tuple[str, ...] | None = None
    """Hosts that its executions may reach (`egress_list`); None is every public one."""
    created_at: AwareDatetime


class OrganizationChange(Frozen):
    """What is to be another way; fields that were not given stay as they are."""

    active: bool = True
    egress: tuple[str, ...] | None = None

    @property
    def given(self) -> dict[str, Any]:
        return self.model_dump(include=self.model_fields_set)


class ApiKey(Frozen):
    """A key; only `sha256` of its secret part is known. `organizations` None means every organization."""

    id: str
    name: str
    sha256: str
    organizations: tuple[str, ...] | None
    workflows: tuple[str, ...] | None
    permissions: tuple[str, ...]
    platform_admin: bool = False
    acts_as: str | None = None
    """Email of the user whose name the key carries (the operator's and the development key)."""
    created_by: str
    made_by: str | None = None
    """The person behind `created_by`, where a key made this key."""
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    last_used_at: AwareDatetime | None = None


class ConfigEntry(Frozen):
    """`value` is the JSON text of the typed value; for `secret_ref` the name of a secret in the same scope."""

    scope: str
    key: str
    type: Literal["string", "int", "bool", "json", "secret_ref"]
    value: str
    updated_at: AwareDatetime
    updated_by: str


class SealedSecret(Frozen):
    """`sealed` is nonce and ciphertext; who may open it is the secret store's business."""

    scope: str
    name: str
    version: int
    sealed: bytes
    updated_at: AwareDatetime
    updated_by: str


class Connection(Frozen):
    """An OAuth connection; `sealed` is the encrypted JSON of client secret, access and refresh token."""

    scope: str
    name: str
    version: int
    oauth_flow_type: Literal["authorization_code", "client_credentials", "refresh_token"]
    client_id: str
    authorization_url: str | None = None
    token_url: str | None = None
    scopes: tuple[str, ...] = ()
    token_type: str = "Bearer"
    expires_at: AwareDatetime | None = None
    status: str = "connected"
    last_error: str | None = None
    sealed: bytes
    updated_at: AwareDatetime
    updated_by: str


class NewExecution(Frozen):
    """What `executions.submit` decided; `status` is `pending` or `awaiting_approval`."""

    id: str
    """UUIDv7 (RFC 9562) made at `created_at`: lists are ordered, and searched by time, through it."""
    organization: str
    """Organization id or `GLOBAL`."""
    workflow: str
    status: models.ExecutionStatus
    trigger: models.Trigger
    caller: models.Caller
    parameters: dict[str, Any]
    code_hash: str
    """The tree hash of the workspace at submit: `code/<hash>/` under the home."""
    timeout_seconds: int
    approval_hash: str | None = None
    """sha256 over code hash, workflow and parameters: what an approval is bound to."""
    rerun_of: str | None = None
    form: str | None = None
    """The form that it was submitted with."""
    hidden_inputs: tuple[str, ...] = ()
    """Inputs that the form bound, and that whoever filled it in must not see."""
    created_at: AwareDatetime
    schedule_id: str | None = None
    acts_for: str | None = None
    """Whose rights it has where that is not the caller: the subject who saved the schedule."""
    retry_of: str | None = None
    """The first execution of the same due time."""
    attempt: int = 0
    retries_left: int = 0


class Execution(NewExecution):
    """A row of the history."""

    started_at: AwareDatetime | None = None
    completed_at: AwareDatetime | None = None
    fence: str | None = None
    """Random per claim; whoever writes for a running execution must name it."""
    owner: str | None = None
    lease_until: AwareDatetime | None = None
    cancel_requested_by: str | None = None
    approved_by: str | None = None
    result: Any = None
    error: str | None = None
    error_type: str | None = None
    error_details: Any = None
    record_sha256: str | None = None

    @property
    def is_waiting(self) -> bool:
        """Nothing of it ran yet."""
        return self.status in (models.ExecutionStatus.PENDING, models.ExecutionStatus.AWAITING_APPROVAL)

    @property
    def duration_ms(self) -> int | None:
        if self.completed_at is None or self.started_at is None:
            return None
        return round((self.completed_at - self.started_at).total_seconds() * 1000)


class Outcome(Frozen):
    """How an execution ended; everything in it is already masked."""

    status: models.ExecutionStatus
    result: Any = None
    error: str | None = None
    error_type: str | None = None
    error_details: Any = None
    completed_at: AwareDatetime


class Idempotency(Frozen):
    """`key` is unique per (credential, organization, workflow) for 24 hours; `body_sha256` tells repeat from misuse."""

    credential: str
    key: str
    body_sha256: str


class AuditEntry(Frozen):
    """An administrative act; `details` never holds a secret's value."""

    at: AwareDatetime
    actor: str
    action: str
    """A dotted verb: `config.set`, `key.create`, `access.denied`, …"""
    organization: str | None = None
    target: str | None = None
    details: dict[str, Any] = Field(default_factory=dict)
    address: str | None = None


class LedgerEntry(Frozen):
    """A link of the append-only chain: `hash = sha256(prev_hash + "\\n" + body)`, `body` canonical JSON as stored.

    `signature` is what the store's signer made of `hash`; empty when the store was built without one.
    """

    seq: int
    kind: Literal["execution", "audit"]
    execution_id: str | None
    body: str
    prev_hash: str
    hash: str
    signature: str = ""


class CachedOptions(Frozen):
    options: tuple[models.Option, ...]
    cached_at: AwareDatetime


class OptionsKey(Frozen):
    """What the answer of a data provider depends on."""

    organization: str
    provider: str
    inputs_sha256: str
    code_hash: str


class ExecutionFilter(Frozen):
    """`organizations` None means all; `before` is the id of the last row of the page before."""

    organizations: tuple[str, ...] | None
    workflow: str | None = None
    status: models.ExecutionStatus | None = None
    caller: str | None = None
    """Matches the subject or the email exactly."""
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None
    """Substring of workflow name, error, or parameters, case-insensitive.

    Parameters of an execution with hidden inputs are not searched: a search that finds them would tell them.
    """
    before: str | None = None
    limit: int = 50


class Submitted(Frozen):
    execution: Execution
    replayed: bool
    """True when an earlier submit with the same idempotency key made it."""


class Store(
    people_contract.PeopleStore,
    session_contract.SessionStore,
    form_contract.FormStore,
    schedule_contract.ScheduleStore,
):
    """The only way to the database."""

    @abstractmethod
    def close(self) -> None:
        """Flush what is queued and close; later calls raise `Unavailable`."""

    @abstractmethod
    def check(self) -> None:
        """Read and write one row to show that the store works.

        Raises:
            Unavailable: it does not.
        """

    @abstractmethod
    def has_committed_within(self, seconds: float) -> bool:
        """Whether something became durable as lately as that, which shows without another write that the store works.

        Answers at once, whatever the disk does.
        """

    # organizations and keys

    @abstractmethod
    def create_organization(self, organization: Organization, *, audit: AuditEntry) -> None:
        """Raises `Conflict` when the id exists."""

    @abstractmethod
    def change_organization(
        self, organization_id: str, change: OrganizationChange, *, audit: AuditEntry
    ) -> Organization:
        """Raises `NotFound`."""

    @abstractmethod
    def find_organization(self, organization_id: str) -> Organization | None: ...

    @abstractmethod
    def list_organizations(self, *, after: str | None = None, limit: int = 50) -> list[Organization]:
        """By id, ascending."""

    @abstractmethod
    def create_key(self, key: ApiKey, *, audit: AuditEntry) -> None: ...

    @abstractmethod
    def find_key(self, key_id: str) -> ApiKey | None: ...

    @abstractmethod
    def list_keys(self, *, organization: str | None = None, after: str | None = None, limit: int = 50) -> list[ApiKey]:
        """By id, ascending; with `organization` only keys scoped to it."""

    @abstractmethod
    def delete_key(self, key_id: str, *, audit: AuditEntry) -> None:
        """Raises `NotFound`."""

    @abstractmethod
    def touch_key(self, key_id: str, used_at: datetime) -> None:
        """Remember the last use; may be lost in a power cut, never blocks on other writes for durability."""

    # config, secrets, connections

    @abstractmethod
    def put_config(self, entry: ConfigEntry, *, audit: AuditEntry) -> None: ...

    @abstractmethod
    def find_config(self, scope: str, key: str) -> ConfigEntry | None: ...

    @abstractmethod
    def list_config(self, scope: str, *, after: str | None = None, limit: int = 50) -> list[ConfigEntry]:
        """By key, ascending."""

    @abstractmethod
    def delete_config(self, scope: str, key: str, *, audit: AuditEntry) -> None:
        """Raises `NotFound`."""

    @abstractmethod
    def put_secret(self, secret: SealedSecret, *, audit: AuditEntry) -> None:
        """Insert `version` = last version ever used of (scope, name) + 1, replacing older ciphertext.

        Versions never repeat, not even after a deletion. Raises `Conflict` when `secret.version` is not the next.
        """

    @abstractmethod
    def next_secret_version(self, scope: str, name: str) -> int: ...

    @abstractmethod
    def find_secret(self, scope: str, name: str) -> SealedSecret | None: ...

    @abstractmethod
    def list_secrets(self, scope: str, *, after: str | None = None, limit: int = 50) -> list[SealedSecret]:
        """By name, ascending."""

    @abstractmethod
    def delete_secret(self, scope: str, name: str, *, audit: AuditEntry) -> None:
        """Raises `NotFound`."""

    @abstractmethod
    def put_connection(self, connection: Connection, *, audit: AuditEntry) -> None:
        """Create or replace; `version` = last version ever used of (scope, name) + 1, as for secrets.

        Raises `Conflict` when `connection.version` is not the next: somebody else has changed it since it was read.
        """

    @abstractmethod
    def next_connection_version(self, scope: str, name: str) -> int: ...

    @abstractmethod
    def find_connection(self, scope: str, name: str) -> Connection | None: ...

    @abstractmethod
    def list_connections(self, scope: str, *, after: str | None = None, limit: int = 50) -> list[Connection]:
        """By name, ascending."""

    @abstractmethod
    def delete_connection(self, scope: str, name: str, *, audit: AuditEntry) -> None:
        """Raises `NotFound`."""

    @abstractmethod
    def list_sealed_scopes(self) -> list[str]:
        """Every scope that holds a secret or a connection, ascending."""

    # data providers

    @abstractmethod
    def find_options(self, key: OptionsKey, *, not_before: datetime) -> CachedOptions | None:
        """The cached answer, when it was made at `not_before` or later."""

    @abstractmethod
    def put_options(self, key: OptionsKey, cached: CachedOptions) -> None: ...

    # executions

    @abstractmethod
    def submit_execution(
        self,
        new: NewExecution,
        *,
        idempotency: Idempotency | None = None,
        queue_limit: int,
        firing: schedule_contract.Firing | None = None,
        retried: str | None = None,
    ) -> Submitted:
        """Insert a row, its first status event (`{"status": …}`), and its idempotency key, all or nothing.

        With `firing`, the due times of that step are written and the schedule moves on in the same transaction; with
        `retried`, what retries that execution has left are used up in it.

        Raises:
            TooManyRequests: the organization has `queue_limit` rows in `pending` already.
            Conflict: the idempotency key is known (younger than 24 h) with another body.
            AccountedElsewhere: the due time has its row already, or the retry its execution.
        """

    @abstractmethod
    def find_replay(
        self, organization: str, workflow: str, idempotency: Idempotency, *, now: datetime
    ) -> Execution | None:
        """The execution that this idempotency key made; None when it is new or older than 24 h.

        Raises:
            Conflict: the key is known with another body.
        """

    @abstractmethod
    def claim_execution(
        self, *, owner: str, now: datetime, lease_seconds: float, organization_limit: int
    ) -> Execution | None:
        """Make one `pending` execution `running` for `owner`, with a fresh random fence, and write its status event.

        Fair: the organization with the fewest running executions comes first, then the oldest execution. An
        organization with `organization_limit` running ones waits. Two callers never get the same execution.
        """

    @abstractmethod
    def renew_leases(self, *, owner: str, until: datetime) -> None:
        """Extend the lease of everything that `owner` runs."""

    @abstractmethod
    def list_lost(self, *, owner: str, now: datetime) -> list[Execution]:
        """Running executions of other owners whose lease is over, oldest first."""

    @abstractmethod
    def list_running(self) -> list[Execution]: ...

    @abstractmethod
    def finish_execution(
        self, execution_id: str, *, fence: str | None, outcome: Outcome, record_sha256: str | None
    ) -> Execution:
        """Write the final status, its status event, and the ledger link of the record in one transaction.

        `fence` must be that of the running claim; None only finishes an execution that never ran (`pending` or
        `awaiting_approval`: cancelled, rejected). The ledger body holds execution id, organization, workflow,
        caller, status, completed_at and record_sha256.

        Raises:
            Conflict: the execution is final already, or the fence is another.
            NotFound: there is no such execution.
        """

    @abstractmethod
    def request_cancel(self, execution_id: str, *, by: str, audit: AuditEntry) -> Execution:
        """Note who wants it ended. A final execution is returned unchanged, without an audit entry."""

    @abstractmethod
    def approve_execution(self, execution_id: str, *, by: str, approval_hash: str, audit: AuditEntry) -> Execution:
        """`awaiting_approval` → `pending`, with its status event.

        Raises:
            Conflict: it is not waiting, or `approval_hash` is not what the approver saw.
        """

    @abstractmethod
    def append_event(
        self,
        execution_id: str,
        *,
        fence: str,
        type: models.EventType,
        body: dict[str, Any],
        at: datetime,
    ) -> int:
        """Append to a running execution; returns the event's `seq` (1, 2, 3 … without gaps).

        Raises:
            Conflict: the execution does not run under this fence any more.
        """

    @abstractmethod
    def list_events(self, execution_id: str, *, after: int = 0, limit: int = 1000) -> list[models.Event]:
        """By seq, ascending."""

    @abstractmethod
    def find_execution(self, execution_id: str) -> Execution | None: ...

    @abstractmethod
    def list_executions(self, wanted: ExecutionFilter) -> list[Execution]:
        """By id, descending (ids are UUIDv7, so newest first)."""

    @abstractmethod
    def count_active(self) -> dict[str, int]:
        """How many executions are `pending`, `awaiting_approval` and `running` now (for metrics; indexed)."""

    # ledger

    @abstractmethod
    def append_audit(self, entry: AuditEntry) -> None: ...

    @abstractmethod
    def list_ledger(self, *, after: int = 0, limit: int = 1000) -> Sequence[LedgerEntry]:
        """By seq, ascending."""

    @abstractmethod
    def find_ledger_head(self) -> LedgerEntry | None:
        """The last entry; None while there is none."""

    @abstractmethod
    def find_ledger_of(self, execution_id: str) -> LedgerEntry | None: ...
