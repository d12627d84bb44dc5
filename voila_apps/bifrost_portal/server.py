"""The customers' portal, as `bifrost up` starts it: `python -m bifrost_portal.server LIFELINE`.

Stand-alone Voila, with our pages, our guard and our table of handlers: of Voila's own only those are there that a form
needs, each behind the sign-in. It holds no key of the store, and ends with the control plane.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import nbformat
import structlog
from jupyter_server.auth import Authorizer, IdentityProvider, User
from jupyter_server.base.handlers import FileFindHandler, JupyterHandler
from jupyter_server.services.kernels.handlers import KernelHandler
from jupyter_server.services.kernels.websocket import KernelWebsocketHandler
from tornado import web
from tornado.httpserver import HTTPServer
from traitlets.config import Config
from voila.app import Voila
from voila.paths import collect_static_paths, collect_template_paths
from voila.static_file_handler import MultiStaticFileHandler
from voila.tornado.kernel_websocket_handler import VoilaKernelWebsocketHandler

from bifrost_kernel.kernel_server import KernelServer
from bifrost_portal import gate, kernels, messages, shown, visitors
from bifrost_portal.api_client import ControlPlane, Refused, Unreachable
from bifrost_portal.assets import AssetHandler, Assets
from bifrost_portal.pages import runs, schedules, sign_in, workflows
from bifrost_portal.pages.base import Page, Portal
from bifrost_portal.settings import PortalSettings, take_settings
from bifrost_portal.streams import Streams

log = structlog.get_logger("bifrost.portal")

HERE = Path(__file__).parent
EXTENSIONS = ["anywidget", "@jupyter-widgets/jupyterlab-manager", "@voila-dashboards/widgets-manager8"]
KERNEL_ID = r"(?P<kernel_id>\w+-\w+-\w+-\w+-\w+)"
MAX_MESSAGE_BYTES = 1024 * 1024
BODY_BYTES = 2 * 1024 * 1024
SWEEP_SECONDS = 5.0


class CookieIdentity(IdentityProvider):
    """Tells Jupyter's handlers who is there: who the pages say it is."""

    @property
    def auth_enabled(self) -> bool:
        return True

    def get_handlers(self) -> list[Any]:
        return []

    async def get_user(self, handler: Any) -> User | None:
        portal: Portal = handler.settings["portal"]
        websocket = isinstance(handler, KernelWebsocketHandler)
        handler.visitor = await portal.visitors.find(handler, fresh=websocket)
        return None if handler.visitor is None else User(username=handler.visitor.email)

    def is_token_authenticated(self, handler: Any) -> bool:
        return False


class OwnKernelsOnly(Authorizer):
    """A visitor reaches the kernels that were started for him; any other is unknown."""

    def is_authorized(self, handler: Any, user: User, action: str, resource: str) -> bool:
        kernel_id = handler.path_kwargs.get("kernel_id")
        if resource != "kernels" or not kernel_id:
            return False
        if not handler.kernel_manager.owns(handler.visitor, kernel_id):
            raise web.HTTPError(404)
        return True


class Behind(JupyterHandler):
    """Jupyter's and Voila's handlers behind our gate: same origin, our headers, and a visitor."""

    @property
    def kernels(self) -> kernels.FormKernels:
        manager = self.settings["kernel_manager"]
        assert isinstance(manager, kernels.FormKernels)
        return manager

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in gate.SAFE_HEADERS.items():
            self.set_header(name, value)
        self.set_header("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")

    async def prepare(self, **options: Any) -> Any:
        if not gate.is_same_origin(self, needed=self.request.method not in ("GET", "HEAD")):
            raise web.HTTPError(403)
        return await super().prepare(**options)

    def write_error(self, status_code: int, **_: Any) -> None:
        self.finish({"message": http.client.responses.get(status_code, "Error")})


class OwnKernel(Behind, KernelHandler):
    """What the front end asks of its kernel before it connects. Nobody ends a kernel: it ends when nobody looks."""

    SUPPORTED_METHODS = ("GET",)


class OwnChannels(Behind, VoilaKernelWebsocketHandler):  # type: ignore[misc]
    """The websocket between a form and its kernel."""

    visitor: visitors.Visitor
    _has_refused = False

    def check_origin(self, origin: str = "") -> bool:
        return gate.is_same_origin(self, needed=True)

    async def prepare(self, **options: Any) -> Any:
        if not gate.is_same_origin(self, needed=True):
            raise web.HTTPError(403)
        return await super().prepare(**options)

    async def open(self, kernel_id: str) -> None:
        tenant = self.kernels.tenants.get(kernel_id)
        if tenant is None:
            self.close(1008, "the kernel has ended")
            return
        tenant.sockets.add(self)
        await super().open(kernel_id)

    def on_message(self, message: str | bytes) -> None:
        if messages.is_allowed(message, self.selected_subprotocol):
            super().on_message(message)
        elif not self._has_refused:
            # Once for each websocket: whoever sends them must not fill the disk.
            self._has_refused = True
            log.warning("portal.message_refused", visitor=self.visitor.email)

    def on_close(self) -> None:
        tenant = self.kernels.tenants.get(self.kernel_id)
        if tenant is not None:
            tenant.sockets.discard(self)
            tenant.seen_at = time.monotonic()
        if getattr(self, "connection", None) is not None:
            super().on_close()


class BundleHandler(Behind, MultiStaticFileHandler):  # type: ignore[misc]
    """Voila's front end. Its address names its version, so that browsers keep it."""

    def set_extra_headers(self, path: str) -> None:
        self.set_header("Cache-Control", "private, max-age=31536000, immutable")


class ExtensionHandler(Behind, FileFindHandler):
    """The front end's extensions that forms need, and no other file."""

    def set_extra_headers(self, path: str) -> None:
        self.set_header("Cache-Control", "private, max-age=31536000, immutable")

    def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
        if not any(f"/labextensions/{name}/" in absolute_path for name in EXTENSIONS):
            raise web.HTTPError(404)
        return super().validate_absolute_path(root, absolute_path)


class NotFound(Page):
    """Every other address, the same for all of them."""

    OPEN = True

    def get(self) -> None:
        raise web.HTTPError(404)

    post = put = delete = patch = get


class PortalApp(Voila):  # type: ignore[misc]
    """Voila with one notebook, our handlers, and nothing that reads a folder."""

    def __init__(self, settings: PortalSettings, folder: Path, **given: Any) -> None:
        super().__init__(**given)
        self._portal_settings = settings
        self._folder = folder

    def setup_template_dirs(self) -> None:
        self.template_paths = [str(HERE / "voila_template"), *collect_template_paths(["voila", "nbconvert"], "base")]
        self.static_paths = collect_static_paths(["voila", "nbconvert"], "base")

    def init_settings(self) -> dict[str, Any]:
        settings = dict(super().init_settings())
        settings.update(
            allow_unauthenticated_access=False,
            portal=self.portal,
            cookie_secret=self._portal_settings.cookie_secret,
            xsrf_cookies=True,
            xsrf_cookie_name="__Host-bifrost-xsrf",
            xsrf_cookie_kwargs={"secure": True, "httponly": True, "samesite": "Lax", "path": "/"},
            compress_response=True,
            websocket_max_message_size=MAX_MESSAGE_BYTES,
            websocket_ping_interval=20,
            login_url="/signin",
            default_handler_class=NotFound,
            log_function=_log_request,
            voila_handler={
                "notebook_path": "portal.ipynb",
                "template_paths": self.template_paths,
                "config": self.config,
                "voila_configuration": self.voila_configuration,
            },
        )
        self.kernel_manager.allowed_message_types = list(messages.ALLOWED_TYPES)
        self.kernel_manager.home = str(self._folder / "home")
        return settings

    def init_handlers(self) -> list[Any]:
        bundle = self.portal.assets.version
        return [
            (r"/assets/([0-9a-f]{12})/([\w.-]+)", AssetHandler, {"assets": self.portal.assets}),
            *page_handlers(),
            (rf"/api/kernels/{KERNEL_ID}", OwnKernel),
            (rf"/voila/api/shutdown/{KERNEL_ID}", workflows.Leave),
            (rf"/api/kernels/{KERNEL_ID}/channels", OwnChannels),
            (rf"/voila/{bundle}/static/(.*)", BundleHandler, {"paths": self.static_paths}),
            (rf"/voila/{bundle}/labextensions/(.*)", ExtensionHandler, {"path": self.labextensions_path}),
        ]

    def start(self) -> None:
        self.connection_dir = str(self._folder / "kernels")
        settings = self._portal_settings
        control_plane = ControlPlane.at(settings.control_plane)
        self.portal = Portal(
            settings=settings,
            control_plane=control_plane,
            visitors=visitors.Visitors(control_plane),
            templates=shown.templates(),
            assets=Assets(),
            streams=Streams(settings.streams_per_person),
        )
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        options = self.init_settings()
        application = gate.PortalApplication(self.init_handlers(), hosts=self._portal_settings.hosts, **options)
        server = HTTPServer(application, max_body_size=BODY_BYTES, xheaders=self._portal_settings.behind_proxy)
        listener = socket.socket(fileno=self._portal_settings.listener)
        listener.setblocking(False)
        server.add_sockets([listener])
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        keepers = [asyncio.create_task(self._sweep()), asyncio.create_task(self._watch_sessions())]
        await stopping.wait()
        server.stop()
        for keeper in keepers:
            keeper.cancel()
        await self.kernel_manager.shutdown_all(now=True)
        await self.portal.control_plane.close()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(SWEEP_SECONDS, self._portal_settings.kernel_abandoned_seconds))
            await self.kernel_manager.end_abandoned()

    async def _watch_sessions(self) -> None:
        """A websocket that is open must not outlive its session."""
        while True:
            await asyncio.sleep(self._portal_settings.session_check_seconds)
            tenants = {tenant.session: tenant.token for tenant in self.kernel_manager.tenants.values()}
            for session, token in tenants.items():
                # A control plane that does not answer is asked again; it ends sessions, and so does nobody else.
                with contextlib.suppress(Refused, Unreachable):
                    if await self.portal.visitors.check(token) is None:
                        await self.kernel_manager.end_of_session(session)


def page_handlers() -> list[Any]:
    """Every page of ours."""
    form, run = workflows.FORM_NAME, runs.RUN_ID
    return [
        (r"/", sign_in.Root),
        (r"/signin", sign_in.SignIn),
        (r"/signin/link", sign_in.Link),
        (r"/signin/oidc", sign_in.OidcStart),
        (sign_in.CALLBACK, sign_in.OidcCallback),
        (r"/setup", sign_in.SetUp),
        (r"/signout", sign_in.SignOut),
        (r"/account", sign_in.Account),
        (r"/workflows", workflows.Workflows),
        (rf"/workflows/{form}", workflows.FormPage),
        (rf"/workflows/{form}/options/([A-Za-z_]\w{{0,99}})", workflows.FormOptions),
        (rf"/workflows/{form}/draft", workflows.FormDraft),
        (r"/runs", runs.Runs),
        (rf"/runs/{run}", runs.Run),
        (rf"/runs/{run}/events", runs.RunEvents),
        (rf"/runs/{run}/record(|\.ipynb)", runs.Record),
        (rf"/runs/{run}/result\.(json|csv|html|file)", runs.Result),
        (rf"/runs/{run}/([a-z]+)", runs.RunAct),
        (r"/approvals", runs.Approvals),
        (r"/schedules", schedules.Calendar),
        (rf"/schedules/{schedules.SCHEDULE_NAME}/([a-z]+)", schedules.ScheduleAct),
    ]


def configuration(settings: PortalSettings, folder: Path, assets: Assets) -> Config:
    """What makes a stock Voila ours."""
    config = Config()
    config.Voila.root_dir = str(folder)
    config.Voila.notebook_path = str(folder / "portal.ipynb")
    config.Voila.open_browser = False
    config.Voila.identity_provider_class = CookieIdentity
    config.Voila.authorizer_class = OwnKernelsOnly
    config.VoilaConfiguration.template = "base"
    config.VoilaConfiguration.theme = "light"
    config.VoilaConfiguration.allow_template_override = "NO"
    config.VoilaConfiguration.allow_theme_override = "NO"
    config.VoilaConfiguration.file_allowlist = []
    config.VoilaConfiguration.extension_allowlist = EXTENSIONS
    config.VoilaConfiguration.multi_kernel_manager_class = kernels.FormKernels
    config.VoilaConfiguration.kernel_spec_manager_class = kernels.OwnKernelspec
    config.VoilaConfiguration.show_tracebacks = False
    config.VoilaConfiguration.page_config_hook = _versioned(assets.version)
    config.FormKernels.per_person = settings.kernels_per_person
    config.FormKernels.in_all = settings.kernels
    config.FormKernels.abandoned_seconds = settings.kernel_abandoned_seconds
    config.FormKernels.cull_idle_timeout = settings.kernel_idle_seconds
    config.FormKernels.cull_interval = 30
    config.FormKernels.cull_connected = True
    config.FormKernels.allow_tracebacks = False
    # Output of a kernel travels over Unix sockets: over TCP every process of the machine could read along.
    config.KernelManager.transport = "ipc"
    config.KernelServer.preload = ["bifrost_portal.form_widget"]
    config.KernelServer.has_debugger = False
    return config


def _versioned(version: str) -> Any:
    def hook(page_config: dict[str, Any], **_: Any) -> dict[str, Any]:
        urls = {"fullStaticUrl": "static", "fullLabextensionsUrl": "labextensions"}
        return {**page_config, **{name: f"/voila/{version}/{folder}" for name, folder in urls.items()}}

    return hook


def prepare_folder(folder: Path) -> None:
    """The one notebook, an empty home for kernels, and room for their sockets (Unix addresses have 108 bytes)."""
    for name in ("kernels", "home"):
        (folder / name).mkdir(mode=0o700)
    source = next(path for path in (HERE / "portal.ipynb", HERE.parent / "portal.ipynb") if path.exists())
    nbformat.write(nbformat.read(source, as_version=4), folder / "portal.ipynb")


def configure_logging() -> None:
    """JSON lines, without the values of variables: what people type is nobody else's."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    )


def _log_request(handler: web.RequestHandler) -> None:
    """Errors only: the control plane's log has what was done, and addresses of forms may hold what was typed."""
    if handler.get_status() >= 500 and handler.get_status() != 503:
        log.error(
            "portal.failed", method=handler.request.method, path=handler.request.path, status=handler.get_status()
        )


def main(arguments: list[str]) -> None:
    """Serve until a signal, or the end of whoever holds the other end of the lifeline (a pipe's descriptor)."""
    settings = take_settings()
    configure_logging()
    threading.Thread(target=_end_with, args=(int(arguments[0]),), name="lifeline", daemon=True).start()
    folder = Path(tempfile.mkdtemp(prefix="bifrost-portal-"))
    try:
        prepare_folder(folder)
        config = configuration(settings, folder, Assets())
        server = KernelServer.instance(config=config)
        if settings.kernels:
            server.start_early()
        app = PortalApp(settings, folder, config=config)
        app.initialize(argv=[])
        app.start()
        server.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _end_with(lifeline: int) -> None:
    """A control plane that was killed closes its end: the portal and its kernels must not outlive it."""
    while os.read(lifeline, 1):
        continue
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1:])
