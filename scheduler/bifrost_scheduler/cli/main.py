"""The commands of `bifrost`.

Exit codes: 0 ok, 1 the execution failed, 2 usage, 3 cannot reach the control plane. Every command is a call or two of
the HTTP API; `up` alone gives its place to the servers.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bifrost_scheduler import __version__
from bifrost_scheduler.cli import client as clients
from bifrost_scheduler.cli import doctor, executions, forms, people, schedules
from bifrost_scheduler.cli.client import Client, address
from bifrost_scheduler.cli.options import AsJson, GlobalScope, Organization, scope_of
from bifrost_scheduler.cli.output import print_fields, print_json, print_table

app = typer.Typer(
    name="bifrost",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Automation for many customers: run workflows, see what ran, manage organizations.",
)
orgs = typer.Typer(no_args_is_help=True, help="Organizations, the tenants of this installation.")
keys = typer.Typer(no_args_is_help=True, help="API keys.")
config = typer.Typer(no_args_is_help=True, help="Config values of an organization, or of all (--global).")
secrets = typer.Typer(no_args_is_help=True, help="Secrets of an organization, or of all (--global); write-only.")
connections = typer.Typer(no_args_is_help=True, help="OAuth connections.")
for name, group in {
    "executions": executions.app,
    "forms": forms.app,
    "schedules": schedules.app,
    "orgs": orgs,
    "users": people.users,
    "roles": people.roles,
    "keys": keys,
    "config": config,
    "secrets": secrets,
    "connections": connections,
}.items():
    app.add_typer(group, name=name)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """The console script."""
    app()


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def up(
    dev: Annotated[bool, typer.Option("--dev", help="A test organization and the key `test`; loopback only.")] = False,
    home: Annotated[Path | None, typer.Option(help="Database, keys and records.")] = None,
    workspace: Annotated[Path | None, typer.Option(help="The authors' code.")] = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="The port of the API (7071).")] = None,
    lab_port: Annotated[int | None, typer.Option(help="The port of JupyterLab (8888).")] = None,
    portal_port: Annotated[int | None, typer.Option(help="The port of the portal (8866).")] = None,
    no_lab: Annotated[bool, typer.Option("--no-lab", help="Without JupyterLab.")] = False,
    no_portal: Annotated[bool, typer.Option("--no-portal", help="Without the portal.")] = False,
    insecure_reduced_sandbox: Annotated[
        bool, typer.Option("--insecure-reduced-sandbox", help="Run workflows without namespaces.")
    ] = False,
    insecure_no_sandbox: Annotated[
        bool, typer.Option("--insecure-no-sandbox", help="Run workflows with all that this user may do.")
    ] = False,
) -> None:
    """Start everything in the foreground; Ctrl-C ends it."""
    given: dict[str, Any] = {
        "dev": dev or None,
        "home": str(home) if home else None,
        "workspace": str(workspace) if workspace else None,
        "host": host,
        "port": port,
        "lab_port": lab_port,
        "portal_port": portal_port,
        "lab": False if no_lab else None,
        "portal": False if no_portal else None,
        "sandbox": "none" if insecure_no_sandbox else "reduced" if insecure_reduced_sandbox else None,
    }
    settings = json.dumps({name: value for name, value in given.items() if value is not None})
    # The servers take the place of this process: signals reach them, and this module stays light.
    os.execv(sys.executable, [sys.executable, "-m", "bifrost_scheduler.web.serve", settings])  # noqa: S606


@app.command()
def run(
    name: Annotated[str, typer.Argument(help="The workflow.")],
    inputs: Annotated[list[str] | None, typer.Argument(help="key=value …", metavar="KEY=VALUE")] = None,
    org: Organization = None,
    detached: Annotated[bool, typer.Option("--async", help="Don't wait for the result.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a workflow and print its result."""
    headers = {"Prefer": "respond-async" if detached else "return=representation"}
    response = Client(org).call("POST", address("api", "workflows", name), json=_inputs(inputs or []), headers=headers)
    envelope = response.json()
    if as_json:
        print_json(envelope if response.status_code == 202 else envelope["result"])
    else:
        executions.print_execution(envelope)


def _inputs(pairs: list[str]) -> dict[str, str]:
    """`key=value` pairs; values stay text, the control plane gives them their types."""
    inputs: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            clients.fail(f"{pair!r} is not key=value, e.g. name=Alice", clients.USAGE)
        if key in inputs:
            clients.fail(f"{key!r} is given twice", clients.USAGE)
        inputs[key] = value
    return inputs


@app.command()
def workflows(
    org: Organization = None,
    as_json: AsJson = False,
) -> None:
    """The workflows of the workspace, and what is broken there."""
    page = Client(org).call("GET", "/api/workflows", params={"limit": 200}).json()
    if as_json:
        print_json(page)
        return
    rows = [[row["name"], row["category"], row["execution_mode"], row["description"]] for row in page["items"]]
    print_table(["Name", "Category", "Mode", "Description"], rows, empty="The workspace has no workflow.")
    if page["broken"]:
        typer.echo("\nBroken:")
        print_table(
            ["Name", "Place", "Reason"],
            [
                [row["name"] or "–", f"{row['source']['file']}:{row['source']['line']}", row["reason"]]
                for row in page["broken"]
            ],
            empty="",
        )


@orgs.command("add")
def add_organization(
    id: Annotated[str, typer.Argument(help="A short id, e.g. acme-corp.")],
    name: Annotated[str, typer.Option("--name", help="What people read.")],
    tenant: Annotated[str | None, typer.Option("--tenant", help="Microsoft 365 tenant id.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make an organization."""
    body = {"id": id, "name": name, "tenant_id": tenant}
    _show(Client().call("POST", "/api/organizations", json=body).json(), as_json)


@orgs.command("list")
def list_organizations(as_json: AsJson = False) -> None:
    """The organizations."""
    rows = list(Client().items("/api/organizations"))
    if as_json:
        print_json(rows)
        return
    cells = [[row["id"], row["name"], "active" if row["active"] else "inactive"] for row in rows]
    print_table(["Id", "Name", "State"], cells, empty="There is no organization yet: bifrost orgs add ID --name NAME")


@orgs.command("deactivate")
def deactivate_organization(id: str, as_json: AsJson = False) -> None:
    """Switch an organization off; nothing of it is lost."""
    _show(Client().call("PATCH", address("api", "organizations", id), json={"active": False}).json(), as_json)


@orgs.command("activate")
def activate_organization(id: str, as_json: AsJson = False) -> None:
    """Switch an organization on again."""
    _show(Client().call("PATCH", address("api", "organizations", id), json={"active": True}).json(), as_json)


@orgs.command("egress")
def set_egress(
    id: str,
    hosts: Annotated[list[str] | None, typer.Argument(help="example.com, *.example.com:443 or an address …")] = None,
    public: Annotated[bool, typer.Option("--public", help="Every public host, as without a list.")] = False,
    nothing: Annotated[bool, typer.Option("--nothing", help="No host at all.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show or set the hosts that an organization's workflows may reach."""
    path = address("api", "organizations", id)
    if sum((bool(hosts), public, nothing)) > 1:
        clients.fail("name hosts, --public or --nothing: one of them", clients.USAGE)
    if not (hosts or public or nothing):
        _show(Client().call("GET", path).json(), as_json)
        return
    _show(Client().call("PATCH", path, json={"egress": None if public else hosts or []}).json(), as_json)


@keys.command("add")
def add_key(
    name: str,
    org: Annotated[list[str], typer.Option("--org", help="An organization that it acts for; repeat for more.")],
    workflow: Annotated[
        list[str] | None, typer.Option("--workflow", help="Only this workflow; repeat for more.")
    ] = None,
    permission: Annotated[list[str] | None, typer.Option("--permission", help="Repeat for more.")] = None,
    expires_at: Annotated[str | None, typer.Option("--expires-at", help="ISO instant with a zone.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key; it is shown this once."""
    body = {"name": name, "organizations": org, "workflows": workflow or None, "expires_at": expires_at}
    if permission:
        body["permissions"] = permission
    created = Client().call("POST", "/api/keys", json=body).json()
    _show(created, as_json)


@keys.command("list")
def list_keys(org: Organization = None, as_json: AsJson = False) -> None:
    """The keys; never their text."""
    rows = list(Client(org).items("/api/keys"))
    if as_json:
        print_json(rows)
        return
    cells = [
        [row["id"], row["name"], ", ".join(row["organizations"] or ["all"]), row["expires_at"], row["last_used_at"]]
        for row in rows
    ]
    print_table(["Id", "Name", "Organizations", "Expires", "Last used"], cells, empty="There is no key.")


@keys.command("delete")
def delete_key(id: str) -> None:
    """End a key."""
    Client().call("DELETE", address("api", "keys", id))


@config.command("set")
def set_config(
    key: str,
    value: str,
    type: Annotated[str, typer.Option("--type", help="string int bool json secret_ref")] = "string",
    org: Organization = None,
    everywhere: GlobalScope = False,
    as_json: AsJson = False,
) -> None:
    """Set a config value."""
    body = {"type": type, "value": value}
    client, scope = Client(org), scope_of(org, everywhere)
    _show(client.call("PUT", address("api", "config", key), json=body, params=scope).json(), as_json)


@config.command("list")
def list_config(org: Organization = None, everywhere: GlobalScope = False, as_json: AsJson = False) -> None:
    """The config of one scope."""
    rows = list(Client(org).items("/api/config", query=scope_of(org, everywhere)))
    if as_json:
        print_json(rows)
        return
    cells = [[row["key"], row["type"], row["value"], row["updated_by"]] for row in rows]
    print_table(["Key", "Type", "Value", "Set by"], cells, empty="Nothing is set in this scope.")


@config.command("delete")
def delete_config(key: str, org: Organization = None, everywhere: GlobalScope = False) -> None:
    """Remove a config value."""
    Client(org).call("DELETE", address("api", "config", key), params=scope_of(org, everywhere))


@secrets.command("set")
def set_secret(name: str, org: Organization = None, everywhere: GlobalScope = False, as_json: AsJson = False) -> None:
    """Set a secret; its value is read from standard input, so that it stands in no shell history."""
    body = {"value": _read_secret()}
    client, scope = Client(org), scope_of(org, everywhere)
    _show(client.call("PUT", address("api", "secrets", name), json=body, params=scope).json(), as_json)


@secrets.command("list")
def list_secrets(org: Organization = None, everywhere: GlobalScope = False, as_json: AsJson = False) -> None:
    """Names and versions, never values."""
    rows = list(Client(org).items("/api/secrets", query=scope_of(org, everywhere)))
    if as_json:
        print_json(rows)
        return
    cells = [[row["name"], row["version"], row["updated_at"], row["updated_by"]] for row in rows]
    print_table(["Name", "Version", "Set at", "Set by"], cells, empty="There is no secret in this scope.")


@secrets.command("delete")
def delete_secret(name: str, org: Organization = None, everywhere: GlobalScope = False) -> None:
    """Remove a secret."""
    Client(org).call("DELETE", address("api", "secrets", name), params=scope_of(org, everywhere))


@connections.command("list")
def list_connections(org: Organization = None, everywhere: GlobalScope = False, as_json: AsJson = False) -> None:
    """The OAuth connections of one scope, without their tokens."""
    rows = list(Client(org).items("/api/connections", query=scope_of(org, everywhere)))
    if as_json:
        print_json(rows)
        return
    cells = [[row["name"], row["oauth_flow_type"], row["status"], row["expires_at"]] for row in rows]
    print_table(["Name", "Flow", "Status", "Expires"], cells, empty="There is no connection in this scope.")


def _read_secret() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Value", hide_input=True))
    return sys.stdin.read().removesuffix("\n")


def _show(answer: dict[str, Any], as_json: bool) -> None:
    print_json(answer) if as_json else print_fields(answer)


if __name__ == "__main__":
    main()
