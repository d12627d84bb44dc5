"""What the control plane asks of a place that keeps secrets, and the type that a secret has while it is in memory.

`LocalSecretStore` is the first implementation; every implementation passes `tests/scheduler/test_secret_store.py`. Only
`services.build` picks one; the broker and the administration call it. It decides no permission, and never falls back
from one scope to another: `scope.resolve` does that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from typing import Any, NoReturn

from bifrost_kernel import errors
from bifrost_scheduler.store import contract

MIN_SECRET_CHARS = 8
"""A shorter value occurs in ordinary text by chance, so that it could not be masked in records."""
MAX_SECRET_BYTES = 64 * 1024


class Secret:
    """A value that shows itself as `***` wherever it is printed; only `reveal` gives the text."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return "***"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


class SecretStore(ABC):
    """Safe to call from many threads. Each method raises `Unavailable` while the backend or its key is out of reach."""

    @abstractmethod
    def check(self) -> None:
        """Raises `Unavailable` when secrets cannot be opened, with what to do about it; answers at once."""

    @abstractmethod
    def put(self, scope: str, name: str, value: str, *, audit: contract.AuditEntry) -> contract.SealedSecret:
        """Keep a value under a new version, in one transaction with its audit entry.

        Raises:
            ValidationError: the value could not be masked, or is too long; see `require_maskable`.
        """

    @abstractmethod
    def open(self, sealed: contract.SealedSecret) -> Secret:
        """The value of exactly this row: one that was moved to another scope, name or version does not open."""

    @abstractmethod
    def seal_connection(
        self, scope: str, name: str, secrets: dict[str, str], *, updated_by: str, now: datetime, **public: Any
    ) -> contract.Connection:
        """The next version of a connection, ready for `Store.put_connection`; `public` are its readable fields."""

    @abstractmethod
    def open_connection(self, connection: contract.Connection) -> dict[str, str]:
        """What `seal_connection` was given as `secrets`, of exactly this row."""

    @abstractmethod
    def seal_json(self, value: Any, *, kind: str, scope: str, name: str, version: int) -> bytes:
        """Encrypt a JSON value of a kind of its own; one kind never opens as another."""

    @abstractmethod
    def open_json(self, sealed: bytes, *, kind: str, scope: str, name: str, version: int) -> Any:
        """What `seal_json` was given, for exactly this kind, scope, name and version.

        Raises:
            Unavailable: it was sealed for something else, changed, or under a key that is not here.
        """

    @abstractmethod
    def value_hmac(self, organization: str, value: str) -> str:
        """A fingerprint that shows in records whether a value changed, and that only this installation can compute."""

    @abstractmethod
    def rotate(self, *, audit: contract.AuditEntry) -> int:
        """Encrypt everything again under a new key while others go on reading; returns how many values that were.

        It may be ended at any point and be started again: everything opens with the old or the new key.
        """


def require_maskable(name: str, value: object) -> str:
    """The value as text that can be kept and masked.

    Raises:
        ValidationError: no text, under 8 characters, over 64 KB, or with characters that UTF-8 has no form for.
    """
    if not isinstance(value, str):
        raise _refused(name, "type", f"is no text but {type(value).__name__}, so that it could not be masked")
    if len(value.strip()) < MIN_SECRET_CHARS:
        why = f"has under {MIN_SECRET_CHARS} characters; so short a text could not be masked in records"
        raise _refused(name, "min_length", why)
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise _refused(name, "encoding", "holds a lone surrogate, which is no text") from None
    if size > MAX_SECRET_BYTES:
        raise _refused(name, "max_length", f"has {size} bytes, the limit is {MAX_SECRET_BYTES}")
    return value


def _refused(name: str, code: str, why: str) -> errors.ValidationError:
    message = f"The value of secret {name!r} {why}."
    return errors.ValidationError(message, [errors.FieldError("value", code, message)])
