"""`python -m bifrost_kernel.bytecode FOLDER`: compile the Python files below it, so that no kernel has to.

The catalog runs it once per snapshot, in a keyless process of its own: compiling runs no author code, but a file can be
made to exhaust or break a compiler. Whatever does not compile is left to whoever imports it.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import resource
import sys

MEMORY_BYTES = 1 << 30
CPU_SECONDS = 60


def main(folder: str) -> int:
    """Nothing is said of files that do not compile: reading the workspace says it better."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    os.umask(0o022)  # kernels are other users
    # A snapshot never changes, so that nobody need compare times (PEP 552).
    compileall.compile_dir(folder, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
