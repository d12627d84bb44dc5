"""The store in one SQLite file: the implementation of `Store` that a control plane on one machine uses.

`services.build` makes it with the path of the database and the signer of the ledger. All writes go through one thread
(`writer`), reads through borrowed connections (`readers`). It does not keep a second process from opening the file: the
lock of the home does that. It decides no permission and never sees a secret's text.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from sqlite_utils import Database

from bifrost_kernel import errors, models
from bifrost_scheduler.store import (
    contract,
    form_contract,
    forms,
    history,
    lifecycle,
    people,
    rows,
    sessions,
    text_index,
)
from bifrost_scheduler.store.migrations import migrations
from bifrost_scheduler.store.readers import Readers
from bifrost_scheduler.store.schedule_contract import Firing
from bifrost_scheduler.store.schedules import SqliteSchedules, account, take_retry
from bifrost_scheduler.store.statements import insert, returned
from bifrost_scheduler.store.writer import Writer, public_error

Shape = TypeVar("Shape", bound=models.Frozen)
Status = models.ExecutionStatus

OPTIONS_KEPT = timedelta(hours=24)
TOUCH_EVERY = timedelta(minutes=1)


class SqliteStore(people.SqlitePeople, sessions.SqliteSessions, SqliteSchedules, contract.Store):
    def __init__(
        self, path: Path, *, sign: Callable[[str], str] | None = None, busy_timeout_seconds: float = 5.0
    ) -> None:
        """Open or create the database, readable by its owner alone, and bring its schema up to date.

        Args:
            sign: what signs the hash of each ledger entry.

        Raises:
            Unavailable: the file cannot be opened, is no database, or a newer version of the product wrote it.
        """
        self._path = path
        self._busy_timeout_seconds = busy_timeout_seconds
        self._touched: dict[str, datetime] = {}
        self._touching = threading.Lock()
        super().__init__(Writer(self._open()), Readers(self._connect_reader), sign or (lambda _: ""))

    def close(self) -> None:
        self._writer.close()
        self._readers.close()

    def check(self) -> None:
        written = self._writer.run(lambda db: returned(db, "UPDATE health SET checks = checks + 1 RETURNING checks"))
        read = self._readers.fetch("SELECT checks FROM health")
        if not read or read[0]["checks"] < written[0]["checks"]:
            raise errors.Unavailable("the store does not give back what was written")

    def has_committed_within(self, seconds: float) -> bool:
        return self._writer.has_committed_within(seconds)

    # organizations and keys

    def create_organization(self, organization: contract.Organization, *, audit: contract.AuditEntry) -> None:
        self._insert_new("organizations", organization, f"organization {organization.id!r}", audit)

    def change_organization(
        self, organization_id: str, change: contract.OrganizationChange, *, audit: contract.AuditEntry
    ) -> contract.Organization:
        def operation(db: Database) -> contract.Organization:
            columns = {name: rows.columns_of(change)[name] for name in change.given}
            assignments = ", ".join(f"{name} = :{name}" for name in columns)
            sql = f"UPDATE organizations SET {assignments} WHERE id = :id RETURNING *"  # noqa: S608  names of fields
            changed = returned(db, sql, {**columns, "id": organization_id})
            if not changed:
                raise errors.NotFound(f"there is no organization {organization_id!r}")
            self._audit(db, audit)
            return contract.Organization(**rows.fields_of(changed[0]))

        return self._writer.run(operation)

    def find_organization(self, organization_id: str) -> contract.Organization | None:
        return self._find(contract.Organization, "SELECT * FROM organizations WHERE id = ?", organization_id)

    def list_organizations(self, *, after: str | None = None, limit: int = 50) -> list[contract.Organization]:
        sql = "SELECT * FROM organizations WHERE id > ? ORDER BY id LIMIT ?"
        return self._list(contract.Organization, sql, after or "", limit)

    def create_key(self, key: contract.ApiKey, *, audit: contract.AuditEntry) -> None:
        self._insert_new("keys", key, f"key {key.id!r}", audit)

    def find_key(self, key_id: str) -> contract.ApiKey | None:
        return self._find(contract.ApiKey, "SELECT * FROM keys WHERE id = ?", key_id)

    def list_keys(
        self, *, organization: str | None = None, after: str | None = None, limit: int = 50
    ) -> list[contract.ApiKey]:
        if organization is None:
            return self._list(
                contract.ApiKey, "SELECT * FROM keys WHERE id > ? ORDER BY id LIMIT ?", after or "", limit
            )
        sql = (
            "SELECT * FROM keys WHERE id > ? AND EXISTS (SELECT 1 FROM json_each(organizations) WHERE value = ?) "
            "ORDER BY id LIMIT ?"
        )
        return self._list(contract.ApiKey, sql, after or "", organization, limit)

    def delete_key(self, key_id: str, *, audit: contract.AuditEntry) -> None:
        self._delete("keys", {"id": key_id}, f"key {key_id!r}", audit)

    def touch_key(self, key_id: str, used_at: datetime) -> None:
        with self._touching:
            last = self._touched.get(key_id)
            if last is not None and used_at - last < TOUCH_EVERY:
                return
            self._touched[key_id] = used_at
        text = rows.to_text(used_at)
        self._writer.post(lambda db: db.execute("UPDATE keys SET last_used_at = ? WHERE id = ?", (text, key_id)))

    # config, secrets, connections

    def put_config(self, entry: contract.ConfigEntry, *, audit: contract.AuditEntry) -> None:
        self._put("config", entry, audit)

    def find_config(self, scope: str, key: str) -> contract.ConfigEntry | None:
        return self._find(contract.ConfigEntry, "SELECT * FROM config WHERE scope = ? AND key = ?", scope, key)

    def list_config(self, scope: str, *, after: str | None = None, limit: int = 50) -> list[contract.ConfigEntry]:
        sql = "SELECT * FROM config WHERE scope = ? AND key > ? ORDER BY key LIMIT ?"
        return self._list(contract.ConfigEntry, sql, scope, after or "", limit)

    def delete_config(self, scope: str, key: str, *, audit: contract.AuditEntry) -> None:
        self._delete("config", {"scope": scope, "key": key}, f"config {key!r} in {scope}", audit)

    def put_secret(self, secret: contract.SealedSecret, *, audit: contract.AuditEntry) -> None:
        self._put_version("secrets", secret, audit)

    def next_secret_version(self, scope: str, name: str) -> int:
        return self._next_version("secrets", scope, name)

    def find_secret(self, scope: str, name: str) -> contract.SealedSecret | None:
        return self._find(contract.SealedSecret, "SELECT * FROM secrets WHERE scope = ? AND name = ?", scope, name)

    def list_secrets(self, scope: str, *, after: str | None = None, limit: int = 50) -> list[contract.SealedSecret]:
        sql = "SELECT * FROM secrets WHERE scope = ? AND name > ? ORDER BY name LIMIT ?"
        return self._list(contract.SealedSecret, sql, scope, after or "", limit)

    def delete_secret(self, scope: str, name: str, *, audit: contract.AuditEntry) -> None:
        self._delete("secrets", {"scope": scope, "name": name}, f"secret {name!r} in {scope}", audit, scrub=True)

    def put_connection(self, connection: contract.Connection, *, audit: contract.AuditEntry) -> None:
        self._put_version("connections", connection, audit)

    def next_connection_version(self, scope: str, name: str) -> int:
        return self._next_version("connections", scope, name)

    def find_connection(self, scope: str, name: str) -> contract.Connection | None:
        return self._find(contract.Connection, "SELECT * FROM connections WHERE scope = ? AND name = ?", scope, name)

    def list_connections(self, scope: str, *, after: str | None = None, limit: int = 50) -> list[contract.Connection]:
        sql = "SELECT * FROM connections WHERE scope = ? AND name > ? ORDER BY name LIMIT ?"
        return self._list(contract.Connection, sql, scope, after or "", limit)

    def delete_connection(self, scope: str, name: str, *, audit: contract.AuditEntry) -> None:
        where = {"scope": scope, "name": name}
        self._delete("connections", where, f"connection {name!r} in {scope}", audit, scrub=True)

    def list_sealed_scopes(self) -> list[str]:
        sql = "SELECT scope FROM secrets UNION SELECT scope FROM connections ORDER BY scope"
        return [row["scope"] for row in self._readers.fetch(sql)]

    # forms

    def put_form(self, form: form_contract.StoredForm, *, audit: contract.AuditEntry) -> form_contract.StoredForm:
        def operation(db: Database) -> form_contract.StoredForm:
            stored = forms.put(db, form)
            self._audit(db, audit)
            return stored

        return self._writer.run(operation)

    def find_form(self, scope: str, name: str) -> form_contract.StoredForm | None:
        return self._find(form_contract.StoredForm, forms.FIND, scope, name)

    def list_forms(self, scope: str, *, after: str | None = None, limit: int = 50) -> list[form_contract.StoredForm]:
        return self._list(form_contract.StoredForm, forms.LIST, scope, after or "", limit)

    def delete_form(self, scope: str, name: str, *, audit: contract.AuditEntry) -> None:
        def operation(db: Database) -> None:
            forms.delete(db, scope, name)
            self._audit(db, audit)

        self._writer.run(operation)

    def put_draft(self, draft: form_contract.Draft, *, oldest: datetime) -> None:
        self._writer.run(lambda db: forms.put_draft(db, draft, oldest), scrub=True)

    def find_draft(
        self, subject: str, organization: str, form: str, *, not_before: datetime
    ) -> form_contract.Draft | None:
        parameters = (subject, organization, form, rows.to_text(not_before))
        return self._find(form_contract.Draft, forms.FIND_DRAFT, *parameters)

    def delete_draft(self, subject: str, organization: str, form: str) -> None:
        self._writer.run(lambda db: forms.delete_draft(db, subject, organization, form), scrub=True)

    # data providers

    def find_options(self, key: contract.OptionsKey, *, not_before: datetime) -> contract.CachedOptions | None:
        return self._find(
            contract.CachedOptions,
            "SELECT options, cached_at FROM options WHERE organization = ? AND provider = ? AND inputs_sha256 = ? "
            "AND code_hash = ? AND cached_at >= ?",
            key.organization,
            key.provider,
            key.inputs_sha256,
            key.code_hash,
            rows.to_text(not_before),
        )

    def put_options(self, key: contract.OptionsKey, cached: contract.CachedOptions) -> None:
        oldest = rows.to_text(cached.cached_at - OPTIONS_KEPT)

        def operation(db: Database) -> None:
            sql = "DELETE FROM options WHERE organization = ? AND provider = ? AND cached_at < ?"
            db.execute(sql, (key.organization, key.provider, oldest))
            insert(db, "options", rows.columns_of(key) | rows.columns_of(cached), verb="INSERT OR REPLACE")

        self._writer.run(operation)

    # executions

    def submit_execution(
        self,
        new: contract.NewExecution,
        *,
        idempotency: contract.Idempotency | None = None,
        queue_limit: int,
        firing: Firing | None = None,
        retried: str | None = None,
    ) -> contract.Submitted:
        def operation(db: Database) -> contract.Submitted:
            submitted = lifecycle.submit(db, new, idempotency, queue_limit=queue_limit)
            if firing is not None:
                account(db, firing, new.id)
            if retried is not None:
                take_retry(db, retried)
            return submitted

        return self._writer.run(operation)

    def find_replay(
        self, organization: str, workflow: str, idempotency: contract.Idempotency, *, now: datetime
    ) -> contract.Execution | None:
        parameters = lifecycle.replay_parameters(organization, workflow, idempotency, now)
        replayed = lifecycle.replayed_id(self._readers.fetch(lifecycle.FIND_REPLAY, parameters), idempotency)
        return self.find_execution(replayed) if replayed else None

    def claim_execution(
        self, *, owner: str, now: datetime, lease_seconds: float, organization_limit: int
    ) -> contract.Execution | None:
        lease_until = now + timedelta(seconds=lease_seconds)
        return self._writer.run(
            lambda db: lifecycle.claim(
                db, owner=owner, now=now, lease_until=lease_until, organization_limit=organization_limit
            )
        )

    def renew_leases(self, *, owner: str, until: datetime) -> None:
        sql = "UPDATE executions SET lease_until = ? WHERE completed_at IS NULL AND status = 'running' AND owner = ?"
        self._writer.run(lambda db: db.execute(sql, (rows.to_text(until), owner)).rowcount)

    def list_lost(self, *, owner: str, now: datetime) -> list[contract.Execution]:
        sql = (
            "SELECT * FROM executions WHERE completed_at IS NULL AND status = 'running' "
            "AND owner <> ? AND lease_until < ? ORDER BY id"
        )
        return [rows.execution_of(row) for row in self._readers.fetch(sql, (owner, rows.to_text(now)))]

    def list_running(self) -> list[contract.Execution]:
        sql = "SELECT * FROM executions WHERE completed_at IS NULL AND status = 'running' ORDER BY id DESC"
        return [rows.execution_of(row) for row in self._readers.fetch(sql)]

    def finish_execution(
        self, execution_id: str, *, fence: str | None, outcome: contract.Outcome, record_sha256: str | None
    ) -> contract.Execution:
        def operation(db: Database) -> tuple[contract.Execution, bool]:
            done = lifecycle.finish(db, execution_id, fence=fence, outcome=outcome, record_sha256=record_sha256)
            self._link(db, "execution", execution_id, rows.execution_body(done))
            return done, text_index.is_batch_waiting(db)

        done, is_batch_waiting = self._writer.run(operation)
        if is_batch_waiting:
            with contextlib.suppress(errors.Unavailable):  # Closed meanwhile; the next one that ends asks again.
                self._writer.post(text_index.add_waiting)
        return done

    def request_cancel(self, execution_id: str, *, by: str, audit: contract.AuditEntry) -> contract.Execution:
        def operation(db: Database) -> contract.Execution:
            asked = lifecycle.request_cancel(db, execution_id, by=by)
            if asked is None:
                return lifecycle.get(db, execution_id)
            self._audit(db, audit)
            return asked

        return self._writer.run(operation)

    def approve_execution(
        self, execution_id: str, *, by: str, approval_hash: str, audit: contract.AuditEntry
    ) -> contract.Execution:
        def operation(db: Database) -> contract.Execution:
            approved = lifecycle.approve(db, execution_id, by=by, approval_hash=approval_hash, at=audit.at)
            self._audit(db, audit)
            return approved

        return self._writer.run(operation)

    def append_event(
        self,
        execution_id: str,
        *,
        fence: str,
        type: models.EventType,
        body: dict[str, Any],
        at: datetime,
    ) -> int:
        columns = (rows.to_text(at), type, rows.to_json(body))
        return self._writer.run(lambda db: lifecycle.append_event(db, execution_id, fence, columns))

    def list_events(self, execution_id: str, *, after: int = 0, limit: int = 1000) -> list[models.Event]:
        sql = "SELECT * FROM events WHERE execution_id = ? AND seq > ? ORDER BY seq LIMIT ?"
        return [rows.event_of(row) for row in self._readers.fetch(sql, (execution_id, after, limit))]

    def find_execution(self, execution_id: str) -> contract.Execution | None:
        found = self._readers.fetch("SELECT * FROM executions WHERE id = ?", (execution_id,))
        return rows.execution_of(found[0]) if found else None

    def list_executions(self, wanted: contract.ExecutionFilter) -> list[contract.Execution]:
        ids = history.newest_ids(wanted, self._readers.fetch)
        sql = "SELECT * FROM executions WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id DESC"
        return [rows.execution_of(row) for row in self._readers.fetch(sql, (json.dumps(ids),))]

    def count_active(self) -> dict[str, int]:
        sql = (
            "SELECT count(*) AS n FROM executions INDEXED BY executions_active "
            "WHERE completed_at IS NULL AND status = ?"
        )
        active = (Status.PENDING, Status.AWAITING_APPROVAL, Status.RUNNING)
        return {status.value: self._readers.fetch(sql, (status,))[0]["n"] for status in active}

    # ledger

    def append_audit(self, entry: contract.AuditEntry) -> None:
        self._writer.run(lambda db: self._audit(db, entry))

    def list_ledger(self, *, after: int = 0, limit: int = 1000) -> Sequence[contract.LedgerEntry]:
        return self._list(contract.LedgerEntry, "SELECT * FROM ledger WHERE seq > ? ORDER BY seq LIMIT ?", after, limit)

    def find_ledger_head(self) -> contract.LedgerEntry | None:
        return self._find(contract.LedgerEntry, "SELECT * FROM ledger ORDER BY seq DESC LIMIT 1")

    def find_ledger_of(self, execution_id: str) -> contract.LedgerEntry | None:
        return self._find(
            contract.LedgerEntry, "SELECT * FROM ledger WHERE execution_id = ? ORDER BY seq LIMIT 1", execution_id
        )

    # inside

    def _open(self) -> Database:
        try:
            # Created by hand because SQLite would leave it readable to others; `-wal` and `-shm` follow its mode.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._path.chmod(0o600)
            db = self._connect()
            db.enable_wal()
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            db.execute("PRAGMA secure_delete = ON")
            _migrate(db)
        except sqlite3.Error as error:
            raise public_error(error) from error
        except OSError as error:
            raise errors.Unavailable(f"the database {self._path} cannot be opened: {error.strerror}") from error
        return db

    def _connect(self) -> Database:
        connection = sqlite3.connect(
            self._path, timeout=self._busy_timeout_seconds, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        return Database(connection, execute_plugins=False)

    def _connect_reader(self) -> Database:
        db = self._connect()
        db.execute("PRAGMA query_only = ON")
        return db

    def _put_version(
        self, table: str, sealed: contract.SealedSecret | contract.Connection, audit: contract.AuditEntry
    ) -> None:
        columns = rows.columns_of(sealed)

        def operation(db: Database) -> None:
            following = _last_version(returned(db, _VERSION, (table, sealed.scope, sealed.name))) + 1
            if sealed.version != following:
                raise errors.Conflict(f"{sealed.name!r} in {sealed.scope} has changed meanwhile; read it again")
            version = {"kind": table, "scope": sealed.scope, "name": sealed.name, "version": following}
            insert(db, "versions", version, verb="INSERT OR REPLACE")
            insert(db, table, columns, verb="INSERT OR REPLACE")
            self._audit(db, audit)

        self._writer.run(operation, scrub=sealed.version > 1)

    def _next_version(self, table: str, scope: str, name: str) -> int:
        return _last_version(self._readers.fetch(_VERSION, (table, scope, name))) + 1


_VERSION = "SELECT version FROM versions WHERE kind = ? AND scope = ? AND name = ?"


def _migrate(db: Database) -> None:
    with Database(memory=True, execute_plugins=False) as empty:
        known = {migration.name for migration in migrations.pending(empty)}
    unknown = {migration.name for migration in migrations.applied(db)} - known
    if unknown:
        raise errors.Unavailable("a newer version of Bifrost wrote this database; install that version")
    migrations.apply(db)


def _last_version(found: list[sqlite3.Row]) -> int:
    return int(found[0]["version"]) if found else 0
