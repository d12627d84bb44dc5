"""Users and roles in SQLite: the part of `SqliteStore` that implements `PeopleStore`.

`sessions` writes users by its functions too, in the transaction in which somebody signs in.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlite_utils import Database

from bifrost_kernel import errors
from bifrost_scheduler.store import contract, rows
from bifrost_scheduler.store.base import SqliteBase
from bifrost_scheduler.store.people_contract import PeopleStore, Role, User
from bifrost_scheduler.store.statements import insert, returned

_ADMINS = (
    "SELECT * FROM users WHERE active = 1 AND EXISTS "
    "(SELECT 1 FROM json_each(roles, '$.\"*\"') WHERE value = 'PlatformAdmin') ORDER BY email"
)
_ROLE_IN_USE = (
    "SELECT email FROM users WHERE EXISTS (SELECT 1 FROM json_each(users.roles) AS held, json_each(held.value) AS role "
    "WHERE role.value = ?) LIMIT 1"
)


class SqlitePeople(SqliteBase, PeopleStore):
    def create_user(self, user: User, *, audit: contract.AuditEntry) -> None:
        def operation(db: Database) -> None:
            insert_user(db, user)
            self._audit(db, audit)

        self._writer.run(operation)

    def change_user(self, user: User, *, keep: str | None = None, audit: contract.AuditEntry) -> User:
        def operation(db: Database) -> User:
            changed = replace_user(db, user, keep=keep)
            self._audit(db, audit)
            return changed

        return self._writer.run(operation)

    def delete_user(self, email: str, *, version: int, audit: contract.AuditEntry) -> None:
        def operation(db: Database) -> None:
            known = _read(db, email, version)
            _end_sessions(db, email)
            db.execute("DELETE FROM users WHERE email = ?", (email,))
            _require_admin(db, known)
            self._audit(db, audit)

        self._writer.run(operation)

    def find_user(self, email: str) -> User | None:
        return self._find(User, "SELECT * FROM users WHERE email = ?", email)

    def find_user_of(self, issuer: str, subject: str) -> User | None:
        return self._find(User, "SELECT * FROM users WHERE issuer = ? AND subject = ?", issuer, subject)

    def list_users(self, *, organization: str | None = None, after: str | None = None, limit: int = 50) -> list[User]:
        if organization is None:
            return self._list(User, "SELECT * FROM users WHERE email > ? ORDER BY email LIMIT ?", after or "", limit)
        sql = (
            "SELECT * FROM users WHERE email > ? AND EXISTS (SELECT 1 FROM json_each(roles) WHERE key = ?) "
            "ORDER BY email LIMIT ?"
        )
        return self._list(User, sql, after or "", organization, limit)

    def list_admins(self) -> list[User]:
        return self._list(User, _ADMINS)

    def put_role(self, role: Role, *, audit: contract.AuditEntry) -> None:
        self._put("roles", role, audit)

    def find_role(self, name: str) -> Role | None:
        return self._find(Role, "SELECT * FROM roles WHERE name = ?", name)

    def list_roles(self) -> Sequence[Role]:
        return self._list(Role, "SELECT * FROM roles ORDER BY name")

    def delete_role(self, name: str, *, audit: contract.AuditEntry) -> None:
        def operation(db: Database) -> None:
            holder = returned(db, _ROLE_IN_USE, (name,))
            if holder:
                email = holder[0]["email"]
                raise errors.Conflict(f"Role {name!r} is in use, for example by {email}; take it away first.")
            if db.execute("DELETE FROM roles WHERE name = ?", (name,)).rowcount == 0:
                raise errors.NotFound(f"There is no role {name!r}.")
            self._audit(db, audit)

        self._writer.run(operation)


def insert_user(db: Database, user: User) -> None:
    """Raises `Conflict` when the email is taken, or the provider's account is another user's."""
    if returned(db, "SELECT 1 FROM users WHERE email = ?", (user.email,)):
        raise errors.Conflict(f"The email {user.email!r} is taken.")
    _require_own_account(db, user)
    insert(db, "users", rows.columns_of(user.model_copy(update={"version": 1})))


def replace_user(db: Database, user: User, *, keep: str | None = None) -> User:
    """`PeopleStore.change_user`, inside a transaction."""
    known = _read(db, user.email, user.version)
    _require_own_account(db, user)
    changed = user.model_copy(update={"version": user.version + 1})
    columns = rows.columns_of(changed)
    assignments = ", ".join(f"{name} = :{name}" for name in columns)
    # The columns are the fields of `User`.
    db.execute(f"UPDATE users SET {assignments} WHERE email = :email", columns)  # noqa: S608
    if changed.epoch != known.epoch or not changed.active:
        _end_sessions(db, user.email, keep=keep)
        db.execute("UPDATE sessions SET epoch = ? WHERE email = ?", (changed.epoch, user.email))
    _require_admin(db, known)
    return changed


def _read(db: Database, email: str, version: int) -> User:
    found = returned(db, "SELECT * FROM users WHERE email = ?", (email,))
    if not found:
        raise errors.NotFound(f"There is no user {email!r}.")
    if found[0]["version"] != version:
        raise errors.Conflict(f"The user {email!r} has changed meanwhile; read it again.")
    return User(**rows.fields_of(found[0]))


def _end_sessions(db: Database, email: str, *, keep: str | None = None) -> None:
    db.execute("DELETE FROM sessions WHERE email = ? AND id IS NOT ?", (email, keep))
    db.execute("DELETE FROM links WHERE email = ?", (email,))


def _require_own_account(db: Database, user: User) -> None:
    sql = "SELECT 1 FROM users WHERE issuer = ? AND subject = ? AND email <> ?"
    if user.subject is not None and returned(db, sql, (user.issuer, user.subject, user.email)):
        raise errors.Conflict("This account of the OpenID provider belongs to another user.")


def _require_admin(db: Database, before: User) -> None:
    """Whoever was an active PlatformAdmin may only stop to be one when another one is left."""
    was_admin = before.active and "PlatformAdmin" in before.roles.get("*", ())
    if was_admin and not returned(db, _ADMINS):
        raise errors.Conflict(f"{before.email} is the last active PlatformAdmin; make another one first.")
