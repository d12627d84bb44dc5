"""A new user's first quarter of an hour: save two files, call the workflow, look at what it left."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import nbformat
import papermill
import pytest

from tests.journeys.product import ORGANIZATION, Product, printed

WORKFLOW = '''
"""A greeting, as the users' document has it."""

from engine.shared.decorators import workflow, param
from engine.shared.context import OrganizationContext


@workflow(name="first_hello", description="Greet", category="Examples", tags=["demo"])
@param("name", type="string", label="Name", required=True, help_text="Whom to greet")
@param("language", type="string", label="Language", default_value="english", data_provider="first_languages")
async def first_hello(context: OrganizationContext, name: str, language: str = "english"):
    context.log("info", f"Generating greeting for {name}", {"language": language})
    context.save_checkpoint("greeting_start", {"name": name})
    greetings = {"english": f"Hello, {name}!", "spanish": f"¡Hola, {name}!"}
    print(greetings[language])
    result = {
        "greeting": greetings[language],
        "language": language,
        "organization": context.org_name,
        "executed_by": context.executed_by_email,
    }
    context.log("info", "Greeting generated successfully")
    context.save_checkpoint("greeting_complete", result)
    return result
'''
PROVIDER = """
from engine.shared.decorators import data_provider


@data_provider(name="first_languages", description="Languages", category="Examples", cache_ttl_seconds=3600)
async def first_languages(context):
    return [{"label": name.title(), "value": name} for name in ("english", "spanish")]
"""
ANSWER = (
    '{"greeting":"¡Hola, Alice!","language":"spanish","organization":"Test Organization",'
    '"executed_by":"dev@example.com"}'
)


@pytest.fixture
def answer(product: Product, save: Callable[[str, str], Path]) -> httpx.Response:
    """The call of the document, after its two files were saved while the product ran."""
    save("workflows/first_hello.py", WORKFLOW)
    save("data_providers/first_languages.py", PROVIDER)
    return product.run("first_hello", name="Alice", language="spanish")


def test_the_answer_is_the_documents_byte_for_byte(answer: httpx.Response) -> None:
    """The bare result, and three headers that say what it came from."""
    assert (answer.status_code, answer.text) == (200, ANSWER)
    assert answer.headers["X-Execution-Status"] == "success"
    assert int(answer.headers["X-Execution-Duration-Ms"]) > 0
    assert len(answer.headers["X-Execution-Id"]) == 36


def test_the_history_tells_what_happened(product: Product, answer: httpx.Response) -> None:
    """Both log lines and both checkpoints, in their order, between the changes of status."""
    events = product.events(answer.headers["X-Execution-Id"])
    told = [event.get("message") or event.get("name") or event["status"] for event in events]
    assert told == [
        "pending",
        "running",
        "Generating greeting for Alice",
        "greeting_start",
        "Greeting generated successfully",
        "greeting_complete",
        "success",
    ]
    assert [event["seq"] for event in events] == list(range(1, 8))


def test_the_record_is_a_notebook_of_the_run(product: Product, answer: httpx.Response) -> None:
    """Valid, and it holds what was printed, the events and the result."""
    record = product.record(answer.headers["X-Execution-Id"])
    text = json.dumps(record, ensure_ascii=False)
    assert printed(record) == "¡Hola, Alice!\n"
    for part in ("Generating greeting for Alice", "greeting_start", "greeting_complete", "dev@example.com"):
        assert part in text
    assert record["metadata"]["bifrost"]["status"] == "success"
    assert record["metadata"]["bifrost"]["organization"]["id"] == ORGANIZATION


def test_stock_papermill_reads_and_runs_the_record(product: Product, answer: httpx.Response, tmp_path: Path) -> None:
    """`inspect_notebook` sees the inputs, and `papermill --prepare-only` gives it other ones."""
    path, prepared = tmp_path / "record.ipynb", tmp_path / "prepared.ipynb"
    nbformat.write(product.record(answer.headers["X-Execution-Id"]), path)
    inputs = papermill.inspect_notebook(str(path))
    assert (inputs["name"]["inferred_type_name"], inputs["language"]["default"]) == ("str", "'english'")
    command = [sys.executable, "-m", "papermill", str(path), str(prepared), "--prepare-only", "-p", "name", "Bob"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert 'name = "Bob"' in [cell["source"].splitlines()[-1] for cell in nbformat.read(prepared, 4)["cells"]]


def test_the_page_reads_well_without_the_notebook(product: Product, answer: httpx.Response) -> None:
    """HTML that loads nothing from elsewhere."""
    page = product.page(answer.headers["X-Execution-Id"])
    assert "¡Hola, Alice!" in page
    assert "<script" not in page
    assert 'src="http' not in page
    assert "<link" not in page
