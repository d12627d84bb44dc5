"""Reading a JSON body strictly: an object, no duplicate keys, no NaN, text that is Unicode (RFC 8259, I-JSON).

Every route with a body reads it here: the flat inputs of a workflow by `read_object`, the typed bodies of the other
routers by their `StrictRoute`. It never tells what a field means.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, ClassVar

from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from bifrost_kernel import errors
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.web import problems
from bifrost_scheduler.web.authentication import bearer, functions_key, get_principal, services_of

SHORT_BYTES = 16 * 1024
"""What is read from everybody."""

MAX_DEPTH = 100
"""Levels of nesting; what a workflow gives back has the same limit."""


class StrictRoute(APIRoute):
    """A route whose typed body is read strictly, and only for those who showed a valid key."""

    needs_key: ClassVar[bool] = True
    authenticate: Callable[..., Principal] = staticmethod(get_principal)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def strictly(request: Request) -> Response:
            if self.needs_key:
                key, token = await functions_key(request), await bearer(request)
                await run_in_threadpool(self.authenticate, request, services_of(request), key, token)
            return await handle(_ReadRequest(request, await request.body(), await read_object(request)))

        return strictly


class OpenRoute(StrictRoute):
    """The same for those who come to sign in, and have nothing to show yet."""

    needs_key = False


class _ReadRequest(Request):
    """A request whose body was read and parsed already."""

    def __init__(self, request: Request, raw: bytes, value: dict[str, Any]) -> None:
        super().__init__(request.scope, request.receive)
        self._raw = raw
        self._value = value

    async def body(self) -> bytes:
        return self._raw

    async def json(self) -> dict[str, Any]:
        return self._value


async def read_object(request: Request) -> dict[str, Any]:
    """The flat JSON object of a request; an empty body is an empty object.

    Raises:
        UnsupportedMediaType: the body is declared as something else than JSON.
        ValidationError: it is no JSON object, or an ambiguous one.
    """
    return parse_object(request, await request.body())


def is_short(request: Request) -> bool:
    """Whether reading the body before knowing who sends it costs next to nothing."""
    length = request.headers.get("content-length", "0" if "transfer-encoding" not in request.headers else "")
    return length.isdecimal() and int(length) <= SHORT_BYTES


def parse_object(request: Request, raw: bytes) -> dict[str, Any]:
    """As `read_object`, of a body that was read already."""
    if not raw:
        return {}
    if not is_json(request.headers.get("content-type", "")):
        raise problems.UnsupportedMediaType("Send the inputs as JSON, with Content-Type: application/json.")
    try:
        value = parse(raw)
    except (ValueError, RecursionError) as error:
        raise _refused(f"The body is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise _refused('The body has to be a JSON object, e.g. {"name": "Alice"}.')
    return value


def is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))


def parse(raw: bytes) -> Any:
    """The value of a JSON text that means the same to everybody who reads it.

    Raises:
        ValueError, RecursionError: it is none.
    """
    text = raw.decode("utf-8")
    value = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant, parse_float=_finite)
    if _is_deeper(value, MAX_DEPTH):
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    if "\\u" in text:
        _require_unicode(value)
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object has the same key twice")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number is out of range")
    return value


def _is_deeper(value: Any, levels: int) -> bool:
    """Looked at level by level: a recursive look would itself end at Python's limit."""
    level: list[Any] = [value]
    for _ in range(levels):
        level = [child for one in level for child in _children(one)]
        if not level:
            return False
    return any(isinstance(one, dict | list) for one in level)


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _require_unicode(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("a text holds half of a surrogate pair") from error


def _refused(message: str) -> errors.ValidationError:
    return errors.ValidationError(message, [errors.FieldError("body", "json", message)])
