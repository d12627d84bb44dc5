"""Author code is loaded, found, and kept apart from everything else."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import bifrost_kernel
from bifrost_kernel import errors, models, registry

Workspace = Callable[[Mapping[str, str]], Path]

GOOD = """
    from bifrost_kernel import workflow, data_provider

    @workflow(name="good", description="d")
    def good(context): return "good"

    @data_provider(name="get_things", description="d")
    def get_things(context): return []
"""


def test_declarations_carry_their_place_in_the_workspace(workspace: Workspace) -> None:
    """Files are relative, lines are those of the decorator."""
    root = workspace({"workflows/it.py": GOOD})
    found = registry.find_declarations(registry.load_module(root, "workflows/it.py"), root)
    assert found.workflows[0].source == models.Source(file="workflows/it.py", line=4)
    assert found.data_providers[0].source == models.Source(file="workflows/it.py", line=7)


def test_the_names_of_older_workspaces_work(workspace: Workspace) -> None:
    """`engine.shared` offers the same objects."""
    text = """
        from engine.shared.decorators import workflow, param, data_provider
        from engine.shared.context import OrganizationContext
    """
    module = registry.load_module(workspace({"workflows/it.py": text}), "workflows/it.py")
    assert module.workflow is bifrost_kernel.workflow
    assert module.OrganizationContext is bifrost_kernel.OrganizationContext


def test_a_wrong_declaration_breaks_only_itself(workspace: Workspace) -> None:
    """The other workflow of the file stays, and the reason names no path outside the workspace."""
    text = GOOD + '\n    @workflow(name="Bad", description="d")\n    def bad(context): pass\n'
    root = workspace({"workflows/it.py": text})
    found = registry.find_declarations(registry.load_module(root, "workflows/it.py"), root)
    assert [workflow.name for workflow in found.workflows] == ["good"]
    assert (found.broken[0].kind, found.broken[0].name, found.broken[0].source.line) == ("workflow", "Bad", 10)
    assert found.broken[0].reason.startswith("bad (workflows/it.py:10): name='Bad'")


def test_modules_are_shared_and_one(workspace: Workspace) -> None:
    """`from modules.x import y` works, and gives the object that the loaded module itself has."""
    root = workspace(
        {"modules/x.py": "import workflows.it\nTHING = object()\n", "workflows/it.py": "from modules.x import THING\n"}
    )
    module = registry.load_module(root, "workflows/it.py")
    assert sys.modules["modules.x"].THING is module.THING
    assert sys.modules["modules.x"].workflows.it is module


def test_imported_declarations_belong_to_their_own_file(workspace: Workspace) -> None:
    """A workflow that another file imports is declared once."""
    root = workspace({"workflows/it.py": GOOD, "workflows/other.py": "from workflows.it import good\n"})
    found = registry.find_declarations(registry.load_module(root, "workflows/other.py"), root)
    assert found.workflows == ()


def test_a_file_shadows_nothing_of_the_standard_library(workspace: Workspace) -> None:
    """An author's `json.py` is loaded under another name, and `import json` stays what it was."""
    root = workspace({"json.py": "import json\nTEXT = json.dumps([1])\n"})
    assert registry.load_module(root, "json.py").TEXT == "[1]"
    assert sys.modules["json"] is json


def test_no_bytecode_is_written(workspace: Workspace) -> None:
    """The workspace at submit stays as it was hashed."""
    root = workspace({"modules/x.py": "Y = 1\n", "workflows/it.py": "from modules.x import Y\n"})
    registry.load_module(root, "workflows/it.py")
    assert not list(root.rglob("__pycache__"))


def test_functions_are_found_by_name(workspace: Workspace) -> None:
    """The function and its metadata; the kinds are not mixed up."""
    root, source = workspace({"workflows/it.py": GOOD}), models.Source(file="workflows/it.py")
    function, metadata = registry.find_workflow(root, source, "good")
    assert (function(None), metadata.name) == ("good", "good")
    with pytest.raises(errors.NotFound, match="does not declare the data provider 'good'"):
        registry.find_data_provider(root, source, "good")
