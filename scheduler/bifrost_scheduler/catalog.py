"""What the workspace offers: snapshots of its code, each described by an enclosed process.

`executions`, `runner` and `web` ask it. It copies and hashes files, and starts the `workspace_reader`, which encloses
author code as kernels are enclosed; it never imports author code itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import structlog

import bifrost_kernel
from bifrost_kernel import errors, models, workspace_reader
from bifrost_kernel.forkserver import sandbox
from bifrost_scheduler import git_state

log = structlog.get_logger(__name__)

DESCRIBE_TIMEOUT_SECONDS = 120.0
SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", ".ipynb_checkpoints"})

_KERNEL_PACKAGE_FOLDER = str(Path(bifrost_kernel.__path__[0]).parent)

FileStamp = tuple[str, int, int, int]
"""Relative path, inode, size, mtime in nanoseconds."""


@dataclass(frozen=True)
class Snapshot:
    """The workspace at one moment; `tree_hash` names the folder that holds exactly these files."""

    tree_hash: str
    directory: Path
    files: Mapping[str, str]
    """Relative path → sha256 of the content."""
    description: models.WorkspaceDescription
    lock_sha256: str | None = None
    """Of the lock file that says which packages were installed."""

    @cached_property
    def _workflows(self) -> dict[str, models.WorkflowMetadata]:
        return {workflow.name: workflow for workflow in self.description.workflows}

    @cached_property
    def data_providers(self) -> Mapping[str, models.DataProviderMetadata]:
        """By name."""
        return {provider.name: provider for provider in self.description.data_providers}

    @cached_property
    def _forms(self) -> dict[str, models.WorkspaceForm]:
        return {form.name: form for form in self.description.forms}

    def find_workflow(self, name: str) -> models.WorkflowMetadata | None:
        return self._workflows.get(name)

    def find_form(self, name: str) -> models.WorkspaceForm | None:
        return self._forms.get(name)

    def find_broken(self, kind: str, name: str) -> models.BrokenDeclaration | None:
        return next((one for one in self.description.broken if one.name == name and one.kind == kind), None)

    def get_workflow(self, name: str) -> models.WorkflowMetadata:
        """
        Raises:
            NotFound: nothing of that name.
            Conflict: it is declared wrongly; the text has file, line and reason.
        """
        if workflow := self._workflows.get(name):
            return workflow
        raise self._broken("workflow", name) or errors.NotFound(f"There is no workflow named {name!r}.")

    def get_data_provider(self, name: str) -> models.DataProviderMetadata:
        """Raises as `get_workflow` does."""
        if provider := self.data_providers.get(name):
            return provider
        raise self._broken("data_provider", name) or errors.NotFound(f"There is no data provider named {name!r}.")

    def _broken(self, kind: str, name: str) -> errors.Conflict | None:
        broken = self.find_broken(kind, name)
        if broken is None:
            return None
        place = f"{broken.source.file}:{broken.source.line}"
        return errors.Conflict(f"The {kind.replace('_', ' ')} {name!r} is broken ({place}): {broken.reason}")


class Catalog:
    """Snapshots of one workspace, kept below `code_dir`; safe to use from many threads."""

    def __init__(
        self,
        *,
        workspace: Path,
        code_dir: Path,
        level: sandbox.Level = sandbox.Level.FULL,
        limits: sandbox.Limits = sandbox.Limits(),  # noqa: B008  frozen
        hidden: Sequence[Path] = (),
        host_network: Collection[str] = (),
    ) -> None:
        """
        Args:
            level, limits: what author code is enclosed by while its decorators are read.
            hidden: folders that it does not see, wherever they lie.
            host_network: workflows that the operator lets have the network of the machine.
        """
        self.workspace = workspace
        self._code_dir = code_dir
        self._level = level
        self._limits = limits
        self._hidden = tuple(map(str, hidden))
        self._host_network = frozenset(host_network)
        self._lock = threading.Lock()
        self._stamps: tuple[FileStamp, ...] | None = None
        self._current: Snapshot | None = None
        self._known: dict[str, Snapshot] = {}

    def current(self) -> Snapshot:
        """The workspace as it is saved now; costs a walk over its folders when nothing has changed."""
        with self._lock:
            stamps = tuple(_stamps(self.workspace))
            if self._current is None or stamps != self._stamps:
                self._current = self._take()
                self._stamps = stamps
            return self._current

    def at(self, tree_hash: str) -> Snapshot:
        """An earlier snapshot.

        Raises:
            NotFound: its folder is gone.
        """
        with self._lock:
            if snapshot := self._known.get(tree_hash):
                return snapshot
            directory = self._code_dir / tree_hash
            if not directory.is_dir():
                raise errors.NotFound(f"The code {tree_hash} is no longer below {self._code_dir}.")
            return self._remember(Snapshot(tree_hash, directory, _hashes(directory), self._describe(directory)))

    def _take(self) -> Snapshot:
        tree_hash, directory, files, is_new = self._copy()
        with _compiling(directory) if is_new else contextlib.nullcontext():
            description = self._describe(directory)
        return self._remember(Snapshot(tree_hash, directory, files, description, _lock_sha256(self.workspace)))

    def _remember(self, snapshot: Snapshot) -> Snapshot:
        self._known[snapshot.tree_hash] = snapshot
        return snapshot

    def _copy(self) -> tuple[str, Path, dict[str, str], bool]:
        """Copy the files and hash what was copied, so that the hash always names these very bytes.

        Returns:
            The hash, its folder, the hashes of its files, and whether there was no such folder before.
        """
        self._code_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
        with tempfile.TemporaryDirectory(dir=self._code_dir, prefix=".taking-") as name:
            taking = Path(name) / "code"
            taking.mkdir(mode=0o755)
            for relative in _files(self.workspace):
                _copy_file(self.workspace / relative, taking / relative)
            _open_to_kernels(taking)
            files = _hashes(taking)
            tree_hash = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
            directory = self._code_dir / tree_hash
            is_new = not directory.exists()
            if is_new:
                taking.rename(directory)
        return tree_hash, directory, files, is_new

    def _describe(self, directory: Path) -> models.WorkspaceDescription:
        with tempfile.TemporaryDirectory(dir=self._code_dir, prefix=".reading-") as folder:
            options = workspace_reader.ReaderOptions(
                code_dir=str(directory.resolve()),
                folder=folder,
                level=self._level,
                limits=self._limits,
                hidden=self._hidden,
                environment=keyless_environment(),
            )
            description = _read(options)
        commit, dirty = git_state.find(self.workspace)
        described = description.model_copy(update={"git_commit": commit, "git_dirty": dirty})
        return _without_unpermitted(described, self._host_network)


def _without_unpermitted(
    description: models.WorkspaceDescription, host_network: Collection[str]
) -> models.WorkspaceDescription:
    """With the workflows that want more than the operator gives among the broken ones."""
    refused = [
        workflow
        for workflow in description.workflows
        if workflow.network is models.Network.HOST and workflow.name not in host_network
    ]
    return description.model_copy(
        update={
            "workflows": tuple(workflow for workflow in description.workflows if workflow not in refused),
            "broken": (*description.broken, *map(_refused_network, refused)),
        }
    )


def _refused_network(workflow: models.WorkflowMetadata) -> models.BrokenDeclaration:
    reason = (
        f'network="host" is not allowed to {workflow.name!r} here: leave it out, '
        "or have the operator name the workflow in BIFROST_HOST_NETWORK_WORKFLOWS"
    )
    return models.BrokenDeclaration(kind="workflow", name=workflow.name, source=workflow.source, reason=reason)


@contextlib.contextmanager
def _compiling(directory: Path) -> Iterator[None]:
    """Within the block the bytecode of a snapshot is made; a file without it is compiled by whoever imports it."""
    with subprocess.Popen(
        _kernel_command("bytecode", str(directory)),
        env=_kernel_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
    ) as process:
        try:
            yield
            process.wait(DESCRIBE_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("the workspace could not be compiled beforehand", folder=str(directory))
        finally:
            process.kill()


def _kernel_command(module: str, argument: str) -> list[str]:
    return [sys.executable, "-P", "-m", f"bifrost_kernel.{module}", argument]


def _kernel_environment() -> dict[str, str]:
    # The kernel room of this very product, wherever it was imported from.
    return {**keyless_environment(), "PYTHONPATH": _KERNEL_PACKAGE_FOLDER}


def _read(options: workspace_reader.ReaderOptions) -> models.WorkspaceDescription:
    try:
        done = subprocess.run(
            _kernel_command("workspace_reader", options.model_dump_json()),
            env=_kernel_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DESCRIBE_TIMEOUT_SECONDS,
            check=True,
            cwd="/",
        )
    except subprocess.TimeoutExpired as error:
        raise errors.Unavailable(f"The workspace could not be read within {DESCRIBE_TIMEOUT_SECONDS:.0f} s.") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode("utf-8", "replace").strip()
        reason = said if error.returncode == workspace_reader.NOT_PERMITTED else " ".join(said.splitlines()[-1:])
        raise errors.Unavailable(f"The workspace could not be read: {reason}") from error
    return models.WorkspaceDescription.model_validate_json(done.stdout)


def _lock_sha256(workspace: Path) -> str | None:
    """The hash of the lock file in the workspace, or beside it as in a checkout; None where there is none."""
    for folder in (workspace, workspace.parent):
        if (lock := folder / "requirements.lock").is_file():
            return hashlib.sha256(lock.read_bytes()).hexdigest()
    return None


def keyless_environment() -> dict[str, str]:
    """An allow-list: what a process that runs author code may know of this one's environment."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV") if name in os.environ}
    return {"LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1", **kept}


def _files(root: Path) -> Iterator[str]:
    """Relative paths of the regular files that count, sorted; links are not followed out of the workspace."""
    return iter(sorted(relative for relative, _ in _walk(root, "")))


def _stamps(root: Path) -> Iterator[FileStamp]:
    for relative, entry in _walk(root, ""):
        status = entry.stat(follow_symlinks=False)
        yield relative, status.st_ino, status.st_size, status.st_mtime_ns
    yield from _git_stamps(root)


def _git_stamps(root: Path) -> Iterator[FileStamp]:
    """A commit changes what the catalog says of the code without changing a file."""
    for folder in (root, *root.parents):
        for name in (".git/HEAD", ".git/index", ".git/logs/HEAD"):
            if (path := folder / name).is_file():
                status = path.stat()
                yield name, status.st_ino, status.st_size, status.st_mtime_ns
        if (folder / ".git").exists():
            return


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in SKIPPED_FOLDERS:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")
        elif entry.is_file(follow_symlinks=False) and not entry.name.endswith((".pyc", "~", ".swp")):
            yield prefix + entry.name, entry


def _hashes(root: Path) -> dict[str, str]:
    return {relative: hashlib.sha256((root / relative).read_bytes()).hexdigest() for relative in _files(root)}


def _open_to_kernels(folder: Path) -> None:
    """Kernels are other users, whatever the umask of this process."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    try:
        shutil.copyfile(source, target, follow_symlinks=False)
    except FileNotFoundError:
        # An editor replaced the file between the walk and the copy; the next look takes the new one.
        return
