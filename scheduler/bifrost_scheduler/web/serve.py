"""`bifrost up`: the control plane, and the servers for people beside it, until a signal ends them all.

The command line replaces itself by this module (`python -m bifrost_scheduler.web.serve`), so that its other commands
never import what only this one needs. Lab runs as a process of its own, with an environment that holds no key of the
store.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import structlog
import uvicorn
from pydantic import ValidationError

from bifrost_kernel import errors
from bifrost_kernel.forkserver.sandbox import Level
from bifrost_scheduler import services as composition
from bifrost_scheduler.runner import courtesy
from bifrost_scheduler.services import Services
from bifrost_scheduler.settings import Settings
from bifrost_scheduler.sign_in import Opening
from bifrost_scheduler.web import companions
from bifrost_scheduler.web.app import create_app
from bifrost_scheduler.web.companions import Companion, Portal


def main(arguments: str) -> int:
    """Serve until SIGTERM or SIGINT; `arguments` are settings as JSON. Returns the exit status."""
    try:
        settings = Settings(**json.loads(arguments))
    except ValidationError as error:
        for problem in error.errors():
            complain(f"{'.'.join(map(str, problem['loc'])) or 'settings'}: {problem['msg']}")
        return 2
    try:
        services = composition.build(settings)
    except errors.BifrostError as error:
        complain(error.message)
        return 1
    configure_logging(settings.logs_dir / "bifrost.log")
    courtesy.come_first()
    return asyncio.run(_serve(services))


def configure_logging(path: Path) -> None:
    """JSON lines in a file that its owner alone can read; the terminal is for people."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    file = os.fdopen(descriptor, "a", buffering=1, encoding="utf-8", errors="backslashreplace")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(stream=file, level=logging.WARNING)


async def _serve(services: Services) -> int:
    settings = services.settings
    config = uvicorn.Config(
        create_app(services),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        # Whoever connects from this machine could name any address; our own portal shows a key for that.
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=round(settings.shutdown_seconds * 0.75),
        timeout_keep_alive=30,
    )
    server = _Server(config)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    services.start()
    lab: Companion | None = None
    portal: Portal | None = None
    try:
        serving = asyncio.create_task(server.serve())
        if not await server.wait_started(serving):
            complain(f"port {settings.port} on {settings.host} is taken; choose another with --port.")
            return 1
        url = f"http://{api_host(settings.host)}:{server.port}"
        _write_runtime(services, url)
        try:
            # The commands and the portal find us at this address before people read of it.
            portal = Portal.start(services, url) if settings.portal else None
        except OSError as error:
            complain(
                f"the portal cannot listen on port {settings.portal_port}: {error.strerror}; choose --portal-port."
            )
            return 1
        lab = await asyncio.to_thread(companions.start_lab, services, url) if settings.lab else None
        courtesy.settle()
        _announce(services, url, lab, portal)
        await asyncio.wait({serving, asyncio.create_task(stopping.wait())}, return_when=asyncio.FIRST_COMPLETED)
        # Calls that wait for an execution get its answer while the runner lets it end.
        server.should_exit = True
        await asyncio.gather(serving, asyncio.to_thread(services.runner.stop))
    finally:
        beside = [one for one in (portal, lab) if one is not None]
        for companion in beside:
            companion.stop()
        await asyncio.to_thread(services.stop)
        settings.runtime_file.unlink(missing_ok=True)
        for companion in beside:
            companion.wait()
    return 0


class _Server(uvicorn.Server):
    """uvicorn, with a way to know that it listens, and where; signals are ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn would raise the signal again after its own shutdown and so cut ours short.
        yield

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        # uvicorn would end the whole process when it cannot listen; the caller says why, and ends in good order.
        with contextlib.suppress(SystemExit):
            await super().serve(sockets)

    async def wait_started(self, serving: asyncio.Task[None]) -> bool:
        while not self.started:
            if serving.done():
                return False
            await asyncio.sleep(0.01)
        return True

    @property
    def port(self) -> int:
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port


def _write_runtime(services: Services, url: str) -> None:
    """Tell the commands of this home's owner where the control plane is."""
    path = services.settings.runtime_file
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"url": url, "pid": os.getpid()}))
    partial.replace(path)


def _announce(services: Services, url: str, lab: Companion | None, portal: Portal | None) -> None:
    settings = services.settings
    opening = services.opening() if portal is not None else None
    lines: Mapping[str, str | None] = {
        "API": url,
        "API docs": f"{url}/docs",
        "JupyterLab": companions.lab_line(services, lab) if lab is not None else None,
        "Portal": portal.url if portal is not None else None,
        **_way_in(portal, opening),
        "Workspace": str(settings.workspace),
        "Home": str(settings.home),
        "Sandbox": f"{settings.sandbox.value} (insecure)" if settings.sandbox is not Level.FULL else None,
        "Development key": composition.DEV_KEY if settings.dev else None,
    }
    shown = "".join(f"  {name:<16} {value}\n" for name, value in lines.items() if value is not None)
    print(f"\nBifrost is up.\n\n{shown}\nPress Ctrl-C to end it.\n", flush=True)  # noqa: T201


def _way_in(portal: Portal | None, opening: Opening | None) -> Mapping[str, str]:
    """The one-time link by which the first person gets into the portal; what stands behind `#` is never sent."""
    if portal is None or opening is None:
        return {}
    if opening.kind == "setup":
        return {"Set up": f"{portal.url}/setup#{opening.token}"}
    return {"Sign in (once)": f"{portal.url}/signin/link#{opening.token}"}


def complain(message: str) -> None:
    """Say on stderr why there is no server."""
    print(f"bifrost: {message}", file=sys.stderr, flush=True)  # noqa: T201


def api_host(host: str) -> str:
    """Where this machine reaches the API: a name in two families could lead to another server's port."""
    return "127.0.0.1" if host == "127.0.0.1" else companions.shown_host(host)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
