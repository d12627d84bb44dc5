"""Errors as HTTP answers: the one table from error classes to statuses, and the handlers that use it.

`web.app` installs them. An answer never holds a traceback, a path or SQL; what is unexpected is logged with an id to
quote.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from bifrost_kernel import errors
from bifrost_scheduler.web.denials import Denials

log = structlog.get_logger(__name__)

STATUSES: Mapping[str, int] = {
    "ValidationError": 400,
    "UserError": 400,
    "LimitExceeded": 400,
    "Unauthorized": 401,
    "Forbidden": 403,
    "NotFound": 404,
    "MethodNotAllowed": 405,
    "Conflict": 409,
    "PayloadTooLarge": 413,
    "UnsupportedMediaType": 415,
    "TooManyRequests": 429,
    "WorkflowError": 500,
    "InternalError": 500,
    "Unavailable": 503,
    "Timeout": 504,
}
"""Contract §4, the failures."""

CODES = {status: code for code, status in STATUSES.items() if code not in ("UserError", "LimitExceeded")}


class PayloadTooLarge(errors.BifrostError):
    code = "PayloadTooLarge"


class UnsupportedMediaType(errors.BifrostError):
    code = "UnsupportedMediaType"


def body(code: str, message: str, *, details: Any = None, execution_id: str | None = None) -> dict[str, Any]:
    """The form of every failure."""
    return {"error": code, "message": message, "details": details, "execution_id": execution_id}


def answer(error: errors.BifrostError, *, execution_id: str | None = None) -> JSONResponse:
    return JSONResponse(
        body(error.code, error.message, details=error.details, execution_id=execution_id),
        status_code=STATUSES.get(error.code, 500),
        headers=_headers(error),
    )


def _headers(error: errors.BifrostError) -> dict[str, str]:
    if isinstance(error, errors.TemporaryError):
        return {"Retry-After": str(max(1, round(error.retry_after_seconds)))}
    if isinstance(error, errors.Unauthorized):
        return {"WWW-Authenticate": "Bearer"}
    return {}


def install(app: FastAPI, denials: Denials) -> None:
    """Give the app its error handlers."""

    async def expected(request: Request, error: Exception) -> Response:
        assert isinstance(error, errors.BifrostError)
        await denials.note(request, error)
        return answer(error)

    async def unreadable(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        fields = [_field(one) for one in error.errors()]
        return answer(errors.ValidationError("The request is not of the documented form.", fields))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = CODES.get(error.status_code, "ValidationError")
        message = "There is nothing at this address." if error.status_code == 404 else str(error.detail)
        return JSONResponse(body(code, message), status_code=error.status_code, headers=error.headers)

    async def unexpected(request: Request, error: Exception) -> Response:
        reference = secrets.token_hex(8)
        log.error("unexpected error", reference=reference, path=request.url.path, exc_info=error)
        text = f"Something went wrong on our side; quote {reference}."
        return JSONResponse(body("InternalError", text), status_code=500)

    app.add_exception_handler(errors.BifrostError, expected)
    app.add_exception_handler(RequestValidationError, unreadable)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)


def _field(one: Mapping[str, Any]) -> errors.FieldError:
    """Where and why, never what was sent: the input may hold a secret."""
    where = ".".join(str(part) for part in one["loc"][1:]) or "body"
    return errors.FieldError(where, str(one["type"]), str(one["msg"]))
