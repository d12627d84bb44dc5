"""A whole workspace as metadata; whatever is wrong in it stands in `broken` and takes nothing else down."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from bifrost_kernel import describe, models

Workspace = Callable[[Mapping[str, str]], Path]

GOOD = """
    from bifrost_kernel import workflow
    print("noise on standard output")
    @workflow(name="good", description="d")
    def good(context): pass
"""
PROVIDER = """
    from bifrost_kernel import data_provider
    @data_provider(name="{name}", description="d")
    def provide(context): return []
"""


def the_broken(root: Path, **given: float) -> dict[str, models.BrokenDeclaration]:
    return {broken.source.file: broken for broken in describe.describe(root, **given).broken}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("x = 1\n\n1 / 0\n", 3, "ZeroDivisionError: division by zero"),
        ("x = 1\ndef f(:\n", 2, "SyntaxError"),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
        ("raise KeyboardInterrupt\n", 1, "KeyboardInterrupt"),
        ("import os\nos._exit(0)\n", 1, "ended the interpreter"),
        (
            "import ctypes, faulthandler\nfaulthandler.disable()\nctypes.string_at(0)\n",
            1,
            "crashed the interpreter (SIGSEGV)",
        ),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n", 1, "ended the interpreter"),
        ("def f(): f()\nf()\n", 1, "RecursionError"),
        ("import nowhere_to_be_found\n", 1, "ModuleNotFoundError"),
    ],
)
def test_a_module_that_fails_breaks_only_itself(workspace: Workspace, text: str, line: int, reason: str) -> None:
    """With its line where it is known, and the other file's workflow stays."""
    root = workspace({"workflows/bad.py": text, "workflows/good.py": GOOD})
    description = describe.describe(root)
    assert [workflow.name for workflow in description.workflows] == ["good"]
    assert [(broken.kind, broken.source.file, broken.source.line) for broken in description.broken] == [
        ("module", "workflows/bad.py", line)
    ]
    assert reason in description.broken[0].reason


def test_an_endless_loop_ends_at_its_limit(workspace: Workspace) -> None:
    """The file is broken, and so are no others."""
    root = workspace({"workflows/bad.py": "while True: pass\n", "workflows/good.py": GOOD})
    began = time.monotonic()
    assert "did not end within 0.3 seconds" in the_broken(root, file_limit_seconds=0.3)["workflows/bad.py"].reason
    assert time.monotonic() - began < 5


def test_an_error_in_a_shared_module_names_its_place(workspace: Workspace) -> None:
    """The workflow's file is broken at its import, and the reason says where it was raised."""
    root = workspace({"modules/x.py": "\n1 / 0\n", "workflows/it.py": "\n\nimport modules.x\n"})
    broken = the_broken(root)
    assert broken["workflows/it.py"].source.line == 3
    assert broken["workflows/it.py"].reason == "ZeroDivisionError: division by zero (raised at modules/x.py:2)"
    assert broken["modules/x.py"].source.line == 2


def test_workflows_of_one_name_are_all_broken(workspace: Workspace) -> None:
    """Each names both places."""
    root = workspace({"workflows/a.py": GOOD, "workflows/b.py": GOOD})
    description = describe.describe(root)
    assert description.workflows == ()
    assert len(description.broken) == 2
    assert all("workflows/a.py:4 and workflows/b.py:4" in broken.reason for broken in description.broken)


def test_a_workspace_provider_replaces_a_built_in_one(workspace: Workspace) -> None:
    """And the listing says so."""
    root = workspace({"data_providers/d.py": PROVIDER.format(name="get_departments")})
    providers = {provider.name: provider for provider in describe.describe(root).data_providers}
    assert len(providers) == 6
    assert providers["get_departments"].replaces_builtin
    assert not providers["get_departments"].builtin
    assert providers["get_countries"].builtin


def test_workspace_providers_of_one_name_are_broken(workspace: Workspace) -> None:
    """Both places are named."""
    text = PROVIDER.format(name="get_things")
    broken = the_broken(workspace({"data_providers/a.py": text, "data_providers/b.py": text}))
    assert broken["data_providers/a.py"].kind == "data_provider"
    assert "data_providers/a.py:3 and data_providers/b.py:3" in broken["data_providers/b.py"].reason


def test_an_unknown_provider_breaks_its_workflow(workspace: Workspace) -> None:
    """The reason lists those that are known."""
    text = """
        from bifrost_kernel import workflow, param
        @workflow(name="w", description="d")
        @param("a", data_provider="get_departmnts")
        def w(context, a): pass
    """
    broken = the_broken(workspace({"workflows/w.py": text}))["workflows/w.py"]
    assert (broken.kind, broken.name) == ("workflow", "w")
    assert "'get_departmnts'; known: get_available_licenses, get_countries, get_departments" in broken.reason


def test_some_folders_are_not_read(workspace: Workspace) -> None:
    """Hidden ones, caches, checkpoints and tests, at any depth; a link out of the workspace is not followed."""
    bad = "1 / 0\n"
    names = (".git/a.py", "__pycache__/a.py", "workflows/.ipynb_checkpoints/a.py", "tests/a.py", "modules/tests/a.py")
    root = workspace(dict.fromkeys(names, bad) | {"workflows/good.py": GOOD})
    (root / "linked").symlink_to(root / "tests")
    assert describe.describe(root).broken == ()


def test_notebooks_are_described_too(workspace: Workspace) -> None:
    """A notebook's workflow stands beside the others, a malformed notebook is broken."""
    declared = {"cells": [], "metadata": {"bifrost": {"name": "n", "description": "d"}}, "nbformat": 4}
    root = workspace({"workflows/n.ipynb": json.dumps(declared), "workflows/bad.ipynb": "{"})
    description = describe.describe(root)
    assert [(found.name, found.kind) for found in description.workflows] == [("n", "notebook")]
    assert description.broken[0].source.file == "workflows/bad.ipynb"


def test_a_module_takes_no_longer_among_fifty(workspace: Workspace) -> None:
    """The catalog is read at every change, so that its time must not grow faster than the workspace."""
    one = workspace({"workflows/w.py": GOOD})
    alone = min(seconds_to_read(one, 1) for _ in range(3))
    fifty = workspace({f"workflows/w{number}.py": GOOD.replace('"good"', f'"good_{number}"') for number in range(50)})
    assert min(seconds_to_read(fifty, 50) for _ in range(3)) < 3 * 50 * alone


def seconds_to_read(root: Path, count: int) -> float:
    began = time.monotonic()
    assert len(describe.describe(root).workflows) >= count
    return time.monotonic() - began
