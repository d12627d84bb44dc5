"""The egress proxy: the only way from an enclosed kernel to the network; a keyless process of its own.

`gate` starts it as `python -m bifrost_scheduler.runner.egress <control descriptor> <allowed pairs as JSON>` and gives
it the doorstep of each kernel, through which comes a listener in that kernel's network namespace. It speaks CONNECT and
absolute-form HTTP (RFC 9110 §9.3.6, RFC 9112 §3.2.2), resolves names itself, and connects to the very address that it
judged. It reads no TLS and keeps no content.
"""

from __future__ import annotations

import asyncio

# Their first use comes after this process has become a user who may be unable to read Python's files.
import concurrent.futures.thread  # noqa: F401
import contextlib
import encodings.idna  # noqa: F401
import json
import os
import socket
import sys
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from bifrost_scheduler.runner.destinations import Bounds, Destination, HostList, Rules, is_public

HOST_ID = 63999
"""The user that it becomes when it is started as root."""
CONNECTIONS = 64
"""Of one kernel, at once; further ones wait."""
HEADER_BYTES = 32 * 1024
HEADER_SECONDS = 15.0
CONNECT_SECONDS = 15.0
IDLE_SECONDS = 300.0
REMEMBERED = 1000
"""Destinations of one kernel that are told apart; the others are summed up under `*`."""

_CHUNK = 64 * 1024
_MESSAGE_BYTES = 256 * 1024
"""Two full lists of hosts take half of it."""


class Refused(Exception):
    """No connection is made; `status` and the text are the answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Request(NamedTuple):
    """Whom to connect to, and what to tell them first (nothing for a tunnel)."""

    host: str
    port: int
    head: bytes
    is_tunnel: bool


class Account:
    """What one kernel sent and received, by destination."""

    def __init__(self) -> None:
        self._figures: dict[tuple[str, int], dict[str, int]] = {}
        self._refused_by: dict[tuple[str, int], str] = {}

    def add(self, host: str, port: int, what: str, amount: int) -> None:
        figures = self._figures.setdefault(self._place(host, port), {})
        figures[what] = figures.get(what, 0) + amount

    def refuse(self, host: str, port: int, by: str) -> None:
        self._refused_by[self._place(host, port)] = by
        self.add(host, port, "refused", 1)

    def list_destinations(self) -> list[Destination]:
        return [
            Destination(host=place[0], port=place[1], refused_by=self._refused_by.get(place), **figures)
            for place, figures in self._figures.items()
        ]

    def _place(self, host: str, port: int) -> tuple[str, int]:
        known = (host, port) in self._figures or len(self._figures) < REMEMBERED
        return (host, port) if known else ("*", 0)


class Outlet:
    """The proxy as one kernel sees it; it ends with the kernel."""

    def __init__(self, doorstep: int, rules: Rules, bounds: Bounds) -> None:
        self.account = Account()
        self._doorstep = socket.socket(fileno=doorstep)
        self._doorstep.setblocking(False)
        self._rules = rules
        self._bounds = bounds
        self._free = asyncio.Semaphore(CONNECTIONS)
        self._server: asyncio.Server | None = None
        self._listening: asyncio.Future[None] | None = None
        self._open: set[asyncio.Task[None]] = set()
        asyncio.get_running_loop().add_reader(self._doorstep, self._look)

    def close(self) -> None:
        """End all connections; further calls do nothing."""
        if self._doorstep.fileno() < 0:
            return
        asyncio.get_running_loop().remove_reader(self._doorstep)
        self._doorstep.close()
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()

    def _look(self) -> None:
        data, descriptors = b"", list[int]()
        with contextlib.suppress(OSError):
            data, descriptors, _, _ = socket.recv_fds(self._doorstep, 64, 1, socket.MSG_CMSG_CLOEXEC)
        if descriptors:
            self._listening = asyncio.ensure_future(self._listen(socket.socket(fileno=descriptors[0])))
        elif not data:
            self.close()

    def _start(self, task: asyncio.Task[None]) -> None:
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _listen(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        # Never cancelled: half begun, it would listen for good.
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=HEADER_BYTES)
        if self._doorstep.fileno() < 0:  # the kernel ended meanwhile
            self._server.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._start(asyncio.ensure_future(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A peer that is gone or slow ends its own connection and nothing else.
        with contextlib.suppress(OSError, TimeoutError):
            async with self._free:
                await self._converse(reader, writer)
        writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await read_request(reader)
            upstream = await self._connect(request)
        except Refused as refusal:
            await _answer(writer, refusal)
            return
        if request.is_tunnel:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        upstream[1].write(request.head)
        self.account.add(request.host, request.port, "bytes_sent", len(request.head))
        try:
            await self._relay(request, (reader, writer), upstream)
        finally:
            upstream[1].close()

    async def _connect(self, request: Request) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        # Before anything is resolved: a question to a name server would be a way out, too.
        if (refusing := self._bounds.find_refusing(request.host, request.port)) is not None:
            self.account.refuse(request.host, request.port, refusing.of)
            place, whose = f"{request.host}:{request.port}", f"the {refusing.of} {refusing.name!r}"
            raise Refused(403, f"{place} is not on the egress list of {whose}")
        addresses = await _resolve(request)
        if not self._rules.is_named(request.host, request.port):
            addresses = [address for address in addresses if is_public(address) and not _is_own(address)]
        if not addresses:
            self.account.refuse(request.host, request.port, "address")
            raise Refused(403, f"{request.host}:{request.port} is no public address, nor in BIFROST_EGRESS_ALLOW")
        for address in addresses:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(CONNECT_SECONDS):
                    return await asyncio.open_connection(address, request.port, limit=_CHUNK)
        raise Refused(502, f"{request.host}:{request.port} does not answer")

    async def _relay(
        self,
        request: Request,
        kernel: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        def counting(what: str, limit: asyncio.Timeout) -> Callable[[int], None]:
            def count(size: int) -> None:
                limit.reschedule(asyncio.get_running_loop().time() + IDLE_SECONDS)
                self.account.add(request.host, request.port, what, size)

            return count

        async with asyncio.timeout(IDLE_SECONDS) as limit:
            sending = asyncio.ensure_future(_pump(kernel[0], upstream[1], counting("bytes_sent", limit)))
            try:
                # Who was asked decides when the talk is over; a client may close its half long before.
                await _pump(upstream[0], kernel[1], counting("bytes_received", limit))
            finally:
                sending.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await sending


async def read_request(reader: asyncio.StreamReader) -> Request:
    """The request line and header of a client.

    Raises:
        Refused: it is none, too long, or of no use to a proxy.
    """
    try:
        async with asyncio.timeout(HEADER_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise Refused(431, f"the header is longer than {HEADER_BYTES} bytes") from error
    except (asyncio.IncompleteReadError, TimeoutError) as error:
        raise Refused(400, "this is no request") from error
    return parse_request(head)


def parse_request(head: bytes) -> Request:
    """Decide what a header asks for.

    Raises:
        Refused: it is no CONNECT and no absolute-form request.
    """
    line, _, fields = head.partition(b"\r\n")
    try:
        method, target, version = line.decode("ascii").split(" ")
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        host, port = parts.hostname, parts.port or 80
    except ValueError as error:
        raise Refused(400, "this is no request") from error
    if not host or not version.startswith("HTTP/1.") or (method != "CONNECT" and parts.scheme != "http"):
        raise Refused(400, "only CONNECT and absolute-form HTTP requests are served here")
    if method == "CONNECT":
        return Request(host, port, b"", True)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Request(host, port, f"{method} {path} {version}\r\n".encode() + _own_fields(fields), False)


def _own_fields(fields: bytes) -> bytes:
    """Without what is between client and proxy; one request a connection, since the next may be for somebody else."""
    hop = (b"connection:", b"proxy-connection:", b"proxy-authorization:", b"keep-alive:")
    kept = [field for field in fields.split(b"\r\n") if field and not field.lower().startswith(hop)]
    return b"\r\n".join([*kept, b"Connection: close", b"", b""])


async def _resolve(request: Request) -> list[str]:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            found = await loop.getaddrinfo(request.host, request.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError) as error:
        raise Refused(502, f"{request.host} cannot be resolved") from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _is_own(address: str) -> bool:
    """Whether it is an address of this machine: a public one of its own leads to the servers on it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            return False
    return True


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: Callable[[int], None]) -> None:
    while data := await reader.read(_CHUNK):
        count(len(data))
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


async def _answer(writer: asyncio.StreamWriter, refusal: Refused) -> None:
    reason = f"Bifrost: {refusal}".encode("ascii", "replace").replace(b"\r", b" ").replace(b"\n", b" ")
    head = b"HTTP/1.1 %d %b\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    writer.write(head % (refusal.status, reason, len(reason)) + reason)
    await writer.drain()


class Proxy:
    """All outlets, and the control plane's end of the talk."""

    def __init__(self, control: socket.socket, rules: Rules) -> None:
        self._control = control
        self._rules = rules
        self._outlets: dict[str, Outlet] = {}
        self._over = asyncio.Event()

    async def serve(self) -> None:
        """Answer until the control plane closes its end."""
        self._control.setblocking(False)
        asyncio.get_running_loop().add_reader(self._control, self._hear)
        await self._over.wait()

    def _hear(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, _MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            data, descriptors = b"", []
        if not data:
            self._over.set()
            return
        self._heed(json.loads(data), descriptors)

    def _heed(self, message: dict[str, Any], descriptors: list[int]) -> None:
        name = message["name"]
        if message["op"] == "attach" and descriptors:
            lists = [HostList.model_validate(one) for one in message["lists"]]
            self._outlets[name] = Outlet(descriptors[0], self._rules, Bounds(lists))
        elif message["op"] == "detach":
            outlet = self._outlets.pop(name, None)
            destinations = outlet.account.list_destinations() if outlet is not None else []
            if outlet is not None:
                outlet.close()
            # As much as fits a message; the rest would be a thousand names that a workflow made up.
            told = [destination.model_dump() for destination in destinations[:200]]
            self._control.send(json.dumps({"name": name, "destinations": told}).encode())


def become_nobody() -> None:
    """What comes over the network is read with nobody's rights; nothing when not started as root."""
    if os.getuid() == 0:
        with contextlib.suppress(OSError):
            os.setgroups([])
            os.setresgid(HOST_ID, HOST_ID, HOST_ID)
            os.setresuid(HOST_ID, HOST_ID, HOST_ID)


def main(arguments: list[str]) -> None:
    """Serve on the inherited socket."""
    control = socket.socket(fileno=int(arguments[0]))
    rules = Rules(json.loads(arguments[1]))

    async def serve() -> None:
        await Proxy(control, rules).serve()

    become_nobody()
    asyncio.run(serve())


if __name__ == "__main__":
    main(sys.argv[1:])
