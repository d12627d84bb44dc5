"""The FastAPI application: routers, error answers, guard, and an OpenAPI document that says what is true.

`web.serve` runs it; tests make one around services of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline

from bifrost_scheduler import __version__
from bifrost_scheduler.services import Services
from bifrost_scheduler.settings import LOOPBACK_HOSTS, Settings
from bifrost_scheduler.web import (
    authoring,
    executions,
    form_definitions,
    forms,
    organizations,
    problems,
    schedules,
    scoped,
    sessions,
    system,
    users,
    workflows,
)
from bifrost_scheduler.web.denials import Denials
from bifrost_scheduler.web.live import Looks
from bifrost_scheduler.web.middleware import Guard

ROUTERS: tuple[APIRouter, ...] = (
    workflows.router,
    executions.router,
    forms.router,
    form_definitions.router,
    organizations.router,
    scoped.router,
    schedules.router,
    authoring.router,
    users.router,
    sessions.open_router,
    sessions.router,
    system.router,
)


def create_app(services: Services) -> FastAPI:
    """The API over these services."""
    # `/docs` loads nothing from elsewhere: FastAPIOffline serves the Swagger files itself.
    app = FastAPIOffline(
        title="Bifrost",
        version=__version__,
        description="Automation for many customers.",
        redoc_url=None,
        # An address is right or unknown: a redirect would answer to ids that are empty.
        redirect_slashes=False,
    )
    app.state.services = services
    app.state.looks = Looks(services.store)
    for router in ROUTERS:
        app.include_router(router)
    problems.install(app, Denials(services.store))
    app.add_middleware(
        Guard,
        hosts=allowed_hosts(services.settings),
        body_limit_bytes=services.settings.request_body_bytes,
    )
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def allowed_hosts(settings: Settings) -> Iterable[str]:
    """The names under which this server may be addressed."""
    return {*LOOPBACK_HOSTS, settings.host.lower(), *(host.lower() for host in settings.allowed_hosts)}


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        for path in schema["paths"].values():
            for operation in path.values():
                # Refused input is a 400 here (contract §4); FastAPI documents its own default besides.
                operation.get("responses", {}).pop("422", None)
        for unused in ("HTTPValidationError", "ValidationError"):
            schema.get("components", {}).get("schemas", {}).pop(unused, None)
        app.openapi_schema = schema
    return app.openapi_schema
