"""Form objects as YAML: plain data, or a refusal with its line; and the files of a workspace."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bifrost_kernel import describe, errors, form_files
from bifrost_kernel.form_definitions import FormDefinition

GOOD = """
workflow: hire
title: "No: really"
fixed: {since: 2026-03-01, office: yes, remote: true, days: 3}
"""

PROVIDER = """
from bifrost_kernel import data_provider, param, workflow

@data_provider(name="get_cities", description="Cities")
def get_cities(context, country):
    return []

@workflow(name="move", description="Move")
@param("land", type="string")
@param("city", type="string", data_provider="get_cities"INPUTS)
def move(context, land, city):
    return None
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Callable[..., Path]:
    def write(**texts: str) -> Path:
        (tmp_path / "forms").mkdir(exist_ok=True)
        for name, text in texts.items():
            (tmp_path / "forms" / f"{name}.yaml").write_text(text)
        return tmp_path

    return write


def test_values_are_what_they_look_like() -> None:
    """Dates stay text and `yes` is a word; numbers and true are what they are in JSON."""
    _, definition = form_files.parse_form(GOOD.encode(), default_name="hire")
    assert definition.fixed == {"since": "2026-03-01", "office": "yes", "remote": True, "days": 3}


def test_it_prints_what_it_read(workspace: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    """As a program it gives name and definition, or ends with the place of what is wrong."""
    folder = workspace(hire="workflow: hire", wrong="titel: x") / "forms"
    form_files.main([str(folder / "hire.yaml")])
    assert capsys.readouterr().out == '{"name": "hire", "definition": {"workflow": "hire"}}\n'
    with pytest.raises(SystemExit, match=r"wrong\.yaml:1: workflow"):
        form_files.main([str(folder / "wrong.yaml")])


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("workflow: hire\ntitel: x", 2, "titel"),
        ("workflow: hire\nfields:\n  name:\n    widget: knob", 4, "fields.name.widget"),
        ("workflow: hire\nworkflow: fire", 1, "twice"),
        ("a: &x 1\nb: *x", 1, "anchors"),
        ("workflow: hire\nname: Not-A-Name", 2, "name"),
        ("workflow: hire\nfixed: {a: !!python/name:os.system }", 2, "no YAML"),
        ("workflow: hire\nfixed: {a: 1}\nhidden: {a: 2}", 1, "both fixed and hidden"),
        ("workflow: hire\ntext: [", 2, "no YAML"),
        ("- 1", 1, "mapping"),
        ("", 1, "mapping"),
        ("[" * 50_000, 1, "no YAML"),
        ("# " + "x" * form_files.MAX_DEFINITION_BYTES, 1, "64 KB"),
        ('workflow: hire\ntext: "\\ud800"', 2, "text"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(text: str, line: int, part: str) -> None:
    """Whatever stands in a file, the refusal names the line and what is wrong there."""
    with pytest.raises(errors.DeclarationError) as caught:
        form_files.parse_form(text.encode(), default_name="x")
    assert caught.value.line == line
    assert part in caught.value.message


def test_a_wrong_file_breaks_itself_only(workspace: Callable[..., Path]) -> None:
    """Good forms are there, wrong ones are listed with file, line and reason."""
    found = describe.describe(workspace(good="workflow: hire", wrong="workflow: hire\ntitel: x"))
    assert [form.name for form in found.forms] == ["good"]
    (broken,) = found.broken
    assert (broken.kind, broken.name, broken.source.file, broken.source.line) == (
        "form",
        "wrong",
        "forms/wrong.yaml",
        2,
    )


def test_a_form_has_the_name_of_its_file(workspace: Callable[..., Path]) -> None:
    """So that a file that cannot be read still says which form is broken."""
    found = describe.describe(workspace(one="workflow: hire\nname: two"))
    assert [(broken.name, "two.yaml" in broken.reason) for broken in found.broken] == [("one", True)]


def test_two_files_of_one_name_are_both_broken(workspace: Callable[..., Path]) -> None:
    """Neither wins; each names both places."""
    root = workspace(one="workflow: hire")
    (root / "forms" / "one.yml").write_text("workflow: hire")
    found = describe.describe(root)
    assert found.forms == ()
    assert all("forms/one.yaml:1 and forms/one.yml:1" in broken.reason for broken in found.broken)


def test_the_example_of_the_document_is_right() -> None:
    """The YAML in the document about forms is one, and uses every condition of this kind that it explains."""
    text = (Path(__file__).parents[2] / "docs" / "forms.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    name, definition = form_files.parse_form(example.encode(), default_name="offboard_contractor")
    assert (name, definition.hidden) == ("offboard_contractor", {"cost_center": "4711"})
    keys = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE))))
    assert keys == {*FormDefinition.model_fields, form_files.NAME}


def test_other_yaml_is_not_read(workspace: Callable[..., Path]) -> None:
    """Only what lies in `forms/` is a form."""
    root = workspace()
    (root / "data.yaml").write_text("anything: [1")
    assert describe.describe(root).broken == ()


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        (', data_provider_inputs={"country": "land"}', None),
        ("", "'get_cities' needs 'country'"),
        (', data_provider_inputs={"nation": "land"}', "has no input 'nation'"),
        (', data_provider_inputs={"country": "nobody"}', "names 'nobody'"),
        (', data_provider_inputs={"country": "city"}', "names 'city'"),
        (', data_provider_inputs={"country": 1}', "data_provider_inputs="),
    ],
)
def test_inputs_of_data_providers_are_checked(tmp_path: Path, inputs: str, reason: str | None) -> None:
    """A workflow whose field cannot feed its data provider is broken when it is declared, not when it is filled in."""
    (tmp_path / "moving.py").write_text(PROVIDER.replace("INPUTS", inputs))
    found = describe.describe(tmp_path)
    assert [reason in broken.reason for broken in found.broken if reason] == ([True] if reason else [])
    assert bool(found.workflows) is (reason is None)
