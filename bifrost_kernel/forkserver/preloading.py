"""Imports packages once for all kernels; what cannot be imported is told, and stops nothing.

The fork server calls `load` before it makes its kernel. `python -m bifrost_kernel.forkserver.preloading NAME…` tries
the same and prints what fails as JSON: `bifrost doctor` runs it. Workspace code is never loaded: no folder of it is on
the path here, and what one organization's code leaves in a module would be in the kernels of all others.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

IMPORT_SECONDS = 30.0
"""For one package; a longer one would keep every execution waiting."""


def load(names: Sequence[str], *, import_seconds: float = IMPORT_SECONDS) -> dict[str, str]:
    """Import each; the names of those that are no use to kernels, with the reason. For the main thread only."""
    reasons = {}
    for name in names:
        threads = threading.active_count()
        try:
            with _time_limit(import_seconds):
                importlib.import_module(name)
        except (Exception, SystemExit) as error:  # the edge: whatever a foreign package does while it is imported
            reasons[name] = f"{type(error).__name__}: {error}"
            continue
        if threading.active_count() > threads:
            reasons[name] = "it starts a thread when it is imported, which kernels do not inherit"
    return reasons


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def give_up(*_: object) -> None:
        raise TimeoutError(f"its import took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    print(json.dumps(load(sys.argv[1:])))  # noqa: T201
