"""`python -m bifrost_kernel.describe CODE_DIR [--git WORKSPACE_DIR]`: a workspace as metadata, printed as JSON.

The control plane runs it in a keyless process, because reading decorators means running author code. It joins what
`file_reports` found in each file, and decides what clashes; it raises for nothing that stands in the workspace.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from bifrost_kernel import data_providers, file_reports, models

M = TypeVar("M", models.WorkflowMetadata, models.DataProviderMetadata)
T = TypeVar("T")
Metadata = models.WorkflowMetadata | models.DataProviderMetadata

GIT_LIMIT_SECONDS = 10.0
EXCLUDED_FOLDERS = frozenset({"__pycache__", "tests"})
"""Beside hidden folders, `.ipynb_checkpoints` among them."""

# Settings of a repository can name programs to run; none of these two may (git-config(1)).
_GIT = ("git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "--no-optional-locks")


def describe(
    code_dir: str | Path, *, git_dir: str | Path | None = None, file_limit_seconds: float = file_reports.LIMIT_SECONDS
) -> models.WorkspaceDescription:
    """Everything that the workspace declares; what is wrong is in `broken` and nowhere else."""
    root = Path(code_dir).resolve()
    reports = file_reports.read_files(root, list(_files(root)), file_limit_seconds)
    workflows, broken_workflows = _unique("workflow", _joined(report.workflows for report in reports))
    own, broken_providers = _unique("data provider", _joined(report.data_providers for report in reports))
    providers = _with_builtin(own)
    workflows, unknown = _with_known_providers(workflows, {provider.name for provider in providers})
    commit, dirty = (None, None) if git_dir is None else git_state(git_dir)
    return models.WorkspaceDescription(
        workflows=tuple(workflows),
        data_providers=tuple(providers),
        broken=(*_joined(report.broken for report in reports), *broken_workflows, *broken_providers, *unknown),
        git_commit=commit,
        git_dirty=dirty,
    )


def git_state(folder: str | Path) -> tuple[str | None, bool | None]:
    """Commit and dirtiness of the folder; None for both when it is under no version control."""
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return None, None
    status = _git(folder, "status", "--porcelain", "--", ".")
    return commit.strip(), None if status is None else bool(status.strip())


def main(arguments: list[str] | None = None) -> None:
    """Print the description on the real standard output; what author code prints goes to standard error."""
    parser = argparse.ArgumentParser(prog="python -m bifrost_kernel.describe", description="Describe a workspace.")
    parser.add_argument("code_dir")
    parser.add_argument("--git", metavar="WORKSPACE_DIR", help="folder whose commit and dirtiness are reported")
    options = parser.parse_args(arguments)
    with _stdout_apart() as real_stdout:
        description = describe(options.code_dir, git_dir=options.git)
        with open(real_stdout, "w", encoding="utf-8", closefd=False) as output:
            output.write(description.model_dump_json() + "\n")


@contextlib.contextmanager
def _stdout_apart() -> Iterator[int]:
    """A descriptor of the real standard output, while descriptor 1 is standard error."""
    sys.stdout.flush()
    real = os.dup(1)
    os.dup2(2, 1)
    try:
        yield real
    finally:
        sys.stdout.flush()
        os.dup2(real, 1)
        os.close(real)


def _files(root: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in EXCLUDED_FOLDERS and not name.startswith("."))
        for name in sorted(names):
            if name.endswith((".py", ".ipynb")) and not name.startswith("."):
                yield (Path(folder) / name).relative_to(root).as_posix()


def _unique(what: str, found: Iterable[M]) -> tuple[list[M], list[models.BrokenDeclaration]]:
    """Those whose name is theirs alone; the others are broken, each naming every place."""
    by_name: dict[str, list[M]] = defaultdict(list)
    for metadata in found:
        by_name[metadata.name].append(metadata)
    good = [same[0] for same in by_name.values() if len(same) == 1]
    broken = [_duplicate(what, one, same) for same in by_name.values() if len(same) > 1 for one in same]
    return good, broken


def _duplicate(what: str, one: Metadata, same: Iterable[Metadata]) -> models.BrokenDeclaration:
    places = " and ".join(f"{other.source.file}:{other.source.line}" for other in same)
    return _broken(one, f"the {what} name {one.name!r} is declared more than once: {places}; give each its own name")


def _broken(metadata: Metadata, reason: str) -> models.BrokenDeclaration:
    kind = "workflow" if isinstance(metadata, models.WorkflowMetadata) else "data_provider"
    return models.BrokenDeclaration.model_validate(
        {"kind": kind, "name": metadata.name, "source": metadata.source, "reason": reason}
    )


def _with_builtin(own: Iterable[models.DataProviderMetadata]) -> list[models.DataProviderMetadata]:
    builtin = {provider.name: provider for provider in data_providers.list_builtin()}
    replaced = [
        provider.model_copy(update={"replaces_builtin": True}) if provider.name in builtin else provider
        for provider in own
    ]
    return list((builtin | {provider.name: provider for provider in replaced}).values())


def _with_known_providers(
    workflows: Iterable[models.WorkflowMetadata], known: set[str]
) -> tuple[list[models.WorkflowMetadata], list[models.BrokenDeclaration]]:
    good: list[models.WorkflowMetadata] = []
    broken: list[models.BrokenDeclaration] = []
    for workflow in workflows:
        unknown = [param for param in workflow.params if param.data_provider and param.data_provider not in known]
        if unknown:
            broken.append(_broken(workflow, _unknown_providers(unknown, known)))
        else:
            good.append(workflow)
    return good, broken


def _unknown_providers(params: Iterable[models.ParamMetadata], known: set[str]) -> str:
    wanted = "; ".join(f"@param {param.name!r}: there is no data provider {param.data_provider!r}" for param in params)
    return f"{wanted}; known: {', '.join(sorted(known))}"


def _joined(parts: Iterable[Iterable[T]]) -> list[T]:
    return list(itertools.chain.from_iterable(parts))


def _git(folder: str | Path, *arguments: str) -> str | None:
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    try:
        done = subprocess.run(
            [*_GIT, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=GIT_LIMIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


if __name__ == "__main__":
    main()
