"""What tests of several rooms share: a real control plane behind a real HTTP server, and callers of it.

The control plane is started once for all tests, since every start costs seconds: a test works in organizations of its
own, and one that needs other settings starts a control plane of its own with `start_control_plane`.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from bifrost_kernel.forkserver import control_groups
from bifrost_scheduler import services as composition
from bifrost_scheduler.settings import Settings
from bifrost_scheduler.web import app as web

ROOT = Path(__file__).resolve().parent.parent

TESTED = '''
"""Workflows that behave in every way that the API tells apart."""

import os
import threading

from bifrost_kernel import OrganizationContext, UserError, data_provider, param, workflow


@workflow(name="echo", description="Give back what came in")
@param("text", type="string", required=True)
@param("count", type="int", validation={"min": 1, "max": 9})
@param("ratio", type="float")
@param("flag", type="bool")
@param("email", type="email")
@param("data", type="json")
@param("items", type="list")
async def echo(context, text, count=None, ratio=None, flag=None, email=None, data=None, items=None):
    return {"text": text, "count": count, "ratio": ratio, "flag": flag, "email": email, "data": data, "items": items}


@workflow(name="talkative", description="Leave events")
async def talkative(context: OrganizationContext):
    context.log("info", "first", {"number": 1})
    context.save_checkpoint("half", {"done": 1})
    context.set_variable("answer", 42)
    return [1, 2, 3]


@workflow(name="refuse", description="Tell the user what to change")
async def refuse(context: OrganizationContext):
    raise UserError("Choose another name.")


@workflow(name="explode", description="Fail")
async def explode(context: OrganizationContext):
    raise ValueError("boom")


@workflow(name="partly", description="End with errors")
async def partly(context: OrganizationContext):
    return {"success": False, "failed": ["b"]}


@workflow(name="nothing", description="Return nothing")
async def nothing(context: OrganizationContext):
    return None


@workflow(name="overdue", description="Run into the deadline", timeout_seconds=1)
async def overdue(context: OrganizationContext):
    threading.Event().wait(60)


@workflow(name="waiting", description="Wait until it is cancelled", execution_mode="async")
async def waiting(context: OrganizationContext):
    context.log("info", "waiting")
    threading.Event().wait(120)


@workflow(name="leaving", description="End the process")
async def leaving(context: OrganizationContext):
    os._exit(3)


@workflow(name="guarded", description="Needs an approval", requires_approval=True)
@param("text", type="string", default_value="x")
async def guarded(context: OrganizationContext, text="x"):
    return {"ran": text}


@workflow(name="everywhere", description="Needs no organization", requires_org=False)
async def everywhere(context: OrganizationContext):
    return {"organization": context.org_id}


@workflow(name="for_admins", description="Needs a permission", required_permission="canManageConfig")
async def for_admins(context: OrganizationContext):
    return "ok"


@workflow(name="tell_secret", description="Give a secret away")
@param("name", type="string", required=True)
async def tell_secret(context: OrganizationContext, name):
    secret = context.get_secret(name)
    context.log("info", f"it is {secret}")
    return {"secret": secret}


@workflow(name="tell_config", description="Show a config value")
@param("name", type="string", required=True)
async def tell_config(context: OrganizationContext, name):
    return {"value": context.get_config(name)}


@workflow(name="tell_connection", description="Show the token of a connection")
@param("name", type="string", required=True)
async def tell_connection(context: OrganizationContext, name):
    credentials = await context.get_oauth_connection(name)
    return {"type": credentials.token_type, "expired": credentials.is_expired(), "token": credentials.access_token}


@data_provider(name="get_colors", description="Colors of this organization")
async def get_colors(context: OrganizationContext):
    return [{"label": "Red", "value": "red"}, {"label": context.org_id, "value": context.org_id}]


@data_provider(name="get_nothing", description="Fails")
async def get_nothing(context: OrganizationContext):
    raise ValueError("no options today")


@workflow(name="paint", description="Choose a color")
@param("color", type="string", required=True, data_provider="get_colors")
async def paint(context: OrganizationContext, color):
    return color
'''

BROKEN = """
from bifrost_kernel import param, workflow


@workflow(name="broken_one", description="Declared wrongly")
@param("nobody", type="string")
async def broken_one(context):
    return None
"""


@dataclass(frozen=True)
class ControlPlane:
    """A running control plane, as its callers see it."""

    base_url: str
    services: composition.Services
    workspace: Path

    def write(self, files: Mapping[str, str]) -> None:
        """Save files into the workspace, as an author does."""
        for relative, text in files.items():
            path = self.workspace / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text), encoding="utf-8")

    def open(self, key: str | None = "test", organization: str | None = None, **headers: str) -> httpx.Client:
        """An HTTP client with this key, for this organization; whoever asks for it closes it."""
        given = {"x-functions-key": key, "X-Organization-Id": organization, **headers}
        wanted = {name: value for name, value in given.items() if value is not None}
        return httpx.Client(base_url=self.base_url, headers=wanted, timeout=60, trust_env=False)


@pytest.fixture(scope="session")
def start_control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., ControlPlane]]:
    """Start control planes with settings of one's own; all of them end with the session."""
    running: list[Callable[[], None]] = []

    def start(**given: Any) -> ControlPlane:
        folder = tmp_path_factory.mktemp("control-plane")
        shutil.copytree(ROOT / "workspace", folder / "workspace")
        chosen = {"dev": True, "home": folder / "home", "workspace": folder / "workspace", **given}
        services = composition.build(Settings(lab=False, portal=False, port=0, **chosen))
        services.start()
        base_url, stop = _serve(services)
        running.append(stop)
        return ControlPlane(base_url, services, folder / "workspace")

    yield start
    for stop in reversed(running):
        stop()


def _serve(services: composition.Services) -> tuple[str, Callable[[], None]]:
    listener = socket.create_server(("127.0.0.1", 0))
    # Callers may connect at once: the listener keeps them until the server accepts.
    server = uvicorn.Server(
        uvicorn.Config(web.create_app(services), log_config=None, access_log=False, proxy_headers=False)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join()
        listener.close()
        services.stop()

    return f"http://127.0.0.1:{listener.getsockname()[1]}", stop


@pytest.fixture(scope="session")
def control_plane(start_control_plane: Callable[..., ControlPlane]) -> ControlPlane:
    """The control plane that tests share: two executions of an organization run at once, three may wait.

    All tests come from one address, so that many of them may fail to sign in there.
    """
    started = start_control_plane(
        organization_concurrency=2, organization_queue_limit=3, sign_in_address_attempts=1_000_000
    )
    started.write({"workflows/tested.py": TESTED, "workflows/broken.py": BROKEN})
    return started


@pytest.fixture
def client(control_plane: ControlPlane) -> Iterator[Callable[..., httpx.Client]]:
    """Open clients of the shared control plane: `client(key, organization)`; they close with the test."""
    opened: list[httpx.Client] = []

    def make(key: str | None = "test", organization: str | None = None, **headers: str) -> httpx.Client:
        opened.append(control_plane.open(key, organization, **headers))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


_NUMBERS = itertools.count(1)


@pytest.fixture
def new_organization(client: Callable[..., httpx.Client]) -> Callable[[], str]:
    """Make an organization that nobody else uses, and give its id."""

    def make() -> str:
        id_ = f"organization-{next(_NUMBERS)}"
        client().post("/api/organizations", json={"id": id_, "name": f"Number {id_}"}).raise_for_status()
        return id_

    return make


@pytest.fixture
def organization(new_organization: Callable[[], str]) -> str:
    """The test's own organization."""
    return new_organization()


@pytest.fixture
def neighbour(new_organization: Callable[[], str]) -> str:
    """Another organization than the test's own."""
    return new_organization()


@pytest.fixture
def new_key(client: Callable[..., httpx.Client]) -> Callable[..., str]:
    """Make an API key of organizations, with the default permissions or with `permissions=[…]`."""

    def make(*organizations: str, **fields: Any) -> str:
        body = {"name": "tests", "organizations": list(organizations), **fields}
        made = client().post("/api/keys", json=body)
        assert made.status_code == 201, made.text
        return str(made.json()["key"])

    return make


@pytest.fixture
def new_user(client: Callable[..., httpx.Client]) -> Callable[..., str]:
    """Make a person with roles by organization, and give the email: `new_user({"acme": ["OrgAdmin"]})`."""

    def make(roles: Mapping[str, list[str]] | None = None, **fields: Any) -> str:
        body = {"email": f"person-{next(_NUMBERS)}@example.com", "name": "Ada", "roles": roles or {}, **fields}
        made = client().post("/api/users", json=body)
        assert made.status_code == 201, made.text
        return str(made.json()["email"])

    return make


@pytest.fixture
def sign_in(client: Callable[..., httpx.Client]) -> Callable[..., str]:
    """Let a person sign in by a link (and set a password), and give the session's token."""

    def make(email: str, **fields: str) -> str:
        link = client().post(f"/api/users/{email}/link").raise_for_status().json()["token"]
        begun = client(None).post("/api/sessions", json={"link": link, **fields})
        assert begun.status_code == 201, begun.text
        return str(begun.json()["token"])

    return make


@pytest.fixture
def new_session(new_user: Callable[..., str], sign_in: Callable[..., str]) -> Callable[..., str]:
    """The token of a new person with one role in one organization."""
    return lambda organization, role: sign_in(new_user({organization: [role]}))


@pytest.fixture
def run(client: Callable[..., httpx.Client]) -> Callable[..., httpx.Response]:
    """Run a workflow: `run("echo", organization, text="a")`, with `key=` and `headers=`."""

    def make(
        workflow: str,
        organization: str | None = None,
        /,
        *,
        key: str = "test",
        headers: Mapping[str, str] | None = None,
        **inputs: Any,
    ) -> httpx.Response:
        return client(key, organization).post(f"/api/workflows/{workflow}", json=inputs, headers=headers)

    return make


@pytest.fixture
def until_over(client: Callable[..., httpx.Client]) -> Callable[[str], dict[str, Any]]:
    """Stay with an execution until it is over, and give its envelope."""

    def stay(execution_id: str) -> dict[str, Any]:
        path = f"/api/executions/{execution_id}"
        with client().stream("GET", f"{path}/events", headers={"Accept": "text/event-stream"}) as stream:
            # The stream ends when the execution does.
            stream.read()
        envelope: dict[str, Any] = client().get(path).json()
        return envelope

    return stay


@pytest.fixture
def until_logged(client: Callable[..., httpx.Client]) -> Callable[[str, str], None]:
    """Stay with an execution until it logs this message: then its code runs."""

    def stay(execution_id: str, message: str) -> None:
        path = f"/api/executions/{execution_id}/events"
        with client().stream("GET", path, headers={"Accept": "text/event-stream"}) as stream:
            for line in stream.iter_lines():
                if line.startswith("data:") and json.loads(line[5:]).get("message") == message:
                    return
        raise AssertionError(f"{execution_id} never logged {message!r}")

    return stay


@pytest.fixture
def occupy(
    client: Callable[..., httpx.Client], run: Callable[..., httpx.Response], until_logged: Callable[[str, str], None]
) -> Iterator[Callable[..., list[str]]]:
    """Let executions of an organization run or wait until the test ends; gives their ids, oldest first.

    Two of them run for sure (the shared control plane runs two of an organization at once), the others wait.
    """
    started: list[str] = []

    def make(organization: str, count: int) -> list[str]:
        answers = [run("waiting", organization) for _ in range(count)]
        ids = [str(answer.raise_for_status().json()["execution_id"]) for answer in answers]
        started.extend(ids)
        for id_ in ids[:2]:
            until_logged(id_, "waiting")
        return ids

    yield make
    for id_ in reversed(started):
        client().post(f"/api/executions/{id_}/cancel")


@pytest.fixture
def control_group() -> Iterator[Path]:
    """A group of the second version below this process's own, with whatever controllers there are."""
    try:
        own = control_groups.find_own(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
        folder = own / f"bifrost-test-{os.getpid()}"
        folder.mkdir()
    except (control_groups.NotPermitted, OSError) as error:
        pytest.skip(f"this machine permits no control groups here: {error}")
    yield folder
    control_groups.remove(folder)
    assert not folder.exists()
