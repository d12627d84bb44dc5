"""What the portal's process is told when it starts, once and in one frozen object.

`bifrost up` writes it as JSON into the process's environment, where `ps` does not show it; `server` reads it and takes
it out again, so that no kernel inherits it. It holds no key of the store: the control plane gives the portal a key that
says "this is the portal", and a secret for its cookies.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from pydantic import Field

from bifrost_kernel import models

VARIABLE = "BIFROST_PORTAL_SETTINGS"
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")


class PortalSettings(models.Frozen):
    listener: int
    """Descriptor of the socket to accept on: the port belongs to whoever starts us, and outlives us."""
    host: str
    control_plane: str
    """Address of the control plane, as the portal reaches it."""
    public_url: str
    """Address of the portal, as people's browsers reach it."""
    allowed_hosts: tuple[str, ...] = ()
    portal_key: str
    """Says to the control plane that a request comes through the portal, and from which browser's address."""
    cookie_secret: str
    kernels_per_person: int = Field(default=4, ge=0)
    kernels: int = Field(default=24, ge=0)
    """Forms that have a kernel behind them at once; further ones work without."""
    kernel_idle_seconds: int = Field(default=900, ge=10)
    kernel_abandoned_seconds: float = Field(default=30, gt=0)
    """A kernel whose page is gone is kept this long: a phone that lost its net comes back."""
    session_check_seconds: float = Field(default=10, gt=0)
    """How often what stays open (websockets, live events) asks whether its session still counts."""
    streams_per_person: int = Field(default=20, ge=1)
    """Runs that one person may watch live at once; the pages of further ones ask again and again instead."""
    behind_proxy: bool = False
    """A TLS proxy stands before the portal and says in `X-Forwarded-For` whom it speaks for."""

    @property
    def hosts(self) -> frozenset[str]:
        """Host names under which the portal may be addressed, in lower case."""
        public = urlsplit(self.public_url).hostname or ""
        names = (*LOOPBACK_HOSTS, self.host, public, *self.allowed_hosts)
        return frozenset(name.lower().strip("[]") for name in names if name)


def take_settings() -> PortalSettings:
    """Read the settings and remove them from the environment. Raises `KeyError` when nobody has set them."""
    return PortalSettings.model_validate_json(os.environ.pop(VARIABLE))
