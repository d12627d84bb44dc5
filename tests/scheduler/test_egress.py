"""The egress proxy's judgement: which addresses, which requests."""

from __future__ import annotations

import asyncio
import errno
import socket
from datetime import UTC, datetime

import pytest

from bifrost_kernel import models
from bifrost_scheduler.runner import egress, jobs
from bifrost_scheduler.runner.destinations import Bounds, HostList, Rules, is_public
from bifrost_scheduler.store import contract

PRIVATE = (
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "fe80::1%eth0", "fc00::1",
    "fd00:ec2::254", "ff02::1", "fec0::1", "2001:db8::1", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",
)  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_the_internet_is_refused(address: str) -> None:
    """Loopback, private, link-local, shared, reserved, multicast, metadata; also dressed as IPv6."""
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_the_internet_is_open(address: str) -> None:
    """Public addresses, whatever their form."""
    assert is_public(address)


def test_operators_name_exceptions() -> None:
    """By host and port, exactly; the spelling of a name or an address does not matter, the port does."""
    rules = Rules(["127.0.0.1:8080", "[::1]:9000", "Printer.Example.com:631"])
    assert all(rules.is_named(*pair) for pair in (("127.0.0.1", 8080), ("0:0::1", 9000), ("printer.example.com.", 631)))
    assert not any(rules.is_named(*pair) for pair in (("127.0.0.1", 8081), ("localhost", 8080), ("x.example.com", 631)))


def test_every_list_has_to_permit_a_host() -> None:
    """What a workflow names and its organization does not is refused, and the other way round."""
    mine = HostList(of="workflow", name="sync", hosts=("a.example", "b.example"))
    ours = HostList(of="organization", name="acme", hosts=("b.example:443", "c.example"))
    refusing = {
        place: (found := Bounds([mine, ours]).find_refusing(*place)) and found.of
        for place in (("a.example", 443), ("b.example", 443), ("b.example", 80), ("c.example", 443))
    }
    assert list(refusing.values()) == ["organization", None, "organization", "workflow"]
    assert Bounds([]).find_refusing("a.example", 443) is None


def test_lists_come_from_the_workflow_and_its_organization() -> None:
    """Each side binds by itself; a data provider and the global scope have one side less, an empty list is a list."""
    now = datetime.now(UTC)
    free = contract.Organization(id="free", name="Free", created_at=now)
    bound = free.model_copy(update={"id": "bound", "egress": ("a.example",)})
    silent = models.WorkflowMetadata(name="silent", description="d", source=models.Source(file="a.py"))
    cut_off = silent.model_copy(update={"name": "cut_off", "egress": ()})
    assert jobs.host_lists(free, silent) == jobs.host_lists(None, silent) == jobs.host_lists(free) == ()
    assert [(one.of, one.name) for one in jobs.host_lists(bound)] == [("organization", "bound")]
    both = jobs.host_lists(bound, cut_off)
    assert [(one.name, one.hosts) for one in both] == [("cut_off", ()), ("bound", ("a.example",))]


def test_a_tunnel_is_a_host_and_a_port() -> None:
    """CONNECT, with names and addresses of both kinds."""
    assert egress.parse_request(b"CONNECT a.example:443 HTTP/1.1\r\nHost: x\r\n\r\n")[:2] == ("a.example", 443)
    assert egress.parse_request(b"CONNECT [2606::1]:8443 HTTP/1.1\r\n\r\n")[:2] == ("2606::1", 8443)


def test_a_request_is_passed_on_in_its_own_form() -> None:
    """The server sees a path and no header that was for the proxy; the connection is for this one request."""
    fields = b"Host: a.example\r\nProxy-Authorization: z\r\nConnection: keep-alive\r\n\r\n"
    request = egress.parse_request(b"GET http://a.example/x?y=1 HTTP/1.1\r\n" + fields)
    assert (request.host, request.port, request.is_tunnel) == ("a.example", 80, False)
    assert request.head == b"GET /x?y=1 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    "line", [b"GET / HTTP/1.1", b"GET https://a/ HTTP/1.1", b"GET file:///etc/passwd HTTP/1.1", b"CONNECT  HTTP/1.1",
             b"CONNECT a:99999 HTTP/1.1", b"\x16\x03\x01\x02", b"GET http://a/ HTTP/2.0", b"CONNECT a b c HTTP/1.1"],
)  # fmt: skip
def test_anything_else_is_refused(line: bytes) -> None:
    """A refusal, never an exception that nobody expects."""
    with pytest.raises(egress.Refused):
        egress.parse_request(line + b"\r\n\r\n")


def test_destinations_are_counted_up_to_a_limit() -> None:
    """A workflow that makes up names fills no memory."""
    account = egress.Account()
    for number in range(egress.REMEMBERED + 50):
        account.add(f"host-{number}", 443, "refused", 1)
    told = account.list_destinations()
    assert len(told) == egress.REMEMBERED + 1
    assert (told[-1].host, told[-1].refused) == ("*", 50)


def test_who_refused_is_told() -> None:
    """Beside how often, for whoever reads the record."""
    account = egress.Account()
    for by in ("workflow", "workflow", "address"):
        account.refuse("a.example", 443, by)
    (told,) = account.list_destinations()
    assert (told.refused, told.refused_by) == (3, "address")


def test_nobody_listens_for_a_kernel_that_ended_at_once() -> None:
    """Whatever the proxy was doing when it learned of the end, the kernel's listener goes with it."""

    async def end_after(turns: int) -> bool:
        """Whether the listener is closed, when the kernel ended so many turns of the loop after it sent it."""
        ours, theirs = socket.socketpair()
        with theirs, socket.create_server(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
            egress.Outlet(ours.detach(), Rules([]), Bounds([]))
            socket.send_fds(theirs, [b"listener"], [listener.fileno()])
            for _ in range(turns):
                await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        with socket.socket() as asking:
            return asking.connect_ex(address) == errno.ECONNREFUSED

    async def end_at_every_moment() -> list[bool]:
        return [await end_after(turns) for turns in range(6)]

    assert asyncio.run(end_at_every_moment()) == [True] * 6
