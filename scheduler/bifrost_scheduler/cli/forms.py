"""`bifrost forms …`: the forms of an organization, and form objects as files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from bifrost_scheduler.cli import client as clients
from bifrost_scheduler.cli.client import Client, address
from bifrost_scheduler.cli.options import AsJson, GlobalScope, Organization, scope_of
from bifrost_scheduler.cli.output import print_fields, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Forms of an organization, or of all (--global).")

FormName = Annotated[str, typer.Argument(help="The form's name.")]


@app.command("list")
def list_forms(org: Organization = None, everywhere: GlobalScope = False, as_json: AsJson = False) -> None:
    """The forms that an organization has, or the form objects of all organizations; and what is broken."""
    scope = scope_of(org, everywhere)
    rows = list(Client(org).items("/api/form-definitions" if everywhere else "/api/forms", query=scope))
    if as_json:
        print_json(rows)
        return
    cells = [
        [row["name"], _workflow(row), row["source"], f"broken: {row['broken']}" if row["broken"] else ""]
        for row in rows
    ]
    print_table(["Name", "Workflow", "From", "State"], cells, empty="There is no form in this scope.")


@app.command()
def show(name: FormName, org: Organization = None, everywhere: GlobalScope = False, as_json: AsJson = False) -> None:
    """A form as it is filled in for an organization; with --global the form object."""
    if everywhere:
        shown = _definition(name, org, everywhere)
    else:
        scope_of(org, everywhere)
        shown = Client(org).call("GET", address("api", "forms", name)).json()
    if as_json:
        print_json(shown)
        return
    print_fields({key: value for key, value in shown.items() if key not in ("fields", "schema", "organization")})
    fields = shown.get("fields", [])
    rows = [[field["name"], field["label"], field["widget"], "yes" if field["required"] else ""] for field in fields]
    if rows:
        print_table(["Field", "Label", "Widget", "Required"], rows, empty="")


@app.command("set")
def set_form(
    file: Annotated[Path, typer.Argument(help="A YAML file; - is standard input.")],
    org: Organization = None,
    everywhere: GlobalScope = False,
    as_json: AsJson = False,
) -> None:
    """Create or replace a form object; its name is that of the file, or the one in it."""
    scope = scope_of(org, everywhere)
    name, definition = _read(file)
    answer = Client(org).call("PUT", address("api", "forms", name), json=definition, params=scope).json()
    print_json(answer) if as_json else print_fields(
        {key: answer[key] for key in ("name", "scope", "version", "broken")}
    )


@app.command()
def delete(name: FormName, org: Organization = None, everywhere: GlobalScope = False) -> None:
    """Remove a form object; what it replaced is there again."""
    Client(org).call("DELETE", address("api", "forms", name), params=scope_of(org, everywhere))


@app.command()
def export(name: FormName, org: Organization = None, everywhere: GlobalScope = False) -> None:
    """Print a form object as YAML, hidden values included."""
    found = _definition(name, org, everywhere)
    if found["definition"] is None:
        clients.fail(f"the form {name!r} is broken: {found['broken']}", clients.EXECUTION_FAILED)
    text = yaml.safe_dump({"name": name, **found["definition"]}, allow_unicode=True, sort_keys=False, width=100)
    typer.echo(text, nl=False)


def _definition(name: str, org: str | None, everywhere: bool) -> dict[str, Any]:
    scope = scope_of(org, everywhere)
    found: dict[str, Any] = Client(org).call("GET", address("api", "form-definitions", name), params=scope).json()
    return found


def _read(file: Path) -> tuple[str, dict[str, Any]]:
    """The form of a file, read by the part of the product that reads the workspace's: it takes longer to load."""
    command = [sys.executable, "-m", "bifrost_kernel.form_files", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        clients.fail(done.stderr.strip(), clients.USAGE)
    read = json.loads(done.stdout)
    return read["name"], read["definition"]


def _workflow(row: dict[str, Any]) -> str | None:
    workflow: str | None = (row.get("definition") or row).get("workflow")
    return workflow
