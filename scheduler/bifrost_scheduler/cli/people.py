"""`bifrost users …` and `bifrost roles …`: people, what they may do where, and how they get in.

No command takes a password: who is made, or forgot it, gets a link and sets it there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from bifrost_scheduler.cli import client as clients
from bifrost_scheduler.cli.client import Client, address
from bifrost_scheduler.cli.options import AsJson, Organization
from bifrost_scheduler.cli.output import print_fields, print_json, print_table

EVERYWHERE = "*"
PLATFORM_ADMIN = "PlatformAdmin"

users = typer.Typer(no_args_is_help=True, help="People, their roles, and how they get in.")
roles = typer.Typer(no_args_is_help=True, help="Roles: the built-in ones, and others as sets of permissions.")

Email = Annotated[str, typer.Argument(help="The person's email.")]
RoleName = Annotated[str, typer.Argument(help="The role, e.g. WorkflowUser.")]
Place = Annotated[str | None, typer.Option("--org", help="The organization; '*' is every one.")]


@users.command("add")
def add_user(
    email: Email,
    name: Annotated[str, typer.Option("--name", help="What people read.")],
    role: Annotated[list[str] | None, typer.Option("--role", help="A role; repeat with its --org for more.")] = None,
    org: Annotated[list[str] | None, typer.Option("--org", help="Where the role counts; '*' is everywhere.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a person; `bifrost users link` lets him in."""
    body = {"email": email, "name": name, "roles": _pairs(role or [], org or [])}
    _show_user(Client().call("POST", "/api/users", json=body).json(), as_json)


@users.command("list")
def list_users(org: Organization = None, as_json: AsJson = False) -> None:
    """The people of an organization; all of them for PlatformAdmins."""
    rows = list(Client(org).items("/api/users"))
    if as_json:
        print_json(rows)
        return
    cells = [[row["email"], row["name"], _state(row), _roles_text(row["roles"])] for row in rows]
    print_table(
        ["Email", "Name", "State", "Roles"], cells, empty="Nobody is here yet: bifrost users add EMAIL --name N"
    )


@users.command("show")
def show_user(email: Email, as_json: AsJson = False) -> None:
    """One person."""
    _show_user(Client().call("GET", address("api", "users", email)).json(), as_json)


@users.command("grant")
def grant(email: Email, role: RoleName, org: Place = None, as_json: AsJson = False) -> None:
    """Give a role in an organization."""
    _change_role(email, role, _place(role, org), given=True, as_json=as_json)


@users.command("revoke")
def revoke(email: Email, role: RoleName, org: Place = None, as_json: AsJson = False) -> None:
    """Take a role away; it counts at the person's next request."""
    _change_role(email, role, _place(role, org), given=False, as_json=as_json)


@users.command("link")
def link(email: Email, as_json: AsJson = False) -> None:
    """A link for one sign-in within 24 hours, also to set a password by; it is shown this once."""
    made = Client().call("POST", address("api", "users", email, "link")).json()
    if as_json:
        print_json(made)
        return
    print_fields({"Open in the portal": f"/signin/link#{made['token']}", "Good until": made["expires_at"]})


@users.command("disable")
def disable(email: Email, as_json: AsJson = False) -> None:
    """Switch a person off; every session ends."""
    _show_user(_patch(email, {"disabled": True}), as_json)


@users.command("enable")
def enable(email: Email, as_json: AsJson = False) -> None:
    """Switch a person on again."""
    _show_user(_patch(email, {"disabled": False}), as_json)


@users.command("sign-out")
def sign_out(email: Email) -> None:
    """End every session and link of a person."""
    Client().call("POST", address("api", "users", email, "sign-out"))


@users.command("delete")
def delete_user(email: Email) -> None:
    """Remove a person for good; what he did stays in the history."""
    Client().call("DELETE", address("api", "users", email))


@roles.command("list")
def list_roles(as_json: AsJson = False) -> None:
    """The roles and what they give."""
    rows = Client().call("GET", "/api/roles").json()["items"]
    if as_json:
        print_json(rows)
        return
    cells = [[row["name"], row["description"], ", ".join(row["permissions"])] for row in rows]
    print_table(["Name", "Description", "Permissions"], cells, empty="")


@roles.command("set")
def set_role(
    name: RoleName,
    permission: Annotated[list[str] | None, typer.Option("--permission", help="Repeat for more.")] = None,
    description: Annotated[str, typer.Option("--description", help="What it is for.")] = "",
    as_json: AsJson = False,
) -> None:
    """Define a role; whoever has it, has it as it is now."""
    body = {"description": description, "permissions": permission or []}
    answer = Client().call("PUT", address("api", "roles", name), json=body).json()
    print_json(answer) if as_json else print_fields(answer)


@roles.command("delete")
def delete_role(name: RoleName) -> None:
    """Remove a role that nobody has."""
    Client().call("DELETE", address("api", "roles", name))


def _pairs(names: Sequence[str], places: Sequence[str]) -> dict[str, list[str]]:
    """Each --role with its --org, in their order; one --org serves all of them."""
    if not places and set(names) <= {PLATFORM_ADMIN}:
        places = [EVERYWHERE] * len(names)
    elif len(places) == 1:
        places = [*places] * len(names)
    if len(names) != len(places):
        clients.fail("name an organization for each role: --role WorkflowUser --org acme-corp", clients.USAGE)
    pairs: dict[str, list[str]] = {}
    for name, place in zip(names, places, strict=True):
        pairs.setdefault(place, []).append(name)
    return pairs


def _place(role: str, org: str | None) -> str:
    if org is None and role != PLATFORM_ADMIN:
        clients.fail("name an organization: --org ID", clients.USAGE)
    return org or EVERYWHERE


def _change_role(email: str, role: str, place: str, *, given: bool, as_json: bool) -> None:
    user = Client().call("GET", address("api", "users", email)).json()
    others = [name for name in user["roles"].get(place, []) if name != role]
    _show_user(_patch(email, {"roles": {place: [*others, role] if given else others}}), as_json)


def _patch(email: str, body: dict[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] = Client().call("PATCH", address("api", "users", email), json=body).json()
    return changed


def _show_user(user: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(user)
        return
    print_fields(
        {
            "Email": user["email"],
            "Name": user["name"],
            "State": _state(user),
            "Roles": _roles_text(user["roles"]) or "none",
            "Since": user["created_at"],
        }
    )


def _state(user: dict[str, Any]) -> str:
    if user["disabled"]:
        return "disabled"
    return "active" if user["has_password"] or user["has_openid"] else "invited"


def _roles_text(held: dict[str, list[str]]) -> str:
    return "; ".join(f"{place}: {', '.join(names)}" for place, names in held.items())
