"""What every router documents and shares: failure answers, the scope of a call, pages and their cursors."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query

from bifrost_kernel import errors, jsonable, models
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.web.authentication import OrganizationHeader, ThePrincipal
from bifrost_scheduler.web.schemas import Page, Problem

MAX_POSITION_DIGITS = 18
"""SQLite counts with 64 bits."""

Row = TypeVar("Row")
Item = TypeVar("Item")

_TEXTS = {
    400: "The input is refused; `details.fields` names every wrong field.",
    401: "No valid key.",
    403: "The key does not allow this.",
    404: "Unknown, or another organization's.",
    405: "The address knows no such method.",
    409: "The state of the thing does not allow this.",
    413: "The body is over the limit.",
    415: "The body is not JSON.",
    429: "A limit is reached; see Retry-After.",
    500: "The workflow raised.",
    503: "A part of the product cannot be reached; see Retry-After.",
    504: "The execution ran into its deadline.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The failures that a route documents; 400, 401, 403, 404, 413 and 503 are everybody's."""
    return {
        status: {"model": Problem, "description": _TEXTS[status]}
        for status in sorted({400, 401, 403, 404, 413, 503, *statuses})
    }


Limit = Annotated[int, Query(ge=1, le=200, description="Rows of a page.")]
Cursor = Annotated[str | None, Query(max_length=1000, description="`next_cursor` of the page before.")]
Scope = Annotated[str | None, Query(pattern="^GLOBAL$", description="`GLOBAL`, instead of an organization.")]


def get_scope(principal: ThePrincipal, organization: OrganizationHeader = None, scope: Scope = None) -> str:
    """The scope of an administrative call: `?scope=GLOBAL` or the organization of the header.

    Raises:
        ValidationError: neither or both are given.
        Forbidden: GLOBAL is for PlatformAdmins.
    """
    if scope is not None and organization is not None:
        raise errors.ValidationError("Name either the header X-Organization-Id or ?scope=GLOBAL, not both.")
    if scope == models.GLOBAL or organization == models.GLOBAL:
        if not principal.platform_admin:
            raise errors.Forbidden("Only PlatformAdmins manage what is GLOBAL.")
        return models.GLOBAL
    if not organization:
        raise errors.ValidationError("Name an organization in the header X-Organization-Id, or ask for ?scope=GLOBAL.")
    return organization


TheScope = Annotated[str, Depends(get_scope)]


def page(
    rows: Sequence[Row], *, limit: int, key: Callable[[Row], str], item: Callable[[Row], Item], of: str
) -> Page[Item]:
    """A page made of `limit + 1` rows asked for; `of` ties its cursor to the list and the principal."""
    shown = rows[:limit]
    following = encode_cursor(key(shown[-1]), of) if len(rows) > limit else None
    return Page(items=[item(row) for row in shown], next_cursor=following)


def list_name(principal: Principal, *parts: str | None) -> str:
    """What a cursor belongs to: one list as one principal sees it."""
    return json.dumps([principal.subject, *parts])


def encode_cursor(last: str, of: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([last, _mark(of)]).encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None, of: str) -> str | None:
    """The key of the last row of the page before.

    Raises:
        ValidationError: it is no cursor of this list and principal.
    """
    if cursor is None:
        return None
    try:
        last, mark = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, TypeError) as error:
        raise _wrong_cursor() from error
    if mark != _mark(of) or not isinstance(last, str) or not jsonable.is_clean(last):
        raise _wrong_cursor()
    return last


def decode_position(cursor: str | None, of: str) -> int:
    """The number of the last row of the page before, in lists that count; 0 before the first page. Raises as above."""
    last = decode_cursor(cursor, of)
    if last is None:
        return 0
    if not (last.isascii() and last.isdecimal() and len(last) <= MAX_POSITION_DIGITS):
        raise _wrong_cursor()
    return int(last)


def decode_instant(cursor: str | None, of: str) -> datetime | None:
    """The instant of the last row of the page before, in lists that go by time. Raises as above."""
    last = decode_cursor(cursor, of)
    try:
        instant = None if last is None else datetime.fromisoformat(last)
    except ValueError as error:
        raise _wrong_cursor() from error
    if instant is not None and instant.tzinfo is None:
        raise _wrong_cursor()
    return instant


def _mark(of: str) -> str:
    return hashlib.sha256(of.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _wrong_cursor() -> errors.ValidationError:
    message = "This cursor is not one of this list; begin again without it."
    return errors.ValidationError(message, [errors.FieldError("cursor", "cursor", message)])
