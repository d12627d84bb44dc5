"""Lists of hosts: what an entry may be, and what it permits."""

from __future__ import annotations

import pytest

from bifrost_kernel import egress_list, errors
from bifrost_kernel.egress_list import EgressList


def permits(entry: str, *places: tuple[str, int]) -> list[bool]:
    return [EgressList([entry]).permits(*place) for place in places]


def test_a_host_is_meant_with_every_port() -> None:
    """The very name, however it is spelt; nothing below it and nothing that ends like it."""
    assert permits("Graph.Microsoft.com", ("graph.microsoft.com", 443), ("GRAPH.microsoft.com.", 80)) == [True, True]
    others = ("x.graph.microsoft.com", "notgraph.microsoft.com", "microsoft.com", "graph.microsoft.com.evil.example")
    assert not any(permits("graph.microsoft.com", *((host, 443) for host in others)))


def test_a_star_means_every_name_below() -> None:
    """At any depth, and not the name itself."""
    places = (("a.halopsa.com", 443), ("b.a.halopsa.com", 443), ("halopsa.com", 443), ("evilhalopsa.com", 443))
    assert permits("*.halopsa.com", *places) == [True, True, False, False]


def test_a_port_means_that_port() -> None:
    """For names, stars and addresses of both kinds."""
    for entry, host in (
        ("a.example:8443", "a.example"),
        ("*.example:8443", "a.example"),
        ("192.0.2.7:8443", "192.0.2.7"),
    ):
        assert permits(entry, (host, 8443), (host, 443)) == [True, False]
    assert permits("[2001:DB8:0::1]:8443", ("2001:db8::1", 8443), ("2001:db8::1", 443)) == [True, False]


@pytest.mark.parametrize("entry", ["2001:db8::1", "[2001:db8:0:0::1]"])
def test_addresses_are_compared_by_what_they_mean(entry: str) -> None:
    """Not by how they are written; an address is no name."""
    assert permits(entry, ("2001:0db8::0001", 443), ("2001:db8::2", 443)) == [True, False]


def test_an_empty_list_permits_nothing() -> None:
    """Neither a name nor an address."""
    assert not EgressList([]).permits("a.example", 443)


@pytest.mark.parametrize(
    "entry",
    ["", "*", "*.", "*a.example", "a.*.example", "**.example", "https://a.example", "a.example/x", "a.example:", ":443",
     "a.example:0", "a.example:65536", "a.example:https", "a..example", "-a.example", "a b", "münchen.example", "127.1",
     "0x7f.1", "1.2.3.4.5", "10.0.0.0/8", "*.10.0.0.1", "fe80::1%eth0", "user@a.example", "a.example:443:1", "[::1",
     "a" * 300, "a.example\n", "999.1.1.1"],
)  # fmt: skip
def test_what_is_no_host_is_refused(entry: str) -> None:
    """With an example of what is one."""
    with pytest.raises(errors.ValidationError, match=r"graph\.microsoft\.com"):
        egress_list.check([entry])


def test_a_list_has_an_end() -> None:
    """It travels with each execution."""
    with pytest.raises(errors.ValidationError, match="200"):
        egress_list.check([f"host-{number}.example" for number in range(201)])
