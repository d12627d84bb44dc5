"""How kernels of JupyterLab and the portal are started and looked after: forked, by pidfds, told only what they need.

jupyter_client finds it by the entry point `jupyter_client.kernel_provisioners: bifrost-provisioner`, which kernelspecs
name. It runs in the Jupyter server. For an author it opens an authoring session with the author's credential, and gives
the kernel the session's token: the credential itself never reaches the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import signal
import subprocess
from typing import Any

import httpx
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import Bool

from bifrost_kernel import errors
from bifrost_kernel.kernel_server import Forked, KernelServer, Launch

LAUNCHER = "ipykernel_launcher"
"""What a kernelspec starts by `python -m`, and what comes before the arguments of a kernel."""
_PROCESS_GROUP = 1 << 2
"""PIDFD_SIGNAL_PROCESS_GROUP (pidfd_send_signal(2))."""

KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV", "JPY_SESSION_NAME", "JPY_PARENT_PID")
"""What a kernel may know of the Lab server's environment; a list of what is kept, never of what is removed."""


async def open_session(url: str, key: str, organization: str | None = None) -> dict[str, str]:
    """Ask the control plane for an authoring session: `socket`, `token`, `organization`.

    Raises:
        Unavailable: it cannot be reached, or refuses; the text says why.
    """
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            answer = await client.post(
                f"{url}/api/authoring-sessions",
                json={"organization": organization},
                headers={"x-functions-key": key},
            )
    except httpx.TransportError as error:
        raise errors.Unavailable(f"The control plane at {url} cannot be reached: {error}") from error
    if answer.is_error:
        raise errors.Unavailable(f"The control plane refuses an authoring session: {answer.json().get('message')}")
    session: dict[str, str] = answer.json()
    return session


class BifrostProvisioner(LocalProvisioner):
    """Has the kernel forked by this Jupyter server's `KernelServer`, and looks after it by its pidfd."""

    opens_session = Bool(True, help="Whether the kernel is an author's; else its environment is taken as it is given.")

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._kernel: Forked | None = None
        self._status: int | None = None

    @property
    def has_process(self) -> bool:
        return self._kernel is not None

    async def pre_launch(self, **arguments: Any) -> dict[str, Any]:
        """Called by the kernel manager; adds the session and takes away the rest of the environment."""
        given = await super().pre_launch(**arguments)
        if self.opens_session:
            given["env"] = await _environment(given.get("env") or dict(os.environ))
        return dict(given)

    async def launch_kernel(self, cmd: list[str], **arguments: Any) -> KernelConnectionInfo:
        """Fork it; any other program than ipykernel is refused, since nothing else can be forked.

        Raises:
            Unavailable: there is no kernel; the text says why.
        """
        if LAUNCHER not in cmd:
            raise errors.Unavailable(f"The kernelspec starts {cmd[:3]}, and this provisioner forks {LAUNCHER} only.")
        folder = str(arguments.get("cwd") or os.getcwd())
        launch = Launch(arguments=tuple(cmd[cmd.index(LAUNCHER) + 1 :]), environment=arguments["env"], folder=folder)
        self._forget()
        self._kernel = await asyncio.to_thread(self._fork, launch, arguments.get("stdout"), arguments.get("stderr"))
        self.pid = self.pgid = self._kernel.pid
        self.cwd = folder
        return self.connection_info

    async def poll(self) -> int | None:
        """None while it runs."""
        if self._kernel is None:
            return 0
        return self._read_status(self._kernel) if _is_readable(self._kernel.pidfd) else None

    async def wait(self) -> int | None:
        """Its exit status; negative when a signal ended it, or the fork server did."""
        kernel = self._kernel
        if kernel is None:
            return 0
        with contextlib.ExitStack() as own:
            # Duplicates: more than one may wait, and the first to come back closes what is there.
            descriptors = [_duplicate(descriptor, own) for descriptor in (kernel.pidfd, kernel.status)]
            for descriptor in descriptors:
                await _until_readable(descriptor)
        if self._kernel is not kernel:
            return 0
        status = self._read_status(kernel)
        self._forget()
        return status

    async def send_signal(self, signum: int) -> None:
        """To the kernel and to the programs that it runs; one that has ended is no error."""
        if self._kernel is None:
            return
        with contextlib.suppress(ProcessLookupError):
            _send_signal(self._kernel.pidfd, signal.Signals(signum) if signum else 0)

    async def kill(self, restart: bool = False) -> None:
        await self.send_signal(signal.SIGKILL)

    async def terminate(self, restart: bool = False) -> None:
        await self.send_signal(signal.SIGTERM)

    async def cleanup(self, restart: bool = False) -> None:
        await super().cleanup(restart=restart)
        if not restart:
            self._forget()

    def _fork(self, launch: Launch, stdout: Any, stderr: Any) -> Forked:
        server: KernelServer = KernelServer.instance(config=self.config)
        with contextlib.ExitStack() as opened:
            return server.launch(launch, _stream(opened, stdout, 1), _stream(opened, stderr, 2))

    def _read_status(self, kernel: Forked) -> int:
        """What the fork server told; as if it was killed when that has died, or is just about to tell."""
        if self._status is None and _is_readable(kernel.status):
            told = os.read(kernel.status, 16)
            self._status = int(told) if told else -signal.SIGKILL
        return -signal.SIGKILL if self._status is None else self._status

    def _forget(self) -> None:
        kernel, self._kernel, self._status = self._kernel, None, None
        if kernel is not None:
            os.close(kernel.pidfd)
            os.close(kernel.status)


def _stream(opened: contextlib.ExitStack, wanted: Any, own: int) -> int:
    """The descriptor of what `subprocess.Popen` would be given as `stdout` or `stderr`.

    Raises:
        Unavailable: it wants a pipe, whose other end nobody here would have.
    """
    match wanted:
        case None:
            return own
        case subprocess.DEVNULL:
            return opened.enter_context(open(os.devnull, "wb")).fileno()
        case int() if wanted >= 0:
            return wanted
        case int():
            raise errors.Unavailable("A forked kernel writes to a file or to nowhere, not to a pipe of its starter.")
    return int(wanted.fileno())


def _send_signal(pidfd: int, number: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, number, None, _PROCESS_GROUP)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # Before Linux 6.9 a signal by pidfd reaches the process alone; an interrupt is then passed on by ipykernel.
        signal.pidfd_send_signal(pidfd, number)


def _is_readable(descriptor: int) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(0))


def _duplicate(descriptor: int, until: contextlib.ExitStack) -> int:
    own = os.dup(descriptor)
    until.callback(os.close, own)
    return own


async def _until_readable(descriptor: int) -> None:
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)


async def _environment(environment: dict[str, str]) -> dict[str, str]:
    kept = {name: environment[name] for name in KEPT if name in environment}
    url, key = environment.get("BIFROST_URL"), environment.get("BIFROST_API_KEY")
    if not url or not key:
        return {**kept, "BIFROST_REASON": "BIFROST_URL and BIFROST_API_KEY are not set where JupyterLab was started."}
    try:
        session = await open_session(url, key, environment.get("BIFROST_ORGANIZATION"))
    except errors.Unavailable as error:
        # The kernel still starts: its first cell says what is wrong, which a dead kernel could not.
        return {**kept, "BIFROST_REASON": error.message}
    return {**kept, "BIFROST_BROKER": session["socket"], "BIFROST_TOKEN": session["token"]}
