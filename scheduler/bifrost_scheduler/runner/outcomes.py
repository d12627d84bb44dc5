"""How an execution ended: decided here, in the parent, from what is known for sure down to what the kernel claimed.

`runner` calls it. Pure but for the clock: an ending by the parent counts before a dead kernel, that before a reported
failure, that before a reported result.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

import pydantic

from bifrost_kernel import errors, models
from bifrost_scheduler.broker import Report
from bifrost_scheduler.runner.outcome import Executed, Verdict
from bifrost_scheduler.store import contract

Status = models.ExecutionStatus


class Ending(StrEnum):
    """Why the parent ended a kernel."""

    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    MEMORY = "memory"


class Bounds(NamedTuple):
    """What an execution may take, for the text of an outcome."""

    timeout_seconds: float
    memory_bytes: int


def decide(
    report: Report, executed: Executed, ending: Ending | None, bounds: Bounds, exit_status: int | None
) -> contract.Outcome:
    """The outcome, masked."""
    if ending is not None:
        return _ended(ending, bounds)
    if executed.verdict is Verdict.DIED:
        return crashed(f"The kernel died{_how(exit_status)}.")
    if report.failure is not None:
        return _failed(report)
    if executed.verdict is Verdict.FAILED:
        return _outcome(Status.FAILED, error=report.redactor.text(executed.evalue or ""), error_type=executed.ename)
    return _returned(report)


def crashed(reason: str) -> contract.Outcome:
    return _outcome(Status.CRASHED, error=reason, error_type="KernelDied")


def options_of(report: Report, provider: str, ending: Ending | None) -> Sequence[models.Option]:
    """What a data provider offered.

    Raises:
        WorkflowError: it failed, took too long or too much memory, or its kernel died.
    """
    if report.returned and ending is None and report.failure is None:
        return _parse_options(report, provider)
    if report.failure is not None and ending is None:
        text = report.redactor.text(f"{report.failure.error_type}: {report.failure.message}")
        raise errors.WorkflowError(f"The data provider {provider!r} failed: {text}")
    raise errors.WorkflowError(f"The data provider {provider!r} took too long or too much memory, or its kernel died.")


def _parse_options(report: Report, provider: str) -> Sequence[models.Option]:
    try:
        return pydantic.TypeAdapter(list[models.Option]).validate_python(report.redactor.walk(report.result))
    except pydantic.ValidationError as error:
        raise errors.WorkflowError(
            f"The data provider {provider!r} gave something that is no list of options."
        ) from error


def _ended(ending: Ending, bounds: Bounds) -> contract.Outcome:
    match ending:
        case Ending.TIMEOUT:
            text = f"The execution ran longer than its {bounds.timeout_seconds:g} seconds (timeout_seconds)."
            return _outcome(Status.TIMEOUT, error=text, error_type="Timeout")
        case Ending.CANCELLED:
            return _outcome(Status.CANCELLED, error="The execution was cancelled while it ran.", error_type="Cancelled")
        case Ending.STOPPED:
            return crashed("The control plane was stopped while it ran.")
        case Ending.MEMORY:
            limit = f"{bounds.memory_bytes / 1024**2:g} MB of memory (BIFROST_MEMORY_BYTES)"
            text = f"The processes of the execution took more than its {limit}."
            return _outcome(Status.FAILED, error=text, error_type="LimitExceeded")


def _failed(report: Report) -> contract.Outcome:
    failure = report.failure
    assert failure is not None
    return _outcome(
        Status.FAILED,
        error=report.redactor.text(failure.message),
        error_type="UserError" if failure.user_error else report.redactor.text(failure.error_type),
        error_details=report.redactor.walk(failure.details),
    )


def _returned(report: Report) -> contract.Outcome:
    if not report.returned:
        return _outcome(Status.FAILED, error="The workflow ended without giving its result.", error_type="NoResult")
    result = report.redactor.walk(report.result)
    flawed = isinstance(report.result, dict) and report.result.get("success") is False
    return _outcome(Status.COMPLETED_WITH_ERRORS if flawed else Status.SUCCESS, result=result)


def _outcome(status: Status, **fields: Any) -> contract.Outcome:
    return contract.Outcome(status=status, completed_at=datetime.now(UTC), **fields)


def _how(exit_status: int | None) -> str:
    if exit_status is None:
        return ""
    if exit_status < 0 or exit_status > 128:
        return f" by signal {abs(exit_status) % 128}"
    return f" with exit status {exit_status}"
