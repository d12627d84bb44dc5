"""`python -m bifrost_kernel.forkserver.probe`: whether kernels can be fully enclosed here; `bifrost doctor` runs it.

Prints `full` and exits with 0, or prints what is missing and what to do and exits with 1. It starts no kernel.
"""

from __future__ import annotations

import os
import sys
import tempfile

from bifrost_kernel.forkserver import sandbox


def main() -> int:
    # An exit by the parent that `enter` leaves behind would skip the removal of the folder.
    with tempfile.TemporaryDirectory(prefix="bifrost-probe-") as folder:
        pid = os.fork()
        if pid == 0:
            os._exit(_probe(folder))
        _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _probe(folder: str) -> int:
    try:
        standing = sandbox.enter(sandbox.Level.FULL, folder, home_bytes=1 << 20)
        sandbox.rehearse(standing, sandbox.Cell(standing.enclosure))
    except sandbox.NotPermitted as error:
        print(error, flush=True)  # noqa: T201
        return 1
    print(standing.level.value, flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
