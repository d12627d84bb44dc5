"""The metadata of a workflow or data provider from the arguments of its decorator, each of them checked.

`decorators` and `notebooks` call it. It decides nothing about inputs and knows no function.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Literal, TypeVar

from bifrost_kernel import cron, egress_list, errors, jsonable, models

MAX_RETRIES = 10

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")

Choice = TypeVar("Choice", bound=StrEnum)


def build_workflow(
    options: Mapping[str, Any],
    params: tuple[models.ParamMetadata, ...],
    *,
    source: models.Source,
    kind: Literal["function", "notebook"] = "function",
) -> models.WorkflowMetadata:
    """The metadata that the arguments of `@workflow` stand for.

    Raises:
        DeclarationError: without file and line; the caller knows the place.
    """
    _check_identity(options)
    _check_flags(options, ("requires_org", "expose_in_forms", "requires_approval", "idempotent"))
    _check_whole_number(options, "timeout_seconds", minimum=1)
    _check_whole_number(options, "retries", minimum=0, maximum=MAX_RETRIES)
    mode = _choice(options, "execution_mode", models.ExecutionMode)
    _check_timezone(options["timezone"])
    _check_schedule(options["schedule"], mode)
    network = _choice(options, "network", models.Network)
    return models.WorkflowMetadata(
        name=options["name"],
        description=options["description"],
        category=options["category"],
        tags=_tags(options["tags"]),
        execution_mode=mode,
        timeout_seconds=options["timeout_seconds"],
        schedule=options["schedule"],
        timezone=options["timezone"],
        retries=options["retries"],
        idempotent=options["idempotent"],
        overlap=_choice(options, "overlap", models.Overlap),
        egress=_egress(options["egress"], network),
        network=network,
        requires_org=options["requires_org"],
        expose_in_forms=options["expose_in_forms"],
        requires_approval=options["requires_approval"],
        required_permission=_choice(options, "required_permission", models.Permission),
        params=params,
        kind=kind,
        source=source,
    )


def build_provider(
    options: Mapping[str, Any], params: tuple[models.ParamMetadata, ...], *, source: models.Source
) -> models.DataProviderMetadata:
    _check_identity(options)
    _check_whole_number(options, "cache_ttl_seconds", minimum=0)
    return models.DataProviderMetadata(**options, params=params, source=source)


def _check_identity(options: Mapping[str, Any]) -> None:
    name = options["name"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise errors.DeclarationError(
            f"name={name!r} is not snake_case: a lower-case letter, then up to 63 of a-z, 0-9 and _"
        )
    for key in ("description", "category"):
        if not _is_text(options[key]) or not options[key].strip():
            raise errors.DeclarationError(f"{key}={options[key]!r}: {key} must be text that says something to people")


def _check_flags(options: Mapping[str, Any], keys: Iterable[str]) -> None:
    for key in keys:
        if not isinstance(options[key], bool):
            raise errors.DeclarationError(f"{key}={options[key]!r}: allowed are True and False")


def _check_whole_number(options: Mapping[str, Any], key: str, *, minimum: int, maximum: int | None = None) -> None:
    value = options[key]
    allowed = f"{minimum} or more" if maximum is None else f"{minimum} to {maximum}"
    if not _is_whole(value) or value < minimum or (maximum is not None and value > maximum):
        raise errors.DeclarationError(f"{key}={value!r}: allowed is a whole number, {allowed}")


def _choice(options: Mapping[str, Any], key: str, choices: type[Choice]) -> Choice:
    try:
        return choices(options[key])
    except ValueError:
        allowed = ", ".join(choice.value for choice in choices)
        raise errors.DeclarationError(f"{key}={options[key]!r} is unknown; allowed: {allowed}") from None


def _tags(tags: Any) -> tuple[str, ...]:
    if not isinstance(tags, (list, tuple, set, frozenset)) or not all(map(_is_text, tags)):
        raise errors.DeclarationError(f'tags={tags!r}: allowed is a list of text, e.g. ["m365", "user"]')
    return tuple(tags)


def _egress(hosts: Any, network: models.Network) -> tuple[str, ...] | None:
    if hosts is None:
        return None
    if not isinstance(hosts, (list, tuple, set, frozenset)):
        raise errors.DeclarationError(f"egress={hosts!r}: allowed is a list of hosts, e.g. {egress_list.EXAMPLES}")
    if network is models.Network.HOST:
        raise errors.DeclarationError('egress has no meaning with network="host"; leave one of them out')
    try:
        return egress_list.check(sorted(hosts, key=str) if isinstance(hosts, (set, frozenset)) else hosts)
    except errors.ValidationError as error:
        raise errors.DeclarationError(f"egress: {error.message}") from None


def _check_timezone(timezone: Any) -> None:
    try:
        cron.get_zone(timezone)
    except errors.ValidationError as error:
        raise errors.DeclarationError(f"timezone={error.message}") from None


def _check_schedule(schedule: Any, mode: models.ExecutionMode) -> None:
    if schedule is None:
        if mode is models.ExecutionMode.SCHEDULED:
            raise errors.DeclarationError('execution_mode="scheduled" needs a schedule, e.g. schedule="0 9 * * 1"')
        return
    try:
        cron.parse(schedule)
    except errors.ValidationError as error:
        raise errors.DeclarationError(f"schedule={error.message}") from None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and jsonable.is_clean(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
