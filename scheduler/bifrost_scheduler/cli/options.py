"""The options that commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from bifrost_scheduler.cli import client

Organization = Annotated[str | None, typer.Option("--org", help="The organization.")]
GlobalScope = Annotated[bool, typer.Option("--global", help="The scope that every organization falls back to.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document for programs.")]


def scope_of(organization: str | None, everywhere: bool) -> dict[str, str]:
    """The query for an administrative call; ends the command unless exactly one scope is named."""
    if everywhere == (organization is not None):
        client.fail("name a scope: --org ID or --global", client.USAGE)
    return {"scope": "GLOBAL"} if everywhere else {}
