"""Passwords: which ones are allowed, and their argon2id hashes, made in a few threads of their own.

`sign_in` and `people` call it. It never keeps, logs or gives back a password, and never takes more threads or memory
than it was made with: a storm of sign-ins waits, or is refused, while the rest of the API answers.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from bifrost_kernel import errors

T = TypeVar("T")

MIN_CHARS = 12
MAX_CHARS = 256
WAITING = 8
"""Hashes that may wait for a thread; whoever asks for one more is told to come back."""

_HASHER = PasswordHasher(memory_cost=46 * 1024, time_cost=1, parallelism=1)
"""The first of OWASP's equal choices for argon2id (Password Storage Cheat Sheet); about 65 ms and 46 MiB."""


class Passwords:
    """Called from any thread; each call occupies one of `threads` for as long as the hash takes."""

    def __init__(self, *, threads: int | None = None, waiting: int = WAITING) -> None:
        workers = threads or max(1, (os.cpu_count() or 2) // 2)
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="passwords")
        self._places = threading.BoundedSemaphore(workers + waiting)
        # First in line, so that the first unknown person waits no longer than the next one.
        self._nobodys = self._pool.submit(_HASHER.hash, secrets.token_urlsafe())

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def hash(self, password: str) -> str:
        """The PHC text to store. Raises `Unavailable` when too many wait."""
        return self._run(lambda: _HASHER.hash(password))

    def verify(self, stored: str | None, password: str) -> bool:
        """Whether it is the password; without a stored one as much work is done for nothing.

        Raises:
            Unavailable: too many wait.
        """
        return self._run(lambda: _verify(stored or self._nobodys.result(), password)) and stored is not None

    def _run(self, work: Callable[[], T]) -> T:
        if not self._places.acquire(blocking=False):
            raise errors.Unavailable("Many people sign in at this moment; try again.", retry_after_seconds=2)
        try:
            return self._pool.submit(work).result()
        finally:
            self._places.release()


def _verify(stored: str, password: str) -> bool:
    try:
        return _HASHER.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False


def check(password: str, *, email: str, field: str = "password") -> None:
    """Length decides (NIST SP 800-63B): no classes of characters, no expiry.

    Raises:
        ValidationError: too short, too long, or the email itself.
    """
    if not MIN_CHARS <= len(password) <= MAX_CHARS:
        raise _refused(field, "length", f"A password has {MIN_CHARS} to {MAX_CHARS} characters.")
    if password.casefold() in (email.casefold(), email.partition("@")[0].casefold()):
        raise _refused(field, "email", "The password must not be the email address.")


def _refused(field: str, code: str, message: str) -> errors.ValidationError:
    return errors.ValidationError(message, [errors.FieldError(field, code, message)])
