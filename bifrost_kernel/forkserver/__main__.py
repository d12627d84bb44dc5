"""The process of the fork server; started by the control plane, with a socket and its options as arguments."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys

from bifrost_kernel.forkserver import filesystem, inits, pages, sandbox
from bifrost_kernel.forkserver.control_groups import SlotGroups
from bifrost_kernel.forkserver.options import ServerOptions


def main(arguments: list[str]) -> None:
    """`python -m bifrost_kernel.forkserver <control descriptor> <options as JSON>`."""
    control = socket.socket(fileno=int(arguments[0]))
    control.set_inheritable(False)
    options = ServerOptions.from_json(arguments[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, inits.MakerEnded):
        try:
            # Before the root changes, below which there are none.
            groups = _open_groups(options)
            standing = _enter(options)
            _serve(control, options, standing, groups)
        except sandbox.NotPermitted as error:
            socket.send_fds(control, [json.dumps({"event": "impossible", "reason": str(error)}).encode()], ())
            os._exit(1)
    # No unwinding: as the first process of its namespace, the end of this one is the end of all kernels.
    if standing.enclosure is sandbox.Enclosure.PROCESS_GROUP:
        sandbox.sweep(set())
    os._exit(0)


def _serve(
    control: socket.socket, options: ServerOptions, standing: sandbox.Standing, groups: SlotGroups | None
) -> None:
    if standing.level is not sandbox.Level.NONE:
        sandbox.rehearse(standing, sandbox.Cell(standing.enclosure))
    is_namespaced = standing.enclosure is sandbox.Enclosure.PID_NAMESPACE
    maker = inits.split_off(standing) if is_namespaced else None
    pages.register()
    # Only now, because it brings everything that kernels need, and the maker of inits stays small.
    from bifrost_kernel.forkserver.server import Server  # noqa: PLC0415

    Server(control, options, standing, maker, groups).serve()


def _open_groups(options: ServerOptions) -> SlotGroups | None:
    if options.control_group is None:
        return None
    limits = options.limits
    return SlotGroups(options.control_group, memory_bytes=limits.memory_bytes, processes=limits.processes)


def _enter(options: ServerOptions) -> sandbox.Standing:
    standing = sandbox.enter(
        options.level,
        options.folder,
        namespaces=options.namespaces,
        visible=options.visible,
        hidden=options.hidden,
        home_bytes=options.home_bytes,
    )
    if standing.level is sandbox.Level.FULL:
        os.environ["HOME"] = filesystem.HOME
    return standing


if __name__ == "__main__":
    main(sys.argv[1:])
