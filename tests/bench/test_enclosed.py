"""The workflow that the benchmarks call: it runs fully enclosed, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench import notebook, product
from tests.conftest import ControlPlane


@pytest.mark.parametrize(("level", "status"), [("full", 200), ("reduced", 500), ("none", 500)])
def test_enclosed_hello(start_control_plane: Callable[..., ControlPlane], level: str, status: int) -> None:
    """No figure can be had below the full sandbox."""
    started = start_control_plane(workspace=product.WORKSPACE, sandbox=level)
    with started.open(organization="test-org-active") as client:
        answer = client.post("/api/workflows/enclosed_hello", json=notebook.PARAMETERS)
    assert answer.status_code == status, answer.text
    assert (notebook.ANSWER in answer.text) is (status == 200)


def test_options_are_checked(start_control_plane: Callable[..., ControlPlane]) -> None:
    """A language that the provider does not offer is refused, so that every call that is measured has asked it."""
    started = start_control_plane(workspace=product.WORKSPACE)
    with started.open(organization="test-org-active") as client:
        answer = client.post("/api/workflows/enclosed_hello", json={"name": "Alice", "language": "latin"})
    assert answer.status_code == 400
    assert [field["field"] for field in answer.json()["details"]["fields"]] == ["language"]
