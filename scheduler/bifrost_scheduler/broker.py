"""The door of the control plane that kernels use: one connection per kernel, one execution per token.

`runner` opens a `Door` for each kernel that it starts, the authoring listener one for each JupyterLab kernel. What a
door answers depends on the token alone, never on what the message says of organization or execution. It masks before
it stores, and never sends a key, a refresh token or another organization's anything.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import structlog

from bifrost_kernel import errors, frames, models
from bifrost_scheduler import scope
from bifrost_scheduler.redaction import Redactor
from bifrost_scheduler.secret_store.contract import SecretStore
from bifrost_scheduler.settings import Settings
from bifrost_scheduler.signals import Signals
from bifrost_scheduler.store import contract
from bifrost_scheduler.tokens import ExecutionTokens, Grant

log = structlog.get_logger(__name__)

LEVELS = tuple(level.value for level in models.LogLevel)

Arguments = Mapping[str, Any]
Operation = Callable[["Door", Arguments], Any]


@dataclass(frozen=True)
class Failure:
    """What the kernel says went wrong; not masked yet."""

    error_type: str
    message: str
    user_error: bool
    details: Any
    traceback: str


@dataclass
class Report:
    """What one kernel has told: the parent reads it when the kernel is gone."""

    redactor: Redactor
    returned: bool = False
    result: Any = None
    failure: Failure | None = None
    log_lines: int = 0
    steps: dict[str, Any] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    """Every value handed out, for the masking of the record."""

    def protect(self, value: str) -> None:
        """Mask this value from now on, and in the record; to be called before it is handed out."""
        self.redactor.add(value)
        self.secrets.append(value)


@dataclass(frozen=True)
class BrokerParts:
    """What every door shares."""

    settings: Settings
    store: contract.Store
    secrets: SecretStore
    tokens: ExecutionTokens
    signals: Signals


class Door:
    """What one kernel may ask; `report` holds what it told."""

    def __init__(self, parts: BrokerParts, subject: Grant) -> None:
        self.subject = subject
        self.report = Report(Redactor(()))
        self._parts = parts
        self._lock = threading.Lock()

    def operations(self) -> Mapping[str, Operation]:
        return EXECUTION_OPERATIONS

    def is_open(self) -> bool:
        """Whether the token still counts; asked before every answer."""
        return True

    def converse(self, connection: socket.socket) -> None:
        """Answer requests in their order; returns when the peer is gone or breaks the protocol."""
        try:
            while (request := frames.receive(connection)) is not None:
                frames.send(connection, self._answer(request))
        except (frames.FrameError, OSError):
            # The kernel is gone or no longer speaks the protocol: there is nobody left to answer.
            _hang_up(connection)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        number = request.get("id")
        try:
            return {"id": number, "ok": self._perform(request)}
        except errors.BifrostError as error:
            return {
                "id": number,
                "error": {"code": error.code, "message": error.message, "details": error.details},
            }
        except Exception as error:  # the edge of the broker: a kernel that waits gets an answer, whatever happens
            log.error("broker operation failed", execution=self.subject.execution_id, exc_info=error)
            return {"id": number, "error": {"code": "InternalError", "message": "The broker failed.", "details": None}}

    def _perform(self, request: dict[str, Any]) -> Any:
        name = request.get("op")
        operation = self.operations().get(name) if isinstance(name, str) else None
        if operation is None:
            raise errors.ValidationError(f"The broker knows no operation {repr(name)[:100]}.")
        if not self.is_open():
            raise errors.Conflict(f"The execution {self.subject.execution_id} is over.")
        arguments = {name: value for name, value in request.items() if name not in ("id", "op")}
        with self._lock:
            return operation(self, arguments)

    # writing

    def log(self, arguments: Arguments) -> None:
        level, message, data = _take(arguments, level=str, message=str, data=object)
        if level not in LEVELS:
            raise errors.ValidationError(f"There is no log level {level!r}: use one of {', '.join(LEVELS)}.")
        limit = self._parts.settings.log_lines
        self.report.log_lines += 1
        if self.report.log_lines > limit:
            self._cut_log(limit)
            return
        self._append(models.EventType.LOG, {"level": level, "message": message, "data": data})

    def _cut_log(self, limit: int) -> None:
        """One visible note, then silence: a chatty workflow goes on, its history stays readable."""
        if self.report.log_lines == limit + 1:
            message = f"Further log lines are dropped: the limit is {limit} an execution (BIFROST_LOG_LINES)."
            self._append(models.EventType.LOG, {"level": "warning", "message": message, "data": None})

    def checkpoint(self, arguments: Arguments) -> None:
        name, data = _take(arguments, name=str, data=object)
        self._append(models.EventType.CHECKPOINT, {"name": name, "data": data})

    def variable(self, arguments: Arguments) -> None:
        name, value = _take(arguments, name=str, value=object)
        self._append(models.EventType.VARIABLE, {"name": name, "value": value})

    def progress(self, arguments: Arguments) -> None:
        done, total, text = _take(arguments, done=object, total=object, text=object)
        self._append(models.EventType.PROGRESS, {"done": done, "total": total, "text": text})

    def step_find(self, arguments: Arguments) -> dict[str, Any]:
        (name,) = _take(arguments, name=str)
        return {"found": name in self.report.steps, "value": self.report.steps.get(name)}

    def step_save(self, arguments: Arguments) -> None:
        name, value = _take(arguments, name=str, value=object)
        self._append(models.EventType.STEP, {"name": name, "value": value})
        self.report.steps[name] = value

    def result(self, arguments: Arguments) -> None:
        (self.report.result,) = _take(arguments, value=object)
        self.report.returned = True

    def failure(self, arguments: Arguments) -> None:
        error_type, message, user_error, details, traceback = _take(
            arguments, error_type=str, message=str, user_error=bool, details=object, traceback=str
        )
        self.report.failure = Failure(error_type, message, user_error, details, traceback)

    def _append(self, type_: models.EventType, body: dict[str, Any]) -> None:
        if self.subject.fence is None:
            return
        masked = self.report.redactor.walk(body)
        size = len(json.dumps(masked))
        limit = self._parts.settings.event_bytes
        if size > limit:
            raise errors.LimitExceeded(f"This {type_} has {size} bytes, the limit is {limit} (BIFROST_EVENT_BYTES).")
        self._parts.store.append_event(
            self.subject.execution_id, fence=self.subject.fence, type=type_, body=masked, at=datetime.now(UTC)
        )
        self._parts.signals.notify(self.subject.execution_id)

    # reading

    def get_config(self, arguments: Arguments) -> dict[str, Any]:
        (key,) = _take(arguments, key=str)
        found = scope.resolve(self.subject.organization, lambda where: self._parts.store.find_config(where, key))
        if found is None:
            return {"found": False, "searched": list(scope.search_order(self.subject.organization))}
        where, entry = found
        if entry.type == "secret_ref":
            name = json.loads(entry.value)
            value: Any = self._open_secret(where, name, via=key)
        else:
            value = json.loads(entry.value)
        self._append(models.EventType.CONFIG_READ, {"key": key, "scope": where, "hmac": self._hmac(json.dumps(value))})
        return {"found": True, "value": value, "scope": where, "secret": entry.type == "secret_ref"}

    def has_config(self, arguments: Arguments) -> bool:
        (key,) = _take(arguments, key=str)
        found = scope.resolve(self.subject.organization, lambda where: self._parts.store.find_config(where, key))
        return found is not None

    def get_secret(self, arguments: Arguments) -> dict[str, Any]:
        (name,) = _take(arguments, name=str)
        found = scope.resolve(self.subject.organization, lambda where: self._parts.store.find_secret(where, name))
        if found is None:
            return {"found": False, "searched": list(scope.search_order(self.subject.organization))}
        where, _ = found
        return {"found": True, "value": self._open_secret(where, name), "scope": where}

    def get_connection(self, arguments: Arguments) -> dict[str, Any]:
        (name,) = _take(arguments, name=str)
        found = scope.resolve(self.subject.organization, lambda where: self._parts.store.find_connection(where, name))
        if found is None:
            searched = ", ".join(scope.search_order(self.subject.organization))
            raise errors.NotFound(f"There is no OAuth connection {name!r} in {searched}.")
        where, connection = found
        token = self._parts.secrets.open_connection(connection).get("access_token")
        if not token:
            raise errors.ConnectionRefused(f"The OAuth connection {name!r} ({where}) holds no access token yet.")
        self.report.protect(token)
        self._audit("connection.read", {"execution": self.subject.execution_id, "scope": where}, target=name)
        self._append(models.EventType.CONNECTION_READ, {"name": name, "scope": where, "hmac": self._hmac(token)})
        credentials = models.Credentials(
            name=name,
            access_token=token,
            token_type=connection.token_type,
            expires_at=connection.expires_at,
            scopes=connection.scopes,
        )
        return credentials.model_dump(mode="json")

    def _open_secret(self, where: str, name: str, *, via: str | None = None) -> str:
        """The secret's text, from the very scope that the reference stands in: an organization cannot redirect a
        global reference to a secret of its own, nor the other way round."""
        sealed = self._parts.store.find_secret(where, name)
        if sealed is None:
            of = f" that the config key {via!r} names" if via else ""
            raise errors.NotFound(f"There is no secret {name!r}{of} in {where}.")
        value = self._parts.secrets.open(sealed).reveal()
        self.report.protect(value)
        # The audit entry comes first: a secret that cannot be accounted for is not handed out.
        self._audit("secret.read", {"execution": self.subject.execution_id, "scope": where}, target=name)
        self._append(models.EventType.SECRET_READ, {"name": name, "scope": where, "hmac": self._hmac(value)})
        return value

    def _hmac(self, value: str) -> str:
        return self._parts.secrets.value_hmac(self.subject.organization, value)

    def _audit(self, action: str, details: dict[str, Any], *, target: str | None = None) -> None:
        self._parts.store.append_audit(
            contract.AuditEntry(
                at=datetime.now(UTC),
                actor=self.subject.caller.subject,
                action=action,
                organization=self.subject.organization,
                target=target,
                details=details,
            )
        )


EXECUTION_OPERATIONS: Mapping[str, Operation] = {
    name: getattr(Door, name)
    for name in (
        "log",
        "checkpoint",
        "variable",
        "progress",
        "step_find",
        "step_save",
        "result",
        "failure",
        "get_config",
        "has_config",
        "get_secret",
        "get_connection",
    )
}


class ExecutionDoor(Door):
    """The door of one execution or data provider: its token opens it, and only until the token is revoked."""

    def __init__(self, parts: BrokerParts, subject: Grant, token: str) -> None:
        super().__init__(parts, subject)
        self._token = token

    def is_open(self) -> bool:
        return self._parts.tokens.find(self._token) is not None

    def serve(self, connection: socket.socket) -> None:
        """Let the kernel in by its token, then converse; anything else than a right `hello` ends it, audited."""
        try:
            hello = frames.receive(connection)
            if hello is None:
                return
            if hello.get("op") != "hello" or hello.get("token") != self._token or not self.is_open():
                self._audit("broker.denied", {"execution": self.subject.execution_id})
                _hang_up(connection)
                return
            frames.send(connection, {"id": hello.get("id"), "ok": None})
        except (frames.FrameError, OSError):
            _hang_up(connection)
            return
        self.converse(connection)


def _hang_up(connection: socket.socket) -> None:
    """End the talk; the socket itself belongs to whoever opened the door."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _take(arguments: Arguments, **wanted: type) -> list[Any]:
    """The arguments in the order wanted, each of its type.

    Raises:
        ValidationError: one is missing, unknown, or of another type.
    """
    if unknown := arguments.keys() - wanted.keys():
        raise errors.ValidationError(f"Unknown argument {sorted(unknown)[0]!r}; known are {', '.join(wanted)}.")
    for name, type_ in wanted.items():
        if name not in arguments:
            raise errors.ValidationError(f"The argument {name!r} is missing.")
        if not isinstance(arguments[name], type_):
            raise errors.ValidationError(f"The argument {name!r} has to be of type {type_.__name__}.")
    return [arguments[name] for name in wanted]
