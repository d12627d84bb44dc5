"""A whole execution in the fork server, before it forks: what it imports, specialises and caches, every kernel has.

`kernel.build` plays it. The workflow is ours, the broker is a list in memory; no author code is ever loaded here, and
nothing of the rehearsal is left behind but warm code.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bifrost_kernel import entry, models, registry

CELL = "await bifrost.run(name=name, language=language)"
PARAMETERS = "name = 'a'\nlanguage = 'english'"
SAMPLE = Path(__file__).with_name("sample_workflow.py")

_SETUP = models.KernelSetup(
    token="",
    execution_id="rehearsal",
    organization=models.OrganizationInfo(id="rehearsal", name="Rehearsal"),
    caller=models.Caller(subject="user:rehearsal"),
    name="rehearsal",
    code_dir=str(SAMPLE.parent),
    source=models.Source(file=SAMPLE.name),
    parameters={"name": "a", "language": "english"},
)


class _Broker:
    """Agrees to everything."""

    def call(self, op: str, **arguments: Any) -> Any:
        return {"found": False, "searched": []} if op in ("get_config", "get_secret") else None


@contextmanager
def prepared(namespace: dict[str, Any]) -> Iterator[None]:
    """Within the block the shell's namespace is that of an execution; afterwards no trace of it is left."""
    path, origin = list(sys.path), sys.dont_write_bytecode
    entry.configure_with(_SETUP, _Broker())
    namespace.update(bifrost=entry, context=entry.get_context())
    try:
        yield
    finally:
        entry.forget()
        sys.path[:] = path
        sys.dont_write_bytecode = origin
        # By its names: a look at all modules would write to a thousand strings that no execution touches.
        for name in (SAMPLE.stem, f"{registry.APART}{SAMPLE.stem}"):
            sys.modules.pop(name, None)
