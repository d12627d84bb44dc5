"""The server itself over HTTP: health, metrics, documentation page, headers, Host, audit (contract §4, §5 and §6)."""

from __future__ import annotations

import asyncio
import re
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright import sync_api as playwright

from bifrost_scheduler import __version__
from bifrost_scheduler import services as composition
from bifrost_scheduler.settings import Settings
from bifrost_scheduler.web import system
from bifrost_scheduler.web.app import create_app

Run = Callable[..., httpx.Response]
Client = Callable[..., httpx.Client]
NewKey = Callable[..., str]
CHROMIUM = Path("/usr/bin/chromium")


def test_health(client: Client) -> None:
    """Health is open to everybody and says nothing but the version."""
    assert client(None).get("/api/health").json() == {"status": "ok", "version": __version__}


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[composition.Services]:
    """A control plane in which nothing happens."""
    (tmp_path / "workspace").mkdir()
    services = composition.build(Settings(home=tmp_path / "home", workspace=tmp_path / "workspace"))
    yield services
    services.stop()


def health_of(services: composition.Services) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(services))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as asking:
            return await asking.get("/api/health")

    return asyncio.run(ask())


def test_health_keeps_no_disk_busy(idle: composition.Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often health is asked for, the disk is not: what was just written shows that it works."""
    monkeypatch.setattr(system, "HEALTH_HOLDS_SECONDS", 3600)
    statuses = [health_of(idle).status_code for _ in range(5)]
    with sqlite3.connect(idle.settings.database) as db:
        (checks,) = db.execute("SELECT checks FROM health").fetchone()
    assert (statuses, checks <= 1) == ([200] * 5, True)


def test_health_of_a_store_that_does_not_work(idle: composition.Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is 503 with the reason, also when it was well a moment ago."""
    monkeypatch.setattr(system, "HEALTH_HOLDS_SECONDS", 3600)
    assert health_of(idle).status_code == 200
    idle.store.close()
    answer = health_of(idle)
    assert (answer.status_code, answer.json()["error"]) == (503, "Unavailable")


# metrics


def test_metrics(run: Run, client: Client, organization: str) -> None:
    """The metrics are Prometheus text, count what ran, and name no organization, workflow or person."""
    run("talkative", organization).raise_for_status()
    response = client().get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain")
    assert re.search(r'^bifrost_executions_total\{status="success",trigger="api"\} [1-9]', response.text, re.MULTILINE)
    for told in (organization, "talkative", "dev@example.com"):
        assert told not in response.text


def test_metrics_are_for_platform_admins(client: Client, new_key: NewKey, organization: str) -> None:
    """A key of an organization does not read the figures of all, and a wrong key is wrong here as well."""
    assert client(new_key(organization)).get("/metrics").status_code == 403
    assert client("invalid").get("/metrics").status_code == 401


# headers


@pytest.mark.parametrize("path", ["/api/health", "/api/executions", "/nowhere", "/docs", "/openapi.json", "/metrics"])
@pytest.mark.parametrize("key", ["test", "invalid"])
def test_safe_headers(client: Client, path: str, key: str) -> None:
    """Every answer, refusals included, forbids sniffing, framing and caching, and has a content policy."""
    headers = client(key).get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "server" not in headers or "uvicorn" in headers["server"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7071", "127.0.0.1.evil.example", "localhost@evil", "", "[::2]:80", "0"]
)
def test_foreign_host(client: Client, host: str) -> None:
    """A page on the internet does not reach a known key by DNS rebinding: foreign Host names are refused."""
    response = client().get("/api/health", headers={"Host": host})
    assert response.status_code == 400


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:7071", "[::1]", "[::1]:7071", "localhost."])
def test_own_host(client: Client, host: str) -> None:
    """The names of this machine are right, with any port."""
    assert client().get("/api/health", headers={"Host": host}).status_code == 200


def test_no_host(control_plane: Any) -> None:
    """A request without a Host header is refused."""
    address = urlsplit(control_plane.base_url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(b"GET /api/health HTTP/1.0\r\n\r\n")
        assert connection.makefile("rb").readline().split()[1] == b"400"


@pytest.mark.parametrize("path", ["/", "/api", "/api/", "/api/executions/", "/api//executions", "/redoc", "/.env"])
def test_unknown_address(client: Client, path: str) -> None:
    """An address is right or unknown: nothing is redirected."""
    response = client().get(path)
    assert (response.status_code, response.json()["error"]) == (404, "NotFound")


# documentation


def test_docs_load_nothing_from_elsewhere(client: Client) -> None:
    """The documentation page names no other server, nor do its files load anything from one."""
    page = client(None).get("/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    assert re.findall(r"""(?:src|href)\s*=\s*["'](?:https?:)?//""", page.text) == []
    for path in re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)""", page.text):
        assert client(None).get(path).status_code == 200
    styles = client(None).get("/static-offline-docs/swagger-ui.css").text
    assert re.findall(r"url\((?!['\"]?data:)[^)]*\)|@import", styles) == []


@pytest.fixture
def browser() -> Iterator[playwright.Browser]:
    """A real browser; not shared, since Playwright keeps an event loop in this thread while it is open."""
    if not CHROMIUM.exists():
        pytest.skip("Chromium is not installed.")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield opened
        opened.close()


def test_docs_in_a_browser(browser: playwright.Browser, control_plane: Any) -> None:
    """In a real browser the page shows every group of operations, breaks no policy and asks no other server."""
    page = browser.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(f"{control_plane.base_url}/docs")
    page.get_by_text("execute_workflow", exact=False).or_(page.get_by_text("/api/workflows/{name}")).first.wait_for()
    assert page.locator(".opblock").count() > 20
    assert complaints == []
    assert [url for url in asked if not url.startswith((control_plane.base_url, "data:"))] == []
    page.close()


# audit


def audit(client: Client, **wanted: Any) -> list[dict[str, Any]]:
    """The newest audit entries that have these values."""
    one, cursor, found = client(), None, []
    while True:
        page = one.get("/api/audit", params={"limit": 200, **({"cursor": cursor} if cursor else {})}).json()
        found += [row["body"] for row in page["items"] if wanted.items() <= row["body"].items()]
        if (cursor := page["next_cursor"]) is None:
            return found


def test_every_write_is_audited(client: Client, new_key: NewKey, organization: str) -> None:
    """Each administrative write leaves one entry with its actor and organization, and no value."""
    one = client("test", organization)
    one.put("/api/config/k", json={"value": "canary-config"}).raise_for_status()
    one.put("/api/secrets/s", json={"value": "canary-secret"}).raise_for_status()
    one.delete("/api/secrets/s").raise_for_status()
    one.delete("/api/config/k").raise_for_status()
    new_key(organization)
    entries = audit(client, organization=organization)
    acts = ["organization.create", "config.set", "secret.set", "secret.delete", "config.delete", "key.create"]
    assert [entry["action"] for entry in entries] == acts
    assert {entry["actor"] for entry in entries} == {"user:dev@example.com"}
    assert "canary" not in str(entries)


def test_denials_are_audited(client: Client, new_key: NewKey, organization: str, neighbour: str) -> None:
    """A refusal of a known key is an entry; what was asked for in the query is not in it."""
    key = new_key(organization)
    client(key, neighbour).get("/api/executions?text=canary-query")
    client(key, organization).get("/api/secrets")
    entries = audit(client, actor=f"key:{key.split('_')[1]}", action="access.denied")
    assert [entry["details"]["reason"] for entry in entries] == ["NotFound", "Forbidden"]
    assert "canary-query" not in str(entries)


def test_audit_is_for_platform_admins(client: Client, new_key: NewKey, organization: str) -> None:
    """The ledger of all organizations is for PlatformAdmins."""
    assert client(new_key(organization, permissions=["canViewHistory"])).get("/api/audit").status_code == 403


def test_executions_are_in_the_ledger(run: Run, client: Client, organization: str) -> None:
    """Every execution that ended is a link of the ledger with the hash of its record."""
    id_ = run("nothing", organization).headers["X-Execution-Id"]
    sealed = client().get(f"/api/executions/{id_}").json()["record_sha256"]
    (entry,) = audit(client, organization=organization, record_sha256=sealed)
    assert entry["execution_id"] == id_


# authoring


def test_authoring_session(client: Client, new_key: NewKey, organization: str, neighbour: str) -> None:
    """A PlatformAdmin gets a session for the organization named; a key of an organization gets none."""
    made = client().post("/api/authoring-sessions", json={"organization": organization})
    assert (made.status_code, made.json()["organization"]) == (201, organization)
    assert client().post("/api/authoring-sessions", json={"organization": "nowhere"}).status_code == 404
    assert client(new_key(organization)).post("/api/authoring-sessions", json={}).status_code == 403


def test_a_repeated_parameter_is_refused(client: Callable[..., httpx.Client]) -> None:
    """Of two values one would be ignored: the answer names the parameter."""
    answer = client().get("/api/executions?text=a&limit=5&text=b")
    assert (answer.status_code, answer.json()["details"]["fields"][0]["field"]) == (400, "text")
