"""What stands before the portal's pages: sign-in, cookies, Host, Origin, forged requests, and safe headers."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import httpx
import pytest

from bifrost_portal import gate, server
from bifrost_portal.assets import AssetHandler
from bifrost_portal.pages.base import Page
from tests.portal.site import COOKIE, Person, Site

OPEN_PATHS = {"/", "/signin", "/signin/link", "/signin/oidc", "/signin/oidc/callback", "/setup"}
PATHS = (
    "/workflows",
    "/workflows/hello_world",
    "/workflows/hello_world/draft",
    "/runs",
    "/runs/01a203e3-0ad3-752e-9e04-fa72d82ffc35",
    "/runs/01a203e3-0ad3-752e-9e04-fa72d82ffc35/events",
    "/runs/01a203e3-0ad3-752e-9e04-fa72d82ffc35/record",
    "/runs/01a203e3-0ad3-752e-9e04-fa72d82ffc35/result.json",
    "/approvals",
    "/schedules",
    "/account",
    "/api/kernels/d222a61f-7906-4e61-ad1c-206eea6a76b8",
    "/api/kernels/d222a61f-7906-4e61-ad1c-206eea6a76b8/channels",
)


def test_every_handler_stands_behind_the_gate() -> None:
    """A handler is a page of ours or behind our gate; open are the sign-in and the assets, and nothing else."""
    for path, handler, *_ in server.page_handlers():
        assert issubclass(handler, Page) or path == "/"
        assert getattr(handler, "OPEN", False) == (path in OPEN_PATHS), path
    for handler in (server.OwnKernel, server.OwnChannels, server.BundleHandler, server.ExtensionHandler):
        assert issubclass(handler, server.Behind)
    assert AssetHandler.OPEN


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_there_without_signing_in(site: Site, path: str) -> None:
    """Pages lead to the sign-in, everything else is refused; nothing tells whether a thing exists."""
    with site.visitor() as visitor:
        answer = visitor.get(path)
    assert answer.status_code in (302, 401, 403)
    if answer.status_code == 302:
        assert urlsplit(answer.headers["Location"]).path == "/signin"


@pytest.mark.parametrize(
    "path",
    [
        "/voila/files/portal.ipynb",
        "/voila/static/voila.js",
        "/voila/templates/base/static/voila.js",
        "/voila/render/portal.ipynb",
        "/voila/tree",
        "/api/kernels",
        "/api/contents",
        "/api/sessions",
        "/api/terminals",
        "/api/kernelspecs",
        "/files/portal.ipynb",
        "/login",
        "/static/favicon.ico",
        "/assets/000000000000/../portal.css",
        "/assets/000000000000/%2e%2e/settings.py",
        "/assets/000000000000/..%2fsettings.py",
        "/assets/000000000000/settings.py",
    ],
)
def test_what_jupyter_would_serve_is_not_there(site: Site, customer: Person, path: str) -> None:
    """Voila's and Jupyter's own routes, files and path tricks lead nowhere, signed in or not."""
    for person in (None, customer):
        with site.visitor(person) as visitor:
            assert visitor.get(path).status_code == 404, path


@pytest.mark.parametrize(
    "trick", ["%2e%2e/%2e%2e/conf.json", "..%2f..%2fconf.json", "....//conf.json", "%00.js", "/etc/passwd"]
)
def test_the_bundle_serves_nothing_beside_itself(site: Site, customer: Person, trick: str) -> None:
    """Path tricks on Voila's front end and its extensions find no file."""
    with site.visitor(customer) as visitor:
        version = re.search(r"/assets/([0-9a-f]{12})/", visitor.get("/workflows").text)
        assert version is not None
        for folder in ("static", "labextensions"):
            assert visitor.get(f"/voila/{version[1]}/{folder}/{trick}").status_code in (403, 404)
        assert visitor.get(f"/voila/{version[1]}/labextensions/jupyterlab_pygments/package.json").status_code == 404


def test_the_cookie_is_host_only_secure_and_hidden_from_scripts(site: Site, customer: Person) -> None:
    """`__Host-`, Secure, HttpOnly, SameSite, Path=/ and no Domain; it holds nothing that can be read or changed."""
    with site.visitor() as visitor:
        answer = visitor.sign_in(customer)
        cookie = next(one for one in answer.headers.get_list("Set-Cookie") if one.startswith(f"{COOKIE}="))
        assert {"HttpOnly", "Secure", "Path=/", "SameSite=Lax"} <= {part.strip() for part in cookie.split(";")}
        assert "Domain" not in cookie
        forged = re.sub(r"\|[0-9a-f]{64}$", "|" + "0" * 64, visitor.http.cookies[COOKIE].strip('"'))
        answer = httpx.get(f"{site.url}/workflows", headers={"Cookie": f'{COOKIE}="{forged}"'})
        assert answer.status_code == 302


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8866", "localhost.evil.example", "", "127.0.0.1@evil", "[::1"]
)
def test_a_foreign_host_is_refused(site: Site, host: str) -> None:
    """No page on the internet reaches the portal under a name of its own (DNS rebinding)."""
    assert httpx.get(f"{site.url}/signin", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("origin", ["http://evil.example", "null", None])
def test_acts_come_from_our_own_pages(site: Site, customer: Person, origin: str | None) -> None:
    """A request that changes something carries the portal's own Origin, else it is refused, cookie or not."""
    with site.visitor(customer) as visitor:
        headers = {
            "Cookie": visitor.cookies,
            "X-XSRFToken": visitor.xsrf("/workflows"),
            "Content-Type": "application/json",
        }
        if origin is not None:
            headers["Origin"] = origin
        answer = visitor.http.post("/workflows/hello_world", json={"name": "Forged"}, headers=headers)
    assert answer.status_code == 403


def test_acts_carry_the_pages_token(site: Site, customer: Person) -> None:
    """The right Origin alone is not enough: the page's token has to be there."""
    with site.visitor(customer) as visitor:
        headers = {"Cookie": visitor.cookies, "Origin": site.url}
        assert visitor.http.post("/workflows/hello_world", json={"name": "x"}, headers=headers).status_code == 403


@pytest.mark.parametrize(
    "wanted", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/ok\r\nX: y"]
)
def test_the_sign_in_leads_to_no_other_site(site: Site, customer: Person, wanted: str) -> None:
    """`next` is a page of ours, or it is ignored."""
    with site.visitor() as visitor:
        answer = visitor.post_form("/signin", email=customer.email, password="correct horse battery", next=wanted)
    assert answer.headers["Location"] == "/workflows"


def test_a_wrong_password_says_nothing_more(site: Site, customer: Person) -> None:
    """The same page for a wrong password and an unknown person; the e-mail stays in its field."""
    pages = []
    for email in (customer.email, "nobody@example.com"):
        with site.visitor() as visitor:
            answer = visitor.post_form("/signin", email=email, password="wrong horse battery")
            assert answer.status_code == 401
            pages.append(re.sub(r'name="_xsrf" value="[^"]+"|content="[^"]+"', "", answer.text.replace(email, "EMAIL")))
    assert pages[0] == pages[1]


def test_signing_out_ends_the_session(site: Site, customer: Person) -> None:
    """After it the old cookie opens nothing, wherever it was copied to."""
    with site.visitor(customer) as visitor:
        stolen = visitor.cookies
        assert visitor.post_form("/signout").status_code == 303
    assert httpx.get(f"{site.url}/workflows", headers={"Cookie": stolen}).status_code == 302


def test_every_page_forbids_what_it_does_not_need(site: Site, customer: Person) -> None:
    """CSP, nosniff, no framing, no referrer, no store: on pages, failures and records alike."""
    with site.visitor(customer) as visitor:
        for path in ("/workflows", "/workflows/hello_world", "/nowhere", "/runs", "/signin/link"):
            headers = visitor.get(path).headers
            assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
            assert "default-src 'none'" in headers["Content-Security-Policy"]
            for name, value in gate.SAFE_HEADERS.items():
                assert headers[name] == value, (path, name)
            assert "Server" not in headers


def test_another_organizations_things_are_unknown(site: Site, customer: Person) -> None:
    """Forms, executions and the organization itself of somebody else: not found, like what never was."""
    site.product.add_organization("portal-other")
    headers = {"X-Organization-Id": "portal-other"}
    answer = site.admin.post("/api/workflows/hello_world", json={"name": "Other"}, headers=headers)
    foreign = answer.headers["X-Execution-Id"]
    with site.visitor(customer) as visitor:
        for path in (
            f"/runs/{foreign}",
            f"/runs/{foreign}/record",
            f"/runs/{foreign}/result.json",
            f"/runs/{foreign}/events",
        ):
            assert visitor.get(path).status_code == 404, path
        assert visitor.get("/workflows?org=portal-other").status_code == 404
        assert visitor.ask("POST", "/workflows/hello_world?org=portal-other", {"name": "x"}).status_code == 404
        assert visitor.ask("POST", f"/runs/{foreign}/cancel").status_code == 404
