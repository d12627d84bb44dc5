"""`python -m bifrost_kernel.workspace_reader OPTIONS`: a workspace as metadata, its code enclosed as kernels' code is.

The control plane's catalog runs it in a keyless process, because reading decorators means running author code. This
process only hands files to enclosed ones and joins what they report; it never runs author code itself. An enclosed
process that is ended from within takes along what it had not reported: that is read again in halves, until the file
that does it is alone.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import select
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pydantic

from bifrost_kernel import describe, file_reports, models
from bifrost_kernel.forkserver import filesystem, jail, sandbox, syscalls

NOT_PERMITTED = 3
"""The exit status when code cannot be enclosed here; standard error says why."""

_SLOT = jail.HOST_IDS - 1
"""The last of the kernels' users, so that a kernel hardly ever is the same one."""

_READY = b"ready\n"


class ReaderOptions(models.Frozen):
    """What is read and how it is enclosed, as JSON in the only argument."""

    code_dir: str
    folder: str
    """An empty one, to build the root of level full on; home and temporary folder at the others."""
    level: sandbox.Level
    hidden: tuple[str, ...] = ()
    """Folders that are not seen, wherever they lie."""
    environment: dict[str, str]
    limits: sandbox.Limits = sandbox.Limits()
    home_bytes: int = 64 * 1024 * 1024
    file_limit_seconds: float = file_reports.LIMIT_SECONDS
    limit_seconds: float = 100.0
    """For all files together; those that were not read by then are broken."""


class FileSaid(models.Frozen):
    """What an enclosed process reports of one file."""

    file: str
    report: file_reports.FileReport


class Reader:
    """Reads groups of files, each in an enclosure of its own."""

    def __init__(self, options: ReaderOptions, standing: sandbox.Standing) -> None:
        self._options = options
        self._standing = standing
        self._cell = sandbox.Cell(standing.enclosure)
        self._deadline = time.monotonic() + options.limit_seconds

    def read(self, files: list[str]) -> list[file_reports.FileReport]:
        """The reports in the order of the files.

        Raises:
            NotPermitted: code cannot be enclosed here.
        """
        reports: dict[str, file_reports.FileReport] = {}
        groups = [files] if files else []
        while groups:
            group = groups.pop()
            found = {said.file: said.report for said in self._read_group(group)}
            reports |= found
            groups.extend(_again([file for file in group if file not in found], is_stuck=not found))
        return [reports[file] if file in reports else self._unread(file) for file in files]

    def _unread(self, file: str) -> file_reports.FileReport:
        if time.monotonic() >= self._deadline:
            limit = f"{self._options.limit_seconds:g} seconds"
            return file_reports.broken_file(file, f"it was not read: all files together took longer than {limit}")
        return file_reports.broken_file(file, "importing it ended the process that reads it")

    def _read_group(self, files: list[str]) -> Iterator[FileSaid]:
        """What is reported until the enclosed process ends, or time is up; nothing of it lives on."""
        if time.monotonic() >= self._deadline:
            return
        with self._started(files) as pipe:
            lines = self._lines(pipe)
            if next(lines, None) != _READY.strip():
                raise sandbox.NotPermitted("The workspace is not read: the process that reads it cannot be enclosed.")
            waiting = set(files)
            for line in lines:
                said = _parse(line)
                if said is None or said.file not in waiting:
                    return
                waiting.remove(said.file)
                yield said
                if not waiting:
                    return

    @contextlib.contextmanager
    def _started(self, files: list[str]) -> Iterator[int]:
        reading, writing = os.pipe()
        # No egress proxy takes the listener that comes here, so that nothing leads out.
        nobody, doorstep = socket.socketpair()
        with nobody, doorstep:
            pid = self._cell.fork()
            if pid == 0:
                os.close(reading)
                self._be_first_process(functools.partial(self._be_reader, files, writing), doorstep.fileno())
            os.close(writing)
            try:
                yield reading
            finally:
                os.close(reading)
                self._end(pid)

    def _end(self, pid: int) -> None:
        # Without namespaces the first process must live to sweep up the others.
        namespaced = self._standing.enclosure is sandbox.Enclosure.PID_NAMESPACE
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL if namespaced else signal.SIGTERM)
        os.waitpid(pid, 0)
        if not namespaced:
            sandbox.sweep(set())

    def _lines(self, pipe: int) -> Iterator[bytes]:
        buffer = b""
        poller = select.poll()
        poller.register(pipe, select.POLLIN)
        while poller.poll(max(0.0, self._deadline - time.monotonic()) * 1000):
            chunk = os.read(pipe, 1 << 16)
            if not chunk or len(buffer) > file_reports.MAX_REPORT_BYTES:
                return
            *whole, buffer = (buffer + chunk).split(b"\n")
            yield from whole

    def _be_first_process(self, reader: Callable[[], NoReturn], doorstep: int) -> NoReturn:
        try:
            sandbox.tend(self._standing, reader, slot=_SLOT, doorstep=doorstep)
        except BaseException:  # the edge of the process: nothing may unwind into the frames of its parent
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(70)

    def _be_reader(self, files: list[str], pipe: int) -> NoReturn:
        try:
            os.write(pipe, _READY)
            self._move_in()
            # Files' own processes shall neither read nor trace this one, which reports for others, too.
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
            root, limit_seconds = Path(self._options.code_dir), self._options.file_limit_seconds
            for file, report in file_reports.iterate(root, files, limit_seconds, begin=_begin_file):
                _write_all(pipe, FileSaid(file=file, report=report).model_dump_json().encode() + b"\n")
        finally:
            os._exit(0)

    def _move_in(self) -> None:
        is_full = self._standing.level is sandbox.Level.FULL
        home = filesystem.HOME if is_full else self._options.folder
        os.environ.clear()
        os.environ.update({**self._options.environment, "HOME": home, "TMPDIR": home})
        tempfile.tempdir = None
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.chdir(home)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        self._options.limits.apply(own_user=is_full)


def main(arguments: list[str]) -> int:
    """Print the description of the workspace on standard output."""
    options = ReaderOptions.model_validate_json(arguments[0])
    try:
        standing = sandbox.enter(
            options.level,
            options.folder,
            visible=(options.code_dir,),
            hidden=options.hidden,
            home_bytes=options.home_bytes,
        )
        gc.freeze()  # what is loaded is shared with the enclosed until someone writes to it
        description = describe.join(Reader(options, standing).read(describe.find_files(options.code_dir)))
    except sandbox.NotPermitted as error:
        sys.stderr.write(f"{error}\n")
        return NOT_PERMITTED
    sys.stdout.write(description.model_dump_json() + "\n")
    return 0


def _again(unread: list[str], *, is_stuck: bool) -> list[list[str]]:
    """The groups in which to read what was not reported; of a group that reported nothing, halves."""
    if not unread or (is_stuck and len(unread) == 1):
        return []
    if not is_stuck:
        return [unread]
    middle = len(unread) // 2
    return [unread[middle:], unread[:middle]]


def _parse(line: bytes) -> FileSaid | None:
    try:
        return FileSaid.model_validate_json(line)
    except pydantic.ValidationError:
        return None


def _begin_file(pipe: int) -> None:
    """Make ready for author code: the pipes of other files are not its own, and its own files below /proc are again."""
    os.closerange(3, pipe)
    os.closerange(pipe + 1, 1 << 16)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)


def _write_all(pipe: int, data: bytes) -> None:
    with open(pipe, "wb", closefd=False) as output:
        output.write(data)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
