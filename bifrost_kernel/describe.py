"""A workspace as metadata: what was found in each file joined, and what clashes decided.

`workspace_reader` calls it with what enclosed processes reported; tests of a workspace call `describe`. It raises for
nothing that stands in the workspace, and encloses nothing.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from bifrost_kernel import data_providers, file_reports, models

M = TypeVar("M", models.WorkflowMetadata, models.DataProviderMetadata, models.WorkspaceForm)
T = TypeVar("T")
Metadata = models.WorkflowMetadata | models.DataProviderMetadata | models.WorkspaceForm

FORMS_FOLDER = "forms"

EXCLUDED_FOLDERS = frozenset({"__pycache__", "tests"})
"""Beside hidden folders, `.ipynb_checkpoints` among them."""


def describe(
    code_dir: str | Path, *, file_limit_seconds: float = file_reports.LIMIT_SECONDS
) -> models.WorkspaceDescription:
    """Everything that the workspace declares, read as this user; what is wrong is in `broken` and nowhere else."""
    root = Path(code_dir).resolve()
    return join(file_reports.read_files(root, find_files(root), file_limit_seconds))


def join(reports: Sequence[file_reports.FileReport]) -> models.WorkspaceDescription:
    """What the files declare together."""
    workflows, broken_workflows = _unique("workflow", _joined(report.workflows for report in reports))
    own, broken_providers = _unique("data provider", _joined(report.data_providers for report in reports))
    forms, broken_forms = _unique("form", _joined(report.forms for report in reports))
    providers = _with_builtin(own)
    workflows, unknown = _with_known_providers(workflows, {provider.name: provider for provider in providers})
    return models.WorkspaceDescription(
        workflows=tuple(workflows),
        data_providers=tuple(providers),
        forms=tuple(forms),
        broken=(
            *_joined(report.broken for report in reports),
            *broken_workflows,
            *broken_providers,
            *broken_forms,
            *unknown,
        ),
    )


def find_files(root: str | Path) -> list[str]:
    """The relative paths of what is read, in their order."""
    return list(_files(Path(root)))


def _files(root: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in EXCLUDED_FOLDERS and not name.startswith("."))
        for name in sorted(names):
            relative = (Path(folder) / name).relative_to(root)
            if _is_read(relative) and not name.startswith("."):
                yield relative.as_posix()


def _is_read(relative: Path) -> bool:
    """Code wherever it stands; of data only the forms: other YAML is the authors' own business."""
    if relative.suffix in file_reports.FORM_SUFFIXES:
        return relative.parts[0] == FORMS_FOLDER
    return relative.suffix in (".py", ".ipynb")


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
    return models.BrokenDeclaration.model_validate(
        {"kind": _KINDS[type(metadata)], "name": metadata.name, "source": metadata.source, "reason": reason}
    )


def _with_builtin(own: Iterable[models.DataProviderMetadata]) -> list[models.DataProviderMetadata]:
    builtin = {provider.name: provider for provider in data_providers.list_builtin()}
    replaced = [
        provider.model_copy(update={"replaces_builtin": True}) if provider.name in builtin else provider
        for provider in own
    ]
    return list((builtin | {provider.name: provider for provider in replaced}).values())


def _with_known_providers(
    workflows: Iterable[models.WorkflowMetadata], known: Mapping[str, models.DataProviderMetadata]
) -> tuple[list[models.WorkflowMetadata], list[models.BrokenDeclaration]]:
    good: list[models.WorkflowMetadata] = []
    broken: list[models.BrokenDeclaration] = []
    for workflow in workflows:
        reason = _unknown_providers(workflow, known) or _wrong_provider_inputs(workflow, known)
        if reason:
            broken.append(_broken(workflow, reason))
        else:
            good.append(workflow)
    return good, broken


def _unknown_providers(workflow: models.WorkflowMetadata, known: Iterable[str]) -> str | None:
    unknown = [param for param in workflow.params if param.data_provider and param.data_provider not in known]
    wanted = "; ".join(f"@param {param.name!r}: there is no data provider {param.data_provider!r}" for param in unknown)
    return f"{wanted}; known: {', '.join(sorted(known))}" if unknown else None


def _wrong_provider_inputs(
    workflow: models.WorkflowMetadata, known: Mapping[str, models.DataProviderMetadata]
) -> str | None:
    names = {param.name for param in workflow.params}
    reasons = (
        _wrong_inputs(param, known[param.data_provider], names - {param.name})
        for param in workflow.params
        if param.data_provider
    )
    return next((reason for reason in reasons if reason), None)


def _wrong_inputs(param: models.ParamMetadata, provider: models.DataProviderMetadata, others: set[str]) -> str | None:
    """Why the inputs of the data provider cannot come from the other fields, if so."""
    where, inputs = f"@param {param.name!r}", {one.name for one in provider.params}
    for name, field in param.data_provider_inputs.items():
        if name not in inputs:
            there = ", ".join(sorted(inputs)) or "none"
            return f"{where}: the data provider {provider.name!r} has no input {name!r}; its inputs: {there}"
        if field not in others:
            return f"{where}: data_provider_inputs names {field!r}, which is no other @param"
    needed = {one.name for one in provider.params if one.required}
    missing = sorted(needed - param.data_provider_inputs.keys() - others)
    if not missing:
        return None
    return f"{where}: {provider.name!r} needs {missing[0]!r}; name the @param that gives it in data_provider_inputs"


_KINDS = {
    models.WorkflowMetadata: "workflow",
    models.DataProviderMetadata: "data_provider",
    models.WorkspaceForm: "form",
}


def _joined(parts: Iterable[Iterable[T]]) -> list[T]:
    return list(itertools.chain.from_iterable(parts))
