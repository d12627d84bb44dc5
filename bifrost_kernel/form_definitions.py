"""The shape of a form object: what a workflow's inputs look like to the people who fill them in.

`form_files` reads it from the workspace, the control plane from its API and its store. It holds no behaviour and knows
no workflow: whether a definition fits one is decided where both are known.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from bifrost_kernel import errors, jsonable, models

MAX_DEFINITION_BYTES = 64 * 1024
"""Of the JSON or YAML text of one form."""

Widget = Literal["text", "textarea", "number", "switch", "select", "combobox", "email", "json", "list"]


def _clean(text: str) -> str:
    if not jsonable.is_clean(text) or "\0" in text:
        raise ValueError("the text holds a NUL character or half of a surrogate pair")
    return text


FormName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Line = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_clean)]
LongText = Annotated[str, StringConstraints(max_length=10_000), AfterValidator(_clean)]
Names = Annotated[tuple[Line, ...], Field(max_length=200)]


def _json(value: Any) -> Any:
    try:
        return jsonable.to_json(value)
    except errors.WorkflowError as error:
        raise ValueError("this is no JSON value") from error


JsonValue = Annotated[Any, AfterValidator(_json)]
Values = Annotated[dict[Line, JsonValue], Field(max_length=200)]


class VisibleWhen(models.Frozen):
    """A field is shown while another one `equals` a value, is `one_of` several, or is `filled` (or not)."""

    field: Line
    equals: JsonValue = None
    one_of: Annotated[tuple[JsonValue, ...], Field(min_length=1, max_length=200)] | None = None
    filled: bool | None = None

    @model_validator(mode="after")
    def _one_condition(self) -> VisibleWhen:
        given = self.model_fields_set - {"field"}
        if len(given) != 1 or getattr(self, next(iter(given))) is None:
            raise ValueError("name exactly one of equals, one_of and filled, with a value")
        return self


class FieldDefinition(models.Frozen):
    """What a form says of one input beyond its `@param`; what is left out stays as it is declared."""

    label: Line | None = None
    help_text: LongText | None = None
    placeholder: Line | None = None
    default: JsonValue = None
    widget: Widget | None = None
    group: Line | None = None
    visible_when: VisibleWhen | None = None


class FormDefinition(models.Frozen):
    """A form object. `fixed` values are shown and `hidden` ones never leave the control plane; both are bound there."""

    workflow: FormName
    title: Line | None = None
    text: LongText | None = None
    """Markdown, shown above the fields."""
    category: Line | None = None
    fixed: Values = Field(default_factory=dict)
    hidden: Values = Field(default_factory=dict)
    order: Names = ()
    """Names of fields; those that are not named follow in the order of the workflow."""
    fields: dict[Line, FieldDefinition] = Field(default_factory=dict, max_length=200)
    prefill: Names = ()
    """The fields that an address may fill in."""
    organizations: Names | None = None
    """The only organizations that have it; None is every one."""
    roles: Names | None = None
    """The only roles that see it; None is every one."""
    enabled: bool = True
    submit_label: Line | None = None
    success_text: LongText | None = None

    @model_validator(mode="after")
    def _bound_once(self) -> FormDefinition:
        if both := sorted(self.fixed.keys() & self.hidden.keys()):
            raise ValueError(f"{both[0]!r} is both fixed and hidden; choose one")
        if empty := [name for name, value in {**self.fixed, **self.hidden}.items() if value is None]:
            raise ValueError(f"{empty[0]!r} is bound to nothing; give it a value")
        return self
