"""The kernels behind forms: each is one visitor's alone, holds a token for one form, and ends when nobody looks.

`server` makes the manager, the form's page orders a kernel before Voila starts it. What runs in these kernels is the
portal's own widget, never an author's code; what a browser may send to them is `messages`' affair.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import time
from dataclasses import dataclass, field
from typing import Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado import web
from traitlets import Float, Int, List

from bifrost_portal.visitors import Visitor

INHERITED = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH", "SSL_CERT_FILE")
"""All that a kernel gets of the portal's environment."""


QUIET: dict[str, Any] = {
    "stdout": subprocess.DEVNULL,
    "stderr": subprocess.DEVNULL,
    "extra_arguments": ["--HistoryManager.enabled=False"],
}
"""What a form's kernel complains of quotes what people typed, and whoever makes it complain could fill the disk; what
it left in the home that all of them share, the next one would find."""


class OwnKernelspec(KernelSpecManager):
    """This Python's own kernel and no other: what else is installed on the machine is not for customers."""

    kernel_dirs: List[str] = List([])

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Of kernels that are forked with imports done, and are given just what the form needs."""
        found: KernelSpec = super().get_kernel_spec(kernel_name)
        provisioner = {"provisioner_name": "bifrost-provisioner", "config": {"opens_session": False}}
        found.metadata = {**found.metadata, "kernel_provisioner": provisioner}
        return found


@dataclass
class Order:
    """What the next kernel of this request is for."""

    visitor: Visitor
    environment: dict[str, str]
    kernel_id: str | None = None
    """The kernel, as soon as it has started."""


@dataclass
class Tenancy:
    """Whose kernel it is, and whether anybody looks at it."""

    email: str
    session: str
    token: str
    is_awaited: bool = True
    """Its page is still being written, and cannot have connected yet."""
    sockets: set[Any] = field(default_factory=set)
    seen_at: float = field(default_factory=time.monotonic)


ordered: contextvars.ContextVar[Order | None] = contextvars.ContextVar("ordered", default=None)


class FormKernels(AsyncMappingKernelManager):
    """Voila's kernel manager, with owners and limits."""

    per_person = Int(4).tag(config=True)
    in_all = Int(24).tag(config=True)
    starting = Int(2, help="Kernels that start at once: a rush of visitors must not starve the machine.").tag(
        config=True
    )
    abandoned_seconds = Float(30.0, help="A kernel whose page is gone is kept this long.").tag(config=True)
    home = ""
    """An empty folder that kernels take for their home."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)  # type: ignore[no-untyped-call]
        self.tenants: dict[str, Tenancy] = {}
        self._slots = asyncio.Semaphore(self.starting)
        self._coming: list[str] = []

    def has_room(self, visitor: Visitor) -> bool:
        """Whether one more form of this visitor gets a kernel behind it."""
        theirs = [*(tenant.email for tenant in self.tenants.values()), *self._coming]
        return len(theirs) < self.in_all and theirs.count(visitor.email) < self.per_person

    def owns(self, visitor: Visitor, kernel_id: str) -> bool:
        tenant = self.tenants.get(kernel_id)
        return tenant is not None and tenant.email == visitor.email and tenant.session == visitor.session

    async def start_kernel(self, **wanted: Any) -> str:  # type: ignore[override]
        """Start what this request ordered; whoever ordered nothing gets nothing.

        The room is looked at once more, at the moment of taking it: many pages at once found it free before.
        """
        order = ordered.get()
        if order is None:
            raise web.HTTPError(404)
        if not self.has_room(order.visitor):
            raise web.HTTPError(503)
        wanted["env"] = {**self._environment(), **_request_info(wanted.get("env") or {}), **order.environment}
        self._coming.append(order.visitor.email)
        try:
            async with self._slots:
                options: dict[str, Any] = {**wanted, **QUIET}
                kernel_id: str = await super().start_kernel(**options)
        finally:
            self._coming.remove(order.visitor.email)
        self.tenants[kernel_id] = Tenancy(order.visitor.email, order.visitor.session, order.visitor.token)
        order.kernel_id = kernel_id
        return kernel_id

    def hand_over(self, kernel_id: str) -> None:
        """Its page is out: from now on somebody has to look at it."""
        tenant = self.tenants.get(kernel_id)
        if tenant is not None:
            tenant.is_awaited, tenant.seen_at = False, time.monotonic()

    async def shutdown_kernel(self, kernel_id: str, *arguments: Any, **options: Any) -> Any:  # type: ignore[override]
        self.tenants.pop(kernel_id, None)
        return await super().shutdown_kernel(kernel_id, *arguments, **options)  # type: ignore[no-untyped-call]

    async def end_abandoned(self) -> None:
        """End the kernels at which nobody has looked for a while."""
        limit = time.monotonic() - self.abandoned_seconds
        for kernel_id, tenant in list(self.tenants.items()):
            if not tenant.sockets and not tenant.is_awaited and tenant.seen_at < limit:
                await self.end(kernel_id)

    async def end_of_session(self, session: str) -> None:
        """End a session's kernels and close what is open to them."""
        for kernel_id, tenant in list(self.tenants.items()):
            if tenant.session == session:
                for socket in list(tenant.sockets):
                    socket.close(1008, "signed out")
                await self.end(kernel_id)

    async def end(self, kernel_id: str) -> None:
        """End it now, whatever it does."""
        if kernel_id in self:
            await self.shutdown_kernel(kernel_id, now=True)
        self.tenants.pop(kernel_id, None)

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
        return {**kept, "HOME": self.home, "IPYTHONDIR": self.home, "JUPYTER_RUNTIME_DIR": self.home}


def _request_info(environment: dict[str, str]) -> dict[str, str]:
    """What Voila tells a kernel of itself, of all the environment that it would hand over."""
    return {name: value for name, value in environment.items() if name.startswith("VOILA_")}
