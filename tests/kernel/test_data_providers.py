"""The six built-in data providers."""

from __future__ import annotations

import pytest

from bifrost_kernel import data_providers, errors, models, testing

NAMES = (
    "get_available_licenses",
    "get_departments",
    "get_office_locations",
    "get_priority_levels",
    "get_ticket_categories",
    "get_countries",
)


def run(name: str, **config: object) -> list[dict[str, object]]:
    function, _ = data_providers.get_builtin(name)
    options: list[dict[str, object]] = testing.run_workflow(function, testing.make_context(config=config))
    return options


@pytest.mark.parametrize("name", NAMES)
def test_each_gives_distinct_options(name: str) -> None:
    """Label and value for each, and no value twice."""
    options = [models.Option.model_validate(option) for option in run(name)]
    assert len({option.value for option in options}) == len(options) > 2
    assert all(option.label for option in options)


def test_all_six_are_listed_as_built_in() -> None:
    """With a place that is no path of this machine."""
    listed = data_providers.list_builtin()
    assert tuple(provider.name for provider in listed) == NAMES
    assert all(provider.builtin and provider.source.file == "bifrost_kernel/data_providers.py" for provider in listed)


def test_countries_are_those_of_iso_3166() -> None:
    """249 two-letter codes."""
    options = run("get_countries")
    assert len(options) == 249
    assert {"label": "Germany", "value": "DE", "metadata": {}} in options


def test_priorities_are_the_four_of_the_document() -> None:
    """Low, Medium, High, Critical, in this order."""
    assert [option["label"] for option in run("get_priority_levels")] == ["Low", "Medium", "High", "Critical"]


def test_an_organization_has_its_own_departments() -> None:
    """Config replaces the usual ones, as text or as whole options."""
    options = run("get_departments", departments=["Ops", {"label": "Sales", "value": "s"}])
    assert [(option["label"], option["value"]) for option in options] == [("Ops", "Ops"), ("Sales", "s")]


def test_config_of_another_shape_is_named() -> None:
    """The error names the key and the shape."""
    with pytest.raises(errors.WorkflowError, match="config 'departments' must be a JSON list"):
        run("get_departments", departments="Ops, Sales")


def test_an_unknown_name_lists_what_there_is() -> None:
    """`get_builtin` raises `NotFound`."""
    with pytest.raises(errors.NotFound, match="get_countries"):
        data_providers.get_builtin("get_planets")
