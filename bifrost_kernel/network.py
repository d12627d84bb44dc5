"""What network a kernel has; apart from the other shapes for who must stay small, as the maker of inits."""

from enum import StrEnum


class Network(StrEnum):
    PROXY = "proxy"
    """No network but the egress proxy."""
    HOST = "host"
    """The network of the machine, where the operator allows it."""
