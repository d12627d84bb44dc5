"""Authoring sessions: the broker's door for JupyterLab kernels, on a Unix socket in a private folder.

`web` opens a session for an author who showed a credential; the kernel connects with the session's token. What a
session reads is authorized and audited as in an execution; what it writes (logs, checkpoints) is not kept.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
import socket
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bifrost_kernel import errors, frames, models
from bifrost_scheduler import identity, signals
from bifrost_scheduler.broker import EXECUTION_OPERATIONS, Arguments, BrokerParts, Door, Operation
from bifrost_scheduler.catalog import Catalog
from bifrost_scheduler.envelopes import envelope
from bifrost_scheduler.executions import Executions
from bifrost_scheduler.form_desk import FormDesk
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.store import contract
from bifrost_scheduler.tokens import Grant

MAX_SESSIONS = 200


@dataclass
class Session:
    """One kernel of one author; `organization` is the one that it works for now."""

    principal: Principal
    organization: str


class Authoring:
    """Opens sessions and serves their connections, one thread each."""

    def __init__(
        self,
        *,
        parts: BrokerParts,
        executions: Executions,
        forms: FormDesk,
        catalog: Catalog,
        folder_prefix: str,
    ) -> None:
        self.parts = parts
        self.executions = executions
        self.forms = forms
        self.catalog = catalog
        self._folder_prefix = folder_prefix
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._folder: Path | None = None

    @property
    def path(self) -> Path:
        """Where kernels connect; a short path, since an address of a Unix socket has 108 bytes at most."""
        if self._folder is None:
            raise errors.Unavailable("The control plane is not started.")
        return self._folder / "broker"

    def start(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix=self._folder_prefix))
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._folder / "broker"))
        self._listener.listen(64)
        threading.Thread(target=self._accept, args=(self._listener,), name="authoring", daemon=True).start()

    def stop(self) -> None:
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def open(self, principal: Principal, organization: str | None) -> tuple[Session, str]:
        """A session and its token.

        Raises:
            NotFound: the organization is unknown or foreign.
            Forbidden: only PlatformAdmins author (they run code directly).
            TooManyRequests: too many sessions are open.
        """
        if not principal.platform_admin:
            raise errors.Forbidden("Only PlatformAdmins author workflows in JupyterLab.")
        wanted = organization or self._first_organization()
        self.executions.get_organization(principal, wanted)
        token = secrets.token_urlsafe(32)
        session = Session(principal, wanted)
        with self._lock:
            if len(self._sessions) >= MAX_SESSIONS:
                # The oldest gives way: a kernel that ended without a word leaves its session behind.
                del self._sessions[next(iter(self._sessions))]
            self._sessions[_digest(token)] = session
        return session, token

    def find(self, token: object) -> Session | None:
        with self._lock:
            return self._sessions.get(_digest(token)) if isinstance(token, str) else None

    def _first_organization(self) -> str:
        organizations = self.parts.store.list_organizations(limit=200)
        active = (organization.id for organization in organizations if organization.active)
        return next(active, models.GLOBAL)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), name="authoring-kernel", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                hello = frames.receive(connection) or {}
                session = self.find(hello.get("token")) if hello.get("op") == "hello" else None
                if session is None:
                    return
                frames.send(connection, {"id": hello.get("id"), "ok": None})
            except (frames.FrameError, OSError):
                return
            AuthoringDoor(self, session).converse(connection)


class AuthoringDoor(Door):
    """A door that also shows and runs workflows, with the permissions of its author."""

    def __init__(self, authoring: Authoring, session: Session) -> None:
        subject = _subject(session)
        super().__init__(authoring.parts, subject)
        self._authoring = authoring
        self._session = session

    def operations(self) -> Mapping[str, Operation]:
        return AUTHORING_OPERATIONS

    def session(self, arguments: Arguments) -> dict[str, Any]:
        organization = self._authoring.executions.get_organization(self._session.principal, self._session.organization)
        return {
            "organization": organization.model_dump(),
            "caller": self._session.principal.caller.model_dump(),
            "workspace": str(self._authoring.catalog.workspace),
        }

    def use_organization(self, arguments: Arguments) -> dict[str, Any]:
        wanted = arguments.get("organization")
        if not isinstance(wanted, str):
            raise errors.ValidationError("The argument 'organization' has to be an organization's id.")
        self._authoring.executions.get_organization(self._session.principal, wanted)
        self._session.organization = wanted
        self.subject = _subject(self._session)
        return self.session({})

    def list_workflows(self, arguments: Arguments) -> dict[str, Any]:
        description = self._authoring.catalog.current().description
        return {
            "workflows": [workflow.model_dump(mode="json") for workflow in description.workflows],
            "broken": [broken.model_dump(mode="json") for broken in description.broken],
        }

    def list_executions(self, arguments: Arguments) -> list[dict[str, Any]]:
        limit = arguments.get("limit", 20)
        if not isinstance(limit, int) or not 1 <= limit <= 200:
            raise errors.ValidationError("The argument 'limit' is a number from 1 to 200.")
        identity.authorize(self._session.principal, models.Permission.VIEW_HISTORY, self._session.organization)
        wanted = contract.ExecutionFilter(organizations=(self._session.organization,), limit=limit)
        return [envelope(execution).model_dump(mode="json") for execution in self._parts.store.list_executions(wanted)]

    def run(self, arguments: Arguments) -> dict[str, Any]:
        workflow, parameters = arguments.get("workflow"), arguments.get("parameters", {})
        if not isinstance(workflow, str) or not isinstance(parameters, dict):
            raise errors.ValidationError("Name the workflow, and its parameters as an object.")
        submitted = self._authoring.executions.submit(
            self._session.principal,
            organization=self._session.organization,
            workflow=workflow,
            parameters=parameters,
            trigger=models.Trigger.NOTEBOOK,
        )
        return envelope(self._wait(submitted.execution)).model_dump(mode="json")

    def get_form(self, arguments: Arguments) -> dict[str, Any]:
        form = self._authoring.forms.show(self._session.principal, self._session.organization, _text(arguments, "form"))
        return form.model_dump(mode="json", by_alias=True)

    def ask_options(self, arguments: Arguments) -> dict[str, Any]:
        cached = self._authoring.forms.options(
            self._session.principal,
            self._session.organization,
            _text(arguments, "form"),
            _text(arguments, "field"),
            _object(arguments, "values"),
            refresh=arguments.get("refresh") is True,
        )
        return {
            "items": [one.model_dump(mode="json") for one in cached.options],
            "cached_at": cached.cached_at.isoformat(),
        }

    def submit_form(self, arguments: Arguments) -> dict[str, Any]:
        submitted = self._authoring.forms.submit(
            self._session.principal,
            self._session.organization,
            _text(arguments, "form"),
            _object(arguments, "values"),
            idempotency_key=_text(arguments, "key"),
        )
        return envelope(submitted.execution).model_dump(mode="json")

    def follow(self, arguments: Arguments) -> dict[str, Any]:
        after = arguments.get("after", 0)
        if not isinstance(after, int):
            raise errors.ValidationError("The argument 'after' is the number of an event.")
        # The status first: what is over has all its events when they are listed.
        execution = self._authoring.executions.get(self._session.principal, _text(arguments, "execution_id"))
        events = self._parts.store.list_events(execution.id, after=after)
        shown = envelope(execution).model_dump(mode="json")
        return {"execution": shown, "events": [event.flat() for event in events]}

    def _wait(self, execution: contract.Execution) -> contract.Execution:
        ended = threading.Event()
        with self._parts.signals.subscribed(signals.over(execution.id), lambda _: ended.set()):
            current = self._authoring.executions.reload(execution.id)
            while not current.status.is_final and current.status is not models.ExecutionStatus.AWAITING_APPROVAL:
                ended.wait(timeout=5)
                current = self._authoring.executions.reload(execution.id)
        return current


AUTHORING_OPERATIONS: Mapping[str, Operation] = {
    **EXECUTION_OPERATIONS,
    **{
        name: getattr(AuthoringDoor, name)
        for name in (
            "session",
            "use_organization",
            "list_workflows",
            "list_executions",
            "run",
            "get_form",
            "ask_options",
            "submit_form",
            "follow",
        )
    },
}


def _text(arguments: Arguments, name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str):
        raise errors.ValidationError(f"The argument {name!r} has to be text.")
    return value


def _object(arguments: Arguments, name: str) -> dict[str, Any]:
    value = arguments.get(name)
    if not isinstance(value, dict):
        raise errors.ValidationError(f"The argument {name!r} has to be an object.")
    return value


def _subject(session: Session) -> Grant:
    return Grant(
        execution_id="authoring",
        organization=session.organization,
        caller=session.principal.caller,
        name="authoring",
        fence=None,
    )


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
