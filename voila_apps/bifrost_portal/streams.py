"""How many live answers are open for whom: they stay open for long, and nobody may take them all.

The page of an execution's events asks before it opens one. It counts, and knows nothing of what runs through them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tornado import web


class Streams:
    """The live answers that are open now, by person."""

    def __init__(self, per_person: int) -> None:
        self._per_person = per_person
        self._open: Counter[str] = Counter()

    @contextmanager
    def one_more(self, email: str) -> Iterator[None]:
        """Raises `HTTPError` 429: this person has as many as one may have."""
        if self._open[email] >= self._per_person:
            raise web.HTTPError(
                429, f"You may watch {self._per_person} runs at once. Please close a page and try again."
            )
        self._open[email] += 1
        try:
            yield
        finally:
            self._open[email] -= 1
            if not self._open[email]:
                del self._open[email]
