"""The workflow that the benchmarks call: it runs fully enclosed, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from bench import notebook, product
from tests.conftest import ControlPlane


@pytest.fixture(scope="module")
def greet(start_control_plane: Callable[..., ControlPlane]) -> Callable[..., httpx.Response]:
    """Call the workflow at a level, with inputs; a level's control plane is started once."""
    started: dict[str, ControlPlane] = {}

    def call(level: str, **inputs: str) -> httpx.Response:
        if level not in started:
            started[level] = start_control_plane(workspace=product.WORKSPACE, sandbox=level)
        with started[level].open(organization="test-org-active") as client:
            return client.post("/api/workflows/enclosed_hello", json=inputs)

    return call


@pytest.mark.parametrize(("level", "status"), [("full", 200), ("reduced", 500), ("none", 500)])
def test_enclosed_hello(greet: Callable[..., httpx.Response], level: str, status: int) -> None:
    """No figure can be had below the full sandbox."""
    answer = greet(level, **notebook.PARAMETERS)
    assert answer.status_code == status, answer.text
    assert (notebook.ANSWER in answer.text) is (status == 200)


def test_options_are_checked(greet: Callable[..., httpx.Response]) -> None:
    """A language that the provider does not offer is refused, so that every call that is measured has asked it."""
    answer = greet("full", name="Alice", language="latin")
    assert answer.status_code == 400
    assert [field["field"] for field in answer.json()["details"]["fields"]] == ["language"]
