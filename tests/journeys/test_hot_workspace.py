"""Saving a file is all that publishing takes, and nothing that already runs is touched by it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tests.journeys.product import Product

Save = Callable[[str, str], Path]

HEAD = "import asyncio, os, time\nfrom bifrost_kernel import data_provider, param, workflow\n"


def workflow_text(name: str, body: str, *, params: str = "") -> str:
    arguments = "context, path" if params else "context"
    return f'{HEAD}@workflow(name="{name}", description="d")\n{params}\nasync def it({arguments}):\n    {body}\n'


def provider_text(name: str, body: str) -> str:
    return (
        f'{HEAD}@data_provider(name="{name}", description="d", cache_ttl_seconds=3600)\ndef it(context):\n    {body}\n'
    )


def options(product: Product, name: str, organization: str) -> Any:
    answer = product.http.get(f"/api/data-providers/{name}", headers={"X-Organization-Id": organization})
    return answer.raise_for_status().json()["items"]


def test_saving_a_file_is_enough(product: Product, save: Save) -> None:
    """A new workflow answers at once, a changed one with its new code, a removed one is unknown."""
    path = save("workflows/hot.py", workflow_text("hot", "return 1"))
    assert product.run("hot").json() == 1
    save("workflows/hot.py", workflow_text("hot", "return 22"))
    assert product.run("hot").json() == 22
    path.unlink()
    assert product.run("hot").status_code == 404


def test_a_module_beside_it_counts_too(product: Product, save: Save) -> None:
    """A change in what a workflow imports is a change of the workflow."""
    save("modules/numbers_of_today.py", "NUMBER = 1\n")
    save("workflows/imports.py", workflow_text("imports", "from modules import numbers_of_today as n; return n.NUMBER"))
    assert product.run("imports").json() == 1
    save("modules/numbers_of_today.py", "NUMBER = 333\n")
    assert product.run("imports").json() == 333


@pytest.mark.parametrize(
    ("file", "text", "name", "reason"),
    [
        ("bad_decorator", workflow_text("Bad Name", "return 1"), None, "name"),
        ("bad_import", "import no_such_module_anywhere\n" + workflow_text("bad_import", "return 1"), None, "no_such"),
        ("bad_syntax", workflow_text("bad_syntax", "return ("), None, "never closed"),
        ("bad_param", workflow_text("bad_param", "return 1", params='@param("other")'), "bad_param", "other"),
        ("bad_exit", "raise SystemExit(0)\n", None, "SystemExit"),
        ("bad_end", "import os\nos._exit(0)\n", None, "ended the interpreter"),
    ],
)
def test_a_broken_file_is_listed_and_takes_nothing_down(
    product: Product, save: Save, file: str, text: str, name: str | None, reason: str
) -> None:
    """With its place and the reason; a workflow of that name is 409, all others work."""
    save(f"workflows/{file}.py", text)
    listed = product.http.get("/api/workflows").raise_for_status().json()["broken"]
    (broken,) = [entry for entry in listed if entry["source"]["file"] == f"workflows/{file}.py"]
    assert reason in broken["reason"]
    assert broken["source"]["line"] >= 1
    if name:
        answer = product.run(name)
        assert (answer.status_code, answer.json()["error"]) == (409, "Conflict")
    assert product.run("leave").status_code == 500


def test_a_running_execution_keeps_its_code(product: Product, save: Save, tmp_path: Path) -> None:
    """Also what it imports only after the file was changed."""
    gate, path_param = tmp_path / "gate", '@param("path", type="string")'
    wait = "context.log('info', 'waiting')\n    while not os.path.exists(path): await asyncio.sleep(0.01)\n    "
    body = f"{wait}from modules import slow_part; return slow_part.VALUE"
    save("modules/slow_part.py", "VALUE = 'old'\n")
    save("workflows/slow.py", workflow_text("slow", body, params=path_param))
    execution_id = product.submit("slow", path=str(gate))
    product.wait_for_log(execution_id, "waiting")

    save("modules/slow_part.py", "VALUE = 'new'\n")
    save("workflows/slow.py", workflow_text("slow", "return 'all new'", params=path_param))
    assert product.run("slow", path="").json() == "all new"
    gate.touch()
    assert product.wait_until_over(execution_id)["result"] == "old"
    assert "'all new'" not in json.dumps(product.record(execution_id))


def test_options_are_kept_per_organization_and_code(product: Product, save: Save, organization: str) -> None:
    """A second look finds the same answer; another organization and a changed file each make their own."""
    moment = "return [{'label': context.org_id, 'value': str(time.time_ns())}]"
    save("data_providers/moments.py", provider_text("moments", moment))
    first = options(product, "moments", organization)
    assert options(product, "moments", organization) == first
    other = options(product, "moments", "test-org-active")
    assert (first[0]["label"], other[0]["label"]) == (organization, "test-org-active")
    assert other != first
    save("data_providers/moments.py", provider_text("moments", moment + "  # changed"))
    assert options(product, "moments", organization) != first


def test_a_failing_provider_is_an_error_of_the_workflows_author(product: Product, save: Save) -> None:
    """Named, without taking the server down."""
    save("data_providers/failing.py", provider_text("failing", "raise RuntimeError('no directory')"))
    answer = product.http.get("/api/data-providers/failing", headers={"X-Organization-Id": "test-org-active"})
    assert (answer.status_code, answer.json()["error"]) == (500, "WorkflowError")
    assert "RuntimeError: no directory" in answer.json()["message"]


def test_a_provider_of_the_workspace_replaces_a_builtin(product: Product, save: Save) -> None:
    """Until its file is removed."""
    before = options(product, "get_available_licenses", "test-org-active")
    mine = "return [{'label': 'Mine', 'value': 'mine'}]"
    path = save("data_providers/mine.py", provider_text("get_available_licenses", mine))
    assert [option["value"] for option in options(product, "get_available_licenses", "test-org-active")] == ["mine"]
    path.unlink()
    assert options(product, "get_available_licenses", "test-org-active") == before


@pytest.fixture
def save_notebook(save: Save) -> Callable[..., None]:
    """Save a notebook of these code cells that is the workflow `report`; the first cell holds its inputs."""

    def write(*sources: str) -> None:
        cells = [new_code_cell(source) for source in sources]
        cells[0]["metadata"]["tags"] = ["parameters"]
        about = {"bifrost": {"name": "report", "description": "A report"}}
        save("workflows/report.ipynb", nbformat.writes(new_notebook(cells=cells, metadata=about)))

    return write


INPUTS = "customer: str = 'nobody'  # Whom it is about\ncount: int = 2"


def test_a_notebook_gives_the_value_of_its_last_expression(
    product: Product, save_notebook: Callable[..., None]
) -> None:
    """With papermill's parameters, the context, and its cells in the record."""
    save_notebook(INPUTS, "context.log('info', f'for {customer}')", "[context.org_id, customer] * count")
    answer = product.run("report", customer="Alice")
    assert answer.json() == ["test-org-active", "Alice", "test-org-active", "Alice"]
    execution_id = answer.headers["X-Execution-Id"]
    assert "for Alice" in [event.get("message") for event in product.events(execution_id)]
    assert "[context.org_id, customer] * count" in [cell["source"] for cell in product.record(execution_id)["cells"]]


@pytest.mark.parametrize(
    ("last_cells", "result"),
    [
        (("context.set_result({'rows': count})",), {"rows": 2}),
        (("context.set_result({'rows': count})", "print('done')"), {"rows": 2}),
        (("41 + 1",), 42),
        (("41 + 1", "x = 1"), None),
        (("import asyncio\nawait asyncio.sleep(0, 'awaited')",), "awaited"),
        (("{'success': False}",), {"success": False}),
    ],
)
def test_what_a_notebook_gives(
    product: Product, save_notebook: Callable[..., None], last_cells: tuple[str, ...], result: Any
) -> None:
    """`context.set_result`, or the last expression of the last cell; nothing else."""
    save_notebook(INPUTS, *last_cells)
    answer = product.run("report")
    assert (answer.status_code, answer.json()) == (200, result)


def test_a_notebooks_inputs_are_checked(product: Product, save_notebook: Callable[..., None]) -> None:
    """As those of any workflow."""
    save_notebook(INPUTS, "1")
    answer = product.run("report", count="many", unknown=1)
    assert answer.status_code == 400
    assert {field["field"] for field in answer.json()["details"]["fields"]} == {"count", "unknown"}


def test_a_failing_cell_fails_the_execution(product: Product, save_notebook: Callable[..., None]) -> None:
    """With the type and the text of its error; later cells do not run."""
    save_notebook(INPUTS, "context.log('info', 'first')", "{}['absent']", "context.log('info', 'later')")
    answer = product.run("report")
    assert (answer.status_code, answer.json()["error"]) == (500, "WorkflowError")
    execution = product.execution(answer.headers["X-Execution-Id"])
    assert (execution["status"], execution["error_type"]) == ("failed", "KeyError")
    logged = [event["message"] for event in product.events(execution["execution_id"]) if event["type"] == "log"]
    assert logged == ["first"]
