"""The guides for people say what is true: nbval executes them against a running control plane."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
GUIDES = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_a_guide_shows_what_it_showed(guide: Path, control_plane_client: httpx.Client, tmp_path: Path) -> None:
    """Every cell runs, and gives the output that stands in the file."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "BIFROST_URL": str(control_plane_client.base_url),
        "BIFROST_API_KEY": "test",
        "BIFROST_ORGANIZATION": "test-org-active",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "-W", "default"]
    nbval = ["--nbval", "--nbval-sanitize-with", str(ROOT / "notebooks" / "sanitize.cfg"), str(guide)]
    done = subprocess.run([*command, *nbval], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
