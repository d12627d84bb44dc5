"""Notebooks that are workflows: their metadata and inputs, read without running a cell.

`describe` asks for the metadata, the record composer for the cells to run. A notebook declares itself in its metadata
(`metadata.bifrost`) or in its first code cell, which then is one literal call of `workflow(name=…, description=…)`.
It is read as plain JSON and Python syntax; nothing of it is executed or trusted here.
"""

from __future__ import annotations

import ast
import dataclasses
import io
import json
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bifrost_kernel import declarations, decorators, errors, inputs, models

MAX_BYTES = 10 * 1024 * 1024
PARAMETERS_TAG = "parameters"
"""papermill's tag of the cell whose assignments are the inputs."""

_PARAM_OPTIONS = frozenset(field.name for field in dataclasses.fields(inputs.ParamDeclaration)) - {"name"}
_NO_LITERAL = object()


@dataclasses.dataclass(frozen=True)
class Cell:
    """A code cell; `index` is its place among all cells of the notebook."""

    index: int
    source: str
    tags: tuple[str, ...] = ()

    @property
    def is_parameters(self) -> bool:
        return PARAMETERS_TAG in self.tags


def find_notebook_workflow(code_dir: str | Path, relative_file: str) -> models.WorkflowMetadata | None:
    """The workflow that the notebook declares; None when it declares none.

    Raises:
        DeclarationError: it is no readable notebook of format 4, or what it declares is wrong.
    """
    try:
        document = _document(Path(code_dir) / relative_file)
        cells = _code_cells(document)
        options = _declared_options(document, cells)
        if options is None:
            return None
        _refuse_attachments(document)
        declared = _param_declarations(options.pop("params", {}))
        arguments, comments = _inputs(cells)
        helped = {name: inputs.ParamDeclaration(name) for name in arguments} | declared
        completed = [_with_comment(declaration, comments) for declaration in helped.values()]
        params = inputs.build_params(completed, list(arguments.values()))
        source = models.Source(file=relative_file)
        return declarations.build_workflow(_options(options), params, source=source, kind="notebook")
    except errors.DeclarationError as error:
        raise errors.DeclarationError(f"{relative_file}: {error.message}", file=relative_file, line=1) from None


def cells_of(path: str | Path) -> list[Cell]:
    """The code cells to run, in order: all but the declaration, the parameters cell included.

    Raises:
        DeclarationError: it is no readable notebook of format 4.
    """
    cells = _code_cells(_document(Path(path)))
    return cells[1:] if cells and _call_options(cells[0].source) is not None else cells


def _document(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise errors.DeclarationError(f"{path.name} has {size:,} bytes; a notebook may have {MAX_BYTES:,}")
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise errors.DeclarationError(f"{path.name} is not JSON: {error}") from None
    if not isinstance(document, dict) or document.get("nbformat") != 4:
        raise errors.DeclarationError(f"{path.name} is no notebook of format 4; open it in JupyterLab and save it")
    if not isinstance(document.get("cells"), list):
        raise errors.DeclarationError(f"{path.name} has no list of cells")
    return document


def _code_cells(document: Mapping[str, Any]) -> list[Cell]:
    return [
        Cell(index, _text(cell.get("source")), _tags(cell))
        for index, cell in enumerate(document["cells"])
        if isinstance(cell, dict) and cell.get("cell_type") == "code" and _text(cell.get("source")).strip()
    ]


def _text(source: Any) -> str:
    """nbformat 4 keeps a cell's source as text or as a list of lines."""
    return "".join(map(str, source)) if isinstance(source, list) else str(source or "")


def _tags(cell: Mapping[str, Any]) -> tuple[str, ...]:
    metadata = cell.get("metadata")
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    return tuple(map(str, tags)) if isinstance(tags, list) else ()


def _declared_options(document: Mapping[str, Any], cells: list[Cell]) -> dict[str, Any] | None:
    metadata = document.get("metadata")
    declared = metadata.get("bifrost") if isinstance(metadata, dict) else None
    if isinstance(declared, dict) and "name" in declared:
        return dict(declared)
    return _call_options(cells[0].source) if cells else None


def _call_options(source: str) -> dict[str, Any] | None:
    """The arguments of a cell that is one call of `workflow`, imports aside; None for any other cell."""
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    calls = [statement for statement in statements if not isinstance(statement, (ast.Import, ast.ImportFrom))]
    if len(calls) != 1 or not isinstance(calls[0], ast.Expr) or not isinstance(calls[0].value, ast.Call):
        return None
    call = calls[0].value
    if not isinstance(call.func, ast.Name) or call.func.id != "workflow":
        return None
    if call.args or any(keyword.arg is None for keyword in call.keywords):
        raise errors.DeclarationError('the first cell calls workflow(name="…", description="…"), with named arguments')
    return {str(keyword.arg): _declared_literal(keyword) for keyword in call.keywords}


def _declared_literal(keyword: ast.keyword) -> Any:
    value = _literal(keyword.value)
    if value is _NO_LITERAL:
        raise errors.DeclarationError(f"{keyword.arg}={ast.unparse(keyword.value)}: only literal values are read")
    return value


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return _NO_LITERAL


def _options(declared: Mapping[str, Any]) -> dict[str, Any]:
    defaults = decorators.workflow_options()
    unknown = sorted(declared.keys() - defaults.keys())
    if unknown:
        raise errors.DeclarationError(f"unknown: {', '.join(unknown)}; allowed: params, {', '.join(defaults)}")
    return defaults | dict(declared)


def _param_declarations(params: Any) -> dict[str, inputs.ParamDeclaration]:
    if not isinstance(params, Mapping) or not all(isinstance(options, Mapping) for options in params.values()):
        raise errors.DeclarationError("params must map the name of each input to its options")
    return {name: _param_declaration(name, options) for name, options in params.items()}


def _param_declaration(name: str, options: Mapping[str, Any]) -> inputs.ParamDeclaration:
    unknown = sorted(options.keys() - _PARAM_OPTIONS)
    if unknown:
        allowed = ", ".join(sorted(_PARAM_OPTIONS))
        raise errors.DeclarationError(f"params {name!r}: unknown: {', '.join(unknown)}; allowed: {allowed}")
    return inputs.ParamDeclaration(name, **options)


def _with_comment(declaration: inputs.ParamDeclaration, comments: Mapping[str, str]) -> inputs.ParamDeclaration:
    if declaration.help_text is not None or declaration.name not in comments:
        return declaration
    return dataclasses.replace(declaration, help_text=comments[declaration.name])


def _inputs(cells: list[Cell]) -> tuple[dict[str, inputs.Argument], dict[str, str]]:
    """The assignments of the parameters cell, and the comment behind each."""
    cell = next((cell for cell in cells if cell.is_parameters), None)
    if cell is None:
        return {}, {}
    try:
        statements = ast.parse(cell.source).body
        comments = dict(_comments(cell.source))
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise errors.DeclarationError(f"the parameters cell is not Python: {error}") from None
    found = [(argument, node.end_lineno) for node in statements if (argument := _argument(node)) is not None]
    help_texts = {argument.name: comments[line] for argument, line in found if line in comments}
    return {argument.name: argument for argument, _ in found}, help_texts


def _argument(node: ast.stmt) -> inputs.Argument | None:
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        annotation = ast.unparse(node.annotation)
        if node.value is None:
            return inputs.Argument(node.target.id, _annotated_type(annotation))
        return inputs.Argument(node.target.id, _annotated_type(annotation), _default(node.target.id, node.value))
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        default = _default(node.targets[0].id, node.value)
        return inputs.Argument(node.targets[0].id, inputs.type_of(None, default), default)
    return None


def _default(name: str, node: ast.expr) -> Any:
    value = _literal(node)
    if value is _NO_LITERAL:
        raise errors.DeclarationError(f"the input {name!r} must have a literal default, not {ast.unparse(node)[:100]}")
    return value


def _annotated_type(annotation: str) -> models.ParamType:
    """The input type that an annotation begins with: `int`, `list[str]`, `str | None`."""
    known = {"str": str, "int": int, "float": float, "bool": bool, "dict": dict, "list": list}
    first = annotation.removeprefix("Optional[").partition("[")[0].partition("|")[0].strip(" ]").lower()
    return inputs.type_of(known.get(first, str))


def _comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# ").strip()


def _refuse_attachments(document: Mapping[str, Any]) -> None:
    if any(isinstance(cell, dict) and cell.get("attachments") for cell in document["cells"]):
        raise errors.DeclarationError("a notebook that is a workflow has no attachments; keep files beside it")
