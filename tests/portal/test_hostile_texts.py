"""Script in every text that people or workflows write: it is shown as text, and none of it runs, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.portal.conftest import OpenPage, running_site
from tests.portal.site import Person, Site, no_failures

SCRIPT = "<script>window.pwned=1</script><img src=x onerror='window.pwned=1'>"
BREAKING = "</script><svg onload='window.pwned=1'>{{7*7}}<a href='javascript:window.pwned=1'>a</a>"
HOSTILE = """
() => [...document.querySelectorAll("*")].flatMap((node) => [
  ...[...node.attributes].filter((one) => /^on/i.test(one.name)).map((one) => `${node.tagName} ${one.name}`),
  ...["href", "src", "action", "formaction", "xlink:href", "srcdoc"]
    .filter((name) => /^\\s*(javascript|vbscript|data:text)/i.test(node.getAttribute(name) || ""))
    .map((name) => node.outerHTML),
  ...(node.tagName === "SCRIPT" && /pwned/.test(node.textContent) && !/json/.test(node.type) ? [node.outerHTML] : []),
  ...(/pwned/.test(node.getAttribute("style") || "") ? [node.outerHTML] : []),
])
"""
"""What could execute in the document, whoever put it there."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Forms need no kernel here."""
    with running_site(tmp_path_factory.mktemp("hostile"), portal_kernels=0) as running:
        body = {"id": "hostile-org", "name": f"Org {SCRIPT}{BREAKING}"}
        running.admin.post("/api/organizations", json=body).raise_for_status()
        headers = {"X-Organization-Id": "hostile-org"}
        running.admin.put("/api/forms/worded", json=WORDED, headers=headers).raise_for_status()
        yield running
        no_failures(running)


WORDED: dict[str, Any] = {
    "workflow": "hostile",
    "title": f"Title {SCRIPT}",
    "text": f"Text {SCRIPT} [link](javascript:window.pwned=1) ![x](javascript:window.pwned=1) {BREAKING}",
    "category": f"Category {BREAKING}",
    "submit_label": f"Run {SCRIPT}",
    "success_text": f"Done {SCRIPT}",
    "fixed": {"name": BREAKING},
    "fields": {"form": {"label": f"Form {BREAKING}", "help_text": SCRIPT, "placeholder": BREAKING, "group": SCRIPT}},
}


@pytest.fixture(scope="module")
def visitor(site: Site) -> Person:
    return site.person("OrgAdmin", organization="hostile-org", name=f"Eve {SCRIPT}")


def is_harmless(page: Page) -> None:
    """No script of data has run, and none is there that might."""
    assert page.evaluate("window.pwned") is None
    assert page.evaluate(HOSTILE) == []


@pytest.mark.parametrize("path", ["/workflows", "/workflows/hostile", "/workflows/worded", "/runs", "/account"])
def test_pages_show_hostile_words_as_words(open_page: OpenPage, visitor: Person, path: str) -> None:
    """Names, titles, labels, help, options, categories, prose: text, wherever a page shows them."""
    page = open_page(path, visitor)
    expect(page.locator("body")).to_contain_text("window.pwned=1")
    is_harmless(page)


def test_options_are_text(open_page: OpenPage, visitor: Person) -> None:
    """An option's label and metadata are shown, chosen or not, and nothing more."""
    page = open_page("/workflows/hostile", visitor)
    field = page.locator("[data-field=choice]")
    field.locator("select").select_option(index=1)
    expect(field.locator(".bf-detail")).to_contain_text("<script>")
    is_harmless(page)


def test_the_address_is_text(open_page: OpenPage, visitor: Person) -> None:
    """What stands in an address is shown as text, or not at all."""
    for path in (
        f"/workflows/hostile?name={BREAKING}&again={SCRIPT}&template=lab&theme=../x",
        f"/runs?text={BREAKING}",
    ):
        is_harmless(open_page(path, visitor))


@pytest.mark.parametrize("kind", ["fields", "table", "markdown", "html", "text", "error"])
def test_what_a_workflow_says_is_text(open_page: OpenPage, site: Site, visitor: Person, kind: str) -> None:
    """Log lines, their data, checkpoints, variables, inputs, errors and results of every kind."""
    run = start(site, visitor, kind)
    page = open_page(f"/runs/{run}", visitor)
    expect(page.get_by_role("log")).to_contain_text("<script>window.pwned=1</script>")
    for summary in page.locator(".lines details summary").all():
        summary.click()
    if kind != "error":
        expect(page.locator(".result").first).to_be_visible()
    is_harmless(page)
    for frame in page.frames[1:]:
        assert frame.evaluate(HOSTILE) == []
    for path in ("/runs", "/approvals", "/workflows"):
        page.goto(path)
        is_harmless(page)


def start(site: Site, person: Person, kind: str) -> str:
    """Run it through its form, and wait for its end; returns its id."""
    with site.visitor(person) as visitor:
        answer = visitor.submit("hostile", {"form": kind, "name": BREAKING}).raise_for_status()
    run = str(answer.json()["execution_id"])
    site.product.wait_until_over(run)
    return run


@pytest.mark.parametrize("path", ["record", "result.html"])
def test_documents_of_an_execution_do_nothing(open_page: OpenPage, site: Site, visitor: Person, path: str) -> None:
    """The record and an HTML result, opened on their own: no script, and a sandbox around them."""
    run = start(site, visitor, "html")
    page = open_page(f"/runs/{run}/{path}", visitor)
    expect(page.locator("body")).to_contain_text("Report")
    with site.visitor(visitor) as plain:
        assert plain.get(f"/runs/{run}/{path}").headers["Content-Security-Policy"].startswith("sandbox;")
    is_harmless(page)


def test_a_spreadsheet_runs_nothing(site: Site, visitor: Person) -> None:
    """A cell of the CSV that begins like a formula is text."""
    run = start(site, visitor, "table")
    with site.visitor(visitor) as plain:
        answer = plain.get(f"/runs/{run}/result.csv")
    assert "attachment" in answer.headers["Content-Disposition"]
    assert "'=cmd|" in answer.text
    assert "\n=cmd" not in answer.text
    assert ",=cmd" not in answer.text
