"""`bifrost schedules …`: what is to run when, and what became of every due time.

`next` computes by itself and needs no control plane; the other commands are calls of the HTTP API.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any

import typer

from bifrost_scheduler.cli import client as clients
from bifrost_scheduler.cli import executions
from bifrost_scheduler.cli.client import Client, address
from bifrost_scheduler.cli.options import AsJson, GlobalScope, Organization, scope_of
from bifrost_scheduler.cli.output import print_fields, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Schedules: what is to run when, and what became of it.")

Name = Annotated[str, typer.Argument(help="The schedule.")]


@app.command("next")
def next_times(
    expression: Annotated[str, typer.Argument(metavar="CRON", help='Five cron fields, e.g. "0 9 * * 1".')],
    timezone: Annotated[str, typer.Option("--timezone", help="An IANA name, e.g. Europe/Zagreb.")] = "UTC",
    start: Annotated[str | None, typer.Option("--from", help="An ISO instant with its zone; now without it.")] = None,
    count: Annotated[int, typer.Option("--count", min=1, max=1000)] = 5,
    as_json: AsJson = False,
) -> None:
    """When a cron expression comes due next; needs no control plane."""
    # Deferred: the authors' package takes longer to import than the other commands take to run.
    from bifrost_kernel import cron, errors  # noqa: PLC0415

    try:
        fields, zone = cron.parse(expression), cron.get_zone(timezone)
    except errors.ValidationError as error:
        clients.fail(error.message, clients.USAGE)
    found = list(islice(fields.due_after(_instant(start), zone), count))
    if as_json:
        print_json([due.isoformat().replace("+00:00", "Z") for due in found])
        return
    typer.echo(f"{fields.describe()}, {timezone}")
    for due in found:
        typer.echo(f"{due.astimezone(zone):%a %Y-%m-%d %H:%M %z}   {due:%Y-%m-%d %H:%M}Z")


def _instant(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None or not 1971 <= instant.year <= 9000:
        clients.fail(f"{text!r} is no instant with its zone, e.g. 2026-03-01T09:00:00Z", clients.USAGE)
    return instant


@app.command("list")
def list_schedules(org: Organization = None, as_json: AsJson = False) -> None:
    """The schedules with their next times."""
    rows = list(Client(org).items("/api/schedules"))
    if as_json:
        print_json(rows)
        return
    cells = [[row["organization"], row["name"], row["workflow"], row["description"], _state(row)] for row in rows]
    print_table(
        ["Organization", "Name", "Workflow", "When", "Next"],
        cells,
        empty="There is no schedule yet: bifrost schedules add NAME --workflow W --org ID",
    )


@app.command()
def show(name: Name, org: Organization = None, everywhere: GlobalScope = False, as_json: AsJson = False) -> None:
    """One schedule."""
    row = Client(org).call("GET", address("api", "schedules", name), params=scope_of(org, everywhere)).json()
    _show(row, as_json)


@app.command()
def add(
    name: Name,
    workflow: Annotated[str, typer.Option("--workflow", help="What to run.")],
    expression: Annotated[
        str | None, typer.Option("--cron", help="Five cron fields; without them the workflow's own schedule.")
    ] = None,
    run_at: Annotated[str | None, typer.Option("--at", help="Once, at this ISO instant with its zone.")] = None,
    timezone: Annotated[str | None, typer.Option("--timezone", help="An IANA name; UTC without it.")] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", metavar="KEY=VALUE", help="An input; repeat for more.")
    ] = None,
    overlap: Annotated[str | None, typer.Option("--overlap", help="skip queue parallel")] = None,
    catch_up: Annotated[str | None, typer.Option("--catch-up", help="one all none")] = None,
    starts_at: Annotated[str | None, typer.Option("--starts-at", help="ISO instant with a zone.")] = None,
    ends_at: Annotated[str | None, typer.Option("--ends-at", help="ISO instant with a zone.")] = None,
    jitter: Annotated[int | None, typer.Option("--jitter", help="Spread over so many seconds.")] = None,
    for_all: Annotated[bool, typer.Option("--for-all", help="With --global: for every organization.")] = False,
    org: Organization = None,
    everywhere: GlobalScope = False,
    as_json: AsJson = False,
) -> None:
    """Save a schedule, also over one of that name."""
    body = {
        "workflow": workflow,
        "cron": expression,
        "run_at": run_at,
        "timezone": timezone,
        "parameters": _parameters(parameter or []),
        "overlap": overlap,
        "catch_up": catch_up,
        "starts_at": starts_at,
        "ends_at": ends_at,
        "jitter_seconds": jitter,
        "for_all": for_all or None,
    }
    given = {field: value for field, value in body.items() if value is not None}
    client, scope = Client(org), scope_of(org, everywhere)
    _show(client.call("PUT", address("api", "schedules", name), json=given, params=scope).json(), as_json)


@app.command()
def pause(name: Name, org: Organization = None, everywhere: GlobalScope = False, as_json: AsJson = False) -> None:
    """Skip what comes due from now on."""
    _show(_act(name, "pause", org, everywhere), as_json)


@app.command()
def resume(name: Name, org: Organization = None, everywhere: GlobalScope = False, as_json: AsJson = False) -> None:
    """Go on after a pause."""
    _show(_act(name, "resume", org, everywhere), as_json)


@app.command()
def run(name: Name, org: Organization = None, everywhere: GlobalScope = False, as_json: AsJson = False) -> None:
    """Run it now, with its parameters."""
    envelope = _act(name, "run", org, everywhere)
    print_json(envelope) if as_json else executions.print_execution(envelope)


@app.command()
def history(
    name: Name,
    org: Organization = None,
    everywhere: GlobalScope = False,
    limit: Annotated[int, typer.Option("--limit", min=1)] = 20,
    as_json: AsJson = False,
) -> None:
    """What became of its due times, newest first."""
    path = address("api", "schedules", name, "history")
    rows = list(Client(org).items(path, limit, scope_of(org, everywhere)))
    if as_json:
        print_json(rows)
        return
    cells = [[row["due_at"], row["outcome"], _late(row), row["execution_id"], row["reason"]] for row in rows]
    print_table(["Due", "Outcome", "Late", "Execution", "Reason"], cells, empty="It has not been due yet.")


@app.command()
def delete(name: Name, org: Organization = None, everywhere: GlobalScope = False) -> None:
    """End a schedule; its history stays."""
    Client(org).call("DELETE", address("api", "schedules", name), params=scope_of(org, everywhere))


def _act(name: str, act: str, org: str | None, everywhere: bool) -> dict[str, Any]:
    path = address("api", "schedules", name, act)
    answer: dict[str, Any] = Client(org).call("POST", path, params=scope_of(org, everywhere)).json()
    return answer


def _parameters(pairs: list[str]) -> dict[str, str] | None:
    given: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            clients.fail(f"{pair!r} is not key=value, e.g. name=Alice", clients.USAGE)
        given[key] = value
    return given or None


def _show(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    shown = {"parameters": json.dumps(row["parameters"], ensure_ascii=False) if row["parameters"] else None}
    fields = ("name", "organization", "workflow", "description", "overlap", "catch_up", "paused_at", "saved_by")
    print_fields({field: row[field] for field in fields} | shown | {"next": "\n".join(row["next"]) or "–"})


def _state(row: dict[str, Any]) -> str:
    if row["paused_at"]:
        return "paused"
    return row["next"][0] if row["next"] else "for every organization" if row["for_all"] else "–"


def _late(row: dict[str, Any]) -> str | None:
    return None if row["late_seconds"] is None else f"{row['late_seconds']:.1f} s"
