"""Canaries: secrets that a careless workflow shows in every way, and that are nowhere to be found afterwards."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets

import pytest
import re2

from bifrost_scheduler import redaction
from tests.journeys.product import ORGANIZATION, MakeProduct, Product

ENDS = ("return", "raise", "raise_for_user", "raise_details", "kill", "hang", "exit")
HEADERS = {"X-Organization-Id": ORGANIZATION}


def make_canaries() -> dict[str, str]:
    """One secret of each kind that an organization keeps."""
    body = "\n".join(base64.b64encode(secrets.token_bytes(48)).decode() for _ in range(4))
    account = {"type": secrets.token_hex(8), "private": {"key": f"{secrets.token_hex(16)}\"'<&>\\é"}}
    return {
        "canary": secrets.token_urlsafe(30),
        "canary_pem": f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n",
        "canary_json": json.dumps(account | {"number": secrets.randbelow(10**12) + 10**12}),
        "canary_referred": secrets.token_urlsafe(30),
        "token": secrets.token_urlsafe(30),
        "client_secret": secrets.token_urlsafe(30),
        "refresh_token": secrets.token_urlsafe(30),
    }


class Hunt:
    """Looks for the canaries, in every spelling that is masked, in whatever it is given."""

    def __init__(self, canaries: dict[str, str]) -> None:
        spellings = {text for value in canaries.values() for text in redaction.spellings(value)}
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.max_mem = 1 << 28
        options.log_errors = False
        self._any = re2.compile(b"|".join(re2.escape(text.encode()) for text in sorted(spellings)), options)
        self.hits: list[str] = []

    def look(self, where: str, content: bytes) -> None:
        if found := self._any.search(content):
            around = content[max(found.start() - 60, 0) : found.end() + 20]
            self.hits.append(f"{where}: {around!r}")

    def look_below(self, product: Product) -> int:
        """Look into every file of the home and of its workspace; returns how many there are."""
        files = [path for path in product.home.rglob("*") if path.is_file()]
        for path in files:
            # A temporary file may go while it is looked for.
            with contextlib.suppress(FileNotFoundError):
                self.look(str(path.relative_to(product.home)), path.read_bytes())
        return len(files)

    def get(self, product: Product, path: str, **headers: str) -> None:
        self.look(path, product.http.get(path, headers={**HEADERS, **headers}).content)


@pytest.fixture(scope="module")
def canaries() -> dict[str, str]:
    return make_canaries()


@pytest.fixture(scope="module")
def cage(make_product: MakeProduct, canaries: dict[str, str]) -> Product:
    """A product that keeps the canaries."""
    product = make_product().start()
    for name in ("canary", "canary_pem", "canary_json", "canary_referred"):
        product.put(f"secrets/{name}", value=canaries[name])
    product.put("config/canary_by_config", type="secret_ref", value="canary_referred")
    product.put(
        "connections/canary",
        oauth_flow_type="client_credentials",
        client_id="client",
        access_token=canaries["token"],
        client_secret=canaries["client_secret"],
        refresh_token=canaries["refresh_token"],
        expires_at="2099-01-01T00:00:00Z",
    )
    return product


@pytest.fixture
def hunt(canaries: dict[str, str]) -> Hunt:
    return Hunt(canaries)


def look_at_execution(hunt: Hunt, product: Product, execution_id: str) -> None:
    path = f"/api/executions/{execution_id}"
    hunt.get(product, path)
    hunt.get(product, f"{path}/events?limit=1000")
    hunt.get(product, f"{path}/events", Accept="text/event-stream")
    hunt.get(product, f"{path}/notebook")
    hunt.get(product, f"{path}/notebook", Accept="text/html")


def test_the_hunt_finds_what_is_there(hunt: Hunt, canaries: dict[str, str]) -> None:
    """Whole, by the line, inside an encoding: a hunt that finds nothing means something."""
    basic = base64.b64encode(f"user:{canaries['token']}".encode())
    line = canaries["canary_pem"].splitlines()[2].encode()
    for content in (canaries["canary"].encode(), b"x" + basic, line, json.dumps(canaries["canary_json"]).encode()):
        hunt.look("here", content)
    assert len(hunt.hits) == 4


@pytest.mark.parametrize("end", ENDS)
def test_an_execution_leaves_no_secret(cage: Product, hunt: Hunt, end: str) -> None:
    """However it ends: not in its answer, its events, its record, its page, nor in any file below the home."""
    answer = cage.run("leak", end=end, prefer="return=representation")
    hunt.look("answer", answer.content)
    execution_id = answer.headers["X-Execution-Id"]
    look_at_execution(hunt, cage, execution_id)
    assert hunt.look_below(cage) > 5
    assert hunt.hits == []
    assert "leaked" in [event.get("message") for event in cage.events(execution_id)], "it went all the way"
    assert str(cage.record(execution_id)).count("***") > 50, "what it printed is in the record, masked"


def test_a_notebook_workflow_leaves_no_secret(cage: Product, hunt: Hunt) -> None:
    """Neither in its result nor in the output of the cell that gave it."""
    answer = cage.run("leaky_notebook")
    assert answer.json() == {"shown": "***"}
    look_at_execution(hunt, cage, answer.headers["X-Execution-Id"])
    hunt.look_below(cage)
    assert hunt.hits == []


@pytest.mark.parametrize("provider", ["leaky_options", "leaky_failure"])
def test_a_data_provider_leaves_no_secret(cage: Product, hunt: Hunt, provider: str) -> None:
    """Neither in its answer nor in the cache."""
    for _ in range(2):
        hunt.get(cage, f"/api/data-providers/{provider}")
    hunt.look_below(cage)
    assert hunt.hits == []


def test_no_list_shows_a_secret(cage: Product, hunt: Hunt) -> None:
    """Secrets, config and connections are write-only; nothing of them is in audit, metrics or history."""
    cage.run("leak", end="return")
    for path in ("secrets", "config", "config/canary_by_config", "connections", "executions", "audit", "keys"):
        hunt.get(cage, f"/api/{path}")
    hunt.get(cage, "/metrics")
    assert hunt.hits == []


def test_a_secret_is_not_in_the_files_after_a_crash_and_a_stop(
    new_product: MakeProduct, canaries: dict[str, str], hunt: Hunt
) -> None:
    """Also when the control plane was killed while a workflow held it, and in what the product printed."""
    product = new_product().start()
    for name in ("canary", "canary_pem", "canary_json", "canary_referred"):
        product.put(f"secrets/{name}", value=canaries[name])
    product.put("config/canary_by_config", type="secret_ref", value="canary_referred")
    connection = {"oauth_flow_type": "client_credentials", "client_id": "client", "access_token": canaries["token"]}
    product.put("connections/canary", **connection, expires_at="2099-01-01T00:00:00Z")
    execution_id = product.submit("leak", end="hang")
    product.wait_for_log(execution_id, "leaked")
    product.kill()
    hunt.look_below(product)

    product.start()
    assert product.wait_until_over(execution_id)["status"] == "crashed"
    look_at_execution(hunt, product, execution_id)
    product.put("secrets/canary", value=secrets.token_urlsafe(30))
    product.http.delete("/api/secrets/canary_pem", headers=HEADERS).raise_for_status()
    product.stop()
    hunt.look_below(product)
    hunt.look("terminal", product.said.encode())
    assert hunt.hits == []
