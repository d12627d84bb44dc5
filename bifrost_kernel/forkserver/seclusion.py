"""`python -m bifrost_kernel.forkserver.seclusion OPTIONS COMMAND…`: a program from which some folders are hidden.

The control plane starts JupyterLab by it, whose kernels and terminals then see the machine as its user does, but not
the home: it is covered in a mount namespace, other processes (through which it could be reached) are not in sight, and
a user namespace of its own keeps the program from taking the cover off. Nothing else is taken from it, root neither.
Where the machine does not permit that, the program is told so on standard error and runs all the same.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import NoReturn

from bifrost_kernel import models
from bifrost_kernel.forkserver import filesystem, sandbox, syscalls

NOT_PERMITTED = 97
"""The exit status when folders cannot be hidden here and the options ask to do without the program then."""

_FORWARDED = (signal.SIGTERM, signal.SIGINT)


class SeclusionOptions(models.Frozen):
    """As JSON in the first argument."""

    hidden: tuple[str, ...]
    kept: tuple[str, ...] = ()
    """What stays to be seen (and written), also where it lies within a hidden folder."""
    is_required: bool = False
    """Whether the program does not run where nothing can be hidden."""


def main(arguments: list[str]) -> NoReturn:
    """Run the command and end with its status."""
    options, command = SeclusionOptions.model_validate_json(arguments[0]), arguments[1:]
    if not _is_permitted(options):
        sys.stderr.write("The home cannot be hidden on this machine: whoever uses this program reads it.\n")
        sys.stderr.flush()
        if options.is_required:
            sys.exit(NOT_PERMITTED)
        os.execvp(command[0], command)  # noqa: S606  what follows in the arguments
    _seclude(options, command)


def _is_permitted(options: SeclusionOptions) -> bool:
    """Try it without a program: afterwards there is no way back."""
    pid = os.fork()
    if pid == 0:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 2)
        _seclude(options, [])
    _, status = os.waitpid(pid, 0)
    return status == 0


def _seclude(options: SeclusionOptions, command: list[str]) -> NoReturn:
    status = NOT_PERMITTED
    try:
        # Until there is a handler, a signal waits: the first process of a namespace would not even be told of it.
        signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
        _unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            _be_first_process(options, command)
        _forward_to(pid)
        status = sandbox.reap_until(pid)
    except OSError:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _be_first_process(options: SeclusionOptions, command: list[str]) -> NoReturn:
    status = NOT_PERMITTED
    try:
        sandbox.die_with_parent(signal.SIGKILL)
        folder = os.getcwd()
        filesystem.hide(options.hidden, options.kept)
        # What is open leads to the folders as they were.
        os.chdir(folder if os.path.isdir(folder) else "/")
        pid = _fork_into_own_user(command)
        _forward_to(pid)
        status = sandbox.reap_until(pid)
    except OSError:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _fork_into_own_user(command: list[str]) -> int:
    """Start the command where mounts of another user namespace are locked (mount_namespaces(7))."""
    users, groups = _same("/proc/self/uid_map"), _same("/proc/self/gid_map")
    (ready, is_ready), (go, may_go) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(command, is_ready, go)
    for descriptor in (is_ready, go):
        os.close(descriptor)
    if os.read(ready, 1):
        if os.getuid() != 0:
            _write(f"/proc/{pid}/setgroups", "deny")
        _write(f"/proc/{pid}/uid_map", users)
        _write(f"/proc/{pid}/gid_map", groups)
        os.write(may_go, b"+")
    os.close(may_go)
    os.close(ready)
    return pid


def _become(command: list[str], is_ready: int, go: int) -> NoReturn:
    try:
        sandbox.die_with_parent(signal.SIGKILL)
        syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
        os.write(is_ready, b"+")
        if not os.read(go, 1):
            os._exit(NOT_PERMITTED)
        if not command:
            os._exit(0)
        for number in _FORWARDED:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
        os.execvp(command[0], command)  # noqa: S606  what follows in the arguments
    except OSError:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(NOT_PERMITTED)


def _same(path: str) -> str:
    """The map under which every user of this namespace is the same one in the next."""
    with open(path) as file:
        rows = [line.split() for line in file]
    return "".join(f"{inside} {inside} {count}\n" for inside, _, count in rows)


def _unshare(wanted: int) -> None:
    if os.getuid() == 0:
        syscalls.unshare(wanted)
    else:
        sandbox.unshare_with_user(wanted)


def _forward_to(pid: int) -> None:
    for number in _FORWARDED:
        signal.signal(number, lambda received, _: os.kill(pid, received))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


if __name__ == "__main__":
    main(sys.argv[1:])
