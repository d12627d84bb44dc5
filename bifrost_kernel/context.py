"""`OrganizationContext`: what every workflow and data provider is given, and all that it may ask of the platform.

`entry` makes one per execution, the JupyterLab extension one per session, `testing` one for authors' own tests. It
holds no key and opens nothing: whatever it knows or keeps goes through its broker, one acknowledged call at a time.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from typing import Any, Protocol

from bifrost_kernel import errors, integrations, jsonable, models

MAX_PAYLOAD_BYTES = 1_000_000
MAX_MESSAGE_CHARS = 64 * 1024
MAX_NAME_CHARS = 200


class Broker(Protocol):
    """Where the context's calls go: `BrokerClient` in a kernel, memory in tests."""

    def call(self, op: str, **arguments: Any) -> Any: ...


class _Missing:
    def __repr__(self) -> str:
        return "…"


_MISSING = _Missing()


class OrganizationContext:
    """The organization, the caller, and the state of one execution."""

    def __init__(
        self,
        broker: Broker,
        *,
        organization: models.OrganizationInfo,
        caller: models.Caller,
        execution_id: str,
        authoring: bool = False,
    ) -> None:
        """
        Args:
            authoring: a JupyterLab session, where running a cell again repeats its steps.
        """
        self._broker = broker
        self._organization = organization
        self._caller = caller
        self._execution_id = execution_id
        self._authoring = authoring
        self._variables: dict[str, Any] = {}
        self._steps: set[str] = set()
        self._result: Any = None
        self._has_result = False

    def __repr__(self) -> str:
        return f"<OrganizationContext {self.org_id} execution {self.execution_id}>"

    @property
    def org_id(self) -> str:
        """Id of the organization; `GLOBAL` when the workflow runs for none."""
        return self._organization.id

    @property
    def org_name(self) -> str:
        return self._organization.name

    @property
    def tenant_id(self) -> str | None:
        """Microsoft 365 tenant id, if linked."""
        return self._organization.tenant_id

    @property
    def execution_id(self) -> str:
        return self._execution_id

    @property
    def executed_by(self) -> str:
        """Who triggered the execution: `user:<email>` or `key:<id>`."""
        return self._caller.subject

    @property
    def executed_by_email(self) -> str | None:
        return self._caller.email

    @property
    def executed_by_name(self) -> str | None:
        return self._caller.name

    def log(self, level: str, message: str, data: Any = None) -> None:
        """Write a line of the execution's history.

        Raises:
            ValueError: `level` is none of debug, info, warning, error, critical.
        """
        self._broker.call("log", level=_level(level), message=_cut(str(message)), data=_readable(data))

    def save_checkpoint(self, name: str, data: Any = None) -> None:
        """Keep a snapshot of `data`, as it is now, under `name`.

        Raises:
            WorkflowError: something in `data` has no JSON form; names where.
            LimitExceeded: it is larger than 1 MB.
        """
        _check_name("checkpoint", name)
        self._broker.call("checkpoint", name=name, data=_payload(f"checkpoint {name!r}", data))

    def set_variable(self, name: str, value: Any) -> None:
        """Show `value` as a variable of the execution; `get_variable` gives back this very object.

        Raises:
            WorkflowError: something in `value` has no JSON form; names where.
            LimitExceeded: it is larger than 1 MB.
        """
        _check_name("variable", name)
        self._broker.call("variable", name=name, value=_payload(f"variable {name!r}", value))
        self._variables[name] = value

    def get_variable(self, name: str, default: Any = None) -> Any:
        """The value that was set last in this execution, never a copy and never cut short."""
        return self._variables.get(name, default)

    def progress(self, done: float | None = None, total: float | None = None, text: str | None = None) -> None:
        """Say how far the execution is; any part may be left out."""
        cut = None if text is None else _cut(str(text))
        self._broker.call("progress", done=jsonable.to_json(done), total=jsonable.to_json(total), text=cut)

    def set_result(self, value: Any) -> None:
        """Make `value` the result, unless the workflow returns something else than None afterwards.

        Raises:
            WorkflowError: something in `value` has no JSON form; names where.
        """
        result = jsonable.to_json(value, path="result")
        self._broker.call("result", value=result)
        self._result, self._has_result = result, True

    async def step(self, name: str, fn: Callable[..., Any], *args: Any) -> Any:
        """Run `fn(*args)` once per execution: a resumed execution gets the result that was kept, without running it.

        Args:
            name: unique in the execution; in a loop make it so, e.g. `f"create:{email}"`.
            fn: a function, sync or async, whose result has a JSON form.

        Raises:
            WorkflowError: the name is used twice, or the result has no JSON form.
        """
        self._begin_step(name)
        kept = self._broker.call("step_find", name=name)
        if kept["found"]:
            return kept["value"]
        outcome = fn(*args)
        if inspect.isawaitable(outcome):
            outcome = await outcome
        value = _payload(f"step {name!r}", outcome)
        self._broker.call("step_save", name=name, value=value)
        return value

    def get_config(self, key: str, default: Any = _MISSING) -> Any:
        """The configuration value: the organization's, else the global one, else `default`.

        Raises:
            KeyError: it is not set and there is no default; names the key and the scopes searched.
        """
        answer = self._broker.call("get_config", key=key)
        if answer["found"]:
            return answer["value"]
        if default is not _MISSING:
            return default
        raise KeyError(f"config {key!r} is not set; searched: {', '.join(answer['searched'])}")

    def has_config(self, key: str) -> bool:
        """True when `get_config` would find it for the organization or globally."""
        return bool(self._broker.call("has_config", key=key))

    def get_secret(self, name: str) -> str:
        """The secret's text: the organization's, else the global one.

        Raises:
            KeyError: there is none; names the secret and the scopes searched.
        """
        answer = self._broker.call("get_secret", name=name)
        if answer["found"]:
            return str(answer["value"])
        raise KeyError(f"secret {name!r} is not set; searched: {', '.join(answer['searched'])}")

    async def get_oauth_connection(self, name: str) -> models.Credentials:
        """Credentials of the connection, refreshed where that was due.

        Raises:
            NotFound: there is no such connection; names the scopes searched.
            ConnectionRefused: the provider refused a refresh; the connection needs to be authorized again.
        """
        # In a thread: a refresh asks the provider, and other tasks of the workflow go on meanwhile.
        answer = await asyncio.to_thread(self._broker.call, "get_connection", name=name)
        return models.Credentials.model_validate(answer)

    def get_integration(self, name: str) -> Any:
        """A client for a vendor's API, authenticated for this organization.

        Raises:
            NotFound: nothing of that name is installed; lists what is.
        """
        return integrations.open_integration(name, self)

    def find_result(self) -> tuple[bool, Any]:
        """Whether `set_result` was called, and with what; `entry` asks when the workflow returned None."""
        return self._has_result, self._result

    def _begin_step(self, name: str) -> None:
        _check_name("step", name)
        if name in self._steps and not self._authoring:
            raise errors.WorkflowError(
                f"the step name {name!r} is used twice; give each step its own name, e.g. f'{name}:{{number}}'"
            )
        self._steps.add(name)


def _level(level: str) -> str:
    try:
        return models.LogLevel(level).value
    except ValueError:
        allowed = ", ".join(known.value for known in models.LogLevel)
        raise ValueError(f"{level!r} is no log level; allowed: {allowed}") from None


def _cut(message: str) -> str:
    text = jsonable.clean_text(message)
    if len(text) <= MAX_MESSAGE_CHARS:
        return text
    return f"{text[:MAX_MESSAGE_CHARS]}… [cut: {len(text)} characters, the limit is {MAX_MESSAGE_CHARS}]"


def _readable(data: Any) -> Any:
    """The JSON form of a log line's data, or its text: a log line never ends a workflow for what it shows."""
    try:
        return _payload("log data", data)
    except (errors.WorkflowError, errors.LimitExceeded) as error:
        return {"text": _cut(repr(data)), "note": error.message}


def _payload(what: str, value: Any) -> Any:
    converted = jsonable.to_json(value, path=what)
    size = len(json.dumps(converted, ensure_ascii=False, separators=(",", ":")).encode())
    if size > MAX_PAYLOAD_BYTES:
        raise errors.LimitExceeded(f"{what} has {size:,} bytes as JSON; the limit per payload is {MAX_PAYLOAD_BYTES:,}")
    return converted


def _check_name(what: str, name: str) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARS:
        raise ValueError(f"the name of a {what} is text of 1 to {MAX_NAME_CHARS} characters, not {name!r:.100}")
