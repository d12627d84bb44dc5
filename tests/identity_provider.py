"""A certified OpenID provider that runs for real, for the tests of whoever signs people in at one."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import httpx
import pytest

PROVIDER = Path(__file__).parent / "oidc_provider"
CLIENT_ID = "bifrost"
CLIENT_SECRET = "not-a-secret-of-anything"


def free_port() -> int:
    """A port that nobody has just now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@contextmanager
def running(redirect: str) -> Iterator[str]:
    """A provider that sends people back to this address; gives its issuer."""
    node = shutil.which("node")
    if node is None or not (PROVIDER / "node_modules" / "oidc-provider").is_dir():
        pytest.skip("The OpenID provider is not installed: it takes node, and npm ci in tests/oidc_provider.")
    port = free_port()
    command = [node, "provider.mjs", str(port), redirect]
    process = subprocess.Popen(command, cwd=PROVIDER, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    assert next(line for line in process.stdout if line.startswith("ready"))
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def browse(url: str, person: str, redirect: str, **changed: str) -> str:
    """Go to the provider as this person (`sub,email,verified`); where it sends the browser back. `changed` tampers."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query)) | {"login_hint": person} | changed
    with httpx.Client(trust_env=False) as browser:
        at = urlunsplit(parts._replace(query=urlencode(query)))
        while not at.startswith(redirect):
            at = str(httpx.URL(at).join(browser.get(at).headers["location"]))
    return at
