"""The workflows that a visitor may use, and the form of each: the page is there at once, the kernel comes behind it."""

from __future__ import annotations

import re
from typing import Any

import structlog
from tornado import web
from tornado.iostream import StreamClosedError
from voila.tornado.handler import TornadoVoilaHandler

from bifrost_portal import gate, kernels, results
from bifrost_portal.api_client import ControlPlane, Refused, Unreachable, idempotency
from bifrost_portal.pages.base import Page
from bifrost_portal.visitors import Organization

log = structlog.get_logger("bifrost.portal")

FORM_NAME = r"([a-z][a-z0-9_]{0,63})"
RECENT = 5
PAGE_LIMIT = 200
NOTEBOOK = "portal.ipynb"


class Workflows(Page):
    """Home: what one may do, by category, and what one did last."""

    async def get(self) -> None:
        organization = self.organization
        self.remember(organization)
        forms = await _all_forms(self.api, organization)
        recent = await self.api.get(
            "/api/executions", organization=organization.id, org=organization.id, caller="me", limit=RECENT
        )
        self.show(
            "workflows.html",
            organization=organization,
            categories=_by_category(forms),
            recent=recent["items"],
            titles={form["name"]: form["title"] for form in forms},
        )


class FormPage(Page):
    """One form. Its HTML goes out before a kernel is thought of; Voila's part follows on the same answer."""

    POLICY = gate.KERNEL_PAGE_POLICY

    async def get(self, name: str) -> None:
        organization = self.organization
        self.remember(organization)
        form = await self.api.get(f"/api/forms/{name}", organization=organization.id)
        form["text_html"] = results.prose(form["text"] or "")
        prefill = {key: self.get_query_argument(key) for key in form["prefill"] if key in self.request.query_arguments}
        again = self.get_query_argument("again", None)
        if again and re.fullmatch(r"[0-9a-f-]{36}", again):
            prefill = {**await _inputs_of(self.api, again), **prefill}
        self.write(self.html("form.html", organization=organization, form=form, prefill=prefill))
        await self.flush()
        order = await self.order_kernel(organization, name)
        if order is not None:
            await self.write_kernel_part(order)
        self.finish("</body></html>")

    async def write_kernel_part(self, order: kernels.Order) -> None:
        """Voila's part; whatever happens to it, the form stays and works."""
        manager = self.settings["kernel_manager"]
        try:
            async for piece in VoilaPart(self).pieces():
                self.write(piece)
                await self.flush()
        except (web.HTTPError, StreamClosedError):
            return
        except Exception:
            log.warning("portal.kernel_failed", path=self.request.path, exc_info=True)
            if order.kernel_id is not None:
                await manager.end(order.kernel_id)
        finally:
            if order.kernel_id is not None:
                manager.hand_over(order.kernel_id)

    async def order_kernel(self, organization: Organization, name: str) -> kernels.Order | None:
        """Order a kernel for this form, if there is room for one; the form works without, too."""
        if not self.settings["kernel_manager"].has_room(self.me):
            return None
        try:
            session = await self.api.post("/api/form-sessions", {"form": name}, organization=organization.id)
        except (Refused, Unreachable):
            return None
        environment = {
            "BIFROST_URL": self.portal.settings.control_plane,
            "BIFROST_FORM": name,
            "BIFROST_ORGANIZATION": organization.id,
            "BIFROST_FORM_TOKEN": session["token"],
        }
        order = kernels.Order(self.me, environment)
        kernels.ordered.set(order)
        return order

    async def post(self, name: str) -> None:
        """Submit it: the same request that the kernel makes, for forms that have none behind them."""
        try:
            headers = idempotency(self.request.headers.get("Idempotency-Key"))
        except ValueError as error:
            raise web.HTTPError(400, str(error)) from error
        answer = await self.api.post(
            f"/api/forms/{name}", self.read_json(), organization=self.organization.id, **headers
        )
        self.send(answer, status=202)


class VoilaPart:
    """Voila's part of a form's page: it starts the kernel, runs the one cell, and connects the browser to it."""

    def __init__(self, page: FormPage) -> None:
        self._page = page

    async def pieces(self) -> Any:
        page = self._page
        voila = TornadoVoilaHandler(page.application, page.request, **page.settings["voila_handler"])
        voila.current_user = page.me
        async for piece in voila.get_generator(path=None):
            yield piece


class FormOptions(Page):
    async def post(self, name: str, field: str) -> None:
        path = f"/api/forms/{name}/options/{field}"
        self.send(await self.api.post(path, self.read_json(), organization=self.organization.id))


class FormDraft(Page):
    """What somebody has filled in so far."""

    async def get(self, name: str) -> None:
        self.send(await self._ask("GET", name))

    async def put(self, name: str) -> None:
        await self._ask("PUT", name, self.read_json())
        self.send({})

    async def delete(self, name: str) -> None:
        await self._ask("DELETE", name)
        self.send({})

    async def _ask(self, method: str, name: str, body: Any = None) -> Any:
        return await self.api.ask(method, f"/api/forms/{name}/draft", body=body, organization=self.organization.id)


class Leave(Page):
    """Voila's front end says that its page is closed: nobody needs the kernel any more."""

    def check_xsrf_cookie(self) -> None:
        """A browser's farewell carries no token; its origin is checked, and it only ends one's own kernel."""

    async def post(self, kernel_id: str) -> None:
        manager = self.settings["kernel_manager"]
        if not manager.owns(self.me, kernel_id):
            raise web.HTTPError(404)
        await manager.end(kernel_id)
        self.set_status(204)


async def _all_forms(api: ControlPlane, organization: Organization) -> list[dict[str, Any]]:
    forms: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = await api.get("/api/forms", organization=organization.id, limit=PAGE_LIMIT, cursor=cursor)
        forms += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return forms


def _by_category(forms: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The forms by title, under their categories as people read them: `user_management` is "User management"."""
    categories: dict[str, tuple[str, list[dict[str, Any]]]] = {}
    for form in sorted(forms, key=lambda form: form["title"].casefold()):
        name = results.readable(form["category"])
        categories.setdefault(name.casefold(), (name, []))[1].append(form)
    return [categories[key] for key in sorted(categories)]


async def _inputs_of(api: ControlPlane, execution_id: str) -> dict[str, Any]:
    """What an earlier execution was given, to start from."""
    try:
        answer = await api.get(f"/api/executions/{execution_id}/inputs")
    except Refused:
        return {}
    return {item["name"]: item["value"] for item in answer["items"] if item["value"] is not None}
