"""Every page in both themes and on a phone: axe-core finds no violation, and nothing is wider than the screen."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.portal.conftest import OpenPage
from tests.portal.site import Person, Site

LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1200, "height": 850}},
    "dark": {"viewport": {"width": 1200, "height": 850}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 320, "height": 640}, "color_scheme": "dark", "reduced_motion": "reduce"},
}


def check(page: Page) -> None:
    found = Axe().run(page).response["violations"]
    assert [(one["id"], [node["target"] for node in one["nodes"]]) for one in found] == [], page.url
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{page.url} is too wide"


@pytest.mark.parametrize("look", LOOKS)
def test_pages_before_signing_in(open_page: OpenPage, look: str) -> None:
    """Sign-in, one-time link, set-up and "not found"."""
    page = open_page("/signin", **LOOKS[look])
    for path in ("/signin", "/signin/link", "/setup", "/nowhere"):
        page.goto(path)
        check(page)


@pytest.mark.parametrize("look", LOOKS)
def test_pages_of_a_customer(open_page: OpenPage, customer: Person, look: str) -> None:
    """Workflows, menu, forms with and without errors, history, account."""
    page = open_page("/workflows", customer, **LOOKS[look])
    page.locator("summary").click()
    check(page)
    for path in ("/workflows/everything", "/workflows/new_colleague"):
        page.goto(path)
        page.wait_for_selector("form.bf-form")
        check(page)
        page.locator("form.bf-form button[type=submit]").click()
        check(page)
    for path in ("/runs", "/account"):
        page.goto(path)
        check(page)


@pytest.mark.parametrize("look", LOOKS)
def test_pages_of_executions(open_page: OpenPage, site: Site, look: str) -> None:
    """One that succeeded, one with a table, one that failed, one that waits; and the approver's list."""
    admin = site.person("OrgAdmin")
    page = open_page("/workflows", admin, **LOOKS[look])
    for workflow, inputs in (
        ("hello_world", {"name": "Ada"}),
        ("report", {"kind": "table"}),
        ("hostile", {"form": "error"}),
        ("guarded", {"amount": 1}),
    ):
        page.goto(f"/runs/{_execute(site, workflow, inputs)}")
        page.wait_for_selector("#run .badge:not(.running):not(.pending)")
        check(page)
    page.goto("/approvals")
    check(page)


def _execute(site: Site, workflow: str, inputs: dict[str, Any]) -> str:
    headers = {"X-Organization-Id": "test-org-active"}
    answer = site.admin.post(f"/api/workflows/{workflow}", json=inputs, headers=headers)
    return str(answer.headers.get("X-Execution-Id") or answer.json()["execution_id"])
