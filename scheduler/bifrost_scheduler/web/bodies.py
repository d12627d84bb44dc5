"""Reading a JSON body strictly: an object, no duplicate keys, no NaN, text that is Unicode (RFC 8259, I-JSON)."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request

from bifrost_kernel import errors
from bifrost_scheduler.web import problems


async def read_object(request: Request) -> dict[str, Any]:
    """The flat JSON object of a request; an empty body is an empty object.

    Raises:
        UnsupportedMediaType: the body is declared as something else than JSON.
        ValidationError: it is no JSON object, or an ambiguous one.
    """
    raw = await request.body()
    if not raw.strip():
        return {}
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise problems.UnsupportedMediaType("Send the inputs as JSON, with Content-Type: application/json.")
    try:
        value = json.loads(raw, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _refused(f"The body is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise _refused('The body has to be a JSON object, e.g. {"name": "Alice"}.')
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object has the same key twice")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _refused(message: str) -> errors.ValidationError:
    return errors.ValidationError(message, [errors.FieldError("body", "json", message)])
