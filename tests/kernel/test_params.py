"""Raw inputs become typed values, or every field error at once."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from bifrost_kernel import errors, models, params


def param(name: str = "x", kind: str = "string", **given: Any) -> models.ParamMetadata:
    defaults: dict[str, Any] = {"label": name.capitalize(), "required": True}
    return models.ParamMetadata(name=name, type=models.ParamType(kind), **defaults | given)


def workflow(*inputs: models.ParamMetadata) -> models.WorkflowMetadata:
    return models.WorkflowMetadata(
        name="w", description="d", params=inputs, source=models.Source(file="workflows/w.py")
    )


def refused(metadata: models.WorkflowMetadata, raw: dict[Any, Any]) -> dict[str, str]:
    with pytest.raises(errors.ValidationError) as caught:
        params.validate(metadata, raw)
    return {field.field: field.code for field in caught.value.fields}


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        ("string", "", ""),
        ("string", "a\nb", "a\nb"),
        ("int", 42, 42),
        ("int", "42", 42),
        ("int", "-7", -7),
        ("int", 2**80, 2**80),
        ("int", -0, 0),
        ("float", 1, 1.0),
        ("float", "1.5", 1.5),
        ("float", ".5e1", 5.0),
        ("bool", False, False),
        ("bool", "false", False),
        ("bool", "true", True),
        ("email", "alice@example.com", "alice@example.com"),
        ("list", [1, "a"], [1, "a"]),
        ("list", '[1, "a"]', [1, "a"]),
        ("json", {"a": [1]}, {"a": [1]}),
        ("json", '{"a": null}', {"a": None}),
        ("json", "[]", []),
    ],
)
def test_values_and_their_text_are_read_where_that_is_exact(kind: str, raw: Any, value: Any) -> None:
    """Forms and command lines send text; what it stands for arrives with its type."""
    typed = params.validate(workflow(param(kind=kind)), {"x": raw})["x"]
    assert typed == value
    assert typed.__class__ is value.__class__


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        ("string", 1),
        ("string", "a\0b"),
        ("string", "\ud800"),
        ("int", "1_000"),
        ("int", 1.5),
        ("int", 5.0),
        ("int", True),
        ("int", "٣"),
        ("int", " 1"),
        ("int", ""),
        ("int", float("inf")),
        ("float", float("nan")),
        ("float", float("inf")),
        ("float", "1e999"),
        ("float", "nan"),
        ("float", True),
        ("bool", 1),
        ("bool", "yes"),
        ("bool", ""),
        ("list", {}),
        ("list", "a,b"),
        ("list", [float("nan")]),
        ("json", "text"),
        ("json", 1),
        ("json", {"a": "\0"}),
        ("json", {1: 2}),
        ("json", '{"a": NaN}'),
        ("json", "[" * 100_000),
    ],
)
def test_what_is_not_of_the_type_is_refused(kind: str, raw: Any) -> None:
    """Nothing is guessed: a value that is not exactly of its type is a field error with code `type`."""
    assert refused(workflow(param(kind=kind)), {"x": raw}) == {"x": "type"}


@pytest.mark.parametrize("raw", ["a", "a@b\r\n.com", "a@example.com\r\nBcc: b@example.com", "a@example.com\n", "@", ""])
def test_what_is_no_address_is_refused(raw: str) -> None:
    """An e-mail address has no line breaks and all of its parts."""
    assert refused(workflow(param(kind="email")), {"x": raw}) == {"x": "email"}


def test_too_much_is_refused() -> None:
    """Long text, deep nesting and huge numbers end as field errors, not in memory."""
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    fields = (param("text"), param("deep", "list"), param("number", "int"), param("real", "float"))
    raw = {"text": "a" * 100_001, "deep": deep, "number": 10**400, "real": 10**400}
    codes = refused(workflow(*fields), raw)
    assert codes == {"text": "max_length", "deep": "depth", "number": "max", "real": "max"}


def test_all_wrong_fields_come_at_once() -> None:
    """A form can mark every field in one go."""
    metadata = workflow(param("a"), param("b", "int"), param("c", validation={"min_length": 3}))
    assert refused(metadata, {"b": "x", "c": "ab", "d": 1, "e": None}) == {
        "a": "missing",
        "b": "type",
        "c": "min_length",
        "d": "unknown",
        "e": "unknown",
    }


def test_messages_speak_with_the_label() -> None:
    """Customers read the label that they see in the form."""
    with pytest.raises(errors.ValidationError, match=r"First Name is required\."):
        params.validate(workflow(param("first_name", label="First Name")), {})


def test_required_means_present_not_truthy() -> None:
    """False, 0 and the empty string are values; null is absence."""
    metadata = workflow(param("a", "bool"), param("b", "int"), param("c"), param("d"))
    assert refused(metadata, {"a": False, "b": 0, "c": "", "d": None}) == {"d": "missing"}


def test_absent_inputs_become_their_default_or_none() -> None:
    """What is not required is filled: the default for absence and for null, None without a default."""
    metadata = workflow(
        param("a", required=False, has_default=True, default_value="english"),
        param("b", required=False, has_default=True, default_value="english"),
        param("c", required=False),
    )
    assert params.validate(metadata, {"b": None}) == {"a": "english", "b": "english", "c": None}


def test_a_default_is_never_shared() -> None:
    """A workflow that changes a default list in place changes no other execution's."""
    metadata = workflow(param("a", "list", required=False, has_default=True, default_value=[1]))
    params.validate(metadata, {})["a"].append(2)
    assert params.validate(metadata, {}) == {"a": [1]}


def test_inputs_may_be_called_like_methods_of_pydantic() -> None:
    """`json`, `copy` and `model_config` are names like any other."""
    metadata = workflow(*(param(name) for name in ("json", "copy", "model_config", "self", "schema")))
    raw = {"json": "1", "copy": "2", "model_config": "3", "self": "4", "schema": "5"}
    assert params.validate(metadata, raw) == raw


@pytest.mark.parametrize(
    ("kind", "validation", "good", "bad", "code"),
    [
        ("string", {"pattern": "^[a-z]+$"}, "abc", "abc\n", "pattern"),
        ("string", {"pattern": "[a-z]+"}, "abc", "abc1", "pattern"),
        ("email", {"pattern": r".*@example\.com"}, "a@example.com", "a@example.org", "pattern"),
        ("int", {"min": 1}, 1, 0, "min"),
        ("float", {"max": 1.5}, "1.5", 1.6, "max"),
        ("string", {"min_length": 2}, "ab", "a", "min_length"),
        ("list", {"max_length": 1}, [1], [1, 2], "max_length"),
    ],
)
def test_validation_is_enforced(kind: str, validation: dict[str, Any], good: Any, bad: Any, code: str) -> None:
    """Each of the five rules lets the good value pass and names the rule that the bad one breaks."""
    metadata = workflow(param(kind=kind, validation=validation))
    params.validate(metadata, {"x": good})
    assert refused(metadata, {"x": bad}) == {"x": code}


def test_a_pattern_cannot_hang_the_process() -> None:
    """`^(a+)+$` on 10,000 characters ends."""
    metadata = workflow(param(validation={"pattern": "^(a+)+$"}))
    began = time.perf_counter()
    assert refused(metadata, {"x": "a" * 10_000 + "!"}) == {"x": "pattern"}
    assert time.perf_counter() - began < 30  # without RE2 it would outlast us all


def test_a_strange_key_is_an_unknown_field() -> None:
    """Code injection by name and broken Unicode end as a field error that can be sent as JSON."""
    codes = refused(workflow(), {"x=open('/etc/passwd');y": 1, "\ud800": 2})
    assert set(codes.values()) == {"unknown"}
    json.dumps(codes, ensure_ascii=False).encode()


def test_the_same_inputs_have_one_model() -> None:
    """The model is built once for the same metadata, however often the catalog is read."""
    assert params.build_model(workflow(param())) is params.build_model(workflow(param()))


def test_the_schema_says_what_a_form_needs() -> None:
    """JSON Schema of the inputs, with label, help, default, limits and the data provider."""
    metadata = workflow(
        param(
            "n", "int", required=False, has_default=True, default_value=1, validation={"min": 0}, help_text="How many"
        ),
        param("sku", data_provider="get_skus", validation={"pattern": "a|b", "max_length": 3}),
    )
    schema = params.json_schema(metadata)
    assert schema["required"] == ["sku"]
    assert schema["additionalProperties"] is False
    assert (
        schema["properties"]["n"] | {"minimum": 0, "default": 1, "description": "How many"} == schema["properties"]["n"]
    )
    assert schema["properties"]["sku"]["x-data-provider"] == "get_skus"
    assert schema["properties"]["sku"]["pattern"] == "^(?:a|b)$"


def test_options_are_needed_for_each_chosen_value() -> None:
    """A single value is one question, a list one per element, null none."""
    single, several = param("a", data_provider="p"), param("b", "list", data_provider="p")
    metadata = workflow(single, several, param("c", data_provider="p", required=False), param("d"))
    needed = params.options_needed(metadata, {"a": "1", "b": [2, 3], "c": None, "d": "x"})
    assert needed == [(single, "1"), (several, 2), (several, 3)]


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (1, True, False),
        (0, False, False),
        (1, 1.0, True),
        ("1", 1, False),
        ({"a": [1]}, {"a": [1]}, True),
        ({"a": [True]}, {"a": [1]}, False),
        ([1], [1, 2], False),
        (None, None, True),
    ],
)
def test_an_option_is_compared_with_its_type(left: Any, right: Any, same: bool) -> None:
    """`True` is not `1` and text is no number, at any depth."""
    assert params.same_value(left, right) is same


def test_a_value_that_is_no_option_is_named() -> None:
    """The refusal says which field and which value."""
    field = params.not_an_option(param("sku", label="License"), "SPE_E9")
    assert (field.field, field.code) == ("sku", "option")
    assert "License has no option 'SPE_E9'" in field.message
