"""Peers in clean, bytecode-compiled virtual environments of their own, below `.bench/` (made once, never committed)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / ".bench"


def venv(name: str, *packages: str) -> Path:
    """The environment's `bin`; `packages` are what stands in it, and nothing else."""
    folder = FOLDER / name
    stamp = folder / "packages"
    if not stamp.exists() or stamp.read_text() != " ".join(packages):
        uv = Path(sys.executable).parent / "uv"
        subprocess.run([uv, "venv", "--quiet", "--clear", folder], check=True)
        install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", folder / "bin" / "python"]
        subprocess.run([*install, *packages], check=True)
        stamp.write_text(" ".join(packages))
    return folder / "bin"
