"""Packages that are imported before kernels exist: what is no use to them is told, and stops nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bifrost_kernel.forkserver import preloading


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of a package `foreign_package`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "foreign_package.py"
    module = sys.modules.pop("foreign_package", None)
    if hasattr(module, "go"):
        module.go.set()


def test_what_is_imported_is_not_mentioned(package: Path) -> None:
    """Only trouble is told."""
    package.write_text("value = 1")
    assert preloading.load(["foreign_package"]) == {}
    assert sys.modules["foreign_package"].value == 1


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("while True: pass", "TimeoutError: its import took more than 0.2 s"),
        ("import threading; go = threading.Event(); threading.Thread(target=go.wait).start()", "it starts a thread"),
    ],
)
def test_trouble_has_a_name_and_a_reason(
    package: Path, monkeypatch: pytest.MonkeyPatch, code: str, reason: str
) -> None:
    """A package that fails, leaves, hangs or starts a thread is told, and the next one is imported."""
    package.write_text(code)
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    reasons = preloading.load(["foreign_package", "colorsys"], import_seconds=0.2)
    assert list(reasons) == ["foreign_package"]
    assert reasons["foreign_package"].startswith(reason)
    assert "colorsys" in sys.modules


def test_it_can_be_tried_from_outside() -> None:
    """The module as a program prints the reasons as JSON."""
    command = [sys.executable, "-m", "bifrost_kernel.forkserver.preloading", "json", "no_such_module_here"]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert told == {"no_such_module_here": "ModuleNotFoundError: No module named 'no_such_module_here'"}
