"""What the parts of the SQLite store share: finding, listing, putting and deleting rows, and linking the ledger.

`sqlite`, `people` and `sessions` are made of it. It knows no table but the ledger, and no decision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sqlite_utils import Database

from bifrost_kernel import errors, models
from bifrost_scheduler.store import chain, contract, rows
from bifrost_scheduler.store.readers import Readers
from bifrost_scheduler.store.statements import insert, returned
from bifrost_scheduler.store.writer import Writer

Shape = TypeVar("Shape", bound=models.Frozen)


class SqliteBase:
    """`sign` is what signs the hash of each ledger entry."""

    def __init__(self, writer: Writer, readers: Readers, sign: Callable[[str], str]) -> None:
        self._writer = writer
        self._readers = readers
        self._sign = sign

    def _find(self, shape: type[Shape], sql: str, *parameters: Any) -> Shape | None:
        found = self._readers.fetch(sql, parameters)
        return shape(**rows.fields_of(found[0])) if found else None

    def _list(self, shape: type[Shape], sql: str, *parameters: Any) -> list[Shape]:
        return [shape(**rows.fields_of(row)) for row in self._readers.fetch(sql, parameters)]

    def _put(self, table: str, shape: models.Frozen, audit: contract.AuditEntry) -> None:
        columns = rows.columns_of(shape)

        def operation(db: Database) -> None:
            insert(db, table, columns, verb="INSERT OR REPLACE")
            self._audit(db, audit)

        self._writer.run(operation)

    def _insert_new(self, table: str, shape: models.Frozen, what: str, audit: contract.AuditEntry) -> None:
        columns = rows.columns_of(shape)

        def operation(db: Database) -> None:
            if insert(db, table, columns, verb="INSERT OR IGNORE") == 0:
                raise errors.Conflict(f"{what} exists already")
            self._audit(db, audit)

        self._writer.run(operation)

    def _delete(
        self, table: str, where: dict[str, str], what: str, audit: contract.AuditEntry, *, scrub: bool = False
    ) -> None:
        conditions = " AND ".join(f"{column} = :{column}" for column in where)

        def operation(db: Database) -> None:
            # Table and columns are literals of the callers.
            if db.execute(f"DELETE FROM {table} WHERE {conditions}", where).rowcount == 0:  # noqa: S608
                raise errors.NotFound(f"there is no {what}")
            self._audit(db, audit)

        self._writer.run(operation, scrub=scrub)

    def _audit(self, db: Database, entry: contract.AuditEntry) -> None:
        self._link(db, "audit", None, rows.audit_body(entry))

    def _link(self, db: Database, kind: str, execution_id: str | None, body: dict[str, Any]) -> None:
        last = returned(db, "SELECT seq, hash FROM ledger ORDER BY seq DESC LIMIT 1")
        seq, prev_hash = (last[0]["seq"], last[0]["hash"]) if last else (0, chain.GENESIS)
        text = chain.canonical(body)
        link = chain.link_hash(prev_hash, text)
        db.execute(
            "INSERT INTO ledger (seq, kind, execution_id, body, prev_hash, hash, signature) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (seq + 1, kind, execution_id, text, prev_hash, link, self._sign(link)),
        )
