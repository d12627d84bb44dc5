"""The fork server's wire and process: frames that cannot be broken out of, and an end when nobody listens."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bifrost_kernel import models
from bifrost_kernel.forkserver import protocol
from bifrost_kernel.forkserver.options import ServerOptions
from bifrost_kernel.forkserver.protocol import Frame, FrameReader, Kind


def test_frames_survive_any_chunking() -> None:
    """A reader gives the same frames whatever pieces arrive."""
    stream = protocol.pack(Kind.STDOUT, b"hello") + protocol.pack_parts(Kind.IOPUB, [b"a", b"", b"bc"])
    reader = FrameReader(1024)
    frames = [frame for byte in stream for frame in reader.feed(bytes([byte]))]
    assert frames[0] == Frame(Kind.STDOUT, b"hello", 5)
    assert protocol.unpack_parts(frames[1].payload or b"") == [b"a", b"", b"bc"]


def test_long_frames_are_skipped() -> None:
    """A frame over the limit is reported and thrown away, and the next one is read."""
    reader = FrameReader(10)
    stream = protocol.pack(Kind.IOPUB, b"x" * 1000) + protocol.pack(Kind.STDOUT, b"next")
    frames = [frame for start in range(0, len(stream), 7) for frame in reader.feed(stream[start : start + 7])]
    assert frames == [Frame(Kind.IOPUB, None, 1000), Frame(Kind.STDOUT, b"next", 4)]


@pytest.mark.parametrize("payload", [b"", b"\x05", b"\x01\x00\x00\x00\x09abc", b"\x01\x00\x00\x00\x01abc"])
def test_parts_must_add_up(payload: bytes) -> None:
    """Parts whose lengths are wrong are an error, never other parts."""
    with pytest.raises(protocol.ProtocolError):
        protocol.unpack_parts(payload)


@contextlib.contextmanager
def fork_server(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    options = ServerOptions(folder=str(folder), spares=0)
    command = [sys.executable, "-m", "bifrost_kernel.forkserver", str(theirs.fileno()), options.to_json()]
    environment = {**os.environ, "HOME": str(folder)}
    with ours, subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment) as process:
        theirs.close()
        assert json.loads(ours.recv(1024))["event"] == "ready"
        yield process, ours


def acquire(control: socket.socket) -> tuple[dict[str, Any], list[int]]:
    control.send(b'{"op": "acquire", "id": 1, "network": "proxy"}')
    data, descriptors, _, _ = socket.recv_fds(control, 4096, 6)
    return json.loads(data), descriptors


def test_acquire_gives_six_descriptors(tmp_path: Path) -> None:
    """A request is answered with sockets, console, doorstep and two pidfds, and a folder below the given one."""
    with fork_server(tmp_path) as (_, control):
        answer, descriptors = acquire(control)
        control.shutdown(socket.SHUT_RDWR)
        for descriptor in descriptors:
            os.close(descriptor)
    assert (answer["event"], answer["id"], len(descriptors)) == ("acquired", 1, 6)
    assert Path(answer["folder"]).parent == tmp_path


def test_server_ends_with_its_client(tmp_path: Path) -> None:
    """When the control socket closes the server ends, and its kernels with it."""
    with fork_server(tmp_path) as (process, control):
        _, (engine, *others) = acquire(control)
        control.shutdown(socket.SHUT_RDWR)
        assert process.wait(10) == 0
        with socket.socket(fileno=engine) as sock:
            assert sock.recv(1) == b""
        for descriptor in others:
            os.close(descriptor)


def test_kernel_that_cannot_be_set_up_says_why(tmp_path: Path) -> None:
    """A kernel whose broker is gone reports the reason instead of running anything."""
    setup = models.KernelSetup(
        token="t",
        execution_id="e",
        organization=models.OrganizationInfo(id="acme", name="Acme"),
        caller=models.Caller(subject="user:a@example.com"),
        name="hello",
        code_dir=str(tmp_path),
        source=models.Source(file="hello.py"),
    )
    with fork_server(tmp_path) as (_, control):
        _, (engine, broker, *others) = acquire(control)
        os.close(broker)
        with socket.socket(fileno=engine) as sock:
            sock.sendall(protocol.pack(Kind.SETUP, setup.model_dump_json().encode()))
            (frame,) = FrameReader(4096).feed(sock.recv(4096))
        control.shutdown(socket.SHUT_RDWR)
        for descriptor in others:
            os.close(descriptor)
    assert frame.kind == Kind.SETUP_FAILED
    assert b"BrokerUnavailable" in (frame.payload or b"")
