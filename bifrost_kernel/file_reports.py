"""What each file of a workspace declares, read in a forked child of its own.

`workspace_reader` calls it, and `describe` where nothing is to be enclosed. A file that exits, crashes or never ends
breaks only itself; its child may print and change what it likes. Nothing is kept between files.
"""

from __future__ import annotations

import contextlib
import gc
import os
import selectors
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import pydantic

from bifrost_kernel import errors, form_files, jsonable, models, notebooks, registry

LIMIT_SECONDS = 10.0
MAX_REASON_CHARS = 2000
MAX_REPORT_BYTES = 16 * 1024 * 1024
FORM_SUFFIXES = (".yaml", ".yml")

Kind = Literal["module", "form"]


class FileReport(models.Frozen):
    """What one file declares."""

    workflows: tuple[models.WorkflowMetadata, ...] = ()
    data_providers: tuple[models.DataProviderMetadata, ...] = ()
    forms: tuple[models.WorkspaceForm, ...] = ()
    broken: tuple[models.BrokenDeclaration, ...] = ()


def read_files(root: Path, files: list[str], limit_seconds: float) -> list[FileReport]:
    """The reports in the order of the files."""
    reports: dict[str, FileReport] = {}
    while unread := [file for file in files if file not in reports]:
        reports |= dict(iterate(root, unread, limit_seconds))
    return [reports[file] for file in files]


def iterate(
    root: Path, files: list[str], limit_seconds: float, *, begin: Callable[[int], None] = lambda _: None
) -> Iterator[tuple[str, FileReport]]:
    """Each file's report as soon as it is there; a few are read at a time, each child calls `begin` first, with
    the descriptor on which it reports.

    It ends early after a file that took too long, or when there are no more processes: what that file may have left
    behind should not be in the way of the next ones.
    """
    gc.freeze()  # what is loaded is shared with the children until someone writes to it
    waiting = list(reversed(files))
    at_once = max(2, len(os.sched_getaffinity(0)))
    with selectors.DefaultSelector() as selector:
        while waiting or selector.get_map():
            while waiting and len(selector.get_map()) < at_once:
                reader = _try_to_start(root, waiting, limit_seconds, begin, alone=not selector.get_map())
                if reader is not None:
                    selector.register(reader.pipe, selectors.EVENT_READ, reader)
            for reader in _ended(selector):
                selector.unregister(reader.pipe)
                if reader.is_late():
                    waiting.clear()
                yield reader.file, reader.finish()


def _try_to_start(
    root: Path, waiting: list[str], limit_seconds: float, begin: Callable[[int], None], *, alone: bool
) -> _Reader | None:
    try:
        return _Reader(root, waiting.pop(), limit_seconds, begin)
    except BlockingIOError:  # no more processes; those that were started before still report
        if alone:
            raise
        waiting.clear()
        return None


class _Reader:
    """A forked child that reads one file, and the pipe on which it reports."""

    def __init__(self, root: Path, file: str, limit_seconds: float, begin: Callable[[int], None]) -> None:
        self.file = file
        self.deadline = time.monotonic() + limit_seconds
        self.limit_seconds = limit_seconds
        self.report = bytearray()
        self.pipe, write_end = os.pipe()
        try:
            self.pid = os.fork()
        except OSError:
            for end in (self.pipe, write_end):
                os.close(end)
            raise
        if self.pid == 0:
            begin(write_end)
            _run_child(root, file, write_end, limit_seconds)
        os.close(write_end)

    def receive(self) -> bool:
        """Take what has arrived; True when there is nothing more to come."""
        chunk = os.read(self.pipe, 1 << 16)
        self.report += chunk
        return not chunk or len(self.report) > MAX_REPORT_BYTES

    def is_late(self) -> bool:
        return time.monotonic() >= self.deadline

    def finish(self) -> FileReport:
        """End the child, and whatever it started, and say what it found."""
        late = self.is_late()
        os.close(self.pipe)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        try:
            return FileReport.model_validate_json(bytes(self.report))
        except pydantic.ValidationError:
            return broken_file(self.file, self._reason(status, late=late))

    def _reason(self, status: int, *, late: bool) -> str:
        if late:
            return f"importing it did not end within {self.limit_seconds:g} seconds"
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL:
            return f"importing it crashed the interpreter ({signal.Signals(os.WTERMSIG(status)).name})"
        return "importing it ended the interpreter"


def _ended(selector: selectors.BaseSelector) -> list[_Reader]:
    readers: list[_Reader] = [key.data for key in selector.get_map().values()]
    patience = min(reader.deadline for reader in readers) - time.monotonic()
    ready = [key.data for key, _ in selector.select(max(0.0, patience))]
    now = time.monotonic()
    return [reader for reader in readers if (reader in ready and reader.receive()) or now >= reader.deadline]


def _run_child(root: Path, file: str, pipe: int, limit_seconds: float) -> None:
    """Read the file, write the report, and leave without running anyone's exit handlers."""
    try:
        os.setpgid(0, 0)
        _be_quiet()
        # Should the parent be killed, nobody else ends a child that loops for ever.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, limit_seconds + 1)
        payload = _report(root, file)
        with open(pipe, "wb") as output:
            output.write(payload)
    finally:
        os._exit(0)


def _be_quiet() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)


def _report(root: Path, file: str) -> bytes:
    try:
        found = _READERS[Path(file).suffix](root, file)
        return found.model_dump_json().encode()
    except BaseException as error:  # author code may raise anything, and SystemExit is no way to end the catalog
        kind: Kind = "form" if Path(file).suffix in FORM_SUFFIXES else "module"
        line, reason = _place_and_reason(error, root, file)
        return broken_file(file, reason, line=line, kind=kind).model_dump_json().encode()


def _read_module(root: Path, file: str) -> FileReport:
    found = registry.find_declarations(registry.load_module(root, file), root)
    return FileReport(workflows=found.workflows, data_providers=found.data_providers, broken=found.broken)


def _read_notebook(root: Path, file: str) -> FileReport:
    found = notebooks.find_notebook_workflow(root, file)
    return FileReport(workflows=(found,) if found else ())


def _read_form(root: Path, file: str) -> FileReport:
    name, definition = form_files.read_form(root / file)
    if name != Path(file).stem:
        # A file that breaks still says which form it is.
        raise errors.DeclarationError(
            f"name: the form {name!r} stands in {name}.yaml, not in {Path(file).name}", line=1
        )
    plain = definition.model_dump(mode="json", exclude_unset=True)
    return FileReport(forms=(models.WorkspaceForm(name=name, definition=plain, source=models.Source(file=file)),))


def _place_and_reason(error: BaseException, root: Path, file: str) -> tuple[int, str]:
    if isinstance(error, errors.DeclarationError):
        return error.line or 1, registry.without_root(error.message, root)
    text = registry.without_root(f"{type(error).__name__}: {error}", root).strip()
    if isinstance(error, SyntaxError) and error.filename == str(root / file):
        return error.lineno or 1, text
    inside = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(root)]
    own = [frame.lineno or 1 for frame in inside if frame.filename == str(root / file)]
    if inside and inside[-1].filename != str(root / file):
        text += f" (raised at {Path(inside[-1].filename).relative_to(root).as_posix()}:{inside[-1].lineno})"
    return own[-1] if own else 1, text


def broken_file(file: str, reason: str, *, line: int = 1, kind: Kind = "module") -> FileReport:
    """The report of a file that declares nothing because of this reason."""
    source = models.Source(file=jsonable.clean_text(file), line=line)
    reason = jsonable.clean_text(reason)[:MAX_REASON_CHARS]
    name = Path(file).stem if kind == "form" else None
    return FileReport(broken=(models.BrokenDeclaration(kind=kind, name=name, source=source, reason=reason),))


_READERS: Mapping[str, Callable[[Path, str], FileReport]] = {
    ".py": _read_module,
    ".ipynb": _read_notebook,
    **dict.fromkeys(FORM_SUFFIXES, _read_form),
}
