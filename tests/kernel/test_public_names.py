"""The authors' face."""

from __future__ import annotations

import json
import subprocess
import sys
import types

import pytest

import bifrost_kernel


def test_all_equals_the_public_names() -> None:
    """Nothing is public by accident."""
    names = {name for name in dir(bifrost_kernel) if not isinstance(getattr(bifrost_kernel, name), types.ModuleType)}
    assert sorted(name for name in names if not name.startswith("_")) == sorted(bifrost_kernel.__all__)


def test_an_unknown_name() -> None:
    """It fails as with any module."""
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bifrost_kernel.nothing


def test_importing_it_loads_nothing_heavy() -> None:
    """Every command and kernel imports it, so it stays away from servers, notebooks and HTTP clients."""
    heavy = [
        "httpx",
        "aiohttp",
        "IPython",
        "nbformat",
        "papermill",
        "sqlite3",
        "cryptography",
        "jupyter_core",
        "fastapi",
        "pydantic",
    ]
    code = f"import json, sys, bifrost_kernel; print(json.dumps([name for name in {heavy!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert json.loads(done.stdout) == []
