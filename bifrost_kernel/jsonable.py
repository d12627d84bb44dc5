"""Any Python value as strict JSON: what results, checkpoints, variables and steps become before they leave the kernel.

`context` and `entry` call it. It never guesses: a value without a JSON form is refused with its type and its place.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

import pydantic

from bifrost_kernel import errors

MAX_DEPTH = 100
MAX_INTEGER_BITS = 1024


def to_json(value: Any, *, path: str = "value") -> Any:
    """A copy of `value` made of dict, list, str, int, float, bool and None only.

    Args:
        path: how the root is called in errors, e.g. `result`.

    Raises:
        WorkflowError: a part has no JSON form, holds itself, or is nested too deeply; names type and path.
    """
    return _convert(value, path, ())


def clean_text(text: str) -> str:
    """`text` with lone surrogates replaced: they have no UTF-8 (RFC 3629 §3)."""
    return text.encode("utf-8", "replace").decode("utf-8")


def is_clean(text: str) -> bool:
    """True when the text has a UTF-8 form as it is."""
    return clean_text(text) == text


def _convert(value: Any, path: str, above: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    for kind, convert in _LEAVES:
        if isinstance(value, kind):
            return convert(value)
    inner = _opened(value)
    if inner is None:
        raise errors.WorkflowError(
            f"{_shortened(path)} is a {_type_name(value)}, which has no JSON form; convert it first (str(…), dict(…))"
        )
    _check_nesting(value, path, above)
    return _convert_container(inner, path, (*above, id(value)))


def _convert_container(value: Any, path: str, above: tuple[int, ...]) -> Any:
    if isinstance(value, Mapping):
        return {_key(key, path): _convert(item, _below(path, key), above) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        value = _ordered(value)
    return [_convert(item, f"{path}[{index}]", above) for index, item in enumerate(value)]


def _opened(value: Any) -> Mapping[Any, Any] | Iterable[Any] | None:
    """The mapping or sequence that a container stands for; None when it is no container."""
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        return value
    if isinstance(value, pydantic.BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields} | (value.model_extra or {})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return None


def _check_nesting(value: Any, path: str, above: tuple[int, ...]) -> None:
    if id(value) in above:
        raise errors.WorkflowError(f"{_shortened(path)} holds itself; JSON has no cycles")
    if len(above) >= MAX_DEPTH:
        raise errors.WorkflowError(f"{_shortened(path)} is nested deeper than {MAX_DEPTH} levels")


def _key(key: Any, path: str) -> str:
    if isinstance(key, Enum):
        key = key.value
    if isinstance(key, str):
        return clean_text(key)
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    for kind, convert in _LEAVES:
        if isinstance(key, kind):
            return str(convert(key))
    raise errors.WorkflowError(f"{_shortened(path)} has a key of type {_type_name(key)}, which has no JSON form")


def _ordered(values: Iterable[Any]) -> list[Any]:
    """Sorted where its members compare, so that the same set gives the same text in every process."""
    try:
        return sorted(values)
    except TypeError:
        return sorted(values, key=repr)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _bounded(value: int) -> int:
    if value.bit_length() > MAX_INTEGER_BITS:
        raise errors.WorkflowError(f"a whole number of {value.bit_length()} bits is too large; give it as text")
    return int(value)


def _enum_value(value: Enum) -> Any:
    return _convert(value.value, type(value).__name__, ())


def _below(path: str, key: Any) -> str:
    return f"{path}.{key}" if isinstance(key, str) and key.isidentifier() else f"{path}[{key!r}]"


def _shortened(path: str) -> str:
    return path if len(path) <= 200 else path[:200] + "…"


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


# The order matters: an Enum may be a str too, and a datetime is a date.
_LEAVES: tuple[tuple[type[Any], Callable[[Any], Any]], ...] = (
    (Enum, _enum_value),
    (str, clean_text),
    (int, _bounded),
    (float, _finite),
    (datetime, datetime.isoformat),
    (date, date.isoformat),
    (time, time.isoformat),
    (Decimal, str),
    (UUID, str),
    (PurePath, str),
)
