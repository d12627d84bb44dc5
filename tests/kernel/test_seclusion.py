"""A program from which folders are hidden: it sees the rest of the machine, and cannot take the cover off."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bifrost_kernel.forkserver import seclusion

AS_NOBODY = """
import os, sys
from bifrost_kernel.forkserver import seclusion, syscalls
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
seclusion.main(sys.argv[1:])
"""
IN_A_CAGE = """
import sys

from bifrost_kernel.forkserver import jail, seclusion
jail.confine()  # this process stands for a machine without namespaces
seclusion.main(sys.argv[1:])
"""
AS_IS = "import sys; from bifrost_kernel.forkserver import seclusion; seclusion.main(sys.argv[1:])"

UNCOVER = """
import ctypes, pathlib, sys
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
print(libc.umount2(sys.argv[1].encode(), 2), pathlib.Path(sys.argv[1], "key").exists())
print(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS), libc.umount2(sys.argv[1].encode(), 2))
print(pathlib.Path(sys.argv[1], "key").exists())
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder with a key, and a workspace within that anybody may write to."""
    folder = Path(tempfile.mkdtemp(prefix="secluded-"))
    (folder / "key").write_text("the key\n")
    (folder / "workspace").mkdir()
    for path, mode in ((folder, 0o755), (folder / "key", 0o644), (folder / "workspace", 0o777)):
        path.chmod(mode)
    yield folder
    shutil.rmtree(folder)


def secluded(home: Path, *command: str, code: str = AS_IS, **options: bool) -> subprocess.CompletedProcess[str]:
    chosen = seclusion.SeclusionOptions(hidden=(str(home),), kept=(str(home / "workspace"),), **options)
    started = [sys.executable, "-c", code, chosen.model_dump_json(), *command]
    return subprocess.run(started, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("code", [AS_IS, AS_NOBODY])
def test_what_is_hidden_is_not_there_and_what_is_kept_can_be_written(home: Path, code: str) -> None:
    """As root and as anybody; the status is the program's."""
    if code == AS_NOBODY and os.getuid() != 0:
        pytest.skip("only root becomes somebody else")
    script = f"ls {home}; cat {home}/key; echo new > {home}/workspace/new; id -u; exit 7"
    done = secluded(home, "/bin/sh", "-c", script, code=code, is_required=True)
    user = "65534" if code == AS_NOBODY else str(os.getuid())
    assert (done.stdout.split(), done.returncode) == (["workspace", user], 7)
    assert (home / "workspace" / "new").read_text() == "new\n"


def test_the_cover_cannot_be_taken_off(home: Path) -> None:
    """Neither by root nor in another namespace, and no process in sight has another view."""
    done = secluded(home, sys.executable, "-c", UNCOVER, str(home), is_required=True)
    assert done.stdout.split() == ["-1", "False", "0", "-1", "False"]
    seen = secluded(home, "/bin/sh", "-c", f"cat /proc/*/root{home}/key", is_required=True)
    assert "the key" not in seen.stdout


def test_it_ends_when_it_is_asked_to(home: Path) -> None:
    """SIGTERM reaches the program, and its end ends what it started."""
    chosen = seclusion.SeclusionOptions(hidden=(str(home),), is_required=True)
    script = "trap 'exit 5' TERM; sleep 600 & echo up; wait"
    command = [sys.executable, "-c", AS_IS, chosen.model_dump_json(), "/bin/sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.terminate()
        assert process.wait(30) == 5
        # The end of the pipe is the end of whoever held it: the sleeper, too.
        assert process.stdout.read() == ""


@pytest.mark.parametrize(("is_required", "status"), [(True, seclusion.NOT_PERMITTED), (False, 0)])
def test_where_it_cannot_be_had_that_is_said(home: Path, is_required: bool, status: int) -> None:
    """The program runs all the same, unless hiding was required."""
    done = secluded(home, "/bin/cat", f"{home}/key", code=IN_A_CAGE, is_required=is_required)
    assert (done.returncode, done.stdout) == (status, "" if is_required else "the key\n")
    assert "cannot be hidden" in done.stderr
