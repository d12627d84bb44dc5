"""The OpenAPI document is true: schemathesis drives every operation by it, as four kinds of callers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from bifrost_scheduler import __version__

EXAMPLES = {"developer": 10, "organization": 6, "invalid": 2, "none": 2}
"""Of each operation, once with right and once with wrong data; who is refused at the door needs fewer."""
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]
SIGNING_IN = {"get_sign_in", "create_session", "set_up", "create_authorization", "create_openid_session"}
OPEN = {"get_health", "get_metrics", *SIGNING_IN}
"""Operations that need no key (the metrics in development only)."""


@pytest.fixture(scope="session")
def schema(control_plane: Any) -> Any:
    loaded = schemathesis.openapi.from_url(f"{control_plane.base_url}/openapi.json")
    loaded.config.update(base_url=control_plane.base_url)
    return loaded


@pytest.fixture
def known(
    run: Callable[..., httpx.Response],
    client: Callable[..., httpx.Client],
    new_user: Callable[..., str],
    organization: str,
) -> dict[str, str]:
    """A right value for every parameter of a path."""
    one = client("test", organization)
    one.put("/api/config/known", json={"value": "1"}).raise_for_status()
    one.put("/api/schedules/nothing", json={"workflow": "nothing", "cron": "0 9 * * 1"}).raise_for_status()
    return {
        "name": "nothing",
        "key": "known",
        "execution_id": run("talkative", organization).headers["X-Execution-Id"],
        "organization_id": organization,
        "email": new_user({organization: ["ReadOnlyUser"]}),
    }


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
@pytest.mark.parametrize("caller", EXAMPLES)
def test_every_operation(
    schema: Any,
    known: dict[str, str],
    new_key: Callable[..., str],
    organization: str,
    caller: str,
    mode: GenerationMode,
) -> None:
    """Whatever is sent, no operation fails on our side, and every answer is one that the document describes."""
    keys = {"developer": "test", "organization": new_key(organization), "invalid": "invalid", "none": None}
    headers = {"x-functions-key": keys[caller]} if keys[caller] else {}
    for found in schema.get_all_operations():
        operation = found.ok()
        # Nothing can be wrong about an operation without parameters.
        if mode is GenerationMode.POSITIVE or operation.body or any(operation.iter_parameters()):
            _drive(operation, _cases(operation, mode, known, organization), headers, EXAMPLES[caller])


def _cases(operation: Any, mode: GenerationMode, known: dict[str, str], organization: str) -> Any:
    right = {name: value for name, value in known.items() if f"{{{name}}}" in operation.path}
    cases = operation.as_strategy(generation_mode=mode)
    if right:
        # Invented identifiers alone would hardly get beyond 404.
        cases |= operation.as_strategy(
            generation_mode=mode, path_parameters=right, headers={"X-Organization-Id": organization}
        )
    return cases


def _drive(operation: Any, cases: Any, headers: dict[str, str], examples: int) -> None:
    @seed(20260302)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def send(case: Any) -> None:
        # Credentials are this test's business, also where the document's own would be generated.
        for name in ("x-functions-key", "Authorization"):
            case.headers.pop(name, None)
        response = case.call(headers=headers)
        case.validate_response(response, checks=CHECKS)
        if headers.get("x-functions-key") in (None, "invalid") and operation.definition.raw["operationId"] not in OPEN:
            assert response.status_code in (401, 405), response.text

    send()


def test_document_names_every_failure(client: Callable[..., httpx.Client]) -> None:
    """Each operation documents the failures that everybody meets, and none that never comes."""
    document = client().get("/openapi.json").json()
    assert document["info"]["version"] == __version__
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert "422" not in operation["responses"], path
            assert operation["operationId"] in OPEN or {"400", "401", "403", "404"} <= set(operation["responses"]), path
            assert operation["summary"], path
