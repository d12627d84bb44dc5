"""The shape of the code: floors, module docstrings, and the public names of the authors' package."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bifrost_kernel
from bifrost_kernel import errors

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("bifrost_kernel", "scheduler/bifrost_scheduler", "voila_apps/bifrost_portal")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def test_floors() -> None:
    """No module imports from a floor above its own, and none from another room."""
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_docstring(path: Path) -> None:
    """Each module says what it is for."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{path.name} has no docstring"


def test_public_names() -> None:
    """What authors import stands in `__all__`: the errors that they raise, and the five words of the document."""
    assert {"workflow", "param", "data_provider", "OrganizationContext"} <= set(bifrost_kernel.__all__)
    assert {"UserError", "WorkflowError", "TemporaryError"} <= set(bifrost_kernel.__all__)
    assert bifrost_kernel.UserError is errors.UserError
