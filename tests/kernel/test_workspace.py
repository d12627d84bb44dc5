"""The example workspace that ships with the platform."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bifrost_kernel import decorators, describe, models, notebooks, registry, testing

WORKSPACE = Path(__file__).parents[2] / "workspace"


def run(name: str, /, **given: Any) -> Any:
    context = testing.make_context(org_name="Acme")
    function, _ = registry.find_workflow(WORKSPACE, models.Source(file=f"workflows/{name}.py"), name)
    return testing.run_workflow(function, context, **given)


@pytest.fixture(autouse=True)
def _own_imports(own_imports: None) -> None:
    """Each test loads the workspace anew."""


def test_nothing_in_it_is_broken() -> None:
    """Each workflow of the document is there, and one notebook."""
    description = describe.describe(WORKSPACE)
    assert description.broken == ()
    kinds = {workflow.name: workflow.kind for workflow in description.workflows}
    assert kinds | {"hello_world": "function", "license_audit": "function", "tenant_report": "notebook"} == kinds


def test_hello_world_greets_in_the_chosen_language() -> None:
    """As the document expects it."""
    assert run("hello_world", name="Alice", language="spanish") == {
        "greeting": "¡Hola, Alice!",
        "language": "spanish",
        "organization": "Acme",
        "executed_by": "author@example.com",
    }


def test_its_languages_are_those_of_the_dropdown() -> None:
    """The provider offers four."""
    source = models.Source(file="data_providers/greeting_providers.py")
    function, _ = registry.find_data_provider(WORKSPACE, source, "get_greeting_languages")
    options = testing.run_workflow(function, testing.make_context())
    assert [option["value"] for option in options] == ["english", "spanish", "french", "german"]


def test_onboarding_uses_the_shared_module() -> None:
    """`modules/` is importable from workflows."""
    result = run(
        "onboard_new_user",
        email="alice@example.com",
        first_name="Alice",
        last_name="Liddell",
        department="IT",
        license_sku="SPE_E3",
    )
    assert (result["user_id"], result["display_name"], result["status"]) == ("user-alice", "Alice Liddell", "completed")


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("license_audit", {}),
        ("assign_license", {"user_email": "a@example.com", "license_sku": "SPE_E3"}),
        ("create_user", {"first_name": "A", "last_name": "B", "email": "a@example.com", "license": "SPE_E3"}),
    ],
)
def test_the_other_examples_run(name: str, given: dict[str, Any]) -> None:
    """Each gives an object."""
    assert run(name, **given)


def test_the_audit_is_due_on_mondays() -> None:
    """Mode and schedule are those of the document."""
    function, metadata = registry.find_workflow(
        WORKSPACE, models.Source(file="workflows/license_audit.py"), "license_audit"
    )
    assert (metadata.execution_mode, metadata.schedule) == ("scheduled", "0 9 * * 1")
    assert decorators.find_declaration(function) is not None


def test_the_readme_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its Python blocks run as they stand."""
    monkeypatch.syspath_prepend(str(WORKSPACE))
    blocks = re.findall(r"```python\n(.*?)```", (WORKSPACE / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_the_notebook_has_its_cells_and_inputs() -> None:
    """The parameters cell is the first to run."""
    metadata = notebooks.find_notebook_workflow(WORKSPACE, "workflows/tenant_report.ipynb")
    assert metadata is not None
    assert [param.name for param in metadata.params] == ["title", "min_available"]
    assert notebooks.cells_of(WORKSPACE / "workflows/tenant_report.ipynb")[0].is_parameters
