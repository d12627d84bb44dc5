"""The inputs of a workflow from what `@param` and the signature say, with every question decided and checked.

`decorators` builds them for functions, `notebooks` for the parameters cell. It reads no source and runs no author code.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bifrost_kernel import errors, jsonable, models, values

_ARGUMENT = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_PROVIDER = re.compile(r"[a-z][a-z0-9_]{0,63}")
_ANNOTATED_TYPES: Mapping[Any, models.ParamType] = {
    str: models.ParamType.STRING,
    int: models.ParamType.INT,
    float: models.ParamType.FLOAT,
    bool: models.ParamType.BOOL,
    dict: models.ParamType.JSON,
    list: models.ParamType.LIST,
}


class Unset:
    """The default of `default_value`: None is a default that authors may want."""

    def __repr__(self) -> str:
        return "…"


UNSET = Unset()


@dataclasses.dataclass(frozen=True)
class ParamDeclaration:
    """The arguments of one `@param`, before the signature has been asked."""

    name: str
    type: str | None = None
    label: str | None = None
    required: bool | None = None
    validation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data_provider: str | None = None
    default_value: Any = UNSET
    help_text: str | None = None
    data_provider_inputs: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Argument:
    """One argument of a workflow's signature, or one assignment of a notebook's parameters cell."""

    name: str
    type: models.ParamType
    default: Any = UNSET


def build_params(
    declared: Iterable[ParamDeclaration], arguments: Sequence[Argument], *, open_ended: bool = False
) -> tuple[models.ParamMetadata, ...]:
    """The inputs, in the order of the signature: what `@param` says, completed by what the signature says.

    Args:
        open_ended: the signature takes `**kwargs`, so a `@param` may name what it does not list.

    Raises:
        DeclarationError: a `@param` is wrong, or names no argument.
    """
    by_name = {declaration.name: declaration for declaration in declared}
    known = {argument.name: argument for argument in arguments}
    if not open_ended:
        for declaration in by_name.values():
            _check_names_argument(declaration, known)
    for name in by_name:
        known.setdefault(name, Argument(name, models.ParamType.STRING))
    return tuple(build_param(by_name.get(name, ParamDeclaration(name)), argument) for name, argument in known.items())


def build_param(declared: ParamDeclaration, argument: Argument) -> models.ParamMetadata:
    """One input with every question decided: type, required, default.

    Raises:
        DeclarationError: something of it is wrong.
    """
    where = f"@param {declared.name!r}"
    kind = _param_type(declared, argument, where)
    default = argument.default if declared.default_value is UNSET else declared.default_value
    result = models.ParamMetadata(
        name=declared.name,
        type=kind,
        label=_optional_text(declared.label, where, "label") or declared.name.replace("_", " ").capitalize(),
        required=_required(declared, default, where),
        has_default=default is not UNSET,
        validation=_validation(declared.validation, kind, where),
        data_provider=_provider_name(declared.data_provider, where),
        data_provider_inputs=_provider_inputs(declared, where),
        help_text=_optional_text(declared.help_text, where, "help_text"),
    )
    if default is UNSET or default is None:
        return result
    return result.model_copy(update={"default_value": _checked_default(result, default, where)})


def type_of(annotation: Any, default: Any = UNSET) -> models.ParamType:
    """The input type of an annotation (`int`, `list[str]`, `str | None`); else of the default; else `string`."""
    candidates = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    for candidate in candidates:
        found = _ANNOTATED_TYPES.get(typing.get_origin(candidate) or candidate)
        if found is not None:
            return found
    return models.ParamType.STRING if annotation else _ANNOTATED_TYPES.get(type(default), models.ParamType.STRING)


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _check_names_argument(declared: ParamDeclaration, known: Mapping[str, Argument]) -> None:
    if declared.name in known:
        return
    names = ", ".join(known) or "none besides the context"
    raise errors.DeclarationError(f"@param {declared.name!r} names no argument of the function; its arguments: {names}")


def _param_type(declared: ParamDeclaration, argument: Argument, where: str) -> models.ParamType:
    if not isinstance(declared.name, str) or not _ARGUMENT.fullmatch(declared.name):
        raise errors.DeclarationError(f"{where}: a name is a letter, then up to 63 letters, digits and _")
    if declared.type is None:
        return argument.type
    try:
        return models.ParamType(declared.type)
    except ValueError:
        allowed = ", ".join(kind.value for kind in models.ParamType)
        raise errors.DeclarationError(f"{where}: type={declared.type!r} is unknown; allowed: {allowed}") from None


def _required(declared: ParamDeclaration, default: Any, where: str) -> bool:
    if declared.required is None:
        return default is UNSET
    if not isinstance(declared.required, bool):
        raise errors.DeclarationError(f"{where}: required={declared.required!r}: allowed are True and False")
    return declared.required


def _optional_text(value: Any, where: str, key: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not jsonable.is_clean(value):
        raise errors.DeclarationError(f"{where}: {key}={value!r} must be text")
    return value


def _provider_name(name: Any, where: str) -> str | None:
    if name is None or (isinstance(name, str) and _PROVIDER.fullmatch(name)):
        return name
    raise errors.DeclarationError(f"{where}: data_provider={name!r} must be the snake_case name of a data provider")


def _provider_inputs(declared: ParamDeclaration, where: str) -> dict[str, str]:
    given = declared.data_provider_inputs
    if not given:
        return {}
    if declared.data_provider is None:
        raise errors.DeclarationError(f"{where}: data_provider_inputs are for a data_provider; name it too")
    if not isinstance(given, Mapping) or not all(isinstance(one, str) for pair in given.items() for one in pair):
        raise errors.DeclarationError(
            f'{where}: data_provider_inputs={given!r} must be {{"input": "name of a @param"}}'
        )
    return dict(given)


def _validation(validation: Any, kind: models.ParamType, where: str) -> dict[str, Any]:
    if not isinstance(validation, Mapping):
        raise errors.DeclarationError(f"{where}: validation={validation!r} must be a dict")
    allowed = values.RULES_OF_TYPE[kind]
    for key, limit in validation.items():
        if key not in allowed:
            choices = ", ".join(sorted(allowed)) or "none"
            raise errors.DeclarationError(
                f"{where}: validation {key!r} is not for type {kind.value}; allowed: {choices}"
            )
        _check_rule(key, limit, where)
    _check_range(validation, "min", "max", where)
    _check_range(validation, "min_length", "max_length", where)
    return dict(validation)


def _check_rule(key: str, limit: Any, where: str) -> None:
    if key == "pattern":
        return _check_pattern(limit, where)
    if key in ("min", "max"):
        good = isinstance(limit, (int, float)) and not isinstance(limit, bool) and abs(limit) < float("inf")
    else:
        good = _is_whole(limit) and limit >= 0
    if not good:
        raise errors.DeclarationError(f"{where}: validation {key}={limit!r} must be a number")


def _check_pattern(pattern: Any, where: str) -> None:
    if not isinstance(pattern, str):
        raise errors.DeclarationError(f"{where}: validation pattern={pattern!r} must be text")
    try:
        values.compiled_pattern(pattern)
    except values.BadPattern as error:
        raise errors.DeclarationError(
            f"{where}: validation pattern={_shown(pattern)} is no RE2 expression: {error} "
            "(RE2 has no lookaround and no backreferences)"
        ) from None


def _check_range(validation: Mapping[str, Any], low: str, high: str, where: str) -> None:
    if low in validation and high in validation and validation[low] > validation[high]:
        raise errors.DeclarationError(
            f"{where}: validation {low}={validation[low]!r} is above {high}={validation[high]!r}"
        )


def _checked_default(metadata: models.ParamMetadata, default: Any, where: str) -> Any:
    try:
        return values.typed_value(metadata, default)
    except values.Refused as refused:
        raise errors.DeclarationError(
            f"{where}: the default {_shown(default)} is refused: {refused.error.message}"
        ) from None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:100] + "…"
