"""The calendar: what is to run in the next seven days, and what became of every due time of the last seven."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tornado import web

from bifrost_portal.pages.base import Page

SCHEDULE_NAME = r"([A-Za-z0-9][A-Za-z0-9_.-]{0,127})"
SPAN = timedelta(days=7)
SHOWN_ONE_BY_ONE = 6
"""More due times of one schedule on one day are told as one line, which opens."""
LISTED = 200

Entry = dict[str, Any]


class Calendar(Page):
    async def get(self) -> None:
        organization = self.organization
        if not self.me.may("canViewHistory", organization.id):
            raise web.HTTPError(403)
        self.remember(organization)
        now = datetime.now(UTC)
        zone = self.zone
        calendar = await self.api.get(
            "/api/schedule-calendar", organization=organization.id, since=_iso(now - SPAN), until=_iso(now + SPAN)
        )
        schedules = await self.api.get("/api/schedules", organization=organization.id, limit=LISTED)
        entries = [{**entry, "at": datetime.fromisoformat(entry["due_at"])} for entry in calendar["items"]]
        self.show(
            "schedules.html",
            organization=organization,
            schedules=schedules["items"],
            coming=days((entry for entry in entries if entry["outcome"] is None and entry["at"] >= now), zone),
            past=days((entry for entry in reversed(entries) if entry["outcome"] is not None), zone),
            complete=calendar["complete"],
            zone=zone.key,
            may_manage=self.me.may("canManageSchedules", organization.id),
        )

    @property
    def zone(self) -> ZoneInfo:
        """The reader's, as the page's script has told; UTC until then."""
        try:
            return ZoneInfo(self.get_cookie("bifrost-zone") or "UTC")
        except (ZoneInfoNotFoundError, ValueError, OSError):
            return ZoneInfo("UTC")


class ScheduleAct(Page):
    """Pause, resume, or run now."""

    ACTS = frozenset({"pause", "resume", "run"})

    async def post(self, name: str, act: str) -> None:
        if act not in self.ACTS:
            raise web.HTTPError(404)
        organization = self.organization
        answer = await self.api.post(f"/api/schedules/{name}/{act}", organization=organization.id)
        if act == "run":
            self.redirect(f"/runs/{answer['execution_id']}", status=303)
        else:
            self.redirect("/schedules", status=303)


def days(entries: Iterable[Entry], zone: ZoneInfo) -> list[tuple[date, list[Entry]]]:
    """The entries by day of the reader's zone, in their order; many of one schedule become one line with `parts`."""
    placed = [{**entry, "local": entry["at"].astimezone(zone)} for entry in entries]
    by_day = itertools.groupby(placed, key=lambda entry: entry["local"].date())
    return [(day, _gathered(list(of_day))) for day, of_day in by_day]


def _gathered(entries: list[Entry]) -> list[Entry]:
    counts = Counter(entry["schedule"] for entry in entries)
    lines: list[Entry] = []
    for entry in entries:
        if counts[entry["schedule"]] <= SHOWN_ONE_BY_ONE:
            lines.append(entry)
        elif not any(line["schedule"] == entry["schedule"] for line in lines):
            parts = [one for one in entries if one["schedule"] == entry["schedule"]]
            outcomes = Counter(part["outcome"] for part in parts if part["outcome"] is not None)
            lines.append({**entry, "parts": parts, "outcomes": outcomes.most_common()})
    return lines


def _iso(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")
