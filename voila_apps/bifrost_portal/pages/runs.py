"""Executions as people see them: their history, one that runs, its result and its record, and decisions about it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

import httpx
from tornado import web
from tornado.iostream import StreamClosedError

from bifrost_portal import gate, results
from bifrost_portal.api_client import Refused, Unreachable
from bifrost_portal.pages.base import Page

RUN_ID = r"([0-9a-f-]{36})"
STATUSES = (
    "success", "completed_with_errors", "failed", "timeout", "cancelled", "crashed", "running", "pending",
    "awaiting_approval",
)  # fmt: skip
FINAL = frozenset(STATUSES[:6])
EVENTS = 500
MAX_EVENT_DIGITS = 15


class Runs(Page):
    """The history: one's own, or where it is permitted everybody's in the organization."""

    async def get(self) -> None:
        organization = self.organization
        self.remember(organization)
        wanted = {name: self.get_query_argument(name, "") for name in ("status", "workflow", "since", "until", "text")}
        all_of_them = self.get_query_argument("whose", "") == "all" and self.me.may("canViewHistory", organization.id)
        answer = await self.api.get(
            "/api/executions",
            organization=organization.id,
            org=organization.id,
            caller=None if all_of_them else "me",
            cursor=self.get_query_argument("cursor", None),
            limit=25,
            **{**wanted, "since": _instant(wanted["since"]), "until": _instant(wanted["until"], end=True)},
        )
        given = {**{name: value for name, value in wanted.items() if value}, "org": organization.id}
        if all_of_them:
            given["whose"] = "all"
        cursor = answer["next_cursor"]
        self.show(
            "runs.html",
            organization=organization,
            runs=answer["items"],
            wanted=wanted,
            whose="all" if all_of_them else "mine",
            may_see_all=self.me.may("canViewHistory", organization.id),
            statuses=STATUSES,
            older=f"/runs?{urlencode({**given, 'cursor': cursor})}" if cursor else None,
            newest=f"/runs?{urlencode(given)}" if self.get_query_argument("cursor", None) else None,
        )


class Run(Page):
    """One execution, live while it runs; reloading it, or coming back later, finds it again."""

    async def get(self, run_id: str) -> None:
        execution = await self.api.get(f"/api/executions/{run_id}")
        events = await self._events(run_id)
        inputs = await self._inputs(run_id)
        form = await self._form(execution)
        shown = {"execution": {**_shown(execution, self), **form}, "events": events, "inputs": inputs}
        if self.wants_json:
            self.send(shown)
            return
        organization = self.me.find_organization(execution["organization"])
        self.show("run.html", organization=organization, run=shown)

    async def _form(self, execution: dict[str, Any]) -> dict[str, Any]:
        """What the form calls it, and what it says when all went well; its name alone when it is there no more."""
        plain = {"title": results.title(execution["workflow_name"]), "success_text": None}
        if execution["form"] is None:
            return plain
        try:
            form = await self.api.get(f"/api/forms/{execution['form']}", organization=execution["organization"])
        except Refused:
            return plain
        return {"title": form["title"], "success_text": form["success_text"]}

    async def _events(self, run_id: str) -> list[Any]:
        page = await self.api.get(f"/api/executions/{run_id}/events", limit=EVENTS)
        return list(page["items"])

    async def _inputs(self, run_id: str) -> list[Any]:
        try:
            return list((await self.api.get(f"/api/executions/{run_id}/inputs"))["items"])
        except Refused:
            return []


class RunEvents(Page):
    """The execution's events as they come (Server-Sent Events), from where the browser has got to."""

    def initialize(self) -> None:
        self._gone = asyncio.Event()

    def on_connection_close(self) -> None:
        """The browser has left, which a silent execution would not show."""
        self._gone.set()

    async def get(self, run_id: str) -> None:
        last = self.request.headers.get("Last-Event-ID") or self.get_query_argument("after", "0")
        headers = {"Accept": "text/event-stream", "Last-Event-ID": last if _is_event_id(last) else "0"}
        with self.portal.streams.one_more(self.me.email):
            await self._follow(run_id, headers)

    async def _follow(self, run_id: str, headers: dict[str, str]) -> None:
        async with self.api.stream(f"/api/executions/{run_id}/events", headers=headers) as pieces:
            self.set_header("Content-Type", "text/event-stream")
            self.set_header("X-Accel-Buffering", "no")
            await self.flush()
            reasons = (self._pass_on(pieces), self._until_session_ends(), self._gone.wait())
            ends = {asyncio.ensure_future(reason) for reason in reasons}
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in ends:
                    task.cancel()

    async def _pass_on(self, pieces: AsyncIterator[bytes]) -> None:
        with contextlib.suppress(StreamClosedError, httpx.TransportError):
            async for piece in pieces:
                self.write(piece)
                await self.flush()

    async def _until_session_ends(self) -> None:
        """A stream is open for long: it must not outlive the session that opened it."""
        with contextlib.suppress(Unreachable, Refused):
            while True:
                await asyncio.sleep(self.portal.settings.session_check_seconds)
                if await self.portal.visitors.check(self.me.token) is None:
                    return


class RunAct(Page):
    """Cancel, re-run, approve or reject."""

    ACTS = frozenset({"cancel", "rerun", "approve", "reject"})

    async def post(self, run_id: str, act: str) -> None:
        if act not in self.ACTS:
            raise web.HTTPError(404)
        headers = {"Prefer": "respond-async"} if act == "rerun" else {}
        answer = await self.api.post(f"/api/executions/{run_id}/{act}", **headers)
        if self.wants_json:
            self.send(answer)
            return
        self.redirect(f"/runs/{answer['execution_id'] if act == 'rerun' else run_id}", status=303)


class Record(Page):
    """The sealed notebook: as a page that can do nothing, or as the file itself."""

    POLICY = gate.SANDBOXED_POLICY

    async def get(self, run_id: str, form: str) -> None:
        accept = "application/x-ipynb+json" if form == ".ipynb" else "text/html"
        answer = await self.api.respond("GET", f"/api/executions/{run_id}/notebook", headers={"Accept": accept})
        self.set_header("Content-Type", answer.headers["content-type"])
        if form == ".ipynb":
            self.set_header("Content-Disposition", f'attachment; filename="{run_id}.ipynb"')
        else:
            self.set_header("X-Frame-Options", "SAMEORIGIN")
        self.finish(answer.content)


class Result(Page):
    """The result as a file, or as a document for the sandboxed frame of the execution's page."""

    POLICY = gate.SANDBOXED_POLICY

    async def get(self, run_id: str, form: str) -> None:
        result = (await self.api.get(f"/api/executions/{run_id}"))["result"]
        if form == "html":
            self._document(result)
        elif form == "file":
            self._file(result)
        elif form == "csv":
            self._csv(result, run_id)
        else:
            self.attach(f"{run_id}.json", "application/json", json.dumps(result, indent=2, ensure_ascii=False).encode())

    def _document(self, result: Any) -> None:
        document = results.find_html(result)
        if document is None:
            raise web.HTTPError(404)
        self.set_header("X-Frame-Options", "SAMEORIGIN")
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(document)

    def _file(self, result: Any) -> None:
        found = results.find_file(result)
        if found is None:
            raise web.HTTPError(404)
        self.attach(found[0], "application/octet-stream", found[1])

    def _csv(self, result: Any, run_id: str) -> None:
        table = self.get_query_argument("field", None)
        rows = result.get(table) if table is not None and isinstance(result, dict) else result
        if not results.is_table(rows):
            raise web.HTTPError(404)
        self.attach(f"{run_id}.csv", "text/csv; charset=utf-8", results.to_csv(rows).encode("utf-8-sig"))

    def attach(self, name: str, type_: str, content: bytes) -> None:
        self.set_header("Content-Type", type_)
        # RFC 6266: the name in any script, percent-encoded.
        self.set_header("Content-Disposition", f"attachment; filename*=UTF-8''{quote(name, safe='')}")
        self.finish(content)


class Approvals(Page):
    """What waits for somebody's decision."""

    async def get(self) -> None:
        organization = self.organization
        if not self.me.may("canApproveExecutions", organization.id):
            raise web.HTTPError(403)
        waiting = await self.api.get(
            "/api/executions", organization=organization.id, org=organization.id, status="awaiting_approval", limit=50
        )
        self.show("approvals.html", organization=organization, runs=waiting["items"])


def _shown(execution: dict[str, Any], page: Page) -> dict[str, Any]:
    """The execution with what its page offers; whether an offer holds is decided where it is taken up."""
    organization, status = execution["organization"], execution["status"]
    mine = execution["caller"].get("email") == page.me.email
    over = status in FINAL
    return {
        **{name: value for name, value in execution.items() if name != "result"},
        "view": results.view(execution["result"]) if over else None,
        "over": over,
        "mine": mine,
        "may": {
            "cancel": not over and page.me.may("canExecuteWorkflows", organization),
            "rerun": over and page.me.may("canExecuteWorkflows", organization),
            "decide": status == "awaiting_approval" and not mine and page.me.may("canApproveExecutions", organization),
            "record": execution["record_sha256"] is not None and page.me.may("canViewHistory", organization),
        },
    }


def _is_event_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= MAX_EVENT_DIGITS


def _instant(day: str, *, end: bool = False) -> str | None:
    """The beginning or the end of a day (UTC) as the API wants it. Raises `HTTPError` 400."""
    if not day:
        return None
    try:
        date = datetime.strptime(day, "%Y-%m-%d").date()  # noqa: DTZ007
    except ValueError as error:
        raise web.HTTPError(400, f"{day!r} is no date.") from error
    return f"{date.isoformat()}T{'23:59:59.999999' if end else '00:00:00'}Z"
