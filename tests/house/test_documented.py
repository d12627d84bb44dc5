"""The documents are complete: each setting, route, command and error is named where its reader looks for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from fastapi.routing import APIRoute

from bifrost_kernel import errors, models
from bifrost_scheduler.cli import main
from bifrost_scheduler.settings import Settings
from bifrost_scheduler.web import app as web
from bifrost_scheduler.web import problems

ROOT = Path(__file__).resolve().parents[2]
API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
OPERATING = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
SETTINGS = dict(re.findall(r"^\| `(BIFROST_[A-Z_]+)` \| (\S+) \|", OPERATING, re.MULTILINE))
ROUTES = re.findall(r"^\| `((?:GET|POST|PUT|PATCH|DELETE) [^`]+)` \|", API, re.MULTILINE)


def commands(group: typer.Typer, above: str) -> Iterator[str]:
    """Every command with the words before it: `bifrost executions list`."""
    for command in group.registered_commands:
        assert command.callback is not None
        yield f"{above} {command.name or command.callback.__name__.replace('_', '-')}"
    for below in group.registered_groups:
        assert below.typer_instance is not None
        yield from commands(below.typer_instance, f"{above} {below.name}")


def tree(kind: type[errors.BifrostError]) -> Iterator[type[errors.BifrostError]]:
    for below in kind.__subclasses__():
        if below.__module__.startswith("bifrost_"):
            yield below
            yield from tree(below)


def shown(default: object) -> str:
    """A default as the table writes it."""
    if default in ((), None):
        return "none"
    text = str(default).lower() if isinstance(default, bool) else str(default)
    return f"`{text}`"


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_settings(name: str) -> None:
    """Each setting stands in the table with its default, and says in the code what it is."""
    assert SETTINGS[f"BIFROST_{name.upper()}"] == shown(Settings.model_fields[name].default)
    assert Settings.model_fields[name].description


def test_no_setting_is_left_over() -> None:
    """The table names no setting that is not there."""
    assert {f"BIFROST_{name.upper()}" for name in Settings.model_fields} == set(SETTINGS)


def test_routes() -> None:
    """The table of routes is that of the application: none is missing, none is left over, none stands twice."""
    there = [
        f"{method} {route.path}"
        for router in web.ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    ]
    assert sorted(ROUTES) == sorted(there)


@pytest.mark.parametrize("command", sorted(commands(main.app, "bifrost")))
def test_commands(command: str) -> None:
    """Each command is named among the commands, and has a help text."""
    *group, name = command.split()
    listed = re.search(rf"`{' '.join(group)} ([a-z|-]+)`", OPERATING) if len(group) > 1 else None
    assert f"`{command}`" in OPERATING or (listed and name in listed[1].split("|")), command


def test_no_command_is_left_over() -> None:
    """The documents name no command that is not there."""
    there = {tuple(command.split()) for command in commands(main.app, "bifrost")}
    for text in (OPERATING, README):
        for first, second in re.findall(r"(?:^|bin/|`|\| )bifrost ([a-z]+)(?: ([a-z-]+))?", text, re.MULTILINE):
            assert ("bifrost", first) in there or ("bifrost", first, second) in there or second == "", (first, second)


@pytest.mark.parametrize("kind", sorted(tree(errors.BifrostError), key=lambda kind: kind.__name__))
def test_errors(kind: type[errors.BifrostError]) -> None:
    """Each class of errors is named in the API's document, and has a status of its own or ends as another's."""
    assert f"`{kind.__name__}`" in API or f"`{kind.code}`" in API
    assert kind.__doc__ or kind.code in problems.STATUSES


@pytest.mark.parametrize(("code", "status"), list(problems.STATUSES.items()))
def test_statuses(code: str, status: int) -> None:
    """Each code of a failure stands in the table with its status."""
    assert f"| {status} | `{code}` |" in API


def test_the_tree_is_drawn() -> None:
    """The drawing in `errors` shows every class that the module has."""
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or ""))
    assert drawn == {kind.__name__ for kind in tree(errors.BifrostError) if kind.__module__ == errors.__name__}


def test_permissions() -> None:
    """The API's document names no permission that is not there."""
    assert set(re.findall(r"\bcan[A-Z]\w+", API)) <= set(models.Permission)


def test_links() -> None:
    """Links between documents lead somewhere."""
    for path in [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
