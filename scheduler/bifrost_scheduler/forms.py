"""What a form shows: a workflow's metadata and a form object, resolved into fields. Pure.

`form_library` makes forms of their parts; `form_desk` and `web` show them; `options` asks where the inputs of a data
provider come from. It checks no permission, and runs no data provider.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from bifrost_kernel import form_definitions, models, params, values
from bifrost_kernel.form_definitions import FormDefinition, VisibleWhen
from bifrost_scheduler import identity

ParamType = models.ParamType

_WIDGETS: Mapping[ParamType, tuple[str, ...]] = {
    ParamType.STRING: ("text", "textarea"),
    ParamType.INT: ("number", "text"),
    ParamType.FLOAT: ("number", "text"),
    ParamType.BOOL: ("switch",),
    ParamType.EMAIL: ("email", "text"),
    ParamType.JSON: ("json", "textarea"),
    ParamType.LIST: ("list",),
}
_CHOICE_WIDGETS = ("select", "combobox")
_LIST_WIDGETS = ("list", "combobox", "select")
"""Each type's widgets, the usual one first."""

FIXED = "fixed"


class Source(StrEnum):
    AUTOMATIC = "automatic"
    WORKSPACE = "workspace"
    STORE = "store"


class FieldOptions(models.Frozen):
    """Where the choices of a field come from; `items` None means that they have to be asked for."""

    provider: str
    depends_on: tuple[str, ...] = ()
    """The other fields whose values they depend on."""
    cached_at: datetime | None = None
    items: tuple[models.Option, ...] | None = None


class Field(models.Frozen):
    """One field as whoever draws it needs it; of a fixed one the value stands in `default`."""

    name: str
    type: ParamType
    label: str
    required: bool
    help_text: str | None = None
    default: Any = None
    placeholder: str | None = None
    widget: str
    validation: Mapping[str, Any] = {}
    options: FieldOptions | None = None
    visible_when: VisibleWhen | None = None
    group: str | None = None


class Form(models.Frozen):
    """A form of one organization, with its workflow; `reason` says why it cannot be used, if so."""

    name: str
    source: Source
    definition: FormDefinition
    workflow: models.WorkflowMetadata | None = None
    version: int | None = None
    replaces: Source | None = None
    access: tuple[identity.FormAccess, ...] = ()
    reason: str | None = None

    @property
    def title(self) -> str:
        return self.definition.title or readable(self.name)

    @property
    def text(self) -> str:
        return self.definition.text or (self.workflow.description if self.workflow else "")

    @property
    def category(self) -> str:
        return self.definition.category or (self.workflow.category if self.workflow else "General")

    @property
    def bound(self) -> dict[str, Any]:
        return {**self.definition.fixed, **self.definition.hidden}


def readable(name: str) -> str:
    """`hello_world` as people write it: Hello World."""
    return " ".join(word[:1].upper() + word[1:] for word in name.split("_") if word)


def automatic(workflow: models.WorkflowMetadata) -> FormDefinition:
    """The form that a workflow has when nobody made one."""
    return FormDefinition(workflow=workflow.name)


def within(platform: FormDefinition, own: FormDefinition) -> FormDefinition:
    """An organization's own form of a workflow, with what the platform's form of that workflow binds."""
    hidden = {**own.hidden, **platform.hidden}
    fixed = {**own.fixed, **platform.fixed}
    return own.model_copy(
        update={
            "hidden": {name: value for name, value in hidden.items() if name not in platform.fixed},
            "fixed": {name: value for name, value in fixed.items() if name not in platform.hidden},
        }
    )


def rules_of(definition: FormDefinition) -> dict[str, VisibleWhen]:
    """The fields that are not always shown, with their condition."""
    return {name: field.visible_when for name, field in definition.fields.items() if field.visible_when is not None}


def widgets(param: models.ParamMetadata) -> tuple[str, ...]:
    """The widgets that an input may have, the usual one first."""
    if param.data_provider is None:
        return _WIDGETS[param.type]
    return _LIST_WIDGETS if param.type is ParamType.LIST else _CHOICE_WIDGETS


def asked(form: Form) -> models.WorkflowMetadata:
    """The workflow as this form asks for it: what is bound is gone, the rest is ordered and worded as the form says."""
    workflow = workflow_of(form)
    editable = tuple(_worded(form, param) for param in _ordered(form) if param.name not in form.bound)
    return workflow.model_copy(update={"params": editable})


def _worded(form: Form, param: models.ParamMetadata) -> models.ParamMetadata:
    own = form.definition.fields.get(param.name, form_definitions.FieldDefinition())
    changed: dict[str, Any] = {"label": own.label or param.label, "help_text": own.help_text or param.help_text}
    if own.default is not None:
        changed |= {"has_default": True, "default_value": values.typed_value(param, own.default)}
    return param.model_copy(update=changed)


def _ordered(form: Form) -> Sequence[models.ParamMetadata]:
    by_name = {param.name: param for param in workflow_of(form).params}
    named = [name for name in dict.fromkeys(form.definition.order) if name in by_name]
    return [by_name[name] for name in (*named, *(name for name in by_name if name not in named))]


def schema(form: Form) -> dict[str, Any]:
    """JSON Schema of what a browser submits; a field that is not always shown is never required by it."""
    conditional = rules_of(form.definition)
    described = params.json_schema(asked(form))
    required = [name for name in described["required"] if name not in conditional]
    return {**described, "title": form.title, "required": required}


def fields(form: Form, providers: Mapping[str, models.DataProviderMetadata]) -> list[Field]:
    """The fields in their order: those to fill in, and the fixed ones; never a hidden one."""
    editable = {param.name: param for param in asked(form).params}
    shown = [param for param in _ordered(form) if param.name not in form.definition.hidden]
    return [_field(form, editable.get(param.name, param), editable, providers) for param in shown]


def _field(
    form: Form,
    param: models.ParamMetadata,
    editable: Mapping[str, models.ParamMetadata],
    providers: Mapping[str, models.DataProviderMetadata],
) -> Field:
    own = form.definition.fields.get(param.name, form_definitions.FieldDefinition())
    if param.name not in editable:
        worded = _worded(form, param)
        return Field(
            name=param.name,
            type=param.type,
            label=worded.label,
            required=False,
            help_text=worded.help_text,
            default=form.definition.fixed[param.name],
            widget=FIXED,
            group=own.group,
        )
    return field_of(param, editable, providers).model_copy(
        update={
            "placeholder": own.placeholder,
            "widget": own.widget or widgets(param)[0],
            "visible_when": own.visible_when,
            "group": own.group,
        }
    )


def field_of(
    param: models.ParamMetadata,
    editable: Iterable[str],
    providers: Mapping[str, models.DataProviderMetadata],
) -> Field:
    """The field of an input, as `@param` declares it."""
    return Field(
        name=param.name,
        type=param.type,
        label=param.label,
        required=param.required,
        help_text=param.help_text,
        default=param.default_value,
        widget=widgets(param)[0],
        validation=param.validation,
        options=_options(param, editable, providers),
    )


def _options(
    param: models.ParamMetadata, editable: Iterable[str], providers: Mapping[str, models.DataProviderMetadata]
) -> FieldOptions | None:
    if param.data_provider is None:
        return None
    sources = provider_sources(param, providers[param.data_provider])
    needed = tuple(name for name in dict.fromkeys(sources.values()) if name in set(editable))
    return FieldOptions(provider=param.data_provider, depends_on=needed)


def provider_sources(param: models.ParamMetadata, provider: models.DataProviderMetadata) -> dict[str, str]:
    """Which field gives each input of the field's data provider: the one that `@param` names, else its namesake."""
    named = {one.name: param.data_provider_inputs.get(one.name, one.name) for one in provider.params}
    return {name: field for name, field in named.items() if field != param.name}


def provider_inputs(
    param: models.ParamMetadata, provider: models.DataProviderMetadata, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The inputs of the field's data provider out of the values of the other fields."""
    sources = provider_sources(param, provider)
    return {name: given[field] for name, field in sources.items() if given.get(field) is not None}


def workflow_of(form: Form) -> models.WorkflowMetadata:
    assert form.workflow is not None, "a form without its workflow is broken, and was refused before"
    return form.workflow
