"""For authors' own unit tests: a context without a platform, and a way to run a workflow with it.

    from bifrost_kernel import testing
    from workflows.hello_world import hello_world

    def test_hello_world():
        context = testing.make_context(config={"admin_email": "a@example.com"})
        result = testing.run_workflow(hello_world, context, name="Alice")
        assert result["greeting"] == "Hello, Alice!"
        assert context.events[0]["message"] == "Generating greeting for Alice"

It reaches nothing outside the process and checks inputs as the platform does, but not the options of data providers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from bifrost_kernel import context, decorators, entry, errors, models


class RecordingContext(context.OrganizationContext):
    """A context whose `events` are what the workflow wrote and read, in order: `{"type": …, …}`."""

    def __init__(self, broker: _MemoryBroker, **identity: Any) -> None:
        super().__init__(broker, **identity)
        self.events: list[dict[str, Any]] = broker.events


def make_context(
    *,
    org_id: str = "test-org",
    org_name: str = "Test Organization",
    tenant_id: str | None = None,
    email: str = "author@example.com",
    config: Mapping[str, Any] | None = None,
    secrets: Mapping[str, str] | None = None,
    connections: Mapping[str, models.Credentials | str] | None = None,
) -> RecordingContext:
    """A context that answers from the arguments and remembers what it was told.

    Args:
        connections: credentials by name; a plain text is an access token that is good for an hour.
    """
    broker = _MemoryBroker(org_id, config or {}, secrets or {}, connections or {})
    return RecordingContext(
        broker,
        organization=models.OrganizationInfo(id=org_id, name=org_name, tenant_id=tenant_id),
        caller=models.Caller(subject=f"user:{email}", email=email, name=email.partition("@")[0]),
        execution_id="00000000-0000-7000-8000-000000000000",
    )


def run_workflow(fn: Callable[..., Any], context: context.OrganizationContext, /, **params: Any) -> Any:
    """Run a decorated workflow or data provider to its end, inputs validated; gives back the JSON result.

    Raises:
        ValidationError: the inputs are refused.
        WorkflowError: `fn` is not decorated, or its result has no JSON form.
        BaseException: whatever `fn` raised.
    """
    declaration = decorators.find_declaration(fn)
    if declaration is None or declaration.metadata is None:
        raise errors.WorkflowError(f"{fn!r} is neither a @workflow nor a @data_provider")
    result = _run_to_end(entry.execute(fn, declaration.metadata, context, params))
    if isinstance(declaration.metadata, models.DataProviderMetadata):
        return entry.checked_options(result, declaration.metadata.name)
    return result


def _run_to_end(work: Coroutine[Any, Any, Any]) -> Any:
    """The result, also in a notebook, where a loop already runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


class _MemoryBroker:
    """The broker's operations over dictionaries (docs/broker-protocol.md)."""

    def __init__(
        self,
        org_id: str,
        config: Mapping[str, Any],
        secrets: Mapping[str, str],
        connections: Mapping[str, models.Credentials | str],
    ) -> None:
        self.events: list[dict[str, Any]] = []
        self._searched = list(dict.fromkeys((org_id, models.GLOBAL)))
        self._config = config
        self._secrets = secrets
        self._connections = connections
        self._steps: dict[str, Any] = {}

    def call(self, op: str, **arguments: Any) -> Any:
        operation = getattr(self, f"_{op}", None)
        if operation is not None:
            return operation(**arguments)
        self.events.append({"type": op, **arguments})
        return None

    def _get_config(self, key: str) -> dict[str, Any]:
        self.events.append({"type": "config_read", "key": key})
        return self._found(self._config, key)

    def _has_config(self, key: str) -> bool:
        return key in self._config

    def _get_secret(self, name: str) -> dict[str, Any]:
        self.events.append({"type": "secret_read", "name": name})
        return self._found(self._secrets, name)

    def _get_connection(self, name: str) -> dict[str, Any]:
        self.events.append({"type": "connection_read", "name": name})
        if name not in self._connections:
            searched = ", ".join(self._searched)
            raise errors.NotFound(f"connection {name!r} does not exist; searched: {searched}")
        return _credentials(name, self._connections[name]).model_dump()

    def _step_find(self, name: str) -> dict[str, Any]:
        return {"found": name in self._steps, "value": self._steps.get(name)}

    def _step_save(self, name: str, value: Any) -> None:
        self._steps[name] = value
        self.events.append({"type": "step", "name": name, "value": value})

    def _found(self, values: Mapping[str, Any], key: str) -> dict[str, Any]:
        if key not in values:
            return {"found": False, "searched": self._searched}
        return {"found": True, "value": values[key], "scope": self._searched[0], "secret": False}


def _credentials(name: str, given: models.Credentials | str) -> models.Credentials:
    if isinstance(given, models.Credentials):
        return given
    return models.Credentials(name=name, access_token=given, expires_at=datetime.now(UTC) + timedelta(hours=1))
