"""Form objects as YAML: a file's text becomes a name and a checked definition, or a refusal with its line.

`file_reports` reads `forms/*.yaml` of a workspace with it, in the keyless process that reads all of the authors' files;
`bifrost forms set` runs it for a file of its own. It takes plain data only: no tags, no anchors, no dates, and
`yes` and `no` are words.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import pydantic
import yaml

from bifrost_kernel import errors, jsonable
from bifrost_kernel.form_definitions import MAX_DEFINITION_BYTES, FormDefinition, FormName

NAME = "name"
_NAMES: pydantic.TypeAdapter[str] = pydantic.TypeAdapter(FormName)
_BOOL = "tag:yaml.org,2002:bool"
_DROPPED = (_BOOL, "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:merge")


class _Loader(yaml.SafeLoader):
    """YAML as far as it is JSON: what it reads has no surprises and no more nodes than the text has."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _refused("anchors and aliases are not used here", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            raise _refused("a key stands there twice", node.start_mark)
        return mapping


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _DROPPED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|false)$"), list("tf"))


def read_form(path: Path) -> tuple[str, FormDefinition]:
    """The form of a file; without a `name` it has that of the file.

    Raises:
        DeclarationError: it is no form; with the line.
    """
    with path.open("rb") as file:
        return parse_form(file.read(MAX_DEFINITION_BYTES + 1), default_name=path.stem)


def parse_form(raw: bytes, *, default_name: str) -> tuple[str, FormDefinition]:
    """Raises as `read_form` does."""
    node, content = _load(raw)
    if not isinstance(content, dict):
        raise errors.DeclarationError("a form is a mapping: workflow: …, title: …", line=1)
    given = {key: value for key, value in content.items() if key != NAME}
    try:
        return _NAMES.validate_python(content.get(NAME, default_name)), FormDefinition.model_validate(given)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = first["loc"] or (NAME,) if error.title != FormDefinition.__name__ else first["loc"]
        place = ".".join(str(part) for part in where) or "the form"
        raise errors.DeclarationError(f"{place}: {first['msg']}", line=_line(node, where)) from None


def main(arguments: list[str] | None = None) -> None:
    """`python -m bifrost_kernel.form_files FILE` prints `{name, definition}`; `-` is standard input."""
    (given,) = sys.argv[1:] if arguments is None else arguments
    try:
        name, definition = _read_given(given)
    except errors.DeclarationError as error:
        sys.exit(f"{given}:{error.line}: {error.message}")
    except OSError as error:
        sys.exit(f"{given} cannot be read: {error.strerror}")
    plain = definition.model_dump(mode="json", exclude_unset=True)
    sys.stdout.write(json.dumps({NAME: name, "definition": plain}) + "\n")


def _read_given(given: str) -> tuple[str, FormDefinition]:
    if given == "-":
        return parse_form(sys.stdin.buffer.read(MAX_DEFINITION_BYTES + 1), default_name="")
    return read_form(Path(given))


def _load(raw: bytes) -> tuple[yaml.Node | None, Any]:
    if len(raw) > MAX_DEFINITION_BYTES:
        raise errors.DeclarationError(f"it has over {MAX_DEFINITION_BYTES // 1024} KB", line=1)
    try:
        loader = _Loader(raw.decode("utf-8"))
        node = loader.get_single_node()
        return node, loader.construct_document(node) if node else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise errors.DeclarationError(f"it is no YAML: {error.problem}", line=mark.line + 1 if mark else 1) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = jsonable.clean_text(str(error).partition("\n")[0])
        raise errors.DeclarationError(f"it is no YAML: {reason}", line=1) from None


def _refused(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, mark)


def _line(node: yaml.Node | None, where: Sequence[int | str]) -> int:
    """The line of the innermost part of the file that `where` leads to."""
    line = 1 if node is None else node.start_mark.line + 1
    for part in where:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == part]
            if not found:
                return line
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


if __name__ == "__main__":
    main()
