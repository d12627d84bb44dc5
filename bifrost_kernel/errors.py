"""Every error that Bifrost raises on purpose; each room imports it, it imports nothing.

BifrostError
├── DeclarationError           a decorator was given something wrong (file, line, choices)
├── ValidationError            inputs of a workflow are wrong (all fields at once)
├── WorkflowError              the author's code failed, or gave something that has no JSON form
│   └── UserError              raised by authors: its text is shown to the user as it is
├── TemporaryError             worth another try after `retry_after_seconds`
│   ├── TooManyRequests        a limit is reached
│   └── Unavailable            a part of the product cannot be reached
│       └── BrokerUnavailable  the broker does not answer
├── NotFound                   unknown, or not yours: the two are never told apart
├── Unauthorized               no valid credential
├── Forbidden                  the credential does not allow this
├── Conflict                   the state of the thing does not allow this
├── LimitExceeded              a documented limit; names the limit and its setting
└── ConnectionRefused          an OAuth connection needs a person's attention
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class BifrostError(Exception):
    """The root; `code` is the word that the API answers with."""

    code = "InternalError"

    def __init__(self, message: str, *, details: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class DeclarationError(BifrostError):
    """A `@workflow`, `@param` or `@data_provider` is declared wrongly."""

    code = "DeclarationError"

    def __init__(self, message: str, *, file: str | None = None, line: int | None = None) -> None:
        super().__init__(message)
        self.file = file
        self.line = line


class FieldError:
    """One wrong field of the inputs: `field`, machine-readable `code`, and `message` for people."""

    __slots__ = ("code", "field", "message")

    def __init__(self, field: str, code: str, message: str) -> None:
        self.field = field
        self.code = code
        self.message = message

    def as_dict(self) -> dict[str, str]:
        return {"field": self.field, "code": self.code, "message": self.message}


class ValidationError(BifrostError):
    """Inputs are refused; `fields` holds every wrong field, never only the first."""

    code = "ValidationError"

    def __init__(self, message: str, fields: Sequence[FieldError] = ()) -> None:
        super().__init__(message, details={"fields": [field.as_dict() for field in fields]})
        self.fields = tuple(fields)


class WorkflowError(BifrostError):
    """The workflow's own code failed; `error_type` is the class of the exception that it raised."""

    code = "WorkflowError"

    def __init__(self, message: str, *, error_type: str | None = None, details: Any = None) -> None:
        super().__init__(message, details=details)
        self.error_type = error_type or type(self).__name__


class UserError(WorkflowError):
    """Raise this in a workflow to tell the person who runs it what to change."""

    code = "UserError"


class TemporaryError(BifrostError):
    """Worth another try; `retry_after_seconds` says when."""

    code = "Unavailable"

    def __init__(self, message: str, *, retry_after_seconds: float = 1.0, details: Any = None) -> None:
        super().__init__(message, details=details)
        self.retry_after_seconds = retry_after_seconds


class TooManyRequests(TemporaryError):
    code = "TooManyRequests"


class Unavailable(TemporaryError):
    code = "Unavailable"


class BrokerUnavailable(Unavailable):
    """The control plane does not answer this kernel."""


class NotFound(BifrostError):
    code = "NotFound"


class Unauthorized(BifrostError):
    code = "Unauthorized"


class Forbidden(BifrostError):
    code = "Forbidden"


class Conflict(BifrostError):
    code = "Conflict"


class LimitExceeded(BifrostError):
    """A documented limit is reached; the text names the limit and the setting that changes it."""

    code = "LimitExceeded"


class ConnectionRefused(BifrostError):
    """An OAuth connection cannot be used until a person authorizes it again."""

    code = "ConnectionRefused"
