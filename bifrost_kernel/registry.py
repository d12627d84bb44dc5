"""Loads author code and finds what it declares; `describe` calls it per file, `entry` per execution.

Only ever in a keyless process: loading a module runs it. It writes no bytecode, replaces no module of the standard
library or an installed package, and remembers nothing between processes.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, TypeVar

from bifrost_kernel import decorators, errors, models

M = TypeVar("M", models.WorkflowMetadata, models.DataProviderMetadata)

# By name and not by import: `context` stands a floor above, and loading it can wait until an author asks for it.
_ALIASES = {
    "engine": ("", ()),
    "engine.shared": ("", ()),
    "engine.shared.decorators": ("bifrost_kernel.decorators", ("workflow", "param", "data_provider")),
    "engine.shared.context": ("bifrost_kernel.context", ("OrganizationContext",)),
}
_FUNCTIONS = "__bifrost_functions__"
APART = "bifrost_workspace."
"""Prefix of a module that nobody can import by its own name, or whose name already belongs to somebody else."""


@dataclasses.dataclass(frozen=True)
class Declarations:
    """What one module declares; `broken` are its wrong declarations."""

    workflows: tuple[models.WorkflowMetadata, ...] = ()
    data_providers: tuple[models.DataProviderMetadata, ...] = ()
    broken: tuple[models.BrokenDeclaration, ...] = ()


def install_engine_aliases() -> None:
    """Make `engine.shared.decorators` and `engine.shared.context` importable, as older workspaces write them."""
    if not any(isinstance(finder, _AliasFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AliasFinder())


def load_module(code_dir: str | Path, relative_file: str) -> ModuleType:
    """Run the file as a module of the workspace; a wrong declaration breaks only itself.

    Raises:
        BaseException: whatever the module raises.
    """
    root = Path(code_dir).resolve()
    _make_importable(root)
    path = root / PurePosixPath(relative_file)
    name = _module_name(root, PurePosixPath(relative_file))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise errors.NotFound(f"{relative_file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Registered first, so that a module that imports it by name gets this one and not a second copy.
    sys.modules[name] = module
    _attach_to_parent(name, module)
    with decorators.collecting() as functions:
        spec.loader.exec_module(module)
    own = [function for function in functions if Path(_code_file(function)) == path]
    setattr(module, _FUNCTIONS, tuple(own))
    return module


def find_declarations(module: ModuleType, code_dir: str | Path) -> Declarations:
    """The workflows, data providers and wrong declarations of a module that `load_module` loaded."""
    root = Path(code_dir).resolve()
    workflows, providers, broken = [], [], []
    for function in _functions(module):
        declaration = decorators.find_declaration(function)
        if declaration is None:
            continue
        if declaration.error is not None:
            broken.append(_broken(declaration, declaration.error, root))
        elif isinstance(declaration.metadata, models.WorkflowMetadata):
            workflows.append(_relative(declaration.metadata, root))
        elif declaration.metadata is not None:
            providers.append(_relative(declaration.metadata, root))
    return Declarations(tuple(workflows), tuple(providers), tuple(broken))


def find_function(code_dir: str | Path, source: models.Source, name: str) -> Callable[..., Any]:
    """The function of a workflow that the catalog knows: its declaration was checked there, and is not here.

    Raises:
        NotFound: the file does not declare it.
        BaseException: whatever the module raises when it is loaded.
    """
    for function in _functions(load_module(code_dir, source.file)):
        if decorators.is_declared(function, "workflow", name):
            return function
    raise _not_declared(source, "workflow", name)


def find_workflow(
    code_dir: str | Path, source: models.Source, name: str
) -> tuple[Callable[..., Any], models.WorkflowMetadata]:
    """The function of a workflow and its metadata, from the file that the catalog names.

    Raises:
        NotFound: the file does not declare it.
        BaseException: whatever the module raises when it is loaded.
    """
    function, metadata = _find(code_dir, source, name, "workflow")
    assert isinstance(metadata, models.WorkflowMetadata)
    return function, metadata


def find_data_provider(
    code_dir: str | Path, source: models.Source, name: str
) -> tuple[Callable[..., Any], models.DataProviderMetadata]:
    """The function of a data provider of the workspace and its metadata.

    Raises:
        NotFound: the file does not declare it.
        BaseException: whatever the module raises when it is loaded.
    """
    function, metadata = _find(code_dir, source, name, "data_provider")
    assert isinstance(metadata, models.DataProviderMetadata)
    return function, metadata


def without_root(text: str, code_dir: str | Path) -> str:
    """`text` with paths below the workspace made relative: where the workspace lies is nobody's business."""
    return text.replace(f"{Path(code_dir).resolve()}/", "").replace(f"{code_dir}/", "")


def _find(
    code_dir: str | Path, source: models.Source, name: str, kind: str
) -> tuple[Callable[..., Any], decorators.Metadata]:
    for function in _functions(load_module(code_dir, source.file)):
        if not decorators.is_declared(function, kind, name):
            continue
        declaration = decorators.find_declaration(function)
        if declaration is not None and declaration.metadata is not None and declaration.error is None:
            return function, declaration.metadata
    raise _not_declared(source, kind, name)


def _not_declared(source: models.Source, kind: str, name: str) -> errors.NotFound:
    return errors.NotFound(f"{source.file} does not declare the {kind.replace('_', ' ')} {name!r}")


def _functions(module: ModuleType) -> Sequence[Callable[..., Any]]:
    return getattr(module, _FUNCTIONS, ())


def _code_file(function: Callable[..., Any]) -> str:
    code = getattr(function, "__code__", None)
    return code.co_filename if code is not None else ""


def _relative(metadata: M, root: Path) -> M:
    return metadata.model_copy(update={"source": _source(metadata.source.file, metadata.source.line, root)})


def _source(file: str, line: int, root: Path) -> models.Source:
    path = Path(file)
    return models.Source(file=path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name, line=line)


def _broken(
    declaration: decorators.Declaration, error: errors.DeclarationError, root: Path
) -> models.BrokenDeclaration:
    name = declaration.options.get("name")
    return models.BrokenDeclaration(
        kind=declaration.kind or "module",
        name=name if isinstance(name, str) and name else None,
        source=_source(error.file or "", error.line or 1, root),
        reason=without_root(error.message, root),
    )


def _make_importable(root: Path) -> None:
    install_engine_aliases()
    sys.dont_write_bytecode = True
    # At the end: a `json.py` of an author must not replace the standard library's.
    if str(root) not in sys.path:
        sys.path.append(str(root))
    else:
        # What was found before may have changed; a kernel of an execution never comes here, and keeps what it knows.
        importlib.invalidate_caches()


def _module_name(root: Path, relative: PurePosixPath) -> str:
    parts = relative.with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
    importable = all(part.isidentifier() for part in parts) and _belongs_to(root, parts[0])
    return name if importable else APART + name


def _attach_to_parent(name: str, module: ModuleType) -> None:
    """`import workflows.it` finds the module by its name, and then asks the package for it."""
    parent, _, leaf = name.rpartition(".")
    if parent and not name.startswith(APART):
        setattr(importlib.import_module(parent), leaf, module)


def _belongs_to(root: Path, package: str) -> bool:
    """Would `import package` find the workspace's own folder or file?"""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return False
    if spec is None:
        return True
    places = list(spec.submodule_search_locations or []) or [spec.origin or ""]
    return any(Path(place).is_relative_to(root) for place in places)


class _AliasFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers imports of the names in `_ALIASES` with small modules that borrow from ours."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _ALIASES:
            return None
        is_package = not _ALIASES[fullname][0]
        return importlib.machinery.ModuleSpec(fullname, self, is_package=is_package)

    def exec_module(self, module: ModuleType) -> None:
        origin, names = _ALIASES[module.__name__]
        if origin:
            lender = importlib.import_module(origin)
            vars(module).update({name: getattr(lender, name) for name in names})
