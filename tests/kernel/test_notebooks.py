"""Notebooks that declare workflows are read, never run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bifrost_kernel import errors, models, notebooks

DECLARED = {"name": "report", "description": "A report"}


def code(source: str, *tags: str) -> dict[str, Any]:
    return {"cell_type": "code", "metadata": {"tags": list(tags)}, "outputs": [], "source": source}


def write(folder: Path, *cells: dict[str, Any], declared: Any = None, **document: Any) -> Path:
    metadata = {} if declared is None else {"bifrost": declared}
    content = {"cells": list(cells), "metadata": metadata, "nbformat": 4, "nbformat_minor": 5} | document
    (folder / "it.ipynb").write_text(json.dumps(content))
    return folder


def find(folder: Path) -> models.WorkflowMetadata:
    found = notebooks.find_notebook_workflow(folder, "it.ipynb")
    assert found is not None
    return found


def test_metadata_declares_a_workflow(tmp_path: Path) -> None:
    """All arguments of `@workflow` count."""
    found = find(write(tmp_path, code("1 / 0"), declared=DECLARED | {"timeout_seconds": 5, "schedule": "0 9 * * 1"}))
    assert (found.name, found.kind, found.timeout_seconds, found.source.file) == ("report", "notebook", 5, "it.ipynb")


def test_the_first_code_cell_declares_a_workflow(tmp_path: Path) -> None:
    """One literal call, an import beside it or not; the cell is not among those to run."""
    cell = code(
        "from bifrost_kernel import workflow\n"
        'workflow(name="report", description="A report", tags=["a"], egress=["a.example"])'
    )
    folder = write(tmp_path, {"cell_type": "markdown", "metadata": {}, "source": ["# A"]}, cell, code("1"))
    assert (find(folder).tags, find(folder).egress) == (("a",), ("a.example",))
    assert [cell.source for cell in notebooks.cells_of(folder / "it.ipynb")] == ["1"]


def test_other_notebooks_declare_nothing(tmp_path: Path) -> None:
    """A scratch notebook is neither a workflow nor broken."""
    assert notebooks.find_notebook_workflow(write(tmp_path, code("workflow = 1"), code("x(")), "it.ipynb") is None


def test_the_parameters_cell_gives_the_inputs(tmp_path: Path) -> None:
    """Annotation or literal default give the type, the comment the help, metadata the rest."""
    cell = code(
        "import os\nname: str  # Who it is for\ncount: int = 3\nrate = 0.5\n"
        "tags: list[str] = []\nnote: str | None = None\nflag = True",
        "parameters",
    )
    params = {"name": {"label": "Name", "data_provider": "get_departments"}, "count": {"validation": {"min": 1}}}
    found = find(write(tmp_path, code("pass"), cell, declared=DECLARED | {"params": params}))
    assert [(item.name, item.type.value, item.required, item.default_value) for item in found.params] == [
        ("name", "string", True, None),
        ("count", "int", False, 3),
        ("rate", "float", False, 0.5),
        ("tags", "list", False, []),
        ("note", "string", False, None),
        ("flag", "bool", False, True),
    ]
    assert (found.params[0].help_text, found.params[0].label) == ("Who it is for", "Name")
    assert found.params[1].validation == {"min": 1}


@pytest.mark.parametrize(
    ("cells", "given", "reason"),
    [
        ([code("x = open('/etc/passwd')", "parameters")], {"declared": DECLARED}, "must have a literal default"),
        ([code("x = ", "parameters")], {"declared": DECLARED}, "is not Python"),
        ([], {"declared": DECLARED | {"nam": 1}}, "unknown: nam; allowed: params, name, description"),
        ([], {"declared": DECLARED | {"name": "Report"}}, "not snake_case"),
        ([], {"declared": DECLARED | {"params": {"y": {}}}}, "names no argument"),
        ([], {"declared": DECLARED | {"params": {"y": {"min": 1}}}}, "unknown: min"),
        ([code('workflow(name=input(), description="d")')], {}, "only literal values"),
        ([code('workflow("report")')], {}, "named arguments"),
        ([{"cell_type": "markdown", "source": "", "attachments": {"a": {}}}], {"declared": DECLARED}, "no attachments"),
        ([], {"nbformat": 3}, "no notebook of format 4"),
        ([], {"cells": None}, "no list of cells"),
    ],
)
def test_a_wrong_notebook_is_refused(tmp_path: Path, cells: list[Any], given: dict[str, Any], reason: str) -> None:
    """With its file and the reason."""
    with pytest.raises(errors.DeclarationError, match=reason) as caught:
        notebooks.find_notebook_workflow(write(tmp_path, *cells, **given), "it.ipynb")
    assert caught.value.file == "it.ipynb"


@pytest.mark.parametrize(
    ("text", "reason"), [("{", "is not JSON"), ("[" * 100_000, "is not JSON"), (" " * 11_000_000, "10,485,760")]
)
def test_what_is_no_notebook_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    """Malformed, nested without end, or larger than 10 MB."""
    (tmp_path / "it.ipynb").write_text(text)
    with pytest.raises(errors.DeclarationError, match=reason):
        notebooks.find_notebook_workflow(tmp_path, "it.ipynb")


def test_papermills_tag_marks_the_inputs_among_the_cells(tmp_path: Path) -> None:
    """The composer finds the cell that it puts the values behind; sources may be lists of lines."""
    folder = write(tmp_path, code("x = 1", "parameters"), code("") | {"source": ["x +\\\n", "1"]}, code("  "))
    cells = notebooks.cells_of(folder / "it.ipynb")
    assert [(cell.index, cell.source, cell.is_parameters) for cell in cells] == [
        (0, "x = 1", True),
        (1, "x +\\\n1", False),
    ]
