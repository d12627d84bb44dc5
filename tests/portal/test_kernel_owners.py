"""Whose kernel it is: nobody else reaches it, it knows no secret, it ends with its page and with its session."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import websocket

from tests.journeys.product import Watch
from tests.portal.conftest import running_site
from tests.portal.form_kernel import KERNEL_ID, FormKernel, connect, kernel_processes, open_form
from tests.portal.site import PASSWORD, Person, Site, Visitor, no_failures

PER_PERSON, IN_ALL = 3, 5
LIMITS = {
    "portal_kernels_per_person": PER_PERSON,
    "portal_kernels": IN_ALL,
    "portal_kernel_abandoned_seconds": 3,
    "portal_session_check_seconds": 0.2,
    "portal_streams_per_person": 3,
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A portal that looks often, so that no test has to wait."""
    with running_site(tmp_path_factory.mktemp("owners"), **LIMITS) as running:
        yield running
        no_failures(running)


@pytest.fixture
def owner(site: Site) -> Person:
    return site.person("WorkflowUser")


@pytest.fixture
def room(site: Site) -> None:
    """The kernels of earlier tests have made room."""
    with Watch(kernel_processes(site)) as earlier:
        assert not earlier.survivors(within_seconds=60)


@pytest.fixture
def kernel(site: Site, room: None, owner: Person) -> Iterator[FormKernel]:
    """A kernel that is kept by an open websocket, as by an open page."""
    with site.visitor(owner) as visitor:
        opened = open_form(site, visitor)
        with opened.channel():
            yield opened
        end(opened)


def end(kernel: FormKernel) -> None:
    kernel.visitor.ask("POST", f"/voila/api/shutdown/{kernel.kernel_id}")


def other_person(site: Site, who: str) -> Person:
    """Somebody of the same organization, of another, or an administrator of the platform."""
    if who == "colleague":
        return site.person("OrgAdmin")
    organization = f"org-{uuid.uuid4().hex[:8]}"
    site.product.add_organization(organization)
    return site.person("OrgAdmin", organization=organization)


@pytest.mark.parametrize("who", ["colleague", "stranger", "the same person elsewhere", "nobody"])
def test_a_kernel_is_its_owners_alone(site: Site, kernel: FormKernel, owner: Person, who: str) -> None:
    """Another session's kernel cannot be seen, talked to or ended; it is unknown, like one that never was."""
    person = {"nobody": None, "the same person elsewhere": owner}.get(who) or other_person(site, who)
    with site.visitor(None if who == "nobody" else person) as visitor:
        for kernel_id in (kernel.kernel_id, str(uuid.uuid4())):
            answers = [
                visitor.ask("GET", f"/api/kernels/{kernel_id}"),
                visitor.ask("POST", f"/voila/api/shutdown/{kernel_id}"),
                visitor.ask("DELETE", f"/api/kernels/{kernel_id}"),
                visitor.ask("POST", f"/api/kernels/{kernel_id}/restart"),
            ]
            assert {answer.status_code for answer in answers} <= {401, 403, 404, 405}
            with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
                connect(site, kernel_id, cookie=visitor.cookies)
            assert refusal.value.status_code in ((302, 401, 403) if who == "nobody" else (404,))
    with kernel.channel() as own:
        assert own.comms()


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://127.0.0.1:1", "https://localhost"])
def test_the_websocket_opens_for_our_own_pages(site: Site, kernel: FormKernel, origin: str) -> None:
    """Another origin, `null`, an empty one, another port or scheme: refused, cookie or not."""
    with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
        connect(site, kernel.kernel_id, cookie=kernel.visitor.cookies, origin=origin)
    assert refusal.value.status_code == 403


def test_the_websocket_needs_an_origin(site: Site, kernel: FormKernel) -> None:
    """Browsers always say where a websocket comes from; who does not is none."""
    with pytest.raises(websocket.WebSocketBadStatusException) as refusal:
        connect(site, kernel.kernel_id, cookie=kernel.visitor.cookies, suppress_origin=True)
    assert refusal.value.status_code == 403


def test_a_kernel_knows_no_secret(site: Site, kernel: FormKernel) -> None:
    """What it inherits is no key, session or cookie; its token is seen by nobody; its home is an empty folder."""
    environment = inherited(kernel)
    assert set(environment) <= {
        *("PATH", "LANG", "LC_ALL", "TZ", "HOME", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "SSL_CERT_FILE"),
    }
    text = " ".join([*environment.values(), *kernel.process.cmdline()])
    for secret in (cookie_of(kernel.visitor), (site.product.home / "keys" / "portal.key").read_text(), PASSWORD):
        assert secret not in text
    connection_file = Path(" ".join(kernel.process.cmdline()).split(" -f ")[1].split()[0])
    home = connection_file.parent.parent / "home"
    assert home.is_dir()
    assert {one.name for one in home.rglob("*") if one.is_file()} <= {"README"}


def inherited(kernel: FormKernel) -> dict[str, str]:
    """The environment of the fork server: what a kernel is given besides is in no file of `/proc`."""
    parent = kernel.process.parent()
    assert parent is not None
    return parent.environ()


def cookie_of(visitor: Visitor) -> str:
    return visitor.http.cookies["__Host-bifrost"].strip('"')


def sign_out(site: Site, visitor: Visitor, person: Person) -> None:
    assert visitor.post_form("/signout").status_code == 303


def be_signed_out(site: Site, visitor: Visitor, person: Person) -> None:
    site.admin.post(f"/api/users/{person.email}/sign-out").raise_for_status()


def be_disabled(site: Site, visitor: Visitor, person: Person) -> None:
    site.admin.patch(f"/api/users/{person.email}", json={"disabled": True}).raise_for_status()


@pytest.mark.parametrize("end_session", [sign_out, be_signed_out, be_disabled])
def test_nothing_outlives_its_session(
    site: Site, room: None, owner: Person, end_session: Callable[[Site, Visitor, Person], None]
) -> None:
    """When a session ends, its next request is refused, and its websocket, its live events and its kernel end."""
    with site.visitor(owner) as visitor:
        kernel, stolen = open_form(site, visitor), visitor.cookies
        run = visitor.submit("slow_steps", {"steps": 1000, "pause": 5}).json()["execution_id"]
        with Watch([kernel.process]) as watch, kernel.channel() as channel, live_events(site, stolen, run) as events:
            next(events)
            end_session(site, visitor, owner)
            assert httpx.get(f"{site.url}/runs", headers={"Cookie": stolen}).status_code == 302
            until_closed(channel.connection)
            with contextlib.suppress(httpx.RemoteProtocolError):
                for _ in events:
                    pass
            assert watch.survivors(within_seconds=30) == []
    site.admin.post(f"/api/executions/{run}/cancel").raise_for_status()


@contextlib.contextmanager
def live_events(site: Site, cookie: str, run: str) -> Iterator[Iterator[str]]:
    with httpx.stream("GET", f"{site.url}/runs/{run}/events", headers={"Cookie": cookie}, timeout=60) as stream:
        yield stream.raise_for_status().iter_lines()


def until_closed(connection: websocket.WebSocket) -> None:
    """Return when the other side has closed it."""
    with contextlib.suppress(websocket.WebSocketConnectionClosedException, ConnectionError):
        while connection.recv() != "":
            continue


def test_a_kernel_ends_with_its_page(site: Site, room: None, owner: Person) -> None:
    """A page that says farewell, and one that is gone without a word: the kernel ends."""
    with site.visitor(owner) as visitor:
        left = open_form(site, visitor)
        with left.channel(), Watch([left.process]) as watch:
            assert visitor.ask("POST", f"/voila/api/shutdown/{left.kernel_id}").status_code == 204
            assert watch.survivors(within_seconds=30) == []
        lost = open_form(site, visitor)
        with Watch([lost.process]) as watch:
            with lost.channel() as channel:
                assert channel.comms()
            assert watch.survivors(within_seconds=30) == []


def test_the_limit_holds_when_many_pages_open_at_once(site: Site, owner: Person) -> None:
    """Of many pages at once only so many get a kernel; the forms of the others work without one."""
    until_no_kernels(site)
    with site.visitor(owner) as visitor, ThreadPoolExecutor(8) as pool, Peak(site) as peak:
        pages = list(pool.map(lambda _: visitor.get("/workflows/hello_world"), range(3 * PER_PERSON)))
        assert {page.status_code for page in pages} == {200}
        with_kernel = [page for page in pages if KERNEL_ID.search(page.text)]
        assert len(with_kernel) < len(pages)
        assert all('id="bifrost-form"' in page.text and page.text.endswith("</html>") for page in pages)
        assert visitor.submit("hello_world", {"name": "Without"}).status_code == 202
    assert 1 <= peak.highest <= PER_PERSON


def test_the_limit_for_all_holds(site: Site) -> None:
    """However many people come: no more kernels than there is room for, and every form works."""
    until_no_kernels(site)
    with contextlib.ExitStack() as people, ThreadPoolExecutor(8) as pool, Peak(site) as peak:
        visitors = [people.enter_context(site.visitor(site.person("WorkflowUser"))) for _ in range(4)]
        asked = [visitor for visitor in visitors for _ in range(PER_PERSON)]
        pages = list(pool.map(lambda visitor: visitor.get("/workflows/hello_world"), asked))
        assert {page.status_code for page in pages} == {200}
        assert visitors[-1].submit("hello_world", {"name": "Full"}).status_code == 202
    assert 1 <= peak.highest <= IN_ALL


def until_no_kernels(site: Site) -> None:
    """Return when the kernels of other tests have ended, as they do soon when nobody looks."""
    with Watch(kernel_processes(site)) as watch:
        assert watch.survivors(within_seconds=30) == []


class Peak:
    """The highest number of kernels at once while the block runs, seen from outside."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.highest = 0

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self.highest = max(self.highest, len(kernel_processes(self._site)))


def test_one_person_does_not_take_all_live_streams(site: Site, owner: Person) -> None:
    """Beyond the limit a further stream is refused; closing one makes room again."""
    with site.visitor(owner) as visitor, contextlib.ExitStack() as open_ones:
        run = visitor.submit("slow_steps", {"steps": 1000, "pause": 5}).json()["execution_id"]
        watching = [open_ones.enter_context(live_events(site, visitor.cookies, run)) for _ in range(3)]
        assert all(next(events) for events in watching)
        assert visitor.get(f"/runs/{run}/events").status_code == 429
        assert visitor.get(f"/runs/{run}").status_code == 200
        open_ones.close()
        assert visitor.ask("POST", f"/runs/{run}/cancel").status_code == 200
