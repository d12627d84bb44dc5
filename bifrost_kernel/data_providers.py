"""The six built-in data providers; a workspace replaces any of them by declaring one of the same name.

`describe` lists them, `entry` runs them. Departments, office locations and ticket categories are an organization's own
when its configuration says so; the rest is the same for everyone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bifrost_kernel import countries, decorators, errors, models
from bifrost_kernel.context import OrganizationContext

_SOURCE_FILE = "bifrost_kernel/data_providers.py"

_LICENSES = (
    ("SPE_E3", "Microsoft 365 E3", {"family": "enterprise"}),
    ("SPE_E5", "Microsoft 365 E5", {"family": "enterprise"}),
    ("SPE_F1", "Microsoft 365 F3", {"family": "frontline"}),
    ("SPB", "Microsoft 365 Business Premium", {"family": "business"}),
    ("O365_BUSINESS_PREMIUM", "Microsoft 365 Business Standard", {"family": "business"}),
    ("O365_BUSINESS_ESSENTIALS", "Microsoft 365 Business Basic", {"family": "business"}),
    ("EXCHANGESTANDARD", "Exchange Online (Plan 1)", {"family": "exchange"}),
)
_DEPARTMENTS = ("Engineering", "Finance", "Human Resources", "IT", "Legal", "Marketing", "Operations", "Sales")
_LOCATIONS = ("Headquarters", "Branch Office", "Remote")
_PRIORITIES = (
    ("low", "Low", {"response_hours": 48}),
    ("medium", "Medium", {"response_hours": 24}),
    ("high", "High", {"response_hours": 4}),
    ("critical", "Critical", {"response_hours": 1}),
)
_CATEGORIES = ("Account and Access", "Email", "Hardware", "Network", "Printing", "Security", "Software", "Other")


@decorators.data_provider(
    name="get_available_licenses", description="Microsoft 365 licenses", category="m365", cache_ttl_seconds=300
)
def get_available_licenses(context: OrganizationContext) -> list[dict[str, Any]]:
    """The licenses that are sold most; config `licenses` replaces them."""
    return _configured(context, "licenses") or [_option(label, value, extra) for value, label, extra in _LICENSES]


@decorators.data_provider(
    name="get_departments", description="Departments of the organization", category="organization"
)
def get_departments(context: OrganizationContext) -> list[dict[str, Any]]:
    """Usual departments; config `departments` (a list of text or options) replaces them."""
    return _configured(context, "departments") or [_option(name, name) for name in _DEPARTMENTS]


@decorators.data_provider(
    name="get_office_locations", description="Office locations of the organization", category="organization"
)
def get_office_locations(context: OrganizationContext) -> list[dict[str, Any]]:
    """Usual locations; config `office_locations` (a list of text or options) replaces them."""
    return _configured(context, "office_locations") or [_option(name, name) for name in _LOCATIONS]


@decorators.data_provider(
    name="get_priority_levels", description="Ticket priority levels", category="ticketing", cache_ttl_seconds=3600
)
def get_priority_levels(context: OrganizationContext) -> list[dict[str, Any]]:
    """Low, Medium, High, Critical."""
    return [_option(label, value, extra) for value, label, extra in _PRIORITIES]


@decorators.data_provider(
    name="get_ticket_categories", description="IT ticket categories", category="ticketing", cache_ttl_seconds=3600
)
def get_ticket_categories(context: OrganizationContext) -> list[dict[str, Any]]:
    """Usual categories; config `ticket_categories` (a list of text or options) replaces them."""
    return _configured(context, "ticket_categories") or [_option(name, name) for name in _CATEGORIES]


@decorators.data_provider(
    name="get_countries", description="Countries for address forms", category="reference", cache_ttl_seconds=86400
)
def get_countries(context: OrganizationContext) -> list[dict[str, Any]]:
    """All of ISO 3166-1; the value is the two-letter code."""
    return [_option(name, code) for code, name in countries.COUNTRIES]


def list_builtin() -> list[models.DataProviderMetadata]:
    """The metadata of the built-in providers."""
    return [_metadata(function) for function in _BUILTIN.values()]


def get_builtin(name: str) -> tuple[Callable[..., Any], models.DataProviderMetadata]:
    """The function and metadata of a built-in provider.

    Raises:
        NotFound: there is none of that name.
    """
    if name not in _BUILTIN:
        raise errors.NotFound(f"there is no built-in data provider {name!r}; there are: {', '.join(_BUILTIN)}")
    return _BUILTIN[name], _metadata(_BUILTIN[name])


def _metadata(function: Callable[..., Any]) -> models.DataProviderMetadata:
    declaration = decorators.find_declaration(function)
    assert declaration is not None
    assert isinstance(declaration.metadata, models.DataProviderMetadata)
    source = models.Source(file=_SOURCE_FILE, line=declaration.metadata.source.line)
    return declaration.metadata.model_copy(update={"builtin": True, "source": source})


def _configured(context: OrganizationContext, key: str) -> list[dict[str, Any]]:
    """The options that the organization's config gives; empty when it gives none."""
    configured = context.get_config(key, default=())
    if not isinstance(configured, (list, tuple)):
        raise errors.WorkflowError(f"config {key!r} must be a JSON list of text or of {{label, value, metadata}}")
    return [entry if isinstance(entry, dict) else _option(str(entry), entry) for entry in configured]


def _option(label: str, value: Any, metadata: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"label": label, "value": value, "metadata": dict(metadata or {})}


def _by_name(functions: Iterable[Callable[..., Any]]) -> Mapping[str, Callable[..., Any]]:
    return {function.__name__: function for function in functions}


_BUILTIN = _by_name(
    (
        get_available_licenses,
        get_departments,
        get_office_locations,
        get_priority_levels,
        get_ticket_categories,
        get_countries,
    )
)
