"""What a filled-in form hands to its workflow: bound values added, fields that are not shown left out. Pure.

`form_desk` calls it. It trusts no value from a browser: what is bound or not visible is decided here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bifrost_kernel import errors, models, params, values
from bifrost_kernel.form_definitions import VisibleWhen
from bifrost_scheduler import forms
from bifrost_scheduler.forms import Form


@dataclass(frozen=True)
class Submission:
    """What a filled-in form hands to the workflow."""

    values: dict[str, Any]
    hidden: tuple[str, ...]
    """Inputs that whoever filled it in must not see."""
    lifted: frozenset[str]
    """Required inputs that were not asked for, because their field was not shown."""


def submission(form: Form, raw: Mapping[str, Any]) -> Submission:
    """The inputs of the workflow out of what a browser sent: bound values added, fields that are not shown left out.

    Raises:
        ValidationError: with every wrong, missing, unknown or bound field.
    """
    whole = forms.asked(form)
    unseen = invisible(form, raw)
    seen = whole.model_copy(update={"params": tuple(param for param in whole.params if param.name not in unseen)})
    sent = {name: value for name, value in raw.items() if name not in unseen and name not in form.definition.fixed}
    typed, wrong = _validated(seen, sent)
    wrong += [_fixed_error(form, name) for name in raw if name in form.definition.fixed]
    if wrong:
        raise errors.ValidationError(" ".join(error.message for error in wrong[: params.MAX_SUMMARY_FIELDS]), wrong)
    declared = {param.name: param for param in forms.workflow_of(form).params}
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
    return errors.FieldError(name, forms.FIXED, f"{name!r} is fixed by the form {form.name!r} and can't be given.")


def invisible(form: Form, raw: Mapping[str, Any]) -> frozenset[str]:
    """The fields whose condition the current values don't meet; their values count as not given."""
    rules = forms.rules_of(form.definition)
    editable = {param.name: param for param in forms.asked(form).params}
    current = {**{name: _current(param, raw.get(name)) for name, param in editable.items()}, **form.bound}
    return frozenset(name for name in rules if name in editable and not _is_shown(name, rules, current))


def current_values(form: Form, raw: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in the form now: values of fields that are shown, defaults, and what is bound."""
    unseen = invisible(form, raw)
    editable = {param.name: param for param in forms.asked(form).params if param.name not in unseen}
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
