"""Sessions, links, attempts and OpenID authorizations in SQLite: the part of `SqliteStore` for signing in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlite_utils import Database

from bifrost_kernel import errors
from bifrost_scheduler.store import contract, people, rows
from bifrost_scheduler.store.base import SqliteBase
from bifrost_scheduler.store.people_contract import User
from bifrost_scheduler.store.session_contract import Allowance, Authorization, Link, Session, SessionStore
from bifrost_scheduler.store.statements import insert, returned

_COUNT = (
    "INSERT INTO attempts (bucket, count, ends_at) VALUES (?, 1, ?) "
    "ON CONFLICT (bucket) DO UPDATE SET count = count + 1"
)


class SqliteSessions(SqliteBase, SessionStore):
    def open_session(
        self,
        session: Session,
        *,
        user: User | None = None,
        link: str | None = None,
        audit: Sequence[contract.AuditEntry],
    ) -> None:
        def operation(db: Database) -> None:
            if link is not None:
                _use_up(db, link, session)
            if user is not None:
                people.replace_user(db, user) if user.version else people.insert_user(db, user)
            _require_epoch(db, session.email, session.epoch)
            db.execute("DELETE FROM sessions WHERE expires_at <= ?", (rows.to_text(session.created_at),))
            insert(db, "sessions", rows.columns_of(session))
            for entry in audit:
                self._audit(db, entry)

        self._writer.run(operation)

    def find_session(self, sha256: str) -> Session | None:
        return self._find(Session, "SELECT * FROM sessions WHERE sha256 = ?", sha256)

    def find_session_by_id(self, session_id: str) -> Session | None:
        return self._find(Session, "SELECT * FROM sessions WHERE id = ?", session_id)

    def list_sessions(
        self, email: str, *, now: datetime, used_after: datetime, after: str | None = None, limit: int = 50
    ) -> list[Session]:
        sql = "SELECT * FROM sessions WHERE email = ? AND expires_at > ? AND used_at > ? AND id > ? ORDER BY id LIMIT ?"
        return self._list(Session, sql, email, rows.to_text(now), rows.to_text(used_after), after or "", limit)

    def touch_session(self, session_id: str, used_at: datetime) -> None:
        text = rows.to_text(used_at)
        self._writer.post(lambda db: db.execute("UPDATE sessions SET used_at = ? WHERE id = ?", (text, session_id)))

    def end_session(self, session_id: str, *, audit: contract.AuditEntry) -> None:
        self._delete("sessions", {"id": session_id}, "such session", audit)

    def put_link(self, link: Link, *, audit: contract.AuditEntry) -> None:
        def operation(db: Database) -> None:
            db.execute(
                "DELETE FROM links WHERE (kind = ? AND email = ?) OR expires_at <= ?",
                (link.kind, link.email, rows.to_text(link.created_at)),
            )
            insert(db, "links", rows.columns_of(link))
            self._audit(db, audit)

        self._writer.run(operation)

    def find_link(self, sha256: str) -> Link | None:
        return self._find(Link, "SELECT * FROM links WHERE sha256 = ?", sha256)

    def take_attempt(self, allowances: Sequence[Allowance], *, now: datetime) -> datetime | None:
        def operation(db: Database) -> datetime | None:
            db.execute("DELETE FROM attempts WHERE ends_at <= ?", (rows.to_text(now),))
            full = [ends_at for allowance in allowances if (ends_at := _full_until(db, allowance)) is not None]
            if full:
                return max(full)
            for one in allowances:
                db.execute(_COUNT, (one.bucket, rows.to_text(now + timedelta(seconds=one.window_seconds))))
            return None

        return self._writer.run(operation)

    def return_attempt(self, buckets: Sequence[str], *, cleared: Sequence[str] = ()) -> None:
        def operation(db: Database) -> None:
            for bucket in buckets:
                db.execute("UPDATE attempts SET count = count - 1 WHERE bucket = ? AND count > 0", (bucket,))
            for bucket in cleared:
                db.execute("DELETE FROM attempts WHERE bucket = ?", (bucket,))

        self._writer.run(operation)

    def put_authorization(self, authorization: Authorization) -> None:
        def operation(db: Database) -> None:
            db.execute("DELETE FROM authorizations WHERE expires_at <= ?", (rows.to_text(authorization.created_at),))
            insert(db, "authorizations", rows.columns_of(authorization))

        self._writer.run(operation)

    def take_authorization(self, state_sha256: str) -> Authorization | None:
        sql = "DELETE FROM authorizations WHERE state_sha256 = ? RETURNING *"
        found = self._writer.run(lambda db: returned(db, sql, (state_sha256,)))
        return Authorization(**rows.fields_of(found[0])) if found else None


def _use_up(db: Database, sha256: str, session: Session) -> None:
    """A link goes with its use; only one that is still good leads to a session."""
    found = returned(db, "DELETE FROM links WHERE sha256 = ? RETURNING *", (sha256,))
    link = Link(**rows.fields_of(found[0])) if found else None
    if link is None or link.expires_at <= session.created_at:
        raise errors.Unauthorized("This link was used already, or is over; ask for another one.")
    if link.kind == "sign_in":
        _require_epoch(db, link.email, link.epoch)


def _require_epoch(db: Database, email: str, epoch: int) -> None:
    if not returned(db, "SELECT 1 FROM users WHERE email = ? AND active = 1 AND epoch = ?", (email, epoch)):
        raise errors.Unauthorized("This user has changed meanwhile; sign in again.")


def _full_until(db: Database, allowance: Allowance) -> datetime | None:
    sql = "SELECT ends_at FROM attempts WHERE bucket = ? AND count >= ?"
    found = returned(db, sql, (allowance.bucket, allowance.limit))
    return datetime.fromisoformat(found[0]["ends_at"]) if found else None
