"""How libraries in an enclosed kernel find the egress proxy, their only way out.

The fork server calls it. httpx, requests, urllib and command-line tools read the environment by themselves.
"""

from __future__ import annotations

import sys

from bifrost_kernel.forkserver import jail

_URL = f"http://127.0.0.1:{jail.PROXY_PORT}"
_NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")

ENVIRONMENT = {spelled: _URL for name in _NAMES for spelled in (name, name.lower())}
"""curl knows the small letters only. There is no NO_PROXY: loopback is not around these kernels but within them."""


def trust_environment() -> None:
    """Let a bare `aiohttp.ClientSession()` read the environment, too; of use when aiohttp was preloaded."""
    aiohttp = sys.modules.get("aiohttp")
    if aiohttp is not None:
        aiohttp.ClientSession.__init__.__kwdefaults__["trust_env"] = True
