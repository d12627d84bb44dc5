"""`bifrost executions …`: the history, and what can be done about an execution."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from bifrost_scheduler.cli.client import Client, address
from bifrost_scheduler.cli.options import AsJson, Organization
from bifrost_scheduler.cli.output import cell, console, print_fields, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="The history of executions.")

ExecutionId = Annotated[str, typer.Argument(help="The execution's id.")]


@app.command("list")
def list_executions(
    org: Organization = None,
    workflow: Annotated[str | None, typer.Option("--workflow")] = None,
    status: Annotated[str | None, typer.Option("--status")] = None,
    text: Annotated[str | None, typer.Option("--text", help="Part of workflow, error or inputs.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1)] = 20,
    as_json: AsJson = False,
) -> None:
    """The newest executions."""
    query = {"workflow": workflow, "status": status, "text": text}
    rows = list(Client(org).items("/api/executions", limit, query))
    if as_json:
        print_json(rows)
        return
    cells = [
        [
            row["execution_id"],
            row["organization"],
            row["workflow_name"],
            row["status"],
            _milliseconds(row["duration_ms"]),
            row["created_at"],
        ]
        for row in rows
    ]
    print_table(["Id", "Organization", "Workflow", "Status", "Took", "Submitted"], cells, empty="Nothing ran yet.")


@app.command()
def show(execution_id: ExecutionId, as_json: AsJson = False) -> None:
    """One execution with its events."""
    client = Client()
    envelope = client.call("GET", address("api", "executions", execution_id)).json()
    events = list(client.items(address("api", "executions", execution_id, "events")))
    if as_json:
        print_json({**envelope, "events": events})
        return
    print_execution(envelope)
    print_events(events)


@app.command()
def logs(
    execution_id: ExecutionId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay until it is over.")] = False,
    as_json: AsJson = False,
) -> None:
    """The events of an execution."""
    client = Client()
    if follow:
        for line in client.stream(address("api", "executions", execution_id, "events")):
            print_event(json.loads(line))
        return
    events = list(client.items(address("api", "executions", execution_id, "events")))
    print_json(events) if as_json else print_events(events)


@app.command()
def cancel(execution_id: ExecutionId, as_json: AsJson = False) -> None:
    """End an execution."""
    _act(execution_id, "cancel", as_json)


@app.command()
def approve(execution_id: ExecutionId, as_json: AsJson = False) -> None:
    """Let an execution run that waits for an approval."""
    _act(execution_id, "approve", as_json)


@app.command()
def reject(execution_id: ExecutionId, as_json: AsJson = False) -> None:
    """End an execution that waits for an approval."""
    _act(execution_id, "reject", as_json)


@app.command()
def rerun(execution_id: ExecutionId, as_json: AsJson = False) -> None:
    """Run it again with the same inputs and the code of now."""
    response = Client().call(
        "POST", address("api", "executions", execution_id, "rerun"), headers={"Prefer": "return=representation"}
    )
    print_json(response.json()) if as_json else print_execution(response.json())


@app.command()
def notebook(
    execution_id: ExecutionId,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file; - is standard output.")] = None,
    html: Annotated[bool, typer.Option("--html", help="As a page instead of a notebook.")] = False,
) -> None:
    """Save the record of an execution."""
    accept = "text/html" if html else "application/x-ipynb+json"
    record = (
        Client().call("GET", address("api", "executions", execution_id, "notebook"), headers={"Accept": accept}).content
    )
    target = output or Path(f"{execution_id}.{'html' if html else 'ipynb'}")
    if str(target) == "-":
        typer.echo(record.decode())
        return
    target.write_bytes(record)
    typer.echo(str(target))


def _act(execution_id: str, act: str, as_json: bool) -> None:
    envelope = Client().call("POST", address("api", "executions", execution_id, act)).json()
    print_json(envelope) if as_json else print_execution(envelope)


def print_execution(envelope: dict[str, Any]) -> None:
    """An execution for people: what a person asks first stands first."""
    print_fields(
        {
            "Execution": envelope["execution_id"],
            "Workflow": envelope["workflow_name"],
            "Organization": envelope["organization"],
            "Status": envelope["status"],
            "Caller": envelope["caller"]["email"] or envelope["caller"]["name"] or envelope["caller"]["subject"],
            "Trigger": envelope["trigger"],
            "Started": envelope["started_at"],
            "Took": _milliseconds(envelope["duration_ms"]),
            "Error": envelope["error"] and f"{envelope['error_type']}: {envelope['error']}",
            "Result": envelope["result"],
        }
    )


def print_events(events: list[dict[str, Any]]) -> None:
    typer.echo("")
    for event in events:
        print_event(event)


def print_event(event: dict[str, Any]) -> None:
    """One line: time, kind, what."""
    console().print(cell(f"{event['at'][11:23]}  {event['type']:<15} {_what(event)}"), soft_wrap=True)


def _what(event: dict[str, Any]) -> str:
    match event["type"]:
        case "log":
            data = "" if event["data"] is None else f"  {json.dumps(event['data'], ensure_ascii=False)}"
            return f"{event['level']:<8} {event['message']}{data}"
        case "checkpoint":
            return f"{event['name']}  {json.dumps(event['data'], ensure_ascii=False)}"
        case "variable" | "step":
            return f"{event['name']} = {json.dumps(event['value'], ensure_ascii=False)}"
        case "status":
            return str(event["status"])
        case _:
            rest = {name: value for name, value in event.items() if name not in ("seq", "at", "type", "hmac")}
            return json.dumps(rest, ensure_ascii=False)


def _milliseconds(duration: int | None) -> str | None:
    return None if duration is None else f"{duration} ms"
