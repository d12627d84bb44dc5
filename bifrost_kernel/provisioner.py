"""How JupyterLab starts a "Bifrost (Python 3)" kernel: with a line to the broker and an environment of its own.

jupyter_client finds it by the entry point `jupyter_client.kernel_provisioners: bifrost-provisioner`, which the
kernelspec names. It runs in the Lab server, opens an authoring session with the author's credential, and gives the
kernel the session's token: the credential itself never reaches the kernel.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import httpx
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from bifrost_kernel import errors

KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV", "JPY_SESSION_NAME", "JPY_PARENT_PID")
"""What a kernel may know of the Lab server's environment; a list of what is kept, never of what is removed."""


async def open_session(url: str, key: str, organization: str | None = None) -> dict[str, str]:
    """Ask the control plane for an authoring session: `socket`, `token`, `organization`.

    Raises:
        Unavailable: it cannot be reached, or refuses; the text says why.
    """
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            answer = await client.post(
                f"{url}/api/authoring-sessions",
                json={"organization": organization},
                headers={"x-functions-key": key},
            )
    except httpx.TransportError as error:
        raise errors.Unavailable(f"The control plane at {url} cannot be reached: {error}") from error
    if answer.is_error:
        raise errors.Unavailable(f"The control plane refuses an authoring session: {answer.json().get('message')}")
    session: dict[str, str] = answer.json()
    return session


class BifrostProvisioner(LocalProvisioner):
    """Starts the kernel as a local process, as jupyter_client's own does."""

    async def pre_launch(self, **arguments: Any) -> dict[str, Any]:
        """Called by the kernel manager; adds the session and takes away the rest of the environment."""
        given = await super().pre_launch(**arguments)
        given["env"] = await _environment(given.get("env") or dict(os.environ))
        return dict(given)

    async def launch_kernel(self, cmd: list[str], **arguments: Any) -> KernelConnectionInfo:
        """The kernelspec says `python`; it has to be the one that this product is installed for."""
        interpreter = [sys.executable, *cmd[1:]] if cmd[0] in ("python", "python3") else cmd
        return await super().launch_kernel(interpreter, **arguments)


async def _environment(environment: dict[str, str]) -> dict[str, str]:
    kept = {name: environment[name] for name in KEPT if name in environment}
    url, key = environment.get("BIFROST_URL"), environment.get("BIFROST_API_KEY")
    if not url or not key:
        return {**kept, "BIFROST_REASON": "BIFROST_URL and BIFROST_API_KEY are not set where JupyterLab was started."}
    try:
        session = await open_session(url, key, environment.get("BIFROST_ORGANIZATION"))
    except errors.Unavailable as error:
        # The kernel still starts: its first cell says what is wrong, which a dead kernel could not.
        return {**kept, "BIFROST_REASON": error.message}
    return {**kept, "BIFROST_BROKER": session["socket"], "BIFROST_TOKEN": session["token"]}
