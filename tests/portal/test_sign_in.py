"""Getting into the portal: the printed link, the set-up of an installation, and a real OpenID provider."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import expect

from tests import identity_provider
from tests.portal.conftest import OpenPage, running_site
from tests.portal.site import PASSWORD, Site


def test_the_printed_link_signs_in_once(site: Site, open_page: OpenPage) -> None:
    """`bifrost up` prints a link; it opens the portal for the developer, and for nobody after him."""
    found = re.search(r"Sign in \(once\)\s+(\S+)", site.product.said)
    assert found is not None
    page = open_page(found[1])
    assert "#" not in page.url
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Workflows")).to_be_visible()
    again = open_page(found[1])
    again.get_by_role("button", name="Sign in").click()
    expect(again.get_by_role("alert")).to_be_visible()


def test_the_first_administrator_sets_up(tmp_path: Path) -> None:
    """Without --dev nobody has a password: the printed link makes the first administrator, once."""
    with running_site(tmp_path, dev=False, portal_kernels=0) as site, site.visitor() as visitor:
        found = re.search(r"Set up\s+\S+/setup#(\S+)", site.product.said)
        assert found is not None
        given = {"token": found[1], "email": "first@example.com", "name": "First", "password": PASSWORD}
        assert "12" in visitor.post_form("/setup", **{**given, "password": "short"}).text
        assert visitor.post_form("/setup", **given).headers["Location"] == "/workflows"
        with site.visitor() as second:
            assert second.post_form("/setup", **given).status_code == 401
            assert second.post_form("/signin", email="dev@example.com", password="test").status_code == 401


def test_an_openid_provider(tmp_path: Path) -> None:
    """The button leads to the provider, which sends an invited person back; nobody else's browser can take that."""
    port = identity_provider.free_port()
    back = f"http://localhost:{port}/signin/oidc/callback"
    with identity_provider.running(back) as issuer:
        openid = {"oidc_issuer": issuer, "oidc_client_id": identity_provider.CLIENT_ID, "oidc_name": "Contoso"}
        secret = {"oidc_client_secret": identity_provider.CLIENT_SECRET}
        with running_site(tmp_path, portal_port=port, portal_kernels=0, **openid, **secret) as site:
            site.admin.post("/api/users", json={"email": "ada@contoso.com", "name": "Ada"}).raise_for_status()
            with site.visitor() as visitor:
                assert "Contoso" in visitor.get("/signin").text
                start = visitor.get("/signin/oidc?next=/account").headers["Location"]
                callback = urlsplit(identity_provider.browse(start, "ada,ada@contoso.com,true", back))
                answer = visitor.get(f"{callback.path}?{callback.query}")
                assert answer.headers["Location"] == "/account"
                assert "ada@contoso.com" in visitor.get("/account").text
                start = visitor.get("/signin/oidc").headers["Location"]
                callback = urlsplit(identity_provider.browse(start, "ada,ada@contoso.com,true", back))
                with site.visitor() as other:
                    assert other.get(f"{callback.path}?{callback.query}").status_code == 401
