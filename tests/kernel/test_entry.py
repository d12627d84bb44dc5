"""What the cells of a record call: run, provide, finish; and what the broker then knows."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from bifrost_kernel import entry, errors

HEADER = "import asyncio\nfrom bifrost_kernel import *\n"


def workflow(body: str, arguments: str = "", *, name: str = "w", kind: str = "async def") -> str:
    indented = body.replace("\n", "\n    ")
    return f'{HEADER}@workflow(name="{name}", description="d")\n{kind} {name}(context{arguments}):\n    {indented}\n'


def provider(value: str) -> str:
    return f'{HEADER}@data_provider(name="p", description="d")\ndef p(context, kind="a"):\n    return {value}\n'


@pytest.mark.parametrize("kind", ["async def", "def"])
def test_a_workflow_runs_and_reports_its_result(configured: Callable[..., Any], kind: str) -> None:
    """Sync or async, with typed inputs; the result is JSON, shown and reported."""
    peer = configured("w", workflow('return {"n": n + 1, "org": context.org_id, "s": {1}}', ", n: int", kind=kind))
    assert asyncio.run(entry.run(n="41")) == {"n": 42, "org": "acme", "s": [1]}
    assert [request["value"] for request in peer.of("result")] == [{"n": 42, "org": "acme", "s": [1]}]
    assert peer.of("failure") == []


def test_inputs_are_checked_once_more_in_the_kernel(configured: Callable[..., Any]) -> None:
    """Whatever reached the cell, the workflow never sees a wrong input."""
    peer = configured("w", workflow("return n", ", n: int"))
    with pytest.raises(errors.ValidationError):
        asyncio.run(entry.run(n="x", m=1))
    assert {field["field"] for field in peer.of("failure")[0]["details"]["fields"]} == {"n", "m"}


@pytest.mark.parametrize(
    ("raised", "error_type", "message", "user_error"),
    [
        ('UserError("Use another address")', "UserError", "Use another address", True),
        ('ValueError("boom")', "ValueError", "boom", False),
        ('KeyError("key")', "KeyError", "key", False),
        ("SystemExit(3)", "SystemExit", "3", False),
        ("KeyboardInterrupt", "KeyboardInterrupt", "", False),
        ("asyncio.CancelledError", "CancelledError", "", False),
        ('TemporaryError("later")', "TemporaryError", "later", False),
    ],
)
def test_a_failure_is_reported_and_raised_again(
    configured: Callable[..., Any], raised: str, error_type: str, message: str, user_error: bool
) -> None:
    """So that the cell fails too, whatever was raised."""
    peer = configured("w", workflow(f"raise {raised}"))
    with pytest.raises(BaseException, match=message or None):
        asyncio.run(entry.run())
    failure = peer.of("failure")[0]
    assert (failure["error_type"], failure["message"], failure["user_error"]) == (error_type, message, user_error)
    assert peer.of("result") == []


def test_a_failure_that_is_hard_to_tell_is_told(configured: Callable[..., Any]) -> None:
    """An exception without a text, and details without an end, are still reported."""
    body = "class Odd(Exception):\n    details = 'a' * 20_000_000\n    def __str__(self): return 1 / 0\nraise Odd"
    peer = configured("w", workflow(body))
    with pytest.raises(Exception):  # noqa: B017, PT011 - its class is the author's
        asyncio.run(entry.run())
    failure = peer.of("failure")[0]
    assert failure["error_type"] == "Odd"
    assert "cannot be shown" in failure["message"]
    assert failure["details"] == "(the details are too long to be kept)"


def test_the_traceback_is_the_authors(configured: Callable[..., Any]) -> None:
    """It begins in author code and names no folder of the platform."""
    peer = configured("w", workflow("helper()") + "def helper():\n    raise ValueError('boom')\n")
    with pytest.raises(ValueError, match="boom"):
        asyncio.run(entry.run())
    text = peer.of("failure")[0]["traceback"]
    assert text.startswith('Traceback (most recent call last):\n  File "workflows/it.py", line 5, in w\n')
    assert "bifrost_kernel" not in text


def test_a_module_that_raises_is_a_failure(configured: Callable[..., Any]) -> None:
    """With its own error type."""
    peer = configured("w", "1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        asyncio.run(entry.run())
    assert peer.of("failure")[0]["error_type"] == "ZeroDivisionError"


def test_a_result_without_json_form_is_a_failure(configured: Callable[..., Any]) -> None:
    """The message names type and path."""
    peer = configured("w", workflow('return {"users": [object()]}'))
    with pytest.raises(errors.WorkflowError, match=r"result\.users\[0\] is a object"):
        asyncio.run(entry.run())
    assert peer.of("failure")[0]["error_type"] == "WorkflowError"


@pytest.mark.parametrize(("returned", "result"), [("None", 1), ("2", 2), ("False", False)])
def test_set_result_counts_when_nothing_is_returned(configured: Callable[..., Any], returned: str, result: Any) -> None:
    """A returned value wins over `set_result`, None does not."""
    peer = configured("w", workflow(f"context.set_result(1)\nreturn {returned}"))
    assert asyncio.run(entry.run()) == result
    assert peer.of("result")[-1]["value"] == result


def test_logging_becomes_events(configured: Callable[..., Any]) -> None:
    """Standard `logging` stands beside `context.log`, in order."""
    body = 'import logging\ncontext.log("info", "one")\nlogging.getLogger("acme").warning("two")'
    peer = configured("w", workflow(body))
    asyncio.run(entry.run())
    assert [(request["level"], request["message"]) for request in peer.of("log")] == [
        ("info", "one"),
        ("warning", "two"),
    ]


def test_a_broker_that_dies_does_not_hide_the_failure(configured: Callable[..., Any]) -> None:
    """The cell still shows what the workflow raised."""
    peer = configured("w", workflow('context._broker.close()\nraise ValueError("boom")'))
    with pytest.raises(ValueError, match="boom"):
        asyncio.run(entry.run())
    assert peer.of("failure") == []


def test_a_data_provider_gives_its_options(configured: Callable[..., Any]) -> None:
    """Complete options as the result, inputs validated."""
    peer = configured("p", provider('[{"label": kind, "value": 1}]'))
    assert asyncio.run(entry.provide(kind="b")) == [{"label": "b", "value": 1, "metadata": {}}]
    assert peer.of("result")[0]["value"] == [{"label": "b", "value": 1, "metadata": {}}]


def test_a_built_in_data_provider_needs_no_workspace(configured: Callable[..., Any]) -> None:
    """It comes from the platform, with the organization's config."""
    configured("get_departments", builtin=True, get_config={"found": True, "value": ["Ops"]})
    assert asyncio.run(entry.provide()) == [{"label": "Ops", "value": "Ops", "metadata": {}}]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("None", "returned NoneType; it must return a list"),
        ('"ab"', "returned str"),
        ("[1]", r"p\[0\] is a int"),
        ('[{"label": "a"}]', r"p\[0\] is no option {label, value, metadata}: value: Field required"),
        ('[{"label": "a", "value": 1}, {"label": None, "value": 1}]', r"p\[1\] is no option .*label"),
        ('[{"label": "a", "value": 1, "tooltip": ""}]', "tooltip"),
        ('[{"label": "a", "value": object()}]', r"p\[0\]\.value is a object"),
    ],
)
def test_wrong_options_are_a_failure(configured: Callable[..., Any], value: str, reason: str) -> None:
    """The message says which entry and what is wrong with it."""
    peer = configured("p", provider(value))
    with pytest.raises(errors.WorkflowError, match=reason):
        asyncio.run(entry.provide())
    assert len(peer.of("failure")) == 1


def test_a_notebook_ends_with_its_last_value(configured: Callable[..., Any]) -> None:
    """Or with what `set_result` was given, whatever the last expression is."""
    peer = configured("w")
    assert entry.finish_notebook({"n": {1}}) == {"n": [1]}
    entry.get_context().set_result("set")
    assert entry.finish_notebook(object()) == "set"
    assert [request["value"] for request in peer.of("result")] == [{"n": [1]}, "set", "set"]


def test_a_notebooks_value_without_json_form_is_a_failure(configured: Callable[..., Any]) -> None:
    """Reported as for functions."""
    peer = configured("w")
    with pytest.raises(errors.WorkflowError, match="result is a object"):
        entry.finish_notebook(object())
    assert peer.of("failure")[0]["error_type"] == "WorkflowError"


def test_the_cell_shows_author_frames_only(configured: Callable[..., Any]) -> None:
    """Frames of the platform are marked hidden for IPython's traceback."""
    configured("w", workflow("1 / 0"))
    with pytest.raises(ZeroDivisionError) as caught:
        asyncio.run(entry.run())
    own = [
        frame
        for frame, _ in traceback.walk_tb(caught.value.__traceback__)
        if frame.f_code.co_filename == entry.__file__
    ]
    assert own
    assert all(frame.f_locals.get("__tracebackhide__") for frame in own)
