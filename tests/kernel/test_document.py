"""Every Python block of the users' document loads and runs unchanged."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
import threading
import types
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bifrost_kernel import describe, models, registry, testing

DOCUMENT = Path(__file__).parents[3] / "shared" / "spec" / "getting-started.md"
IMPORTS = (
    "from engine.shared.decorators import workflow, param, data_provider\n"
    "from engine.shared.context import OrganizationContext\n"
)

pytestmark = pytest.mark.skipif(not DOCUMENT.exists(), reason="the users' document is not beside this checkout")


def block(beginning: str) -> str:
    """The Python block that contains this text; exactly one does."""
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [text for text in blocks if beginning in text]
    return str(found)


def run_fragment(text: str, **names: Any) -> dict[str, Any]:
    """Execute statements, `await` among them, with these names; gives back what they left."""
    code = compile(text, "fragment", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    outcome = types.FunctionType(code, names)()
    if inspect.isawaitable(outcome):

        async def finish() -> None:
            await outcome

        asyncio.run(finish())
    return names


def load(workspace: Callable[..., Path], text: str, file: str = "workflows/it.py") -> types.ModuleType:
    root = workspace({file: text})
    module = registry.load_module(root, file)
    assert registry.find_declarations(module, root).broken == ()
    return module


def test_every_block_is_known_here() -> None:
    """A block that the document gains is a block that this file must run."""
    assert DOCUMENT.read_text(encoding="utf-8").count("```python\n") == 20


def test_the_workflow_decorator(workspace: Callable[..., Path]) -> None:
    """All of its arguments; the document's signature is an ellipsis, which stands for arguments of one's own."""
    text = block('name="user_onboarding"')
    module = load(workspace, IMPORTS + text.replace("OrganizationContext, ...)", "OrganizationContext)"))
    assert testing.run_workflow(module.onboard_user, testing.make_context()) is None


def test_the_param_decorator(workspace: Callable[..., Path]) -> None:
    """All of its arguments, above a function of one's own."""
    text = block('default_value="user@example.com"')
    function = '@workflow(name="w", description="d")\n' + text + "\nasync def w(context, email):\n    return email\n"
    module = load(workspace, IMPORTS + function)
    assert testing.run_workflow(module.w, testing.make_context(), email="a@example.com") == "a@example.com"


def test_several_params(workspace: Callable[..., Path]) -> None:
    """Names as first positional argument."""
    module = load(workspace, IMPORTS + block('@workflow(name="create_user"'))
    given = {"first_name": "A", "last_name": "B", "email": "a@example.com", "license": "SPE_E3"}
    assert testing.run_workflow(module.create_user, testing.make_context(), **given) is None


def test_the_data_provider_decorator(workspace: Callable[..., Path]) -> None:
    """Its options have label, value and metadata."""
    text = block("# Could fetch from Microsoft Graph API")
    options = testing.run_workflow(load(workspace, IMPORTS + text).get_available_licenses, testing.make_context())
    assert [option["value"] for option in options] == ["SPE_E3", "SPE_E5"]


def test_organization_properties() -> None:
    """Each can be read."""
    run_fragment(block("# Organization information"), context=testing.make_context())


def test_configuration_access() -> None:
    """Default, value, and presence."""
    left = run_fragment(block("# Get organization-specific"), context=testing.make_context(config={"api_key": "k"}))
    assert (left["api_url"], left["api_key"]) == ("https://api.example.com", "k")
    left = run_fragment(block('"Type": "secret_ref"'), context=testing.make_context(config={"api_key": "k"}))
    assert left["api_key"] == "k"


def test_oauth_connections() -> None:
    """Both ways to the header, and the expiry."""
    expired = models.Credentials(name="H", access_token="t0ken", expires_at=datetime.now(UTC) - timedelta(hours=1))
    context = testing.make_context(connections={"HaloPSA": expired})
    sent: list[dict[str, str]] = []
    requests = types.SimpleNamespace(get=lambda url, headers: sent.append(headers))
    left = run_fragment(block("# Use credentials in API calls"), context=context, requests=requests)
    assert sent == [left["headers"]] == [{"Authorization": "Bearer t0ken"}]
    assert context.events[-1]["message"] == "OAuth token is expired - refresh needed"


def test_variables_and_logging() -> None:
    """The short fragments, one after the other."""
    context = testing.make_context()
    run_fragment(block("# Only exists during execution"))
    run_fragment(block("# Stored in execution record"), context=context)
    run_fragment(block("# Log messages are persisted"), context=context, user_id="u", e=ValueError("no"))
    assert context.get_variable("users_processed") == 42
    assert [event["level"] for event in context.events if event["type"] == "log"] == ["info", "warning", "error"]


def test_checkpoints() -> None:
    """Three, in order."""
    context = testing.make_context()

    async def create_m365_user(email: str) -> dict[str, str]:
        return {"id": "u1", "userPrincipalName": email}

    async def assign_license(user_id: str, sku: str) -> None: ...

    run_fragment(
        block("# Save checkpoint at the start"),
        context=context,
        email="a@example.com",
        department="IT",
        license_sku="SPE_E3",
        create_m365_user=create_m365_user,
        assign_license=assign_license,
    )
    assert [event["name"] for event in context.events] == ["workflow_start", "user_created", "license_assigned"]


class Directory:
    """A directory of 200 users: 182 known, 15 new, 3 that fail."""

    async def get_user(self, email: str) -> dict[str, str] | None:
        number = int(email.removeprefix("user").partition("@")[0])
        if number < 3:
            raise RuntimeError("account is locked")
        return {"id": email} if number < 185 else None

    async def update_user(self, user_id: str, user: dict[str, str]) -> None: ...

    async def create_user(self, user: dict[str, str]) -> None: ...


def test_the_sync_of_200_users() -> None:
    """15 created, 182 updated, 3 failed; the three are listed, whole."""
    context = testing.make_context()
    users = [{"email": f"user{number}@example.com"} for number in range(200)]
    run_fragment(block("# Initialize counters"), context=context, halo_users=users, m365=Directory())
    names = ("users_created", "users_updated", "users_failed", "users_processed")
    assert [context.get_variable(name) for name in names] == [15, 182, 3, 197]
    assert context.get_variable("failed_emails") == [f"user{number}@example.com" for number in range(3)]
    shown = [event["value"] for event in context.events if event.get("name") == "failed_emails"]
    assert [len(value) for value in shown] == [0, 1, 2, 3]


INTEGRATION = """
class Collection:
    async def list(self, **query): return []
    async def create(self, **fields): return fields

class Client:
    def __init__(self, context): self.users = self.tickets = Collection()
"""


def test_integrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients come by entry point, also from another package."""
    (tmp_path / "document_clients.py").write_text(INTEGRATION)
    (tmp_path / "document_clients-1.dist-info").mkdir()
    (tmp_path / "document_clients-1.dist-info" / "METADATA").write_text("Name: document-clients\nVersion: 1\n")
    names = "msgraph = document_clients:Client\nhalopsa = document_clients:Client\n"
    (tmp_path / "document_clients-1.dist-info" / "entry_points.txt").write_text(f"[bifrost.integrations]\n{names}")
    monkeypatch.syspath_prepend(str(tmp_path))
    left = run_fragment(block("# Microsoft Graph integration"), context=testing.make_context())
    assert left["ticket"] == {"title": "New Ticket", "priority": "high"}


def test_a_provider_and_the_workflow_that_uses_it(workspace: Callable[..., Path]) -> None:
    """In one file, replacing the built-in provider of that name."""
    text = IMPORTS + block("# Data provider (in engine/data_providers/license_providers.py)")
    root = workspace({"workflows/it.py": text})
    description = describe.describe(root)
    assert description.broken == ()
    assert [provider.name for provider in description.data_providers if provider.replaces_builtin] == [
        "get_available_licenses"
    ]
    module = registry.load_module(root, "workflows/it.py")
    given = {"user_email": "a@example.com", "license_sku": "SPE_E3"}
    assert testing.run_workflow(module.assign_license, testing.make_context(), **given) is None


def test_the_first_workflow(workspace: Callable[..., Path]) -> None:
    """Both of its files, where the document puts them, with the expected response."""
    root = workspace(
        {
            "workflows/hello_world.py": block("Hello World Workflow"),
            "data_providers/greeting_providers.py": block("Greeting Data Providers"),
        }
    )
    assert describe.describe(root).broken == ()
    module = registry.load_module(root, "workflows/hello_world.py")
    context = testing.make_context(org_name="Your Organization", email="user@yourcompany.com")
    assert testing.run_workflow(module.hello_world, context, name="Alice", language="spanish") == {
        "greeting": "¡Hola, Alice!",
        "language": "spanish",
        "organization": "Your Organization",
        "executed_by": "user@yourcompany.com",
    }
    provider = registry.load_module(root, "data_providers/greeting_providers.py").get_greeting_languages
    assert len(testing.run_workflow(provider, context)) == 4


def test_user_onboarding(workspace: Callable[..., Path]) -> None:
    """With the built-in dropdowns."""
    root = workspace({"workflows/it.py": block('name="onboard_new_user"')})
    assert describe.describe(root).broken == ()
    module = registry.load_module(root, "workflows/it.py")
    given = dict.fromkeys(("first_name", "last_name", "department", "license_sku"), "x") | {"email": "a@example.com"}
    assert testing.run_workflow(module.onboard_new_user, testing.make_context(), **given)["user_id"] == "user-a"


def test_the_scheduled_license_audit(workspace: Callable[..., Path]) -> None:
    """One of three products is low."""
    module = load(workspace, block('name="license_audit"'))
    assert testing.run_workflow(module.license_audit, testing.make_context()) == {
        "total_skus": 3,
        "low_availability_count": 1,
        "admin_notified": True,
    }


class Halo(BaseHTTPRequestHandler):
    """An API with two open tickets, for whoever holds the token."""

    def do_GET(self) -> None:
        allowed = self.headers["Authorization"] == "Bearer t0ken" and self.path == "/api/tickets?status=open"
        self.send_response(200 if allowed else 403)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps([{"id": 1}, {"id": 2}]).encode())

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def halo() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Halo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_oauth_api_integration(workspace: Callable[..., Path], halo: str) -> None:
    """With a real HTTP server at the other end; a refused call is the workflow's own exception."""
    module = load(workspace, block('name="fetch_halo_tickets"'))
    context = testing.make_context(config={"halopsa_url": halo}, connections={"HaloPSA": "t0ken"})
    assert testing.run_workflow(module.fetch_halo_tickets, context)["count"] == 2
    with pytest.raises(Exception, match="API request failed: 403"):
        testing.run_workflow(module.fetch_halo_tickets, context, status="closed")
