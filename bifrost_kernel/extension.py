"""The IPython extension of authors: `context` in the namespace and `%bifrost …`.

The "Bifrost (Python 3)" kernel loads it before the first cell; elsewhere `%load_ext bifrost_kernel` does. It speaks to
the control plane through the broker alone, and never stops a notebook from running when there is none: it says why.
"""

from __future__ import annotations

import asyncio
import html
import json
import os
import shlex
import sys
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, NamedTuple

from IPython import get_ipython
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class

from bifrost_kernel import broker_client, context, errors, models, provisioner, registry

USAGE = """%bifrost                          this session: organization, author, workspace
%bifrost org [ID]                 show or choose the organization of `context`
%bifrost workflows                what the workspace offers, and what is broken there
%bifrost run NAME key=value …     run a workflow as an execution, with its record
%bifrost executions [N]           the newest executions of this organization"""


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Called by IPython."""
    registry.install_engine_aliases()
    try:
        session = _connect()
    except errors.BifrostError as error:
        print(f"Bifrost: {error.message} `context` is not available.", file=sys.stderr)  # noqa: T201
        return
    shell.register_magics(BifrostMagics(shell, session))
    session.adopt(shell)


def current_session() -> Session:
    """The authoring session of the kernel that this runs in, for widgets.

    Raises:
        Unavailable: this is no Bifrost kernel, and the extension is not loaded.
    """
    shell = get_ipython()
    magics = shell.magics_manager.registry.get("BifrostMagics") if shell is not None else None
    if not isinstance(magics, BifrostMagics):
        raise errors.Unavailable('This needs the kernel "Bifrost (Python 3)", or `%load_ext bifrost_kernel` before it.')
    return magics.session


class Session:
    """The kernel's authoring session: one organization at a time."""

    def __init__(self, broker: broker_client.BrokerClient) -> None:
        self.broker = broker
        self.state: dict[str, Any] = broker.call("session")

    def use(self, organization: str) -> None:
        self.state = self.broker.call("use_organization", organization=organization)

    def adopt(self, shell: InteractiveShell) -> None:
        """Put the `context` of the chosen organization into the notebook's namespace, and the workspace on its path."""
        shell.user_ns["context"] = self.make_context()
        shell.user_ns_hidden["context"] = None
        if self.state["workspace"] not in sys.path:
            sys.path.append(self.state["workspace"])

    def make_context(self) -> context.OrganizationContext:
        return context.OrganizationContext(
            Echo(self.broker),
            organization=models.OrganizationInfo.model_validate(self.state["organization"]),
            caller=models.Caller.model_validate(self.state["caller"]),
            execution_id="authoring",
            authoring=True,
        )


class Echo:
    """A broker that shows beneath the cell what an execution would write to its history."""

    def __init__(self, broker: broker_client.BrokerClient) -> None:
        self._broker = broker

    def call(self, op: str, **arguments: Any) -> Any:
        answer = self._broker.call(op, **arguments)
        if line := _history_line(op, arguments):
            print(line)  # noqa: T201
        return answer


def _history_line(op: str, arguments: dict[str, Any]) -> str | None:
    match op, arguments:
        case "log", {"level": level, "message": message, "data": data}:
            return f"{level:<8} {message}" if data is None else f"{level:<8} {message}  {_text(data)}"
        case "checkpoint", {"name": name, "data": data}:
            return f"checkpoint {name}  {_text(data)}"
        case "progress", {"done": done, "total": total, "text": text}:
            return f"progress {_text(done)}/{_text(total)} {_text(text)}".rstrip()
    return None


class Table(NamedTuple):
    """Rows that read well in a notebook and in a terminal."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""

    def __repr__(self) -> str:
        cells = [tuple(self.columns), *(tuple(_text(value) for value in row) for row in self.rows)]
        widths = [max(len(row[index]) for row in cells) for index in range(len(self.columns))]
        lines = ["  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)) for row in cells]
        return "\n".join([*(line.rstrip() for line in lines), *([self.note] if self.note else [])])

    def _repr_html_(self) -> str:
        head = "".join(f"<th scope='col' style='text-align:left'>{html.escape(column)}</th>" for column in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td style='text-align:left'>{html.escape(_text(value))}</td>" for value in row) + "</tr>"
            for row in self.rows
        )
        note = f"<p>{html.escape(self.note)}</p>" if self.note else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


@magics_class
class BifrostMagics(Magics):
    """`%bifrost`."""

    def __init__(self, shell: InteractiveShell, session: Session) -> None:
        super().__init__(shell)
        self._shell = shell
        self.session = session

    @line_magic
    def bifrost(self, line: str) -> Any:
        """See `%bifrost help`."""
        word, *rest = shlex.split(line) or ["session"]
        commands: dict[str, Callable[[list[str]], Any]] = {
            "session": self._show_session,
            "org": self._organization,
            "workflows": self._workflows,
            "run": self._run,
            "executions": self._executions,
            "help": lambda rest: print(USAGE),  # noqa: T201
        }
        if word not in commands:
            raise UsageError(f"%bifrost knows no {word!r}:\n{USAGE}")
        try:
            return commands[word](rest)
        except errors.ValidationError as error:
            fields = "".join(f"\n  {field['field']}: {field['message']}" for field in _fields(error))
            raise UsageError(f"{error.message}{fields}") from None
        except errors.BifrostError as error:
            raise UsageError(error.message) from None

    def _show_session(self, rest: list[str]) -> Table:
        organization, caller = self.session.state["organization"], self.session.state["caller"]
        return Table(
            ["Organization", "Author", "Workspace"],
            [
                [
                    f"{organization['name']} ({organization['id']})",
                    caller["email"] or caller["name"] or caller["subject"],
                    self.session.state["workspace"],
                ]
            ],
        )

    def _organization(self, rest: list[str]) -> Table:
        if rest:
            self.session.use(rest[0])
            self.session.adopt(self._shell)
        return self._show_session([])

    def _workflows(self, rest: list[str]) -> Table:
        listed = self.session.broker.call("list_workflows")
        columns = ("name", "category", "execution_mode", "description")
        rows = [[row[column] for column in columns] for row in listed["workflows"]]
        broken = [
            [row["name"] or "–", "broken", f"{row['source']['file']}:{row['source']['line']}", row["reason"]]
            for row in listed["broken"]
        ]
        return Table(["Name", "Category", "Mode", "Description"], rows + broken)

    def _executions(self, rest: list[str]) -> Table:
        limit = int(rest[0]) if rest and rest[0].isdecimal() else 20
        rows = self.session.broker.call("list_executions", limit=limit)
        cells = [
            [row["execution_id"], row["workflow_name"], row["status"], row["duration_ms"], row["created_at"]]
            for row in rows
        ]
        return Table(["Execution", "Workflow", "Status", "Took (ms)", "Submitted"], cells)

    def _run(self, rest: list[str]) -> Any:
        if not rest:
            raise UsageError("Name a workflow: %bifrost run NAME key=value …")
        envelope = self.session.broker.call("run", workflow=rest[0], parameters=_inputs(rest[1:], self._shell.user_ns))
        if envelope["status"] in ("success", "completed_with_errors"):
            print(f"{envelope['status']} in {envelope['duration_ms']} ms: {envelope['execution_id']}")  # noqa: T201
            return envelope["result"]
        detail = f": {envelope['error_type']}: {envelope['error']}" if envelope["error"] else ""
        raise UsageError(f"The execution {envelope['execution_id']} is {envelope['status']}{detail}")


def _inputs(pairs: Iterable[str], namespace: dict[str, Any]) -> dict[str, Any]:
    """`key=value` texts; `key=$name` takes the value of a variable of the notebook."""
    inputs: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise UsageError(f"{pair!r} is not key=value")
        inputs[key] = namespace[value[1:]] if value.startswith("$") and value[1:] in namespace else value
    return inputs


def _connect() -> Session:
    """The session that the provisioner opened, or one of our own in a stock kernel.

    Raises:
        BifrostError: there is no control plane to speak to; the text says why.
    """
    environment = os.environ
    if reason := environment.get("BIFROST_REASON"):
        raise errors.Unavailable(reason)
    path, token = environment.get("BIFROST_BROKER"), environment.pop("BIFROST_TOKEN", None)
    if path and token:
        return Session(broker_client.connect_unix(path, token))
    url, key = environment.get("BIFROST_URL"), environment.get("BIFROST_API_KEY")
    if not url or not key:
        raise errors.Unavailable("BIFROST_URL and BIFROST_API_KEY are not set where this kernel was started.")
    opened = _wait(provisioner.open_session(url, key, environment.get("BIFROST_ORGANIZATION")))
    return Session(broker_client.connect_unix(opened["socket"], opened["token"]))


def _wait(coroutine: Coroutine[Any, Any, dict[str, str]]) -> dict[str, str]:
    """Run to the end although the kernel's own loop runs in this thread already."""
    results: list[dict[str, str] | errors.BifrostError] = []

    def work() -> None:
        try:
            results.append(asyncio.run(coroutine))
        except errors.BifrostError as error:
            results.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(results[0], errors.BifrostError):
        raise results[0]
    return results[0]


def _fields(error: errors.BifrostError) -> list[dict[str, str]]:
    details = error.details
    return details.get("fields", []) if isinstance(details, dict) else []


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
