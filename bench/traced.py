"""`bifrost up` with a clock at the stations of an execution: `python -m bench.traced SETTINGS TRACE`.

`bench.parts` starts it. Nothing of the product is replaced; public methods of its parts are called through a function
that notes when they began and ended. The notes are written to the file TRACE when the control plane ends.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bifrost_scheduler import services as composition
from bifrost_scheduler.services import Services
from bifrost_scheduler.settings import Settings
from bifrost_scheduler.web import serve

STATIONS = (
    ("executions", "submit"),
    ("kernels", "acquire"),
    ("pool", "run"),
    ("pool", "wait"),
    ("pool", "seal"),
    ("records", "write"),
    ("store", "finish_execution"),
)
"""Which part of `Services`, and which of its methods."""


def watch(services: Services, notes: list[tuple[str, float, float]]) -> Services:
    """Have every station note its name, its beginning and its end, on the clock that all processes share."""
    for part, method in STATIONS:
        owner = getattr(services, part)
        setattr(owner, method, _timed(getattr(owner, method), f"{part}.{method}", notes))
    return services


def _timed(method: Callable[..., Any], name: str, notes: list[tuple[str, float, float]]) -> Callable[..., Any]:
    @functools.wraps(method)
    def timed(*arguments: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return method(*arguments, **named)
        finally:
            notes.append((name, started, time.perf_counter()))

    return timed


def main(settings: str, trace: str) -> int:
    notes: list[tuple[str, float, float]] = []
    build = composition.build

    def build_watched(settings: Settings) -> Services:
        return watch(build(settings), notes)

    composition.build = build_watched
    status = serve.main(settings)
    Path(trace).write_text(json.dumps(notes))
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
