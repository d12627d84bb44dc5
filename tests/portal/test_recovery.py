"""What a customer sees when a process of the product is killed under his page: it finds its way back by itself."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import psutil
import pytest
from playwright.sync_api import Page, expect

from tests.portal.conftest import OpenPage, running_site
from tests.portal.form_kernel import kernel_processes
from tests.portal.site import Person, Site

RUN_PAGE = re.compile(r"/runs/[0-9a-f-]{36}$")
STEPS = 80
LONG = 120_000  # milliseconds: a machine under load starts a portal slowly


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A product on ports that stay the same when it is started again."""
    ports = {"port": free_port(), "portal_port": free_port()}
    with running_site(tmp_path_factory.mktemp("recovery"), **ports) as running:
        yield running


@pytest.fixture
def person(site: Site) -> Person:
    return site.person("WorkflowUser")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def watch_a_run(open_page: OpenPage, person: Person, steps: int) -> Page:
    """A run's page that shows the first lines of it."""
    page = open_page("/workflows/slow_steps", person)
    page.get_by_label("Steps").fill(str(steps))
    page.get_by_role("button", name="Run Workflow").click()
    page.wait_for_url(RUN_PAGE)
    expect(page.get_by_role("log")).to_contain_text("Step 2")
    return page


def portal_of(site: Site) -> psutil.Process:
    return next(one for one in site.product.descendants() if "bifrost_portal.server" in one.cmdline())


def test_the_kernel_comes_behind_the_form(open_page: OpenPage, person: Person) -> None:
    """The form is there first; then Voila's kernel is connected, and what is submitted goes through it."""
    page = open_page("/workflows/hello_world", person)
    expect(page.get_by_role("button", name="Run Workflow")).to_be_visible()
    page.wait_for_selector("html[data-kernel=connected]", state="attached")
    posted: list[str] = []
    page.on("request", lambda request: posted.append(request.url) if request.method == "POST" else None)
    page.get_by_label("Name").fill("Kernel")
    page.get_by_role("button", name="Run Workflow").click()
    expect(page.get_by_text("Hello, Kernel!")).to_be_visible()
    assert not [url for url in posted if "/workflows/" in url]


def test_a_page_survives_its_portal(open_page: OpenPage, site: Site, person: Person) -> None:
    """The portal is killed and comes back: the page goes on, with every line once, in order, and the true outcome."""
    page = watch_a_run(open_page, person, STEPS)
    portal_of(site).kill()
    expect(page.locator(".badge")).to_have_text("Completed", timeout=LONG)
    lines = [text for text in page.locator(".lines li .text").all_inner_texts() if text.startswith("Step ")]
    assert lines == [f"Step {number + 1}" for number in range(STEPS)]
    page.goto("/account")
    expect(page.get_by_role("heading", name="Your account")).to_be_visible()


def test_a_form_survives_its_kernel(open_page: OpenPage, site: Site, person: Person) -> None:
    """The kernel behind a form is killed: what is submitted arrives all the same, once."""
    page = open_page("/workflows/hello_world", person)
    page.wait_for_selector("html[data-kernel=connected]", state="attached")
    page.get_by_label("Name").fill("Survivor")
    for process in kernel_processes(site):
        process.kill()
    page.get_by_role("button", name="Run Workflow").click()
    page.wait_for_url(RUN_PAGE, timeout=LONG)
    expect(page.get_by_text("Hello, Survivor!")).to_be_visible(timeout=LONG)
    found = site.product.executions(text="Survivor", workflow="hello_world")
    assert len(found) == 1


def test_a_page_survives_the_control_plane(open_page: OpenPage, site: Site, person: Person) -> None:
    """All is killed and started again: the page says that the run was interrupted; its reader is still signed in."""
    page = watch_a_run(open_page, person, 2000)
    site.product.kill()
    site.product.start()
    expect(page.locator(".badge")).to_have_text("Interrupted", timeout=LONG)
    expect(
        page.get_by_text("was stopped while it ran").or_(page.get_by_text("quote the execution")).first
    ).to_be_visible()
    page.goto("/workflows")
    expect(page.get_by_role("link", name="Execute Hello World")).to_be_visible()
