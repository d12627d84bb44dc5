"""The kit for authors' own unit tests."""

from __future__ import annotations

from typing import Any

import pytest

from bifrost_kernel import data_provider, errors, param, testing, workflow


@workflow(name="greet", description="d")
@param("name", required=True, validation={"min_length": 2})
async def greet(context: Any, name: str) -> dict[str, Any]:
    context.log("info", f"Greeting {name}")
    return {"greeting": f"Hello, {name}!", "url": context.get_config("url")}


def test_a_workflow_runs_with_its_inputs_checked() -> None:
    """The result as JSON, and what it wrote in `events`."""
    context = testing.make_context(config={"url": "https://example.com"})
    assert testing.run_workflow(greet, context, name="Alice")["greeting"] == "Hello, Alice!"
    assert [event["type"] for event in context.events] == ["log", "config_read"]


def test_wrong_inputs_and_missing_config_are_seen() -> None:
    """As on the platform."""
    with pytest.raises(errors.ValidationError, match="at least 2 characters"):
        testing.run_workflow(greet, testing.make_context(), name="A")
    with pytest.raises(KeyError, match="'url' is not set; searched: test-org, GLOBAL"):
        testing.run_workflow(greet, testing.make_context(), name="Alice")


def test_a_data_providers_options_are_checked() -> None:
    """An option without a value fails the author's test, not the customer's form."""

    @data_provider(name="get_things", description="d")
    def get_things(context: Any) -> list[Any]:
        return [{"label": "A"}]

    with pytest.raises(errors.WorkflowError, match=r"get_things\[0\]"):
        testing.run_workflow(get_things, testing.make_context())


def test_an_undecorated_function_is_named() -> None:
    """The error says what is missing."""
    with pytest.raises(errors.WorkflowError, match="neither a @workflow nor a @data_provider"):
        testing.run_workflow(len, testing.make_context())
