"""What a form shows and what it submits: a workflow's metadata and a form object, resolved. Pure.

`form_library` finds the parts, `form_desk` and `web` ask here. It checks no permission, runs no data provider and
trusts no value from a browser: what is bound or not visible is decided here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from bifrost_kernel import errors, form_definitions, models, params, values
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


@dataclass(frozen=True)
class Submission:
    """What a filled-in form hands to the workflow."""

    values: dict[str, Any]
    hidden: tuple[str, ...]
    """Inputs that whoever filled it in must not see."""
    lifted: frozenset[str]
    """Required inputs that were not asked for, because their field was not shown."""


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


# does it fit


def find_problem(definition: FormDefinition, workflow: models.WorkflowMetadata) -> str | None:
    """Why the form object does not fit its workflow, if so; names what and which one."""
    if not workflow.expose_in_forms:
        return f"the workflow {workflow.name!r} is not exposed in forms"
    declared = {param.name: param for param in workflow.params}
    bound = {**definition.fixed, **definition.hidden}
    editable = [name for name in declared if name not in bound]
    return (
        _unknown_name(definition, declared, editable)
        or _refused_value(bound, declared)
        or _wrong_field(definition, declared, bound)
        or _wrong_rule(definition, declared)
    )


def _unknown_name(definition: FormDefinition, declared: Iterable[str], editable: Iterable[str]) -> str | None:
    known, open_ = set(declared), set(editable)
    for where, names, choices in (
        ("fixed", definition.fixed, known),
        ("hidden", definition.hidden, known),
        ("order", definition.order, known - definition.hidden.keys()),
        ("prefill", definition.prefill, open_),
    ):
        for name in names:
            if name not in choices:
                there = ", ".join(sorted(choices)) or "none"
                return f"{where} names {name!r}, which is no such input of {definition.workflow!r}; there are: {there}"
    return None


def _refused_value(given: Mapping[str, Any], declared: Mapping[str, models.ParamMetadata]) -> str | None:
    for name, value in given.items():
        try:
            values.typed_value(declared[name], value)
        except values.Refused as refused:
            return f"the value of {name!r} does not fit: {refused.error.message}"
    return None


def _wrong_field(
    definition: FormDefinition, declared: Mapping[str, models.ParamMetadata], bound: Mapping[str, Any]
) -> str | None:
    for name, field in definition.fields.items():
        if name not in declared:
            return f"fields names {name!r}, which is no input of {definition.workflow!r}"
        allowed = widgets(declared[name])
        if field.widget is not None and field.widget not in allowed:
            return f"the widget {field.widget!r} of {name!r} is not for its type; allowed: {', '.join(allowed)}"
        if name in bound and (field.default is not None or field.visible_when is not None):
            return f"{name!r} is bound: it has no default and no visible_when of its own"
    defaults = {name: field.default for name, field in definition.fields.items() if field.default is not None}
    return _refused_value(defaults, declared)


def _wrong_rule(definition: FormDefinition, declared: Mapping[str, models.ParamMetadata]) -> str | None:
    rules = rules_of(definition)
    for name, rule in rules.items():
        if rule.field not in declared or rule.field in definition.hidden or rule.field == name:
            return f"visible_when of {name!r} names {rule.field!r}, which is no other field of this form"
        wanted = rule.one_of if rule.one_of is not None else () if rule.equals is None else (rule.equals,)
        for value in wanted:
            if reason := _refused_value({rule.field: value}, declared):
                return f"visible_when of {name!r} can never be met: {reason}"
        if _is_circular(name, rules):
            return f"visible_when of {name!r} depends on itself"
    return None


def _is_circular(name: str, rules: Mapping[str, VisibleWhen]) -> bool:
    seen, following = set(), rules[name].field
    while following in rules and following not in seen:
        seen.add(following)
        following = rules[following].field
    return following == name or name in seen


def rules_of(definition: FormDefinition) -> dict[str, VisibleWhen]:
    """The fields that are not always shown, with their condition."""
    return {name: field.visible_when for name, field in definition.fields.items() if field.visible_when is not None}


# what is shown


def widgets(param: models.ParamMetadata) -> tuple[str, ...]:
    """The widgets that an input may have, the usual one first."""
    if param.data_provider is None:
        return _WIDGETS[param.type]
    return _LIST_WIDGETS if param.type is ParamType.LIST else _CHOICE_WIDGETS


def asked(form: Form) -> models.WorkflowMetadata:
    """The workflow as this form asks for it: what is bound is gone, the rest is ordered and worded as the form says."""
    workflow = _workflow(form)
    editable = tuple(_worded(form, param) for param in _ordered(form) if param.name not in form.bound)
    return workflow.model_copy(update={"params": editable})


def _worded(form: Form, param: models.ParamMetadata) -> models.ParamMetadata:
    own = form.definition.fields.get(param.name, form_definitions.FieldDefinition())
    changed: dict[str, Any] = {"label": own.label or param.label, "help_text": own.help_text or param.help_text}
    if own.default is not None:
        changed |= {"has_default": True, "default_value": values.typed_value(param, own.default)}
    return param.model_copy(update=changed)


def _ordered(form: Form) -> Sequence[models.ParamMetadata]:
    by_name = {param.name: param for param in _workflow(form).params}
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


# what is submitted


def submission(form: Form, raw: Mapping[str, Any]) -> Submission:
    """The inputs of the workflow out of what a browser sent: bound values added, fields that are not shown left out.

    Raises:
        ValidationError: with every wrong, missing, unknown or bound field.
    """
    whole = asked(form)
    unseen = invisible(form, raw)
    seen = whole.model_copy(update={"params": tuple(param for param in whole.params if param.name not in unseen)})
    sent = {name: value for name, value in raw.items() if name not in unseen and name not in form.definition.fixed}
    typed, wrong = _validated(seen, sent)
    wrong += [_fixed_error(form, name) for name in raw if name in form.definition.fixed]
    if wrong:
        raise errors.ValidationError(" ".join(error.message for error in wrong[: params.MAX_SUMMARY_FIELDS]), wrong)
    declared = {param.name: param for param in _workflow(form).params}
    bound = {name: values.typed_value(declared[name], value) for name, value in form.bound.items()}
    return Submission(
        values={name: value for name, value in {**typed, **bound}.items() if value is not None},
        hidden=tuple(form.definition.hidden),
        lifted=frozenset(name for name in unseen if declared[name].required),
    )


def _validated(
    metadata: models.WorkflowMetadata, raw: Mapping[str, Any]
) -> tuple[dict[str, Any], list[errors.FieldError]]:
    try:
        return params.validate(metadata, raw), []
    except errors.ValidationError as error:
        return {}, list(error.fields)


def _fixed_error(form: Form, name: str) -> errors.FieldError:
    return errors.FieldError(name, FIXED, f"{name!r} is fixed by the form {form.name!r} and can't be given.")


def invisible(form: Form, raw: Mapping[str, Any]) -> frozenset[str]:
    """The fields whose condition the current values don't meet; their values count as not given."""
    rules = rules_of(form.definition)
    editable = {param.name: param for param in asked(form).params}
    current = {**{name: _current(param, raw.get(name)) for name, param in editable.items()}, **form.bound}
    return frozenset(name for name in rules if name in editable and not _is_shown(name, rules, current))


def current_values(form: Form, raw: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in the form now: values of fields that are shown, defaults, and what is bound."""
    unseen = invisible(form, raw)
    editable = {param.name: param for param in asked(form).params if param.name not in unseen}
    current = {name: _current(param, raw.get(name)) for name, param in editable.items()}
    return {name: value for name, value in {**current, **form.bound}.items() if value is not None}


def _current(param: models.ParamMetadata, raw: Any) -> Any:
    """The value as it would be submitted; one that is wrong as yet stands as it is."""
    if raw is None:
        return param.default_value
    try:
        return values.typed_value(param, raw)
    except values.Refused:
        return raw


def _is_shown(name: str, rules: Mapping[str, VisibleWhen], current: Mapping[str, Any]) -> bool:
    rule = rules.get(name)
    if rule is None:
        return True
    given = current.get(rule.field) if _is_shown(rule.field, rules, current) else None
    if rule.filled is not None:
        return rule.filled is _is_filled(given)
    wanted = rule.one_of if rule.one_of is not None else (rule.equals,)
    return any(params.same_value(given, value) for value in wanted)


def _is_filled(value: Any) -> bool:
    return value is not None and value != "" and value != [] and value != {}


def _workflow(form: Form) -> models.WorkflowMetadata:
    assert form.workflow is not None, "a form without its workflow is broken, and was refused before"
    return form.workflow
