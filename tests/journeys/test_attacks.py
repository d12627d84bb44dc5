"""Hostile workflow code against the whole product: what succeeds with the sandbox switched off fails with it."""

from __future__ import annotations

import http.server
import itertools
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.journeys.product import ORGANIZATION, Json, MakeProduct, Product, Watch, processes_with

_NUMBERS = itertools.count(1)
MEMORY_BYTES = 512 * 1024 * 1024
TMP_BYTES = 16 * 1024 * 1024
CANARY = "canary-in-the-environment"


class _Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def neighbour() -> Iterator[int]:
    """The port of another server on this machine's loopback interface."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hello) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def canary() -> Iterator[str]:
    """A value in the environment of the control plane."""
    os.environ["BIFROST_TEST_CANARY"] = CANARY
    yield CANARY
    del os.environ["BIFROST_TEST_CANARY"]


@pytest.fixture(scope="module")
def enclosed(make_product: MakeProduct, neighbour: int, canary: str) -> Product:
    return make_product(
        sandbox="full",
        tmp_bytes=TMP_BYTES,
        memory_bytes=MEMORY_BYTES,
        egress_allow=[f"127.0.0.1:{neighbour}"],
        host_network_workflows=["attack_from_host"],
    ).start()


@pytest.fixture(scope="module")
def bare(make_product: MakeProduct, canary: str) -> Product:
    return make_product(sandbox="none", memory_bytes=MEMORY_BYTES).start()


@pytest.fixture(scope="module")
def reduced(make_product: MakeProduct) -> Product:
    return make_product(sandbox="reduced").start()


def gets_through(product: Product, way: str, target: object = "", workflow: str = "attack") -> bool:
    answer = product.run(workflow, way=way, target=str(target))
    assert answer.status_code == 200, answer.text
    return bool(answer.json()["through"])


def prize(product: Product, what: str) -> Path:
    """A file of the product that no workflow may read."""
    product.run("ordinary").raise_for_status()
    found = {
        "store": product.home / "bifrost.db",
        "key": product.home / "keys" / "operator.key",
        "record": next(product.home.glob("records/*/*.ipynb"), Path("no record")),
        "log": product.home / "logs" / "bifrost.log",
        "workspace": product.workspace / "workflows" / "attacks.py",
        "control plane": Path(f"/proc/{product.pid}/cmdline"),
        "root": Path("/root"),
        "passwords": Path("/etc/shadow"),
    }
    return found[what]


@pytest.mark.parametrize("what", ["store", "key", "record", "log", "workspace", "passwords"])
def test_files_of_the_product_cannot_be_read(enclosed: Product, bare: Product, what: str) -> None:
    """Neither the store nor a key, another's record, the log, the workspace or the machine's passwords."""
    target = prize(bare, what)
    if not os.access(target, os.R_OK):
        pytest.skip("this user could not read it anyway")
    assert gets_through(bare, "read", target)
    assert not gets_through(enclosed, "read", prize(enclosed, what))


@pytest.mark.parametrize("folder", ["/root", "/home", "/var/lib", "/srv", "/sys"])
def test_folders_of_the_machine_are_not_there(enclosed: Product, bare: Product, folder: str) -> None:
    """Homes of people, data of services, the hardware. (Of root's home nothing is left but the way to Python.)"""
    if not os.access(folder, os.R_OK):
        pytest.skip("this user could not read it anyway")
    assert gets_through(bare, "list", folder)
    outside = set(os.listdir(folder)) - {".pyenv"}
    if gets_through(enclosed, "list", folder):
        assert not any(gets_through(enclosed, "list", Path(folder, name)) for name in sorted(outside)[:5])


def test_no_environment_holds_what_the_control_plane_was_given(enclosed: Product, bare: Product, canary: str) -> None:
    """Not its own and not that of a process that it sees; without the sandbox the control plane's is there to read."""
    assert gets_through(bare, "read", f"/proc/{bare.pid}/environ") or os.getuid() != 0
    assert not gets_through(enclosed, "environments", canary)


@pytest.mark.parametrize("what", ["store", "key", "workspace"])
def test_files_of_the_product_cannot_be_written(enclosed: Product, bare: Product, what: str) -> None:
    """Whoever changed the store or the workspace would run as somebody else."""
    assert gets_through(bare, "may_write", prize(bare, what))
    assert not gets_through(enclosed, "may_write", prize(enclosed, what))


def test_code_cannot_be_changed(enclosed: Product, bare: Product) -> None:
    """The snapshots that later executions import are read-only, like Python and its packages."""
    for product, open_to_all in ((bare, True), (enclosed, False)):
        product.run("ordinary").raise_for_status()
        snapshot = next(path for path in (product.home / "code").iterdir() if not path.name.startswith("."))
        assert gets_through(product, "read", snapshot / "workflows" / "attacks.py")
        assert gets_through(product, "write", snapshot / "workflows" / "planted.py") is open_to_all
    assert not any(gets_through(enclosed, "may_write", folder) for folder in (os.__file__, "/usr", "/etc", "/bin"))


def test_servers_on_this_machine_are_out_of_reach(enclosed: Product, bare: Product, neighbour: int) -> None:
    """The product's own port, another one on loopback; nor a metadata service, however it is written."""
    for product, through in ((bare, True), (enclosed, False)):
        port = product.http.base_url.port
        assert [gets_through(product, "connect", f"127.0.0.1:{where}") for where in (port, neighbour)] == [through] * 2
    assert not any(gets_through(enclosed, "connect", f"{host}:80") for host in ("169.254.169.254", "8.8.8.8", "::1"))


def ports_of(product: Product) -> list[int]:
    """Every TCP port that a process of the product listens on."""
    processes = [psutil.Process(product.pid), *product.descendants()]
    connections = itertools.chain.from_iterable(process.net_connections("tcp") for process in processes)
    return sorted({one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN})


def test_every_port_of_the_product_is_out_of_reach(enclosed: Product, bare: Product) -> None:
    """Neither directly nor by the proxy, whose refusals stand in the record."""
    assert all(gets_through(bare, "connect", f"127.0.0.1:{port}") for port in ports_of(bare))
    for port in ports_of(enclosed):
        assert not gets_through(enclosed, "connect", f"127.0.0.1:{port}")
        said, talk = refusal(enclosed, "tunnel", ORGANIZATION, "127.0.0.1", port)
        assert (said.split(" ")[1], talk["port"], talk["refused_by"]) == ("403", port, "address")


def test_the_authors_broker_is_out_of_reach(enclosed: Product, bare: Product) -> None:
    """The socket at which sessions of any organization are served; its path may be known, and so may a token."""
    for product, through in ((bare, True), (enclosed, False)):
        session = product.http.post("/api/authoring-sessions", json={}).raise_for_status().json()
        assert gets_through(product, "connect_unix", session["socket"]) is through


def test_unix_sockets_of_this_machine_are_out_of_reach(enclosed: Product, bare: Product, tmp_path: Path) -> None:
    """Those with a path, and those with a name only."""
    path, name = tmp_path / "socket", f"@bifrost-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as by_path, socket.socket(socket.AF_UNIX) as by_name:
        by_path.bind(str(path))
        by_name.bind(name.replace("@", "\0"))
        for sock in (by_path, by_name):
            sock.listen(10)
        assert all(gets_through(bare, "connect_unix", target) for target in (path, name))
        assert not any(gets_through(enclosed, "connect_unix", target) for target in (path, name))


@pytest.mark.parametrize("way", ["unshare", "ptrace", "keyring", "clone"])
def test_calls_that_no_workflow_needs_are_refused(enclosed: Product, bare: Product, reduced: Product, way: str) -> None:
    """New namespaces, tracing, key rings; also where only the reduced sandbox can be had."""
    assert gets_through(bare, way)
    assert not gets_through(reduced, way)
    assert not gets_through(enclosed, way)


@pytest.mark.parametrize("way", ["mount", "io_uring", "packets", "virtual_machine", "become_root"])
def test_ways_to_the_machine_are_refused(enclosed: Product, way: str) -> None:
    """Mounts, io_uring, raw packets, the hypervisor, root."""
    assert not gets_through(enclosed, way)


def test_an_execution_is_alone(enclosed: Product) -> None:
    """It sees its own processes, a loopback interface, a user without a name on the machine, and no secret."""
    seen = enclosed.run("look_around").json()
    assert len(seen["processes"]) <= 2
    assert (seen["interfaces"], seen["host"], seen["user"]) == (["lo"], "kernel", 1000)
    assert not [name for name in seen["environment"] if "BIFROST" in name]
    assert not {"boot", "mnt", "opt", "srv", "sys"} & set(seen["root"])


def test_killing_everybody_reaches_nobody(enclosed: Product) -> None:
    """kill(-1) ends at the execution's own processes; the product answers, and the next execution runs."""
    assert enclosed.run("kill_everybody").json() in {"nobody to kill", "killed"}
    assert enclosed.http.get("/api/health").status_code == 200
    assert enclosed.run("look_around").status_code == 200


def test_it_is_nobody_on_this_machine(enclosed: Product) -> None:
    """A kernel of a control plane that is root is another user, and its processes end with it."""
    mark = f"linger-{os.getpid()}"
    execution_id = enclosed.submit("linger", mark=mark)
    enclosed.wait_for_log(execution_id, "lingering")
    processes = processes_with(mark)
    users = {user for process in processes for user in process.uids()}
    with Watch(processes) as watch:
        enclosed.http.post(f"/api/executions/{execution_id}/cancel").raise_for_status()
        enclosed.wait_until_over(execution_id)
        assert len(watch) == 1
        assert watch.survivors(within_seconds=10) == []
    assert users == {psutil.Process().uids().real} if os.getuid() else users and min(users) >= 64000


def test_nothing_is_left_for_the_next_execution(enclosed: Product, bare: Product) -> None:
    """No module, no start-up file, no temporary file; without the sandbox temporary files stay."""
    name, everywhere = f"planted_{os.getpid()}.pth", "/tmp /dev/shm /var/tmp /run /usr home work site"
    try:
        assert bare.run("plant", name=name, where="/tmp").json() == ["/tmp"]
        assert bare.run("find_planted", name=name, where="/tmp").json() == ["/tmp"]
    finally:
        Path("/tmp", name).unlink(missing_ok=True)
    assert set(enclosed.run("plant", name=name, where=everywhere).json()) == {"/tmp", "/dev/shm", "/var/tmp"}
    assert enclosed.run("find_planted", name=name, where=everywhere).json() == []


def test_processes_are_bounded(enclosed: Product) -> None:
    """A fork bomb stops at the limit of its own execution; meanwhile and afterwards others run."""
    bomb = enclosed.submit("fork_bomb")
    assert enclosed.http.get("/api/health").status_code == 200
    assert enclosed.run("look_around").status_code == 200
    enclosed.wait_until_over(bomb)
    counted = enclosed.run("fork_bomb").json()
    assert 100 < counted <= 128


def test_memory_is_bounded(enclosed: Product) -> None:
    """More than the limit is a MemoryError."""
    assert enclosed.run("eat_memory").json() == "refused"
    assert enclosed.http.get("/api/health").status_code == 200


@pytest.mark.parametrize("level", ["enclosed", "bare"])
def test_memory_is_bounded_for_all_processes_together(request: pytest.FixtureRequest, level: str) -> None:
    """Many that take a little each end as failed, with the limit in the text; nothing of them is left."""
    product: Product = request.getfixturevalue(level)
    answer = product.run("eat_memory_together", processes=8, megabytes=100)
    execution = product.execution(answer.headers["X-Execution-Id"])
    assert (execution["status"], execution["error_type"]) == ("failed", "LimitExceeded")
    assert "512 MB of memory (BIFROST_MEMORY_BYTES)" in execution["error"]
    assert answer.json()["error"] == "WorkflowError"


@pytest.mark.parametrize(("folder", "most"), [("/tmp", TMP_BYTES), ("/dev/shm", 64 * 1024 * 1024)])
def test_space_is_bounded(enclosed: Product, folder: str, most: int) -> None:
    """A full /tmp is an error of whoever filled it, and is empty for the next."""
    for _ in range(2):
        filled = enclosed.run("fill", folder=folder).json()
        assert filled["error"] == "ENOSPC"
        assert most // 2 < filled["written"] <= most


def test_descriptors_are_bounded(enclosed: Product) -> None:
    """Open files have a limit."""
    assert enclosed.run("open_files").json() < 1024


@pytest.mark.parametrize("level", ["enclosed", "reduced", "bare"])
def test_ordinary_code_works(request: pytest.FixtureRequest, level: str) -> None:
    """Temporary files, processes, threads, databases, sockets, certificates, time zones, at every level."""
    product: Product = request.getfixturevalue(level)
    assert product.run("ordinary").json() == {
        "tempfile": "kept",
        "subprocess": "42\n",
        "shell": "42\n",
        "threads": [0, 1, 4, 9],
        "multiprocessing": [0, 1, 4, 9],
        "sqlite": 45,
        "sockets": "hello",
        "certificates": True,
        "zone": "2026-07-01T12:00:00+02:00",
        "user": True,
        "lock": True,
        "random": 8,
    }


def test_an_allowed_neighbour_is_reached_by_every_library(enclosed: Product, neighbour: int) -> None:
    """httpx, requests, urllib and aiohttp work as they are, and the record says whom they talked to."""
    answer = enclosed.run("fetch", url=f"http://127.0.0.1:{neighbour}/")
    assert answer.json() == dict.fromkeys(("httpx", "requests", "urllib", "aiohttp"), 200)
    (talk,) = enclosed.record(answer.headers["X-Execution-Id"])["metadata"]["bifrost"]["network"]
    assert (talk["host"], talk["port"], talk["refused"]) == ("127.0.0.1", neighbour, 0)
    assert talk["bytes_received"] >= 4 * len("hello")


def test_other_neighbours_are_refused_to_every_library(enclosed: Product) -> None:
    """The product's own port, by the proxy; the record has the attempts."""
    port = enclosed.http.base_url.port
    answer = enclosed.run("fetch", url=f"http://127.0.0.1:{port}/api/health")
    assert answer.json() == dict.fromkeys(("httpx", "requests", "urllib", "aiohttp"), 403)
    (talk,) = enclosed.record(answer.headers["X-Execution-Id"])["metadata"]["bifrost"]["network"]
    assert (talk["host"], talk["refused"], talk["bytes_received"]) == ("127.0.0.1", 4, 0)


@pytest.fixture
def narrow(enclosed: Product, neighbour: int) -> str:
    """An organization that may reach nothing but the neighbour."""
    id_ = enclosed.add_organization(f"narrow-{next(_NUMBERS)}")
    enclosed.http.patch(f"/api/organizations/{id_}", json={"egress": [f"127.0.0.1:{neighbour}"]}).raise_for_status()
    return id_


def refusal(product: Product, workflow: str, organization: str, host: str, port: int) -> tuple[str, Json]:
    """What the proxy answers to a workflow, and what the record says of it."""
    answer = product.run(workflow, organization, host=host, port=port)
    (talk,) = product.record(answer.headers["X-Execution-Id"])["metadata"]["bifrost"]["network"]
    return str(answer.json()), talk


def test_an_organization_reaches_what_its_list_names(enclosed: Product, narrow: str, neighbour: int) -> None:
    """Anything else is refused in its name, before it is resolved; another organization is not bound by the list."""
    assert enclosed.run("tunnel", narrow, host="127.0.0.1", port=neighbour).json().startswith("HTTP/1.1 200")
    said, talk = refusal(enclosed, "tunnel", narrow, "no-such-name.invalid", 443)
    assert said.startswith("HTTP/1.1 403")
    assert f"not on the egress list of the organization '{narrow}'" in said
    assert (talk["host"], talk["refused"], talk["refused_by"]) == ("no-such-name.invalid", 1, "organization")
    assert enclosed.run("tunnel", host="no-such-name.invalid", port=443).json().startswith("HTTP/1.1 502")


def test_a_workflow_reaches_what_it_declares(enclosed: Product, narrow: str, neighbour: int) -> None:
    """Of what its organization may: where one list does not name a host, it is refused; an empty list is no network."""
    said, talk = refusal(enclosed, "tunnel_to_example", ORGANIZATION, "127.0.0.1", neighbour)
    assert "not on the egress list of the workflow 'tunnel_to_example'" in said
    assert talk["refused_by"] == "workflow"
    assert "the organization" in refusal(enclosed, "tunnel_to_example", narrow, "example.invalid", 443)[0]
    assert "the workflow 'tunnel_nowhere'" in refusal(enclosed, "tunnel_nowhere", narrow, "127.0.0.1", neighbour)[0]


def test_a_list_opens_nothing_private(enclosed: Product) -> None:
    """Whoever writes down a loopback or metadata address is refused all the same; the record says why."""
    id_ = enclosed.add_organization(f"greedy-{next(_NUMBERS)}")
    hosts = ["127.0.0.1", "localhost", "169.254.169.254", "[::1]"]
    enclosed.http.patch(f"/api/organizations/{id_}", json={"egress": hosts}).raise_for_status()
    for host in hosts:
        said, talk = refusal(enclosed, "tunnel", id_, host, int(enclosed.http.base_url.port or 0))
        assert (said.split(" ")[1], talk["refused_by"]) == ("403", "address")


def test_the_network_of_the_machine_is_the_operators_to_give(enclosed: Product, bare: Product, neighbour: int) -> None:
    """The workflow that he names reaches it; one that he does not name is broken, and refused with the reason."""
    assert gets_through(enclosed, "connect", f"127.0.0.1:{neighbour}", "attack_from_host")
    assert gets_through(enclosed, "resolve", "localhost", "attack_from_host")
    assert not gets_through(enclosed, "connect", f"127.0.0.1:{neighbour}")
    refused = bare.run("attack_from_host", way="connect", target="127.0.0.1:1")
    assert (refused.status_code, refused.json()["error"]) == (409, "Conflict")
    assert "BIFROST_HOST_NETWORK_WORKFLOWS" in refused.json()["message"]
    assert "attack_from_host" in {one["name"] for one in bare.http.get("/api/workflows").json()["broken"]}


def test_the_network_of_the_machine_opens_no_other_wall(enclosed: Product, bare: Product) -> None:
    """Files, processes, system calls and powers are what they are for everybody else."""
    for what in ("store", "key", "record"):
        assert not gets_through(enclosed, "read", prize(enclosed, what), "attack_from_host")
    for way in ("unshare", "mount", "ptrace", "packets", "configure_network", "become_root"):
        assert not gets_through(enclosed, way, workflow="attack_from_host")
    assert not gets_through(enclosed, "write", "/etc/resolv.conf", "attack_from_host")


def test_the_network_of_the_machine_is_recorded(enclosed: Product) -> None:
    """In the header of the record and in the audit, with who asked for it."""
    answer = enclosed.run("attack_from_host", way="list", target="/")
    id_, record = answer.headers["X-Execution-Id"], enclosed.record(answer.headers["X-Execution-Id"])
    assert "this machine's own" in record["cells"][0]["source"]
    assert record["metadata"]["bifrost"]["network_mode"] == "host"
    (act,) = [act for act in enclosed.acts("network.host") if act["target"] == id_]
    assert (act["actor"], act["details"]) == ("user:dev@example.com", {"workflow": "attack_from_host"})


def test_lists_are_shown_with_the_workflow(enclosed: Product) -> None:
    """Whoever reads a workflow's metadata sees whom it may reach."""
    shown = enclosed.http.get("/api/workflows/tunnel_to_example").json()
    assert (shown["egress"], shown["network"]) == (["example.invalid", "*.example.invalid:443"], "proxy")


@pytest.mark.parametrize(
    "host", ["localhost", "127.1", "2130706433", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254"]
)
def test_the_proxy_judges_the_address_and_not_the_name(enclosed: Product, host: str) -> None:
    """Whatever a name or a spelling resolves to is judged after it was resolved; the record has who was asked for."""
    port = enclosed.http.base_url.port
    said, talk = refusal(enclosed, "tunnel", ORGANIZATION, host, port)
    assert said.startswith("HTTP/1.1 403")
    assert (talk["host"], talk["refused"], talk["refused_by"]) == (host.strip("[]"), 1, "address")


@pytest.mark.parametrize("level", ["enclosed", "reduced", "bare"])
def test_the_level_is_said(request: pytest.FixtureRequest, level: str) -> None:
    """In every record, and in the audit at the start."""
    product: Product = request.getfixturevalue(level)
    expected = {"enclosed": "full", "bare": "none"}.get(level, level)
    record = product.record(product.run("look_around").headers["X-Execution-Id"])
    assert record["metadata"]["bifrost"]["sandbox"] == expected
    acts = [entry["body"] for entry in product.http.get("/api/audit").json()["items"]]
    assert [act["details"]["sandbox"] for act in acts if act.get("action") == "sandbox.enter"] == [expected]
