"""The lean kernel: a real `IPythonKernel` whose transport is one stream socket.

The fork server builds one, warms it, and serves it in each child. It opens no port, starts no thread and keeps no
history file; it never lets a `print` return before the text is with the reader.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import importlib.util
import io
import logging
import os
import random
import signal
import socket
import sys
import threading
import types
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bifrost_kernel import entry, models
from bifrost_kernel.forkserver import protocol, rehearsal
from bifrost_kernel.forkserver.protocol import Kind

# The debugger would import debugpy (0.3 s, threads) and be of no use without a front end; it is replaced before
# ipykernel looks for it.
_no_debugger = types.ModuleType("ipykernel.debugger")
_no_debugger.__dict__.update(_is_debugpy_available=False, Debugger=object)
sys.modules.setdefault("ipykernel.debugger", _no_debugger)

import traitlets  # noqa: E402  (after the debugger was replaced)
import zmq  # noqa: E402
from ipykernel.ipkernel import IPythonKernel  # noqa: E402
from ipykernel.zmqshell import ZMQInteractiveShell  # noqa: E402
from IPython.core.compilerop import CachingCompiler  # noqa: E402
from jupyter_client.session import Session  # noqa: E402
from traitlets.config import Config  # noqa: E402

MAX_REQUEST_BYTES = 64 * 1024 * 1024
WARM_UP_ROUNDS = 40

_WARM_UP_CELLS = (
    "__a = 1\n__n = 'a'",
    "async def __f(x: int, name: str):\n    print('hello', name)\n    return {'answer': x * 2, 'name': name}",
    "await __f(__a, __n)",
    "import sys\nsys.stderr.write('x')\nfor __i in range(3): print(__i)\n[__i]",
)
_EXECUTION_CELLS = (rehearsal.PARAMETERS, rehearsal.CELL)
SPARE_CELLS = (*_WARM_UP_CELLS, *_EXECUTION_CELLS)
"""What a spare kernel runs while nobody waits for it."""
_FAILING_CELL = "raise ValueError('x')"
"""Rendering a traceback for the first time costs a tenth of a second."""


class Link:
    """The kernel's end of the socket; frames go out whole, whichever thread or signal handler sends them."""

    def __init__(self) -> None:
        self.sock: socket.socket | None = None
        self._lock = threading.RLock()
        self._waiting: collections.deque[bytes] = collections.deque()
        self._held = b""
        self._sender: int | None = None
        self._interrupted = False
        self.replies = 0
        """How many requests were answered."""

    def hold(self, frame: bytes) -> None:
        """Send a reply together with the next frame, which follows at once."""
        with self._lock:
            self._held += frame
            self.replies += 1

    def send(self, frame: bytes) -> None:
        """Send and return when the system has the bytes; without a socket (while warming up) do nothing.

        Raises:
            KeyboardInterrupt: an interrupt came while the frame was on its way.
            OSError: the engine is gone.
        """
        with self._lock:
            held, self._held = self._held, b""
            if self.sock is None:
                return
            self._waiting.append(held + frame)
            if self._sender is None:
                self._drain(self.sock)
            # Otherwise a signal handler interrupted this thread's own send, which will take the frame along.
        if self._interrupted and threading.current_thread() is threading.main_thread():
            self._interrupted = False
            raise KeyboardInterrupt

    def interrupt(self, *_: Any) -> None:
        """The handler of SIGINT: raises, but never in the middle of a frame."""
        if self._sender == threading.get_ident():
            self._interrupted = True
            return
        raise KeyboardInterrupt

    def _drain(self, sock: socket.socket) -> None:
        self._sender = threading.get_ident()
        try:
            while self._waiting:
                sock.sendall(self._waiting.popleft())
        finally:
            self._sender = None


class Channel:
    """Looks like a zmq socket to `jupyter_client.Session.send`."""

    closed = False

    def __init__(self, link: Link, kind: Kind) -> None:
        self._link = link
        self._kind = kind

    def send_multipart(self, parts: Sequence[Any], *_: Any, **__: Any) -> None:
        frame = protocol.pack_parts(self._kind, [bytes(part) for part in parts])
        # Whoever asked is told twice, with the reply and with the status after it: one waking is enough.
        (self._link.hold if self._kind is Kind.SHELL else self._link.send)(frame)

    def flush(self, *_: Any) -> None:
        """Nothing waits."""


class _ConsoleBytes(io.RawIOBase):
    """`sys.stdout.buffer`."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        raw = bytes(data)
        self._console.write_bytes(raw)
        return len(raw)


class Console(io.TextIOBase):
    """`sys.stdout` and `sys.stderr`: each write is with the reader when it returns."""

    def __init__(self, link: Link, kind: Kind, fd: int) -> None:
        self._link = link
        self._kind = kind
        self._fd = fd
        self.buffer = _ConsoleBytes(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"

    @property
    def name(self) -> str:
        return f"<{self._kind.name.lower()}>"

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        """The pipe beside the socket, for subprocesses that are given this stream."""
        return self._fd

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self.write_bytes(text.encode("utf-8", "backslashreplace"))
        return len(text)

    def write_bytes(self, data: bytes) -> None:
        for start in range(0, len(data), protocol.MAX_TEXT_BYTES):
            self._link.send(protocol.pack(self._kind, data[start : start + protocol.MAX_TEXT_BYTES]))


class LeanShell(ZMQInteractiveShell):
    """ipykernel's shell, which runs every cell the one way that `await` needs."""

    def should_run_async(self, *_: Any, **__: Any) -> bool:
        """The other way would transform and parse each cell once more."""
        return True


class LeanKernel(IPythonKernel):
    """ipykernel's kernel without its zmq streams, threads and subshells, and silent about what the engine knows."""

    shell_class = traitlets.Type(LeanShell)
    # The names that ipykernel gives cells are for its debugger, and cost a hash in Python for each.
    compiler_class = traitlets.Type(CachingCompiler)  # type: ignore[assignment]
    link = traitlets.Any()
    shell_stream = traitlets.Any()
    control_stream = traitlets.Any()
    # ipykernel 7 asks this object for its parent thread even where there is no shell channel thread.
    shell_channel_thread = traitlets.Any()
    _supports_kernel_subshells = False
    _execute_sleep = 0.0
    _is_handling = False
    _replies = 0
    _cell: asyncio.Future[Any] | None = None

    def pre_handler_hook(self) -> None:
        self._is_handling = True
        self._replies = self.link.replies
        # Anew for each request: the code of an earlier one may have set a handler of its own.
        signal.signal(signal.SIGINT, self._interrupt)

    def post_handler_hook(self) -> None:
        self._is_handling = False
        if self.link.replies == self._replies:  # it was interrupted, and whoever asked takes that for a failure
            self._abort_queues()

    @contextlib.contextmanager
    def _cancel_on_sigint(self, future: asyncio.Future[Any]) -> Iterator[None]:
        self._cell = future
        try:
            yield
        finally:
            self._cell = None

    def _interrupt(self, *_: Any) -> None:
        """Interrupt code that runs, cancel code that waits (ipykernel's own only cancels, and never reaches a loop)."""
        if self._cell is not None and asyncio.current_task(loop := self._cell.get_loop()) is None:
            loop.call_soon_threadsafe(self._cell.cancel)
        elif self._is_handling:
            self.link.interrupt()

    def _publish_execute_input(self, code: str, parent: Any, execution_count: int) -> None:
        """The engine sent it."""

    def _publish_status(self, status: str, channel: str, parent: Any = None) -> None:
        """Only the end of a request is news: the engine has one at a time."""
        if status == "idle":
            super()._publish_status(status, channel, parent)  # type: ignore[no-untyped-call]

    def _abort_queues(self, subshell_id: str | None = None) -> None:
        """For good: the engine sends nothing more than what is on its way."""
        self._aborting = True


def build() -> LeanKernel:
    """Make the one kernel that all children inherit, warm, before any thread exists."""
    config = Config()
    config.HistoryManager.enabled = False
    config.Completer.use_jedi = False
    config.Session.check_pid = False
    link = Link()
    kernel = LeanKernel.instance(
        config=config,
        log=logging.getLogger("bifrost.kernel"),
        session=Session(config=config, key=b""),
        iopub_socket=Channel(link, Kind.IOPUB),
        shell_stream=Channel(link, Kind.SHELL),
        control_stream=Channel(link, Kind.SHELL),
        shell_channel_thread=types.SimpleNamespace(parent_thread=threading.main_thread()),
        link=link,
    )
    sys.displayhook = shell_of(kernel).displayhook
    warm_up(kernel, rounds=3, cells=[_FAILING_CELL])
    warm_up(kernel, rounds=WARM_UP_ROUNDS)
    warm_up(kernel, rounds=WARM_UP_ROUNDS, cells=_EXECUTION_CELLS)
    # Lists the folders of the search path, which is not done again until one of them changes.
    importlib.util.find_spec("bifrost_no_such_module")
    return kernel


def shell_of(kernel: LeanKernel) -> Any:
    """Its `ZMQInteractiveShell`, which is declared as optional and always there."""
    return kernel.shell


def warm_up(kernel: LeanKernel, *, rounds: int, cells: Sequence[str] = _WARM_UP_CELLS) -> None:
    """Run the real dispatch path, so that its code is specialised and its pages are touched before a fork."""
    shell = shell_of(kernel)
    namespace, count, handler = dict(shell.user_ns), shell.execution_count, signal.getsignal(signal.SIGINT)
    with _streams(kernel), rehearsal.prepared(shell.user_ns):
        asyncio.run(_dispatch_warm_up(kernel, cells, rounds))
    signal.signal(signal.SIGINT, handler)
    for name in set(shell.user_ns) - set(namespace):
        del shell.user_ns[name]
    shell.user_ns.update(namespace)
    shell.user_ns["Out"].clear()
    shell.user_ns["In"][:] = [""]
    shell.execution_count = count
    set_parent: Callable[..., None] = kernel.set_parent
    set_parent([], {}, channel="shell")


async def _dispatch_warm_up(kernel: LeanKernel, cells: Sequence[str], rounds: int) -> None:
    for _ in range(rounds):
        for code in cells:
            await kernel.dispatch_shell(_as_zmq(protocol.execute_request(code, message_id="warm", session="warm")))


def serve(kernel: LeanKernel, sock: socket.socket, broker: socket.socket) -> None:
    """Serve one engine until it closes its end; called once, in a child."""
    _become_another(kernel)
    kernel.link.sock = sock
    _install_streams(kernel)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    serving = loop.create_task(_serve(kernel, sock, broker))
    while not serving.done():
        # An interrupt that hits a task beside the cell leaves the loop, and must not end the kernel.
        with contextlib.suppress(KeyboardInterrupt):
            loop.run_until_complete(serving)


async def _serve(kernel: LeanKernel, sock: socket.socket, broker: socket.socket) -> None:
    frames: asyncio.Queue[protocol.Frame | None] = asyncio.Queue()
    reader = protocol.FrameReader(MAX_REQUEST_BYTES)
    loop = asyncio.get_running_loop()

    def receive() -> None:
        data = sock.recv(1 << 18)
        for frame in reader.feed(data):
            frames.put_nowait(frame)
        if not data:
            loop.remove_reader(sock)
            frames.put_nowait(None)

    loop.add_reader(sock, receive)
    while (frame := await frames.get()) is not None:
        await _handle(kernel, frame, broker)


async def _handle(kernel: LeanKernel, frame: protocol.Frame, broker: socket.socket) -> None:
    if frame.payload is None:
        return
    if frame.kind == Kind.SETUP:
        _set_up(kernel, frame.payload, broker)
    elif frame.kind == Kind.SHELL:
        await kernel.dispatch_shell(_as_zmq(protocol.unpack_parts(frame.payload)))


def _set_up(kernel: LeanKernel, payload: bytes, broker: socket.socket) -> None:
    try:
        entry.configure(models.KernelSetup.model_validate_json(payload), broker)
    except Exception as error:  # the edge of the kernel: the engine makes it the outcome of the execution
        text = f"{type(error).__name__}: {error}"
        kernel.link.send(protocol.pack(Kind.SETUP_FAILED, text.encode("utf-8", "replace")))
        return
    shell_of(kernel).user_ns.update(bifrost=entry, context=entry.get_context())


def _become_another(kernel: LeanKernel) -> None:
    """Nothing that should be unique may be the same in two children."""
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()
    session: Any = kernel.session
    session.session = uuid.uuid4().hex
    session.pid = os.getpid()


def _install_streams(kernel: LeanKernel) -> None:
    out: Any = Console(kernel.link, Kind.STDOUT, 1)
    err: Any = Console(kernel.link, Kind.STDERR, 2)
    sys.stdout = kernel._stdout = out
    sys.stderr = kernel._stderr = err


@contextlib.contextmanager
def _streams(kernel: LeanKernel) -> Iterator[None]:
    before = sys.stdout, sys.stderr
    _install_streams(kernel)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _as_zmq(parts: Sequence[bytes]) -> list[zmq.Frame]:
    return [zmq.Frame(part) for part in parts]
