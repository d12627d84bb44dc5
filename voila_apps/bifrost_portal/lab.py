"""JupyterLab for authors, as `bifrost up` starts it: `python -m bifrost_portal.lab HOST PORT WORKSPACE`.

An ordinary client of the control plane: its environment holds the address and a key of its author, and no file of the
home. Kernels do not see even that (`bifrost_kernel.provisioner`).
"""

from __future__ import annotations

import sys

from jupyterlab.labapp import LabApp
from traitlets.config import Config

DEFAULT_KERNEL = "bifrost"


def configure(config: Config, *, host: str, port: int, workspace: str) -> Config:
    """The settings that make a stock JupyterLab ours; `jupyter_config.py` uses them in a checkout."""
    config.ServerApp.ip = host
    config.ServerApp.port = port
    config.ServerApp.port_retries = 0
    config.ServerApp.open_browser = False
    config.ServerApp.root_dir = workspace
    config.ServerApp.allow_root = True
    config.ServerApp.quit_button = False
    config.MultiKernelManager.default_kernel_name = DEFAULT_KERNEL
    # Output of a kernel travels over Unix sockets: over TCP every process of the machine could read along.
    config.KernelManager.transport = "ipc"
    config.LabApp.news_url = None
    config.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
    return config


def main(arguments: list[str]) -> None:
    host, port, workspace = arguments
    config = configure(Config(), host=host, port=int(port), workspace=workspace)
    LabApp.launch_instance(argv=[], config=config)


if __name__ == "__main__":
    main(sys.argv[1:])
