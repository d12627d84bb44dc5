"""The calendar of schedules, as people see it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from playwright.sync_api import expect

from bifrost_portal.pages import schedules
from tests.portal.conftest import OpenPage
from tests.portal.site import Person, Site

ZAGREB = ZoneInfo("Europe/Zagreb")


def entry(at: datetime, outcome: str | None = None, schedule: str = "s") -> schedules.Entry:
    return {"at": at, "schedule": schedule, "outcome": outcome}


def test_days_are_the_readers() -> None:
    """A due time just before midnight UTC stands on the next day of a reader further east."""
    found = schedules.days([entry(datetime(2026, 3, 1, 23, 30, tzinfo=UTC))], ZAGREB)
    assert [(day, len(of_day)) for day, of_day in found] == [(date(2026, 3, 2), 1)]


def test_many_due_times_of_a_day_are_one_line() -> None:
    """What runs every few minutes is told once, with how often it had which outcome."""
    start = datetime(2026, 3, 1, 9, tzinfo=UTC)
    many = [entry(start + timedelta(minutes=n), "ran" if n else "skipped") for n in range(20)]
    ((_, lines),) = schedules.days([*many, entry(start, "ran", "other")], ZAGREB)
    assert [(line["schedule"], len(line.get("parts", ()))) for line in lines] == [("s", 20), ("other", 0)]
    assert lines[0]["outcomes"] == [("ran", 19), ("skipped", 1)]


def test_the_calendar(site: Site, open_page: OpenPage) -> None:
    """What comes in the next days and what became of the last, each linked to its execution; pause and resume."""
    organization = site.product.add_organization("calendar-org")
    site.product.put(
        "schedules/mornings", organization, workflow="hello_world", cron="0 9 * * *", parameters={"name": "Team"}
    )
    headers = {"X-Organization-Id": organization}
    site.admin.post("/api/schedules/mornings/run", headers=headers).raise_for_status()
    page = open_page("/schedules", site.person("OrgAdmin", organization=organization), timezone_id="Europe/Zagreb")
    expect(page.get_by_role("row", name="mornings")).to_contain_text("09:00")
    expect(page.locator(".day")).to_have_count(7)
    page.get_by_role("button", name="Pause mornings").click()
    expect(page.get_by_role("row", name="mornings")).to_contain_text("Paused")
    page.get_by_role("button", name="Resume mornings").click()
    expect(page.get_by_role("row", name="mornings")).not_to_contain_text("Paused")


def test_the_calendar_is_for_those_who_see_the_history(site: Site, customer: Person) -> None:
    """Another organization's is not found, and to change a schedule takes the permission."""
    site.product.add_organization("calendar-other")
    site.product.put("schedules/theirs", "calendar-other", workflow="license_audit", cron="0 9 * * *")
    with site.visitor(customer) as visitor:
        assert "theirs" not in visitor.get("/schedules").text
        assert visitor.get("/schedules?org=calendar-other").status_code == 404
        assert visitor.ask("POST", "/schedules/theirs/pause?org=calendar-other").status_code == 404
