"""Whether a form object fits its workflow. Pure.

`form_library` asks here, for what is set and for what has been set once: workflows change under their forms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bifrost_kernel import models, values
from bifrost_kernel.form_definitions import FormDefinition, VisibleWhen
from bifrost_scheduler import forms


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
        allowed = forms.widgets(declared[name])
        if field.widget is not None and field.widget not in allowed:
            return f"the widget {field.widget!r} of {name!r} is not for its type; allowed: {', '.join(allowed)}"
        if name in bound and (field.default is not None or field.visible_when is not None):
            return f"{name!r} is bound: it has no default and no visible_when of its own"
    defaults = {name: field.default for name, field in definition.fields.items() if field.default is not None}
    return _refused_value(defaults, declared)


def _wrong_rule(definition: FormDefinition, declared: Mapping[str, models.ParamMetadata]) -> str | None:
    rules = forms.rules_of(definition)
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
