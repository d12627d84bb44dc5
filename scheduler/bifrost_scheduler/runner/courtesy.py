"""Who comes first on a full machine: the control plane, and in it the thread that answers.

Whatever starts a process beside the control plane has it give way; niceness decides who gets more, slices who is next.
What answers collects no garbage that it knows to be none.
"""

from __future__ import annotations

import contextlib
import gc
import os
from pathlib import Path

from bifrost_kernel.forkserver import syscalls

COURTESY = 5
"""By how much kernels, engine workers, the portal and JupyterLab are nicer than the control plane: answers and
deadlines come first, also when author code takes every core."""

_YOUNG_OBJECTS = 7_000
"""Ten times Python's own: calls at once have some thousand objects that live until they end."""

PROMPT_SECONDS = 0.0001
"""The shortest slice that Linux grants: it goes before longer ones."""


def give_way(pid: int) -> None:
    """Let a process that was just started, and all that it will start, come behind the control plane."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, min(os.getpriority(os.PRIO_PROCESS, 0) + COURTESY, 19))
    # Where Linux shares the machine out by sessions first, it is the session that has to be nice (sched(7), autogroup).
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(COURTESY))


def come_first() -> None:
    """Let this thread, which answers everybody, run as soon as it wakes up, whoever runs then; not what it starts."""
    with contextlib.suppress(OSError):
        syscalls.set_slice(PROMPT_SECONDS, is_inherited=False)


def settle() -> None:
    """Never look again, when collecting garbage, at what a process has loaded by now, which took 70 ms at a time."""
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)
