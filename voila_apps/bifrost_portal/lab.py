"""JupyterLab for authors, as `bifrost up` starts it: `… -m bifrost_portal.lab HOST PORT WORKSPACE LIFELINE`.

An ordinary client of the control plane: its environment holds the address and a key of its author, and no file of the
home. Kernels do not see even that (`bifrost_kernel.provisioner`).
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from pathlib import Path

from jupyterlab.labapp import LabApp
from traitlets.config import Config

from bifrost_kernel.kernel_server import KernelServer

DEFAULT_KERNEL = "bifrost"


def configure(config: Config, *, host: str, port: int, workspace: str) -> Config:
    """The settings that make a stock JupyterLab ours; `jupyter_config.py` uses them in a checkout."""
    config.ServerApp.ip = host
    config.ServerApp.port = port
    config.ServerApp.port_retries = 0
    config.ServerApp.open_browser = False
    config.ServerApp.root_dir, config.ServerApp.preferred_dir = _folders(Path(workspace))
    config.ServerApp.allow_root = True
    config.ServerApp.quit_button = False
    config.MultiKernelManager.default_kernel_name = DEFAULT_KERNEL
    # Output of a kernel travels over Unix sockets: over TCP every process of the machine could read along.
    config.KernelManager.transport = "ipc"
    config.KernelServer.preload = ["bifrost_kernel.extension", "bifrost_portal.form_widget"]
    config.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
    # Only what authors meet: Voila as an extension of this server would run whatever a visitor sends to a kernel.
    config.ServerApp.jpserver_extensions = {
        "jupyterlab": True,
        "jupyter_server_terminals": True,
        "jupyter_lsp": False,
        "notebook_shim": False,
        "voila.server_extension": False,
    }
    return config


def _folders(workspace: Path) -> tuple[str, str]:
    """Root and first folder: in a checkout the guides beside the workspace are to be found too."""
    root = workspace.parent if (workspace.parent / "notebooks").is_dir() else workspace
    return str(root), str(workspace)


def main(arguments: list[str]) -> None:
    """Serve until a signal, or the end of whoever holds the other end of the lifeline (a pipe's descriptor).

    The sign-in token comes by the environment, where `ps` does not show it.
    """
    host, port, workspace, lifeline = arguments
    threading.Thread(target=_end_with, args=(int(lifeline),), name="lifeline", daemon=True).start()
    config = configure(Config(), host=host, port=int(port), workspace=workspace)
    config.IdentityProvider.token = os.environ.pop("BIFROST_LAB_TOKEN")
    # Sockets of kernels lie here: private, and short, since a Unix address has 108 bytes at most.
    with tempfile.TemporaryDirectory(prefix="bifrost-") as runtime:
        os.environ["JUPYTER_RUNTIME_DIR"] = runtime
        server = KernelServer.instance(config=config)
        server.start_early()
        LabApp.initialize_server(argv=[], config=config).start()
        server.close()


def _end_with(lifeline: int) -> None:
    """A control plane that was killed closes its end: Lab and its kernels must not outlive it, nor keep the port."""
    while os.read(lifeline, 1):
        continue
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1:])
