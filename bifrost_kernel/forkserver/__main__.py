"""The process of the fork server; started by the control plane, with a socket and its options as arguments."""

from __future__ import annotations

import sys

from bifrost_kernel.forkserver import server

if __name__ == "__main__":
    server.main(sys.argv[1:])
