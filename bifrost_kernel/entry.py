"""What the cells of a record call inside the kernel: run one workflow, one data provider, or end one notebook.

The kernel process calls `configure` before the first cell. The entry validates once more, runs author code, and reports
`result` or `failure` through the broker; the outcome itself is written by the parent, never here.
"""

from __future__ import annotations

import inspect
import json
import socket
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import pydantic

from bifrost_kernel import (
    broker_client,
    context,
    data_providers,
    decorators,
    errors,
    jsonable,
    log_capture,
    models,
    params,
    registry,
)

MAX_MESSAGE_CHARS = 64 * 1024
MAX_TRACEBACK_CHARS = 64 * 1024
MAX_DETAILS_CHARS = 1_000_000
_PACKAGE = str(Path(__file__).parent)


class _Kernel:
    """The one execution that this process exists for."""

    def __init__(self) -> None:
        self.setup: models.KernelSetup | None = None
        self.broker: context.Broker | None = None
        self.context: context.OrganizationContext | None = None


_KERNEL = _Kernel()


def configure(setup: models.KernelSetup, sock: socket.socket) -> None:
    """Take over the execution: greet the broker and make the context.

    Raises:
        BrokerUnavailable: the broker is gone, or refuses the token.
    """
    configure_with(setup, broker_client.BrokerClient(sock, setup.token))


def configure_with(setup: models.KernelSetup, broker: context.Broker) -> None:
    """As `configure`, over a broker that is already connected."""
    _KERNEL.setup = setup
    _KERNEL.broker = broker
    _KERNEL.context = context.OrganizationContext(
        broker,
        organization=setup.organization,
        caller=setup.caller,
        execution_id=setup.execution_id,
        authoring=setup.purpose == "authoring",
    )


def forget() -> None:
    """Be as before `configure`."""
    _KERNEL.setup = _KERNEL.broker = _KERNEL.context = None


def get_context() -> context.OrganizationContext:
    """The context of this kernel's execution; notebooks get it as `context`.

    Raises:
        WorkflowError: this process runs no execution.
    """
    if _KERNEL.context is None:
        raise errors.WorkflowError("no execution runs in this process")
    return _KERNEL.context


async def run(**inputs: Any) -> Any:
    """Run the workflow of this kernel with `inputs`; gives back its result as JSON.

    Raises:
        BaseException: whatever the workflow raised, after it was reported.
    """
    __tracebackhide__ = True
    setup, given = _setup(), get_context()

    async def work() -> Any:
        if inputs == setup.parameters:
            # The parent validated these very values at submit; a model of them is not built a second time.
            return await call(registry.find_function(setup.code_dir, setup.source, setup.name), given, inputs)
        function, metadata = registry.find_workflow(setup.code_dir, setup.source, setup.name)
        return await execute(function, metadata, given, inputs)

    return await _reported(work)


async def provide(**inputs: Any) -> list[dict[str, Any]]:
    """Run the data provider of this kernel; gives back its options, checked.

    Raises:
        BaseException: whatever the data provider raised, after it was reported.
    """
    __tracebackhide__ = True
    given = get_context()

    async def work() -> list[dict[str, Any]]:
        function, metadata = _provider()
        return checked_options(await _call(function, given, params.validate(metadata, inputs)), metadata.name)

    options: list[dict[str, Any]] = await _reported(work)
    return options


async def execute(
    function: Callable[..., Any],
    metadata: decorators.Metadata,
    given: context.OrganizationContext,
    inputs: Mapping[str, Any],
) -> Any:
    """Validate, call, convert: one workflow from raw inputs to its JSON result, without any report.

    Raises:
        ValidationError: the inputs are refused.
        BaseException: whatever the workflow raised.
    """
    __tracebackhide__ = True
    return await call(function, given, params.validate(metadata, inputs))


async def call(function: Callable[..., Any], given: context.OrganizationContext, values: Mapping[str, Any]) -> Any:
    """Call with values that are valid; logging is captured, the result is JSON.

    Raises:
        BaseException: whatever the workflow raised.
    """
    __tracebackhide__ = True
    with log_capture.capture(given.log):
        outcome = await _call(function, given, values)
    return _result(outcome, given)


def finish_notebook(value: Any = None) -> Any:
    """Report what `context.set_result` was given, else the value of a notebook's last expression, as its result.

    Raises:
        WorkflowError: it has no JSON form.
    """
    __tracebackhide__ = True
    try:
        was_set, given = get_context().find_result()
        result = given if was_set else jsonable.to_json(value, path="result")
        _broker().call("result", value=result)
    except BaseException as error:
        report_failure(error)
        raise
    return result


def report_failure(error: BaseException) -> None:
    """Tell the broker how author code failed; a broker that is gone or refuses never hides the failure itself."""
    error.with_traceback(_trimmed(error.__traceback__))
    details = getattr(error, "details", None)
    with suppress(errors.BifrostError):
        _broker().call(
            "failure",
            error_type=getattr(error, "error_type", type(error).__name__),
            message=jsonable.clean_text(_message(error))[:MAX_MESSAGE_CHARS],
            user_error=isinstance(error, errors.UserError),
            details=_json_or_text(details),
            traceback=_traceback_text(error),
        )


def checked_options(raw: Any, provider: str) -> list[dict[str, Any]]:
    """The options as JSON, each with `label`, `value` and `metadata`.

    Raises:
        WorkflowError: it is no list of options; says which entry is wrong and how.
    """
    if not isinstance(raw, Iterable) or isinstance(raw, (str, bytes, Mapping)):
        raise errors.WorkflowError(f"data provider {provider!r} returned {type(raw).__name__}; it must return a list")
    return [_checked_option(option, f"{provider}[{index}]") for index, option in enumerate(raw)]


async def _reported(work: Callable[[], Awaitable[Any]]) -> Any:
    __tracebackhide__ = True
    try:
        result = await work()
        _broker().call("result", value=result)
    except BaseException as error:  # the edge of the kernel: SystemExit and cancellation are outcomes too
        report_failure(error)
        raise
    return result


async def _call(function: Callable[..., Any], given: context.OrganizationContext, inputs: Mapping[str, Any]) -> Any:
    __tracebackhide__ = True
    # On this thread also when it is no coroutine: an interrupt at the deadline must reach the author's code.
    outcome = function(given, **inputs)
    return await outcome if inspect.isawaitable(outcome) else outcome


def _provider() -> tuple[Callable[..., Any], models.DataProviderMetadata]:
    setup = _setup()
    if setup.builtin:
        return data_providers.get_builtin(setup.name)
    return registry.find_data_provider(setup.code_dir, setup.source, setup.name)


def _result(outcome: Any, given: context.OrganizationContext) -> Any:
    was_set, value = given.find_result()
    if outcome is None and was_set:
        return value
    return jsonable.to_json(outcome, path="result")


def _checked_option(option: Any, place: str) -> dict[str, Any]:
    if isinstance(option, models.Option):
        option = option.model_dump()
    if not isinstance(option, Mapping):
        raise errors.WorkflowError(f"{place} is a {type(option).__name__}; an option is {{label, value, metadata}}")
    try:
        checked = models.Option.model_validate(jsonable.to_json(option, path=place))
    except pydantic.ValidationError as error:
        problems = "; ".join(f"{item['loc'][0]}: {item['msg']}" for item in error.errors(include_url=False))
        raise errors.WorkflowError(f"{place} is no option {{label, value, metadata}}: {problems}") from None
    return checked.model_dump()


def _setup() -> models.KernelSetup:
    if _KERNEL.setup is None:
        raise errors.WorkflowError("no execution runs in this process")
    return _KERNEL.setup


def _broker() -> context.Broker:
    if _KERNEL.broker is None:
        raise errors.WorkflowError("no execution runs in this process")
    return _KERNEL.broker


def _message(error: BaseException) -> str:
    # str() of a KeyError is the repr of its message.
    if isinstance(error, KeyError) and len(error.args) == 1:
        return str(error.args[0])
    try:
        return str(error)
    except Exception:  # an author's __str__ may fail like anything else of theirs, and the failure is still to be told
        return f"(its text cannot be shown: __str__ of {type(error).__name__} failed)"


def _json_or_text(details: Any) -> Any:
    try:
        converted = jsonable.to_json(details, path="details")
    except errors.WorkflowError:
        return jsonable.clean_text(repr(details))[:MAX_DETAILS_CHARS]
    return converted if len(json.dumps(converted)) <= MAX_DETAILS_CHARS else "(the details are too long to be kept)"


def _trimmed(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame of author code on; all of it when there is none."""
    rest = trace
    while rest is not None and rest.tb_frame.f_code.co_filename.startswith((_PACKAGE, "<frozen importlib")):
        rest = rest.tb_next
    return rest or trace


def _traceback_text(error: BaseException) -> str:
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    text = registry.without_root("".join(lines), _setup().code_dir)
    # The end says what happened, so the beginning is what is cut.
    return jsonable.clean_text(text)[-MAX_TRACEBACK_CHARS:]
