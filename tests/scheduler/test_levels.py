"""Where kernels cannot be enclosed as they should be, none is handed out, and everybody is told what to do."""

from __future__ import annotations

import subprocess
import sys

IN_A_CAGE = """
from bifrost_kernel import errors
from bifrost_kernel.forkserver import jail
from bifrost_kernel.forkserver.sandbox import Level
from bifrost_scheduler.runner.kernels import KernelSource
jail.confine()  # this process stands for a machine without namespaces
source = KernelSource.start(spares=0, preload=(), level=Level("{level}"))
try:
    print(source.wait_ready().level)
    source.acquire().close()
    print("handed out")
except errors.Unavailable as error:
    print(error.message)
try:
    source.acquire()
except errors.Unavailable as error:
    print(error.message)
source.close()
"""


def in_a_cage(level: str) -> list[str]:
    """What a control plane says on a machine that permits no namespaces."""
    command = [sys.executable, "-c", IN_A_CAGE.format(level=level)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()


def test_without_namespaces_nothing_runs() -> None:
    """The first and every further request is refused, with the reason and the ways out."""
    first, second = in_a_cage("full")
    assert first == second
    assert all(said in first for said in ("Operation not permitted", "bifrost doctor", "--insecure-reduced-sandbox"))


def test_less_can_be_chosen() -> None:
    """The reduced sandbox needs no namespaces, and says that it is what is in force."""
    said = in_a_cage("reduced")
    assert said[:2] == ["reduced", "handed out"]


def test_doctor_tries_it_out() -> None:
    """The probe says `full`, or names what is missing."""
    code = "from bifrost_kernel.forkserver import jail, probe; jail.confine(); raise SystemExit(probe.main())"
    probe = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert probe.returncode == 1
    assert "Operation not permitted" in probe.stdout
