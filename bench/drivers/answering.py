"""What every driver does: for each line that comes in, run once what it names, and say `done` on a line of its own.

Drivers are started by `bench.peers.Driven` in the environment of a peer, and import nothing but the peer.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


def answer(**runs: Callable[[], object]) -> None:
    """Serve until the input ends. What the peer prints goes to stderr, so that it is no answer."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    answers.write("ready\n")
    for line in sys.stdin:
        runs[line.strip()]()
        answers.write("done\n")
