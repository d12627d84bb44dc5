"""The form of a workflow as a widget: in JupyterLab `BifrostForm`, in the portal what stands behind a form.

The same ES module draws it in both. The widget passes messages between the browser and a backend; it checks nothing,
since whatever comes from a browser is checked again by the control plane.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import anywidget
import httpx
import traitlets
from comm import get_comm_manager

from bifrost_kernel import errors, extension, models
from bifrost_portal import results
from bifrost_portal.api_client import encode, idempotency

Json = dict[str, Any]

FOLLOW_SECONDS = 0.3
ASSETS = Path(__file__).parent / "static"
FORM_CSS = "\n".join((ASSETS / name).read_text("utf-8") for name in ("tokens.css", "form.css"))


class FormRefused(Exception):
    """The input was refused; `fields` as the API gives them.

    Args:
        unsure: nobody knows whether the request arrived; the same key may be sent again.
    """

    def __init__(self, message: str, fields: list[Json] | None = None, *, unsure: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields or []
        self.unsure = unsure


class Backend(Protocol):
    """What stands behind a form. Each method raises `FormRefused`."""

    def spec(self) -> Json: ...

    def options(self, field: str, values: Mapping[str, Any], *, refresh: bool) -> Json: ...

    def submit(self, values: Mapping[str, Any], key: str) -> Json: ...

    def follow(self, execution_id: str) -> Iterator[Json]:
        """`{"line": …}` for each event, then one `{"over": …}`."""
        ...


class BifrostForm(anywidget.AnyWidget):
    """A form of a workflow: `BifrostForm("hello_world")` shows it beneath the cell, and runs the workflow for real."""

    _esm = (ASSETS / "form.js").read_text("utf-8")
    _css = FORM_CSS
    spec = traitlets.Dict().tag(sync=True)

    def __init__(self, form: str | Backend, **traits: Any) -> None:
        """A form of the chosen organization, by its name.

        Raises:
            Unavailable: this is no Bifrost kernel.
            NotFound, Conflict: there is no such form, or it is broken.
        """
        backend = AuthoringBackend(form) if isinstance(form, str) else form
        super().__init__(spec=backend.spec(), **traits)
        self._backend = backend
        self.on_msg(self._answer)

    def _answer(self, _widget: Any, content: Any, _buffers: Any) -> None:
        if not isinstance(content, dict):
            return
        if isinstance(content.get("follow"), str):
            self._follow(content["follow"])
        elif content.get("ask") in ("options", "submit") and isinstance(content.get("id"), str):
            self.send({"id": content["id"], **self._ask(content)})

    def _ask(self, content: Json) -> Json:
        values = content.get("values")
        if not isinstance(values, dict):
            return _error(FormRefused("The form sent no values."))
        try:
            if content["ask"] == "submit":
                return {"answer": self._backend.submit(values, str(content.get("key", "")))}
            refresh = content.get("refresh") is True
            return {"answer": self._backend.options(str(content.get("field", "")), values, refresh=refresh)}
        except FormRefused as refused:
            return _error(refused)

    def _follow(self, execution_id: str) -> None:
        """Tell the browser what happens; from a thread of its own, so that the kernel stays free for the author."""
        loop = asyncio.get_event_loop()

        def tell() -> None:
            for said in self._backend.follow(execution_id):
                loop.call_soon_threadsafe(self.send, {"follow": execution_id, **said})

        threading.Thread(target=tell, name="form", daemon=True).start()


class AuthoringBackend:
    """A form in JupyterLab, for the author and the organization of the kernel's session."""

    def __init__(self, form: str) -> None:
        self._broker = extension.current_session().broker
        self._form = form

    def spec(self) -> Json:
        found: Json = self._broker.call("get_form", form=self._form)
        return {**found, "text_html": results.prose(found["text"])}

    def options(self, field: str, values: Mapping[str, Any], *, refresh: bool) -> Json:
        return self._ask("ask_options", field=field, values=dict(values), refresh=refresh)

    def submit(self, values: Mapping[str, Any], key: str) -> Json:
        return self._ask("submit_form", values=dict(values), key=key)

    def follow(self, execution_id: str) -> Iterator[Json]:
        after = 0
        while True:
            seen: Json = self._broker.call("follow", execution_id=execution_id, after=after)
            for event in seen["events"]:
                after = event["seq"]
                if line := _line(event):
                    yield {"line": line}
            if models.ExecutionStatus(seen["execution"]["status"]).is_final:
                yield {"over": seen["execution"]}
                return
            time.sleep(FOLLOW_SECONDS)

    def _ask(self, op: str, **arguments: Any) -> Json:
        try:
            return dict(self._broker.call(op, form=self._form, **arguments))
        except errors.ValidationError as error:
            fields = [{"field": one.field, "code": one.code, "message": one.message} for one in error.fields]
            raise FormRefused(error.message, fields) from error
        except errors.BifrostError as error:
            raise FormRefused(error.message, unsure=isinstance(error, errors.Unavailable)) from error


class HttpBackend:
    """A form of the control plane, by HTTP, with a token that is good for this form alone."""

    def __init__(self, client: httpx.Client, form: str) -> None:
        self._client = client
        self._path = f"/api/forms/{form}"

    @classmethod
    def from_environment(cls) -> HttpBackend:
        """The one that the portal started this kernel for."""
        token, organization = os.environ.pop("BIFROST_FORM_TOKEN"), os.environ["BIFROST_ORGANIZATION"]
        client = httpx.Client(
            base_url=os.environ["BIFROST_URL"],
            headers={"Authorization": f"Bearer {token}", "X-Organization-Id": organization},
            timeout=30,
            trust_env=False,
        )
        return cls(client, os.environ["BIFROST_FORM"])

    def spec(self) -> Json:
        return self._ask("GET", self._path)

    def options(self, field: str, values: Mapping[str, Any], *, refresh: bool) -> Json:
        if not field.isidentifier():
            raise FormRefused(f"There is no field {field[:80]!r}.")
        return self._ask("POST", f"{self._path}/options/{field}", {"values": dict(values), "refresh": refresh})

    def submit(self, values: Mapping[str, Any], key: str) -> Json:
        try:
            headers = idempotency(key)
        except ValueError as error:
            raise FormRefused(str(error)) from error
        return self._ask("POST", self._path, dict(values), headers)

    def follow(self, execution_id: str) -> Iterator[Json]:
        """Nothing: the portal's page follows executions itself, with the person's own session."""
        yield from ()

    def _ask(self, method: str, path: str, body: Json | None = None, headers: Mapping[str, str] | None = None) -> Json:
        try:
            sent = {**({} if body is None else {"Content-Type": "application/json"}), **(headers or {})}
            answer = self._client.request(method, path, content=encode(body), headers=sent)
        except httpx.TransportError as error:
            raise FormRefused("The control plane cannot be reached just now. Please try again.", unsure=True) from error
        if answer.is_error:
            problem = _problem(answer)
            details = problem.get("details")
            fields = details.get("fields", []) if isinstance(details, dict) else []
            # A session that is over says nothing of the person's own: the page asks again in his name.
            unsure = answer.status_code >= 500 or answer.status_code == httpx.codes.UNAUTHORIZED
            raise FormRefused(str(problem.get("message", "That did not work.")), fields, unsure=unsure)
        return dict(answer.json())


def portal_form() -> BifrostForm:
    """What the portal's notebook shows: the form that this kernel was started for, and nothing else."""
    refuse_new_widgets()
    return BifrostForm(HttpBackend.from_environment())


def refuse_new_widgets() -> None:
    """A visitor talks to the widget that is there; making others (any class that is installed) is an author's right."""
    manager = get_comm_manager()
    opened: Callable[..., None] | None = manager.targets.get("jupyter.widget")
    if opened is not None:
        manager.unregister_target("jupyter.widget", opened)


def _line(event: Json) -> Json | None:
    if event["type"] == "log":
        return {"level": event["level"], "text": event["message"]}
    if event["type"] == "checkpoint":
        return {"level": "info", "text": f"Checkpoint {event['name']}"}
    return None


def _error(refused: FormRefused) -> Json:
    return {"error": {"message": refused.message, "fields": refused.fields, "unsure": refused.unsure}}


def _problem(answer: httpx.Response) -> Json:
    try:
        problem = answer.json()
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}
