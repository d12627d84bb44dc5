"""Which addresses kernels may reach, and what is told about those that they reached.

The egress proxy asks it about every address that a name resolved to. Pure: it resolves nothing and opens nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Literal

from bifrost_kernel import egress_list, models

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NEVER = tuple(
    ipaddress.ip_network(network)
    for network in (
        "100.64.0.0/10",  # carrier-grade NAT; a cloud's metadata service is there, too
        "168.63.129.16/32",  # a cloud's metadata service in the midst of public addresses
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "64:ff9b:1::/48",
        "fec0::/10",
    )
)
"""What `ipaddress` of some Python version takes for global."""
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""NAT64 (RFC 6052): the last 32 bits are an IPv4 address."""


class Destination(models.Frozen):
    """What one kernel exchanged with one host."""

    host: str
    port: int
    bytes_sent: int = 0
    bytes_received: int = 0
    refused: int = 0
    """How often a connection was not made."""
    refused_by: str | None = None
    """What refused it last: a list (`workflow`, `organization`), or `address`, which is not a public one."""


class HostList(models.Frozen):
    """The hosts that one kernel may reach by somebody's word; where several bind it, each has to permit a host."""

    of: Literal["workflow", "organization"]
    name: str
    """Of the workflow or the organization."""
    hosts: tuple[str, ...]


class Bounds:
    """The lists that bind one kernel."""

    def __init__(self, lists: Sequence[HostList]) -> None:
        self._lists = [(one, egress_list.EgressList(one.hosts)) for one in lists]

    def find_refusing(self, host: str, port: int) -> HostList | None:
        """The first list that does not permit this destination."""
        return next((one for one, hosts in self._lists if not hosts.permits(host, port)), None)


class Rules:
    """Public addresses are open to all kernels; others only by a name that the operator allowed."""

    def __init__(self, allowed: Iterable[str]) -> None:
        """`allowed` are `host:port` pairs."""
        self._allowed = {_pair(*text.rpartition(":")[::2]) for text in allowed}

    def is_named(self, host: str, port: int) -> bool:
        """Whether the operator allowed this very host and port, wherever it is."""
        return _pair(host, str(port)) in self._allowed


def is_public(text: str) -> bool:
    """Whether an address leads to the internet, judged by what it stands for."""
    address = _meant(ipaddress.ip_address(text.partition("%")[0]))
    if any(address in network for network in _NEVER):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _meant(address: Address) -> Address:
    """The IPv4 address that an IPv6 address is a form of, if any."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _TRANSLATED or int(address) < 1 << 32:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None) or address


def _pair(host: str, port: str) -> tuple[str, int]:
    return egress_list.normalise(host), int(port)
