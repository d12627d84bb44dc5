"""How values look in the portal's templates; escaped by default, like everything there."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import jinja2

from bifrost_portal import results
from bifrost_portal.visitors import Visitor

TEMPLATES = Path(__file__).parent / "templates"

STATUS = {
    "pending": "Waiting to start",
    "awaiting_approval": "Waiting for approval",
    "running": "Running",
    "success": "Completed",
    "completed_with_errors": "Completed with errors",
    "failed": "Failed",
    "timeout": "Took too long",
    "cancelled": "Cancelled",
    "crashed": "Interrupted",
}
BROWSERS = ("Firefox", "Edg", "Chrome", "Safari")
SYSTEMS = ("Android", "iPhone", "iPad", "Windows", "Mac OS", "Linux")
SHORT = 160


def templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters.update(
        status_text=lambda status: STATUS.get(status, status),
        duration=duration,
        instant=instant,
        first_line=first_line,
        readable=results.readable,
        title=results.title,
        browser=browser,
    )
    environment.globals["nav"] = navigation
    return environment


def navigation(visitor: Visitor | None, organization: str | None) -> list[tuple[str, str]]:
    """Address and label of what this visitor may look at."""
    if visitor is None:
        return []
    pages = [("/workflows", "Workflows"), ("/runs", "History")]
    if organization and visitor.may("canApproveExecutions", organization):
        pages.append(("/approvals", "Approvals"))
    if organization and visitor.may("canViewHistory", organization):
        pages.append(("/schedules", "Schedules"))
    return pages


def duration(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "–"
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.1f} s"
    return f"{milliseconds // 60_000} min {milliseconds % 60_000 // 1000} s"


def instant(text: str | None) -> str:
    """For readers without script; the page's script shows the reader's own time."""
    return "–" if text is None else f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC"


def first_line(text: str | None) -> str:
    line = (text or "").strip().split("\n", 1)[0]
    return line if len(line) <= SHORT else f"{line[: SHORT - 1]}…"


def browser(agent: str | None) -> str:
    """`Chrome on Android`, of a User-Agent header."""
    name = next((one for one in BROWSERS if one in (agent or "")), None)
    system = next((one for one in SYSTEMS if one in (agent or "")), None)
    return f"{(name or 'A browser').replace('Edg', 'Edge')}{f' on {system}' if system else ''}"
