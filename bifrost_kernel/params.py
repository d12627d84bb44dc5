"""Raw inputs of a workflow or data provider → typed values, or every field error at once.

The control plane calls it for each way in (API, form, schedule, CLI, notebook, re-run) and `entry` once more in the
kernel. It works on metadata alone: it never loads author code, and it resolves no data provider.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Annotated, Any

import pydantic

from bifrost_kernel import errors, jsonable, models, values

MAX_NAME_CHARS = 100
MAX_SUMMARY_FIELDS = 10
"""How many field errors the one-line message repeats; `fields` always has all."""

Metadata = models.WorkflowMetadata | models.DataProviderMetadata

_JSON_TYPES: Mapping[models.ParamType, Mapping[str, Any]] = {
    models.ParamType.STRING: {"type": "string"},
    models.ParamType.EMAIL: {"type": "string", "format": "email"},
    models.ParamType.INT: {"type": "integer"},
    models.ParamType.FLOAT: {"type": "number"},
    models.ParamType.BOOL: {"type": "boolean"},
    models.ParamType.JSON: {"type": ["object", "array"]},
    models.ParamType.LIST: {"type": "array"},
}


def build_model(metadata: Metadata) -> type[pydantic.BaseModel]:
    """The pydantic model of the inputs; the same one for the same params."""
    return _cached_model(_ParamsKey(metadata.params))


def validate(metadata: Metadata, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Typed JSON values of all inputs, defaults filled, in the declared order.

    Raises:
        ValidationError: with one entry per wrong, missing or unknown field.
    """
    declared = {param.name: param for param in metadata.params}
    # Null counts as absent (contract §2), but an unknown field is one even when it is null.
    present = {_name(key): value for key, value in raw.items() if value is not None or key not in declared}
    try:
        model = build_model(metadata).model_validate(present)
    except pydantic.ValidationError as error:
        raise _as_field_errors(error, declared) from None
    return model.model_dump(by_alias=True)


def json_schema(metadata: Metadata) -> dict[str, Any]:
    """JSON Schema (2020-12) of the inputs, with `x-…` hints for forms."""
    return {
        "type": "object",
        "title": metadata.name,
        "properties": {param.name: _property(param) for param in metadata.params},
        "required": [param.name for param in metadata.params if param.required],
        "additionalProperties": False,
    }


def options_needed(metadata: Metadata, typed: Mapping[str, Any]) -> list[tuple[models.ParamMetadata, Any]]:
    """The values that must be among the options of a data provider; of a list each element must be."""
    needed: list[tuple[models.ParamMetadata, Any]] = []
    for param in metadata.params:
        value = typed.get(param.name)
        if param.data_provider is None or value is None:
            continue
        single = param.type is not models.ParamType.LIST
        needed += [(param, value)] if single else [(param, element) for element in value]
    return needed


def same_value(left: Any, right: Any) -> bool:
    """Is an input the value of an option? As JSON, and with its type: `True` is not `1`, `1` is not `"1"`."""
    return values.same_json(left, right)


def not_an_option(param: models.ParamMetadata, value: Any) -> errors.FieldError:
    """The field error for a value that its data provider does not offer."""
    message = f"{param.label} has no option {repr(value)[:100]}; choose one that is offered."
    return errors.FieldError(param.name, "option", message)


class _ParamsKey:
    """Params as a dictionary key: they hold dicts and lists, so their JSON is what is hashed."""

    __slots__ = ("params", "text")

    def __init__(self, params: tuple[models.ParamMetadata, ...]) -> None:
        self.params = params
        self.text = "\n".join(param.model_dump_json() for param in params)

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ParamsKey) and self.text == other.text


@functools.lru_cache(maxsize=512)
def _cached_model(key: _ParamsKey) -> type[pydantic.BaseModel]:
    # Fields have names of their own, with the input's name as alias: an input may be called `json` or `copy`,
    # which are methods of pydantic's models.
    fields: dict[str, Any] = {f"input_{index}": _field(param) for index, param in enumerate(key.params)}
    config = pydantic.ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
    return pydantic.create_model("Inputs", __config__=config, **fields)


def _field(param: models.ParamMetadata) -> tuple[Any, Any]:
    checked = Annotated[Any, pydantic.PlainValidator(functools.partial(values.typed_value, param))]
    if param.required:
        return checked, pydantic.Field(alias=param.name)
    # Each execution gets a default of its own: author code may change a list in place.
    return checked, pydantic.Field(alias=param.name, default_factory=lambda: copy.deepcopy(param.default_value))


def _name(key: Any) -> str:
    """A key that pydantic and JSON can carry; a name that is cut or mended here is an unknown one anyhow."""
    return jsonable.clean_text(str(key))[:MAX_NAME_CHARS]


def _as_field_errors(
    error: pydantic.ValidationError, declared: Mapping[str, models.ParamMetadata]
) -> errors.ValidationError:
    fields = [_field_error(item, declared) for item in error.errors(include_url=False, include_input=False)]
    summary = " ".join(field.message for field in fields[:MAX_SUMMARY_FIELDS])
    return errors.ValidationError(summary, fields)


def _field_error(item: Any, declared: Mapping[str, models.ParamMetadata]) -> errors.FieldError:
    name = str(item["loc"][0])
    if item["type"] == "missing":
        return errors.FieldError(name, "missing", f"{declared[name].label} is required.")
    if item["type"] == "extra_forbidden":
        known = ", ".join(declared) or "none"
        return errors.FieldError(name, "unknown", f"There is no input {name!r}; the inputs are: {known}.")
    refused = item["ctx"]["error"]
    assert isinstance(refused, values.Refused)
    return refused.error


def _property(param: models.ParamMetadata) -> dict[str, Any]:
    described = {
        "title": param.label,
        **_JSON_TYPES[param.type],
        **_limits(param),
        "x-type": param.type.value,
        "x-required": param.required,
    }
    if param.has_default:
        described["default"] = param.default_value
    if param.help_text:
        described["description"] = param.help_text
    if param.data_provider:
        described["x-data-provider"] = param.data_provider
    return described


def _limits(param: models.ParamMetadata) -> dict[str, Any]:
    suffix = "Items" if param.type is models.ParamType.LIST else "Length"
    keys = {"min": "minimum", "max": "maximum", "min_length": f"min{suffix}", "max_length": f"max{suffix}"}
    limits = {keys[rule]: limit for rule, limit in param.validation.items() if rule in keys}
    if "pattern" in param.validation:
        # A JSON Schema pattern matches anywhere; ours matches the whole text.
        limits["pattern"] = f"^(?:{param.validation['pattern']})$"
    return limits
