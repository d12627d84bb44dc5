"""One raw value against one declared input: the typed value, or a refusal in words for the person who typed it.

`decorators` checks defaults with it, `params` builds its models from it. It knows no workflow and fills no default.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import email_validator
import re2

from bifrost_kernel import errors, models

MAX_TEXT_CHARS = 100_000
MAX_DEPTH = 100
MAX_INTEGER_BITS = 1024
MAX_NUMBER_CHARS = 400

# These two are linear whatever the text, so the standard library's engine is safe for them.
_INTEGER = re.compile(r"[+-]?[0-9]{1,400}")
_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")


class Refused(ValueError):
    """A value is not what its input declares; `error` says so to people and programs."""

    def __init__(self, param: models.ParamMetadata, code: str, message: str) -> None:
        super().__init__(message)
        self.error = errors.FieldError(param.name, code, f"{param.label} {message}")


class BadPattern(ValueError):
    """A regular expression that does not compile."""


def typed_value(param: models.ParamMetadata, raw: Any) -> Any:
    """The value of `param` that `raw` stands for; text from forms and command lines is read where that is exact.

    Raises:
        Refused: wrong type, or outside `validation`.
    """
    value = _READERS[param.type](param, raw)
    for rule, limit in param.validation.items():
        _RULES[rule](param, value, limit)
    return value


@functools.lru_cache(maxsize=1024)
def compiled_pattern(pattern: str) -> Any:
    """The RE2 program of `pattern`: its matching time is linear in the text, so no input can hang the process.

    Raises:
        BadPattern: RE2 does not know it (it has no lookaround and no backreferences).
    """
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except (re2.error, UnicodeError) as error:
        reason = error.args[0] if error.args else error
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise BadPattern(text) from error


def same_json(left: Any, right: Any) -> bool:
    """Equality of JSON values that keeps types apart: `True` is not `1`, `1` is not `"1"`; `1` is `1.0`."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_json(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(same_json, left, right))
    return bool(left == right)


def _read_text(param: models.ParamMetadata, raw: Any) -> str:
    if not isinstance(raw, str):
        raise Refused(param, "type", "must be text.")
    _check_text(param, raw)
    return raw


def _read_email(param: models.ParamMetadata, raw: Any) -> str:
    text = _read_text(param, raw)
    try:
        # Directories of customers have internal domains (`corp.local`), which no mail reaches and every MSP meets.
        email_validator.validate_email(text, check_deliverability=False, globally_deliverable=False)
    except email_validator.EmailNotValidError as error:
        raise Refused(param, "email", f"must be an e-mail address: {error}") from error
    if "." not in text.rpartition("@")[2]:
        raise Refused(param, "email", "must be an e-mail address: the part after the @ needs a dot.")
    return text


def _read_int(param: models.ParamMetadata, raw: Any) -> int:
    if isinstance(raw, str) and _INTEGER.fullmatch(raw):
        raw = int(raw)
    if not isinstance(raw, int) or isinstance(raw, bool):
        raise Refused(param, "type", "must be a whole number.")
    if raw.bit_length() > MAX_INTEGER_BITS:
        raise Refused(param, "max", "is too large a number.")
    return raw


def _read_float(param: models.ParamMetadata, raw: Any) -> float:
    if isinstance(raw, str) and len(raw) <= MAX_NUMBER_CHARS and _DECIMAL.fullmatch(raw):
        raw = float(raw)
    if not isinstance(raw, (int, float)) or isinstance(raw, bool):
        raise Refused(param, "type", "must be a number.")
    if isinstance(raw, int) and raw.bit_length() > MAX_INTEGER_BITS - 1:
        raise Refused(param, "max", "is too large a number.")
    if not math.isfinite(raw):
        raise Refused(param, "type", "must be a finite number.")
    return float(raw)


def _read_bool(param: models.ParamMetadata, raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    if raw == "true" or raw == "false":
        return bool(raw == "true")
    raise Refused(param, "type", "must be true or false.")


def _read_json(param: models.ParamMetadata, raw: Any) -> dict[str, Any] | list[Any]:
    value = _parsed(param, raw, "must be a JSON object.")
    if not isinstance(value, (dict, list, tuple)):
        raise Refused(param, "type", "must be a JSON object.")
    return _plain(param, value)  # type: ignore[no-any-return]


def _read_list(param: models.ParamMetadata, raw: Any) -> list[Any]:
    value = _parsed(param, raw, "must be a list.")
    if not isinstance(value, (list, tuple)):
        raise Refused(param, "type", "must be a list.")
    return _plain(param, value)  # type: ignore[no-any-return]


def _parsed(param: models.ParamMetadata, raw: Any, otherwise: str) -> Any:
    if not isinstance(raw, str):
        return raw
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Refused(param, "type", otherwise) from error


def _plain(param: models.ParamMetadata, value: Any, depth: int = 1) -> Any:
    """A copy of a JSON value, checked leaf by leaf: nothing that the caller holds can change it afterwards."""
    if depth > MAX_DEPTH:
        raise Refused(param, "depth", f"is nested deeper than {MAX_DEPTH} levels.")
    if isinstance(value, dict):
        return {_key(param, key): _plain(param, item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(param, item, depth + 1) for item in value]
    _check_leaf(param, value)
    return value


def _key(param: models.ParamMetadata, key: Any) -> str:
    if not isinstance(key, str):
        raise Refused(param, "type", f"has the key {key!r}; keys must be text.")
    _check_text(param, key)
    return key


def _check_leaf(param: models.ParamMetadata, value: Any) -> None:
    if isinstance(value, str):
        _check_text(param, value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise Refused(param, "type", "holds a number that is not finite.")
    elif isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
        raise Refused(param, "max", "holds too large a number.")
    elif value is not None and not isinstance(value, (int, float)):
        raise Refused(param, "type", f"holds a value of type {type(value).__name__}, which JSON does not have.")


def _check_text(param: models.ParamMetadata, text: str) -> None:
    if len(text) > MAX_TEXT_CHARS:
        raise Refused(param, "max_length", f"is longer than {MAX_TEXT_CHARS} characters.")
    if "\0" in text:
        raise Refused(param, "type", "holds a NUL character.")
    if not _is_unicode(text):
        raise Refused(param, "type", "holds text that is not valid Unicode.")


def _is_unicode(text: str) -> bool:
    """False for lone surrogates: they have no UTF-8, so neither a database nor a socket takes them."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _rule_pattern(param: models.ParamMetadata, value: Any, pattern: str) -> None:
    if compiled_pattern(pattern).fullmatch(value) is None:
        raise Refused(param, "pattern", f"does not have the required form ({pattern}).")


def _rule_min(param: models.ParamMetadata, value: Any, limit: float) -> None:
    if value < limit:
        raise Refused(param, "min", f"must be {limit} or more.")


def _rule_max(param: models.ParamMetadata, value: Any, limit: float) -> None:
    if value > limit:
        raise Refused(param, "max", f"must be {limit} or less.")


def _rule_min_length(param: models.ParamMetadata, value: Any, limit: int) -> None:
    if len(value) < limit:
        raise Refused(param, "min_length", f"must have at least {limit} {_unit(value)}.")


def _rule_max_length(param: models.ParamMetadata, value: Any, limit: int) -> None:
    if len(value) > limit:
        raise Refused(param, "max_length", f"must have at most {limit} {_unit(value)}.")


def _unit(value: Any) -> str:
    return "characters" if isinstance(value, str) else "entries"


_READERS: Mapping[models.ParamType, Callable[[models.ParamMetadata, Any], Any]] = {
    models.ParamType.STRING: _read_text,
    models.ParamType.EMAIL: _read_email,
    models.ParamType.INT: _read_int,
    models.ParamType.FLOAT: _read_float,
    models.ParamType.BOOL: _read_bool,
    models.ParamType.JSON: _read_json,
    models.ParamType.LIST: _read_list,
}

_RULES: Mapping[str, Callable[[models.ParamMetadata, Any, Any], None]] = {
    "pattern": _rule_pattern,
    "min": _rule_min,
    "max": _rule_max,
    "min_length": _rule_min_length,
    "max_length": _rule_max_length,
}

RULES_OF_TYPE: Mapping[models.ParamType, frozenset[str]] = {
    models.ParamType.STRING: frozenset({"pattern", "min_length", "max_length"}),
    models.ParamType.EMAIL: frozenset({"pattern", "min_length", "max_length"}),
    models.ParamType.INT: frozenset({"min", "max"}),
    models.ParamType.FLOAT: frozenset({"min", "max"}),
    models.ParamType.BOOL: frozenset(),
    models.ParamType.JSON: frozenset(),
    models.ParamType.LIST: frozenset({"min_length", "max_length"}),
}
"""Which keys of `validation` mean something for which type; any other is refused when declared."""
