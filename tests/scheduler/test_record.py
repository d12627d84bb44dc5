"""The record: what papermill gets, what the parent adds, and what must never stand in it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from bifrost_kernel import models
from bifrost_scheduler.runner import record

AT = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
SECRET = "correct-horse-battery"
PARAMS = (
    models.ParamMetadata(name="name", type=models.ParamType.STRING, label="Name", required=True, help_text="a = b # c"),
    models.ParamMetadata(
        name="filter",
        type=models.ParamType.JSON,
        label="Filter",
        required=False,
        has_default=True,
        default_value={"a=b": "#x"},
    ),
)


def job(**changes: Any) -> record.Job:
    workflow = models.WorkflowMetadata(
        name="hello_world", description="Says hello", params=PARAMS, source=models.Source(file="workflows/hello.py")
    )
    fields: dict[str, Any] = {
        "execution_id": "018f",
        "workflow": workflow,
        "organization": models.OrganizationInfo(id="acme", name="Acme"),
        "caller": models.Caller(subject="user:a@example.com", email="a@example.com"),
        "trigger": models.Trigger.API,
        "parameters": {"name": "Alice", "filter": {}},
        "code_hash": "c" * 64,
        "source_text": "def hello():\n    '''```'''\n",
        "source_sha256": "a" * 64,
        "submitted_at": AT,
    }
    return record.Job(**fields | changes)


def notebook_job(*cells: Any) -> record.Job:
    workflow = job().workflow.model_copy(update={"kind": "notebook", "params": ()})
    return job(workflow=workflow, source_text=nbformat.writes(new_notebook(cells=list(cells))), parameters={})


def closing(**changes: Any) -> record.Closing:
    fields: dict[str, Any] = {
        "status": models.ExecutionStatus.SUCCESS,
        "started_at": AT,
        "completed_at": AT + timedelta(milliseconds=34),
        "result": {"greeting": "hello"},
    }
    return record.Closing(**fields | changes)


def event(body: dict[str, Any], type_: models.EventType = models.EventType.LOG) -> models.Event:
    return models.Event(seq=1, at=AT, type=type_, body=body)


def read(content: bytes) -> Any:
    notebook = nbformat.reads(content.decode(), as_version=4)
    nbformat.validate(notebook)
    return notebook


def part(notebook: Any, name: str) -> Any:
    (cell,) = [cell for cell in notebook.cells if cell.metadata.get("bifrost", {}).get("part") == name]
    return cell


def test_papermill_reads_the_parameters(tmp_path: Path) -> None:
    """papermill's inspection gives every parameter with type, default and help, whatever stands in them."""
    path = tmp_path / "record.ipynb"
    nbformat.write(record.compose(job()), path)
    found = papermill.inspect_notebook(str(path))
    assert found["name"]["inferred_type_name"] == "str"
    assert "a ＝ b" in found["name"]["help"]
    assert eval(found["filter"]["default"]) == {"a=b": "#x"}


def test_the_source_cannot_leave_its_fence() -> None:
    """The fence around the source is longer than any run of backticks in it."""
    source = part(record.compose(job()), "source").source
    assert source.count("````") == 2


def test_the_call_is_readable() -> None:
    """The call cell names the inputs."""
    assert part(record.compose(job()), "call").source == "await bifrost.run(name=name, filter=filter)"


def test_names_are_escaped() -> None:
    """Names that people chose stay text: neither Markdown nor HTML nor a new table row."""
    organization = models.OrganizationInfo(id="acme", name="<script>x</script>\n| a | b | `` [x](javascript:x)")
    header = part(record.compose(job(organization=organization)), "header").source
    row = next(line for line in header.splitlines() if "script" in line)
    assert row.startswith("| Organization | ```<script>")
    assert "\\| a \\|" in row


def test_notebook_workflows_keep_their_cells() -> None:
    """A notebook workflow runs its own cells, without outputs, and reports its last value."""
    old = new_code_cell("1 + 1", outputs=[new_output("stream", text="old")], metadata={"tags": ["parameters"]})
    composed = record.compose(notebook_job(new_markdown_cell("# Mine"), old))
    assert [cell.source for cell in composed.cells[1:3]] == ["# Mine", "1 + 1"]
    assert composed.cells[2].outputs == []
    assert composed.cells[2].metadata.tags == ["parameters"]
    assert "finish_notebook" in composed.cells[-1].source


def test_a_declaring_cell_does_not_run() -> None:
    """The cell that declares a notebook as a workflow is shown and not run."""
    declaration = new_code_cell('workflow(name="x", description="y")')
    composed = record.compose(notebook_job(declaration, new_code_cell("2")))
    assert next(cell.source for cell in composed.cells if cell.cell_type == "code") == "2"


def test_events_stand_in_order_for_people_and_machines() -> None:
    """Events are a table, and a list in the metadata of the same cell."""
    finished = read(record.finish(record.compose(job()), closing(events=(event({"level": "info", "message": "hi"}),))))
    cell = part(finished, "events")
    assert "| 1 | 09:00:00.000 | log | `info: hi` |" in cell.source
    assert cell.metadata.bifrost.events[0].message == "hi"


def test_closing_line() -> None:
    """The record ends with status and duration."""
    finished = read(record.finish(record.compose(job()), closing()))
    assert "**success** · took 34 ms" in finished.cells[-1].source
    assert json.loads(part(finished, "result").source.split("```")[1].removeprefix("json")) == {"greeting": "hello"}


def test_provenance() -> None:
    """Who, what, for whom and with which code stand in the metadata."""
    reads = (event({"key": "url", "scope": "acme"}, models.EventType.CONFIG_READ),)
    about = read(record.finish(record.compose(job()), closing(events=reads))).metadata.bifrost
    assert (about.execution_id, about.organization.id, about.trigger) == ("018f", "acme", "api")
    assert about.sources == [{"path": "workflows/hello.py", "sha256": "a" * 64}]
    assert about.reads[0]["key"] == "url"
    assert "papermill" in about.packages


def test_a_cell_left_running_is_corrected() -> None:
    """A cell that papermill still calls running is failed once the parent has closed the execution."""
    composed = record.compose(job())
    composed.cells[1].metadata["papermill"] = {"status": "running"}
    finished = read(record.finish(composed, closing(status=models.ExecutionStatus.TIMEOUT, error="too long")))
    assert finished.cells[1].metadata.papermill.status == "failed"


def test_secrets_are_masked_everywhere() -> None:
    """A secret stands nowhere: not in outputs printed piece by piece, events, result or error."""
    composed = record.compose(job())
    composed.cells[1].outputs = [new_output("stream", text="".join(SECRET)), new_output("error", evalue=SECRET)]
    logged = event({"level": "info", "message": f"got {SECRET}"})
    content = record.finish(composed, closing(result={"x": SECRET}, error=SECRET, events=(logged,), secrets=(SECRET,)))
    assert SECRET.encode() not in content
    assert b"***" in content


def test_malformed_outputs_are_left_out() -> None:
    """Outputs that make no valid notebook are left out, and the record says so."""
    composed = record.compose(job())
    composed.cells[1].outputs = [{"output_type": "stream", "name": 7}]
    finished = read(record.finish(composed, closing()))
    assert finished.metadata.bifrost.outputs_left_out is True
    assert "left out" in finished.cells[1].outputs[0].data["text/plain"]


def test_a_secret_that_is_a_word_of_the_format() -> None:
    """Even a secret that cannot be taken out of a notebook leaves a record, without its body."""
    assert b"018f" in record.finish(record.compose(job()), closing(secrets=("cell_type",)))


def test_record_without_kernel() -> None:
    """Without a worker the same record is made of the events, with the values that would have been used."""
    crashed = closing(status=models.ExecutionStatus.CRASHED, result=None, error="the machine died")
    finished = read(record.complete_without_kernel(job(), crashed))
    injected = [cell for cell in finished.cells if "injected-parameters" in cell.metadata.get("tags", ())]
    assert "name = 'Alice'" in injected[0].source
    assert "the machine died" in part(finished, "error").source


@pytest.mark.parametrize("text", ["{", "[]", '{"nbformat": 3}'])
def test_record_of_a_broken_notebook(text: str) -> None:
    """Even a notebook workflow whose file is no notebook gets a record."""
    broken = notebook_job().model_copy(update={"source_text": text})
    assert "018f" in read(record.complete_without_kernel(broken, closing())).cells[0].source


def test_secrets_have_no_repr() -> None:
    """Printing a closing does not print the secrets in it."""
    assert SECRET not in repr(closing(secrets=(SECRET,)))
