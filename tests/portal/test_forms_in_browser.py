"""Forms as people fill them in, in a real browser, against the real product."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.portal.conftest import OpenPage
from tests.portal.site import Person, Site

RUN_PAGE = re.compile(r"/runs/[0-9a-f-]{36}$")


def run_workflow(page: Page) -> None:
    page.get_by_role("button", name="Run Workflow").click()
    page.wait_for_url(RUN_PAGE)


def test_the_documents_walk(open_page: OpenPage, customer: Person) -> None:
    """Examples, Hello World, Execute, Alice, Spanish, Run Workflow; then logs, checkpoints, result, who and when."""
    page = open_page("/", customer)
    page.get_by_role("link", name="Workflows").click()
    examples = page.locator("section", has=page.get_by_role("heading", name="Examples"))
    examples.get_by_role("link", name="Execute Hello World").click()
    page.get_by_label("Name").fill("Alice")
    page.get_by_label("Language").select_option(label="Spanish")
    run_workflow(page)
    expect(page.get_by_text("¡Hola, Alice!")).to_be_visible()
    log = page.get_by_role("log")
    expect(log).to_contain_text("Generating greeting for Alice")
    expect(log).to_contain_text("Checkpoint greeting_complete")
    for term, said in {"Run by": "Ada Customer", "When": "20", "Duration": "ms", "Organization": "Test Org"}.items():
        expect(page.locator(".facts > div", has_text=term)).to_contain_text(said)


def test_onboarding_has_two_dropdowns(open_page: OpenPage, customer: Person) -> None:
    """`onboard_new_user` of the document: two data providers are dropdowns, and their values reach the workflow."""
    page = open_page("/workflows/onboard_new_user", customer)
    for label, text in {"User Email": "zoe@acme.com", "First Name": "Zoë", "Last Name": "Ng"}.items():
        page.get_by_label(label).fill(text)
    page.get_by_label("Department").select_option(index=1)
    page.get_by_label("License").select_option(index=1)
    run_workflow(page)
    expect(page.get_by_text("user-zoe", exact=True)).to_be_visible()


def test_by_keyboard_alone(open_page: OpenPage, customer: Person) -> None:
    """The whole walk needs no pointer: sign-in is over, then Tab, Enter, typing and arrows."""
    page = open_page("/workflows", customer)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    _tab_to(page, "Execute Hello World")
    page.keyboard.press("Enter")
    page.wait_for_selector("html[data-form=ready]", state="attached")
    _tab_to(page, "Name")
    page.keyboard.type("Alice")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Language")).to_contain_text("Spanish")
    page.keyboard.type("Sp")
    _tab_to(page, "Run Workflow")
    page.keyboard.press("Enter")
    page.wait_for_url(RUN_PAGE)
    expect(page.get_by_text("¡Hola, Alice!")).to_be_visible()


def _tab_to(page: Page, name: str) -> None:
    for _ in range(60):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            "(e => e.getAttribute('aria-label') || (e.labels && e.labels[0] && e.labels[0].innerText) || e.innerText)"
            "(document.activeElement)"
        )
        if focused and focused.startswith(name):
            return
    raise AssertionError(f"Tab never reaches {name!r}")


def test_what_is_wrong_is_said_beside_the_field_and_above_the_form(open_page: OpenPage, customer: Person) -> None:
    """Each wrong field has its message, the summary lists them, and the first one has the focus."""
    page = open_page("/workflows/everything", customer)
    page.get_by_label("Code").fill("abc")
    page.get_by_label("Count", exact=True).fill("12")
    page.get_by_label("Mail").fill("nobody")
    page.get_by_label("Extra").fill("{")
    page.get_by_role("button", name="Run Workflow").click()
    summary = page.get_by_role("alert")
    expect(summary).to_contain_text("5 fields need attention")
    for message in ("Text is required.", "Code does not", "Count must be at most 9.", "Mail must be", "Extra is not"):
        expect(summary).to_contain_text(message)
    expect(page.get_by_label("Text", exact=True)).to_be_focused()
    assert page.get_by_label("Count", exact=True).get_attribute("aria-invalid") == "true"


def test_what_only_the_server_refuses_is_shown_at_its_field(open_page: OpenPage, customer: Person) -> None:
    """The server's answer is authoritative: its message stands at the field that it names."""
    page = open_page("/workflows/everything", customer)
    page.get_by_label("Text", exact=True).fill("ok")
    page.evaluate("bifrostPage.form.fields.get('count').problem = () => null")
    page.get_by_label("Count", exact=True).fill("12")
    page.get_by_role("button", name="Run Workflow").click()
    expect(page.locator("[data-field=count] .bf-error")).to_contain_text("9")
    assert "/workflows/everything" in page.url


def test_every_type_reaches_the_workflow(open_page: OpenPage, customer: Person) -> None:
    """Text, numbers, switch, JSON, lines and a searched option arrive as values of their types."""
    page = open_page("/workflows/everything", customer)
    expect(page.locator("[data-field=item] .bf-options")).to_contain_text("cached")
    page.reload()  # Whoever comes first cannot know how many there are.
    page.get_by_label("Text", exact=True).fill("hello")
    page.get_by_label("Price").fill("12,5")
    page.get_by_label("Urgent").check()
    page.get_by_label("Extra").fill('{"a": [1, 2]}')
    page.get_by_label("Names").fill("Ada\nBob")
    # A search field, because there are many.
    item = page.get_by_role("combobox", name="Item").and_(page.locator("input"))
    item.fill("Item 14")
    page.get_by_role("option", name="Item 142").click()
    run_workflow(page)
    result = page.locator(".result").first
    for said in ("hello", "12.5", "Yes", "142", "Ada", '"a"'):
        expect(result).to_contain_text(said)


def test_options_follow_the_field_that_they_depend_on(open_page: OpenPage, customer: Person) -> None:
    """Cities are those of the country that is chosen now."""
    page = open_page("/workflows/everything", customer)
    page.get_by_label("Country").fill("Spain")
    expect(page.get_by_label("City")).to_contain_text("Bilbao")
    page.get_by_label("Country").fill("Croatia")
    expect(page.get_by_label("City")).to_contain_text("Split")


def test_what_was_typed_is_there_after_a_reload(open_page: OpenPage, customer: Person) -> None:
    """A draft is kept on the server while one types, and given back, until one starts over."""
    page = open_page("/workflows/create_user", customer)
    with page.expect_response(
        lambda answer: answer.url.endswith("/draft?org=test-org-active") and answer.request.method == "PUT"
    ):
        page.get_by_label("First Name").fill("Grace")
    page.reload()
    expect(page.get_by_label("First Name")).to_have_value("Grace")
    page.get_by_role("button", name="Start over").click()
    expect(page.get_by_label("First Name")).to_have_value("")


def test_a_double_click_is_one_execution(open_page: OpenPage, customer: Person, site: Site) -> None:
    """Two presses, however fast, make one execution."""
    page = open_page("/workflows/hello_world", customer)
    page.get_by_label("Name").fill("Twice")
    page.get_by_role("button", name="Run Workflow").dblclick()
    page.wait_for_url(RUN_PAGE)
    found = site.admin.get("/api/executions", params={"text": "Twice", "workflow": "hello_world"}).json()["items"]
    assert len([one for one in found if one["caller"]["email"] == customer.email]) == 1


def test_the_address_fills_in_only_what_the_form_allows(open_page: OpenPage, customer: Person) -> None:
    """Prefill takes the names that the form lists, and no other."""
    page = open_page("/workflows/new_colleague?first_name=Ada&license_sku=SPE_E5", customer)
    expect(page.get_by_label("First Name")).to_have_value("Ada")
    expect(page.get_by_role("combobox", name="License")).to_have_value("")


def test_it_happens_before_ones_eyes(open_page: OpenPage, customer: Person) -> None:
    """Lines and progress come while it runs; a reload finds it where it is; cancelling ends it."""
    page = open_page("/workflows/slow_steps", customer)
    page.get_by_label("Steps").fill("400")
    run_workflow(page)
    expect(page.get_by_role("log")).to_contain_text("Step 2")
    expect(page.locator(".badge")).to_have_text("Running")
    expect(page.locator("#progress-text")).to_contain_text("of 400")
    page.reload()
    expect(page.get_by_role("log")).to_contain_text("Step 3")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".badge")).to_have_text("Cancelled", timeout=20_000)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("table", "Bob"),
        ("markdown", "All fine."),
        ("text", "All fine."),
        ("file", "Download _audit.txt"),
        ("errors", "half of it failed"),
    ],
)
def test_results_are_shown_in_their_form(open_page: OpenPage, customer: Person, kind: str, said: str) -> None:
    """A table, prose, text, a file to download, or fields."""
    page = open_page("/workflows/report", customer)
    page.get_by_label("Kind").fill(kind)
    run_workflow(page)
    expect(page.locator(".result").first).to_contain_text(said)


def test_a_table_sorts_by_its_heads(open_page: OpenPage, customer: Person) -> None:
    """A click on a column's head sorts by it, as numbers where they are."""
    page = open_page("/workflows/report", customer)
    run_workflow(page)
    page.get_by_role("button", name="Seats").click()
    expect(page.locator("tbody tr").first).to_contain_text("Bob")


def test_an_html_result_is_shown_in_a_sandbox(open_page: OpenPage, customer: Person) -> None:
    """A document of a workflow is shown, in a frame that can do nothing."""
    page = open_page("/workflows/report", customer)
    page.get_by_label("Kind").fill("html")
    run_workflow(page)
    expect(page.frame_locator("iframe").get_by_text("All fine.")).to_be_visible()
    assert page.locator("iframe").get_attribute("sandbox") == ""


def test_running_again_starts_from_the_same_inputs(open_page: OpenPage, customer: Person) -> None:
    """ "Run again" opens the form as it was filled in."""
    page = open_page("/workflows/hello_world", customer)
    page.get_by_label("Name").fill("Again")
    page.get_by_label("Language").select_option(label="German")
    run_workflow(page)
    page.get_by_role("link", name="Run again").click()
    expect(page.get_by_label("Name")).to_have_value("Again")
    expect(page.get_by_label("Language")).to_have_value(re.compile(r"\d+"))
    expect(page.locator("[data-field=language] select option:checked")).to_have_text("German")


def test_an_approval_is_somebody_elses(open_page: OpenPage, customer: Person, site: Site) -> None:
    """Who asks waits; who may decide sees what was asked for, says yes, and it runs."""
    page = open_page("/workflows/guarded", customer)
    page.get_by_label("Amount").fill("42")
    run_workflow(page)
    expect(page.get_by_text("Somebody else has to approve this")).to_be_visible()
    approver = open_page("/approvals", site.person("OrgAdmin", name="Olga Admin"))
    approver.get_by_role("link", name="Guarded").first.click()
    expect(approver.get_by_text("42", exact=True)).to_be_visible()
    approver.get_by_role("button", name="Approve").click()
    expect(approver.locator(".badge")).to_have_text("Completed")
    expect(page.locator(".badge")).to_have_text("Completed")


def test_the_search_finds_by_what_is_read(open_page: OpenPage, customer: Person) -> None:
    """Typing leaves only the forms whose words fit."""
    page = open_page("/workflows", customer)
    page.get_by_placeholder("Search workflows").fill("greeting")
    expect(page.get_by_role("link", name="Execute Hello World")).to_be_visible()
    expect(page.get_by_role("link", name="Execute License Audit")).to_be_hidden()


def test_history_is_ones_own_and_filters(open_page: OpenPage, customer: Person) -> None:
    """The history shows one's own runs, and those that fit the filter."""
    page = open_page("/workflows/hello_world", customer)
    page.get_by_label("Name").fill("Historic")
    run_workflow(page)
    expect(page.locator(".badge")).to_have_text("Completed")
    page.goto("/runs")
    page.get_by_label("Search").fill("Historic")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_label("Status").select_option("failed")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_text("Nothing here that fits")).to_be_visible()
