"""The schema of the SQLite store, as functions that are appended and never edited. `SqliteStore` applies them at start.

Columns that are read on the hot path stand before the long JSON ones, so that SQLite does not follow overflow pages.
"""

from __future__ import annotations

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from bifrost_scheduler.store import text_index

migrations = Migrations("bifrost")


@migrations()
def people(db: Database) -> None:
    db.table("health").create({"id": int, "checks": int}, pk="id", strict=True)
    db.table("health").insert({"id": 1, "checks": 0})
    db.table("organizations").create(
        {"id": str, "name": str, "tenant_id": str, "active": int, "created_at": str},
        pk="id",
        not_null={"name", "active", "created_at"},
        strict=True,
    )
    db.table("users").create(
        {"email": str, "name": str, "roles": str, "active": int, "created_at": str},
        pk="email",
        not_null={"name", "roles", "active", "created_at"},
        strict=True,
    )
    db.table("keys").create(
        {
            "id": str,
            "name": str,
            "sha256": str,
            "organizations": str,
            "workflows": str,
            "permissions": str,
            "platform_admin": int,
            "acts_as": str,
            "created_by": str,
            "created_at": str,
            "expires_at": str,
            "last_used_at": str,
        },
        pk="id",
        not_null={"name", "sha256", "permissions", "platform_admin", "created_by", "created_at"},
        strict=True,
    )


@migrations()
def scoped(db: Database) -> None:
    changed = {"updated_at": str, "updated_by": str}
    db.table("config").create(
        {"scope": str, "key": str, "type": str, "value": str, **changed},
        pk=("scope", "key"),
        not_null={"type", "value", *changed},
        strict=True,
    )
    db.table("secrets").create(
        {"scope": str, "name": str, "version": int, "sealed": bytes, **changed},
        pk=("scope", "name"),
        not_null={"version", "sealed", *changed},
        strict=True,
    )
    db.table("connections").create(
        {
            "scope": str,
            "name": str,
            "version": int,
            "oauth_flow_type": str,
            "client_id": str,
            "authorization_url": str,
            "token_url": str,
            "scopes": str,
            "token_type": str,
            "expires_at": str,
            "status": str,
            "last_error": str,
            "sealed": bytes,
            **changed,
        },
        pk=("scope", "name"),
        not_null={"version", "oauth_flow_type", "client_id", "scopes", "token_type", "status", "sealed", *changed},
        strict=True,
    )
    # Outlives the rows that it counts, so that old ciphertext never becomes valid again.
    db.table("versions").create(
        {"kind": str, "scope": str, "name": str, "version": int},
        pk=("kind", "scope", "name"),
        not_null={"version"},
        strict=True,
    )
    db.table("options").create(
        {
            "organization": str,
            "provider": str,
            "inputs_sha256": str,
            "code_hash": str,
            "options": str,
            "cached_at": str,
        },
        pk=("organization", "provider", "inputs_sha256", "code_hash"),
        not_null={"options", "cached_at"},
        strict=True,
    )


@migrations()
def executions(db: Database) -> None:
    db.execute(
        """
        CREATE TABLE executions (
            id TEXT PRIMARY KEY NOT NULL,
            organization TEXT NOT NULL,
            workflow TEXT NOT NULL,
            status TEXT NOT NULL,
            fence TEXT,
            owner TEXT,
            lease_until TEXT,
            trigger TEXT NOT NULL,
            caller_subject TEXT NOT NULL,
            caller_email TEXT,
            caller_name TEXT,
            code_hash TEXT NOT NULL,
            timeout_seconds INTEGER NOT NULL,
            approval_hash TEXT,
            rerun_of TEXT,
            created_at TEXT NOT NULL,
            started_at TEXT,
            completed_at TEXT,
            cancel_requested_by TEXT,
            approved_by TEXT,
            record_sha256 TEXT,
            error_type TEXT,
            error TEXT,
            parameters TEXT NOT NULL,
            error_details TEXT,
            result TEXT
        ) STRICT
        """
    )
    # Equality columns, then the id: each filter walks its own index in the order of the list. What stands behind the id
    # saves the look into the row for a second filter.
    for name, columns in {
        "executions_by_organization": "organization, id",
        "executions_by_workflow": "organization, workflow, id",
        "executions_by_workflow_status": "organization, workflow, status, id",
        "executions_by_status": "organization, status, id",
        "executions_by_subject": "organization, caller_subject, id, status, workflow",
        "executions_by_email": "organization, caller_email, id, status, workflow",
    }.items():
        db.execute(f"CREATE INDEX {name} ON executions ({columns})")
    # Stays as small as the queue, however long the history is.
    db.execute("CREATE INDEX executions_active ON executions (status, organization, id) WHERE completed_at IS NULL")


@migrations()
def events(db: Database) -> None:
    db.execute(
        """
        CREATE TABLE events (
            execution_id TEXT NOT NULL REFERENCES executions (id),
            seq INTEGER NOT NULL,
            at TEXT NOT NULL,
            type TEXT NOT NULL,
            body TEXT NOT NULL,
            PRIMARY KEY (execution_id, seq)
        ) STRICT, WITHOUT ROWID
        """
    )


@migrations()
def idempotency(db: Database) -> None:
    db.execute(
        """
        CREATE TABLE idempotency (
            credential TEXT NOT NULL,
            organization TEXT NOT NULL,
            workflow TEXT NOT NULL,
            key TEXT NOT NULL,
            body_sha256 TEXT NOT NULL,
            execution_id TEXT NOT NULL REFERENCES executions (id),
            created_at TEXT NOT NULL,
            PRIMARY KEY (credential, organization, workflow, key)
        ) STRICT, WITHOUT ROWID
        """
    )
    db.execute("CREATE INDEX idempotency_by_age ON idempotency (created_at)")


@migrations()
def ledger(db: Database) -> None:
    db.execute(
        """
        CREATE TABLE ledger (
            seq INTEGER PRIMARY KEY,
            kind TEXT NOT NULL,
            execution_id TEXT,
            body TEXT NOT NULL,
            prev_hash TEXT NOT NULL,
            hash TEXT NOT NULL,
            signature TEXT NOT NULL
        ) STRICT
        """
    )
    db.execute("CREATE INDEX ledger_by_execution ON ledger (execution_id) WHERE execution_id IS NOT NULL")


@migrations()
def signing_in(db: Database) -> None:
    for column in ("password_hash TEXT", "issuer TEXT", "subject TEXT"):
        db.execute(f"ALTER TABLE users ADD COLUMN {column}")
    for column in ("epoch INTEGER NOT NULL DEFAULT 0", "version INTEGER NOT NULL DEFAULT 1"):
        db.execute(f"ALTER TABLE users ADD COLUMN {column}")
    db.execute("CREATE UNIQUE INDEX users_by_account ON users (issuer, subject) WHERE subject IS NOT NULL")
    db.execute("ALTER TABLE keys ADD COLUMN made_by TEXT")
    db.table("roles").create(
        {"name": str, "description": str, "permissions": str},
        pk="name",
        not_null={"description", "permissions"},
        strict=True,
    )
    db.table("sessions").create(
        {
            "id": str,
            "sha256": str,
            "email": str,
            "epoch": int,
            "created_at": str,
            "used_at": str,
            "expires_at": str,
            "address": str,
            "agent": str,
        },
        pk="id",
        not_null={"sha256", "email", "epoch", "created_at", "used_at", "expires_at"},
        strict=True,
    )
    db.table("sessions").create_index(["sha256"], unique=True)
    db.table("sessions").create_index(["email", "id"])
    db.table("sessions").create_index(["expires_at"])
    lasting = {"created_at": str, "expires_at": str}
    db.table("links").create(
        {"sha256": str, "kind": str, "email": str, "epoch": int, **lasting},
        pk="sha256",
        not_null={"kind", "email", "epoch", *lasting},
        strict=True,
    )
    db.table("attempts").create(
        {"bucket": str, "count": int, "ends_at": str}, pk="bucket", not_null={"count", "ends_at"}, strict=True
    )
    db.table("attempts").create_index(["ends_at"])
    db.table("authorizations").create(
        {"state_sha256": str, "binding_sha256": str, "redirect_uri": str, "return_to": str, **lasting},
        pk="state_sha256",
        not_null={"binding_sha256", "redirect_uri", *lasting},
        strict=True,
    )


@migrations()
def forms(db: Database) -> None:
    db.table("forms").create(
        {"scope": str, "name": str, "version": int, "definition": str, "updated_at": str, "updated_by": str},
        pk=("scope", "name"),
        not_null={"version", "definition", "updated_at", "updated_by"},
        strict=True,
    )
    db.table("drafts").create(
        {"subject": str, "organization": str, "form": str, "sealed": bytes, "updated_at": str},
        pk=("subject", "organization", "form"),
        not_null={"sealed", "updated_at"},
        strict=True,
    )
    db.execute("CREATE INDEX drafts_by_age ON drafts (updated_at)")
    db.execute("ALTER TABLE executions ADD COLUMN form TEXT")
    db.execute("ALTER TABLE executions ADD COLUMN hidden_inputs TEXT NOT NULL DEFAULT '[]'")


@migrations()
def schedules(db: Database) -> None:
    for column in (
        "schedule_id TEXT",
        "acts_for TEXT",
        "retry_of TEXT",
        "attempt INTEGER NOT NULL DEFAULT 0",
        "retries_left INTEGER NOT NULL DEFAULT 0",
    ):
        db.execute(f"ALTER TABLE executions ADD COLUMN {column}")
    db.execute(
        "CREATE INDEX executions_of_schedule ON executions (schedule_id, id) "
        "WHERE completed_at IS NULL AND schedule_id IS NOT NULL"
    )
    db.execute(
        "CREATE INDEX executions_to_retry ON executions (completed_at) "
        "WHERE retries_left > 0 AND status IN ('failed', 'timeout', 'crashed')"
    )
    db.execute(
        """
        CREATE TABLE schedules (
            id TEXT PRIMARY KEY NOT NULL,
            organization TEXT NOT NULL,
            name TEXT NOT NULL,
            origin TEXT NOT NULL,
            rule_id TEXT,
            derived INTEGER NOT NULL,
            version INTEGER NOT NULL,
            saved_by TEXT NOT NULL,
            saved_at TEXT NOT NULL,
            paused_at TEXT,
            paused_by TEXT,
            accounted_until TEXT NOT NULL,
            wake_at TEXT,
            created_at TEXT NOT NULL,
            deleted_at TEXT,
            definition TEXT NOT NULL
        ) STRICT
        """
    )
    db.execute("CREATE UNIQUE INDEX schedules_by_name ON schedules (organization, name) WHERE deleted_at IS NULL")
    db.execute("CREATE INDEX schedules_by_wake ON schedules (wake_at) WHERE wake_at IS NOT NULL AND deleted_at IS NULL")
    db.execute("CREATE INDEX schedules_derived ON schedules (derived) WHERE derived = 1 AND deleted_at IS NULL")
    db.execute(
        """
        CREATE TABLE schedule_versions (
            schedule_id TEXT NOT NULL REFERENCES schedules (id),
            version INTEGER NOT NULL,
            change TEXT NOT NULL,
            at TEXT NOT NULL,
            by TEXT NOT NULL,
            definition TEXT NOT NULL,
            PRIMARY KEY (schedule_id, version)
        ) STRICT, WITHOUT ROWID
        """
    )
    # The primary key is the lock: whoever ticks, a due time has one row.
    db.execute(
        """
        CREATE TABLE due_times (
            schedule_id TEXT NOT NULL REFERENCES schedules (id),
            organization TEXT NOT NULL,
            due_at TEXT NOT NULL,
            planned_at TEXT NOT NULL,
            outcome TEXT NOT NULL,
            reason TEXT,
            execution_id TEXT,
            decided_at TEXT NOT NULL,
            PRIMARY KEY (schedule_id, due_at)
        ) STRICT, WITHOUT ROWID
        """
    )
    db.execute("CREATE INDEX due_times_by_organization ON due_times (organization, due_at)")
    db.execute("CREATE UNIQUE INDEX due_times_by_execution ON due_times (execution_id) WHERE execution_id IS NOT NULL")
    db.execute(
        """
        CREATE TABLE stretches (
            owner TEXT NOT NULL,
            started_at TEXT NOT NULL,
            until_at TEXT NOT NULL,
            PRIMARY KEY (owner, started_at)
        ) STRICT, WITHOUT ROWID
        """
    )


@migrations()
def search(db: Database) -> None:
    text_index.create(db)


@migrations()
def egress_lists(db: Database) -> None:
    db.execute("ALTER TABLE organizations ADD COLUMN egress TEXT")
