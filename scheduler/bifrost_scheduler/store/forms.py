"""Form objects and drafts in SQLite, inside the transaction that each function is given. `SqliteStore` runs them."""

from __future__ import annotations

from datetime import datetime

from sqlite_utils import Database

from bifrost_kernel import errors
from bifrost_scheduler.store import rows
from bifrost_scheduler.store.form_contract import Draft, StoredForm
from bifrost_scheduler.store.statements import insert, returned

FIND = "SELECT * FROM forms WHERE scope = ? AND name = ?"
LIST = "SELECT * FROM forms WHERE scope = ? AND name > ? ORDER BY name LIMIT ?"
FIND_DRAFT = "SELECT * FROM drafts WHERE subject = ? AND organization = ? AND form = ? AND updated_at >= ?"

# Outlives the form, so that a version never means two definitions.
_NEXT_VERSION = """
    INSERT INTO versions (kind, scope, name, version) VALUES ('forms', ?, ?, 1)
    ON CONFLICT (kind, scope, name) DO UPDATE SET version = version + 1 RETURNING version
"""


def put(db: Database, form: StoredForm) -> StoredForm:
    (row,) = returned(db, _NEXT_VERSION, (form.scope, form.name))
    stored = form.model_copy(update={"version": row["version"]})
    insert(db, "forms", rows.columns_of(stored), verb="INSERT OR REPLACE")
    return stored


def delete(db: Database, scope: str, name: str) -> None:
    """
    Raises:
        NotFound: there is none.
    """
    if db.execute("DELETE FROM forms WHERE scope = ? AND name = ?", (scope, name)).rowcount == 0:
        raise errors.NotFound(f"There is no form {name!r} in {scope}.")


def put_draft(db: Database, draft: Draft, oldest: datetime) -> None:
    db.execute("DELETE FROM drafts WHERE updated_at < ?", (rows.to_text(oldest),))
    insert(db, "drafts", rows.columns_of(draft), verb="INSERT OR REPLACE")


def delete_draft(db: Database, subject: str, organization: str, form: str) -> int:
    sql = "DELETE FROM drafts WHERE subject = ? AND organization = ? AND form = ?"
    return db.execute(sql, (subject, organization, form)).rowcount
