"""The kernel's only way out: blocking calls over the broker's socket (docs/broker-protocol.md).

`context` calls it in executions, the JupyterLab extension in authoring sessions. It retries nothing, caches nothing,
and knows no operation by name but `hello`.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from bifrost_kernel import errors, frames

_PLAIN_ERRORS: Mapping[str, type[errors.BifrostError]] = {
    kind.code: kind
    for kind in (
        errors.NotFound,
        errors.Unauthorized,
        errors.Forbidden,
        errors.Conflict,
        errors.LimitExceeded,
        errors.ConnectionRefused,
    )
}
_TEMPORARY_ERRORS: Mapping[str, type[errors.TemporaryError]] = {
    errors.TooManyRequests.code: errors.TooManyRequests,
    errors.Unavailable.code: errors.Unavailable,
}


class BrokerClient:
    """One connection that belongs to one execution or authoring session; safe to share between threads."""

    def __init__(self, sock: socket.socket, token: str) -> None:
        """Greet the broker with the token; it answers while the caller goes on.

        Raises:
            BrokerUnavailable: it is gone.
        """
        sock.setblocking(True)
        self._sock = sock
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._last_id = 0
        self._is_welcome = False
        self._send("hello", {"token": token})

    def call(self, op: str, **arguments: Any) -> Any:
        """Ask and wait for the answer; when it is there, what a writing op wrote is durable.

        Raises:
            BrokerUnavailable: the control plane is gone, or has ended the connection, which is also its answer to a
                wrong token.
            LimitExceeded: the message is too long for a frame.
            BifrostError: what the broker answered, as the error of that code.
            WorkflowError: called in a forked child.
        """
        self._check_owner()
        with self._lock, _interrupt_deferred():
            self._await_welcome()
            reply = self._exchange(op, arguments)
        if "error" in reply:
            raise error_of(reply["error"])
        return reply.get("ok")

    def wait_until_welcome(self) -> None:
        """
        Raises:
            BrokerUnavailable: the token is refused.
        """
        with self._lock:
            self._await_welcome()

    def close(self) -> None:
        """End the connection; later calls raise `BrokerUnavailable`."""
        self._sock.close()

    def _await_welcome(self) -> None:
        if not self._is_welcome:
            self._reply()
            self._is_welcome = True

    def _exchange(self, op: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        self._send(op, arguments)
        return self._reply()

    def _send(self, op: str, arguments: Mapping[str, Any]) -> None:
        self._last_id += 1
        try:
            frames.send(self._sock, {"id": self._last_id, "op": op, **arguments})
        except frames.FrameError as error:
            raise errors.LimitExceeded(f"{op}: {error}") from error
        except OSError as error:
            raise _gone() from error

    def _reply(self) -> dict[str, Any]:
        try:
            reply = frames.receive(self._sock)
        except (frames.FrameError, OSError) as error:
            raise _gone() from error
        if reply is None or reply.get("id") != self._last_id:
            raise _gone()
        return reply

    def _check_owner(self) -> None:
        """Parent and child would write into each other's frames on the socket that both hold."""
        if os.getpid() != self._pid:
            raise errors.WorkflowError(
                "the context cannot be used in a forked child process; return the values to the parent and use it there"
            )


def connect_unix(path: str, token: str) -> BrokerClient:
    """Connect to the broker's Unix socket, as JupyterLab kernels do.

    Raises:
        BrokerUnavailable: nobody listens there, or the token is refused.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
        client = BrokerClient(sock, token)
        client.wait_until_welcome()
        return client
    except OSError as error:
        sock.close()
        raise _gone() from error
    except errors.BrokerUnavailable:
        sock.close()
        raise


def error_of(reply: Mapping[str, Any]) -> errors.BifrostError:
    """The error object for the `error` of a reply."""
    code, message, details = str(reply.get("code")), str(reply.get("message")), reply.get("details")
    if code == errors.ValidationError.code:
        return errors.ValidationError(message, _fields(details))
    if code in _TEMPORARY_ERRORS:
        return _TEMPORARY_ERRORS[code](message, retry_after_seconds=_retry_after(details), details=details)
    return _PLAIN_ERRORS.get(code, errors.BifrostError)(message, details=details)


def _fields(details: Any) -> list[errors.FieldError]:
    fields = details.get("fields", ()) if isinstance(details, Mapping) else ()
    return [errors.FieldError(field["field"], field["code"], field["message"]) for field in fields]


def _retry_after(details: Any) -> float:
    seconds = details.get("retry_after_seconds") if isinstance(details, Mapping) else None
    return float(seconds) if isinstance(seconds, (int, float)) else 1.0


def _gone() -> errors.BrokerUnavailable:
    return errors.BrokerUnavailable("the control plane does not answer: the connection to its broker has ended")


@contextmanager
def _interrupt_deferred() -> Iterator[None]:
    """Let Ctrl-C, which is how a deadline begins, strike after the exchange.

    In the middle of a frame it would leave half a message behind, and the failure could not be reported any more.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    previous = signal.getsignal(signal.SIGINT) if in_main_thread else None
    if not callable(previous):
        yield
        return
    struck: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: struck.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if struck:
            previous(*struck[0])
