"""What the repository holds, and what it must not: addresses of machines, and more or less than the wheel needs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = {".py", ".md", ".toml", ".lock", ".sh", ".json", ".ipynb", ".yaml", ".yml", ".txt", ".cfg", ".js", ".css", ""}
SKIPPED = {"__pycache__", "node_modules", "dist", "build"}
MACHINE_PATH = re.compile(r"(?<![\w./-])/(?:home|Users|root|work|mnt|opt/ci)/[\w.-]+")
REGISTRY = re.compile(r"https?://[\w.-]*(?:pypi|npmjs|pythonhosted|artifactory|nexus|jfrog)[\w.-]*", re.IGNORECASE)
ROOMS = ("bifrost_kernel", "bifrost_scheduler", "bifrost_portal")
SHARED = {
    "share/jupyter/kernels/bifrost": "bifrost_kernel/kernelspec",
    "share/jupyter/lab/settings/overrides.d": "voila_apps/lab_settings",
}


def files(folder: Path) -> Iterator[Path]:
    """The files of the repository; what begins with a dot is a tool's or a person's own."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in SKIPPED:
            continue
        if path.is_dir():
            yield from files(path)
        elif path.suffix in TEXT:
            yield path


@pytest.mark.parametrize("forbidden", [MACHINE_PATH, REGISTRY], ids=["machine path", "registry"])
def test_no_address_of_a_machine(forbidden: re.Pattern[str]) -> None:
    """No file names a folder of somebody's machine or the host of a package registry."""
    found = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in files(ROOT)
        if path != Path(__file__)
        for match in forbidden.finditer(path.read_text(encoding="utf-8", errors="replace"))
    }
    assert found == set()


def test_the_lock_has_no_address() -> None:
    """The lock file says what, by hash, and leaves from where to whoever installs."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text
    assert "--index-url" not in re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
    assert re.findall(r"^[\w.-]+==[^\\\n]*$", text, re.MULTILINE) == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """The wheel, built from a copy without network."""
    builder = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if builder is None:
        pytest.skip("uv is not installed: the wheel cannot be built here.")
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".*", *SKIPPED)
    shutil.copytree(ROOT, folder / "source", ignore=ignored)
    command = [builder, "build", "--wheel", "--offline", "--quiet", "--out-dir", str(folder), str(folder / "source")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "hatchling" in done.stderr:
        pytest.skip("hatchling is not in uv's cache: the wheel cannot be built without network.")
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return zipfile.Path(built)


@pytest.fixture(scope="module")
def names(wheel: zipfile.Path) -> set[str]:
    return {name for name in wheel.root.namelist() if not name.endswith("/")}


def test_the_wheel_has_three_packages(names: set[str]) -> None:
    """The wheel ships the three rooms, and nothing else but metadata and shared data."""
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith((".dist-info", ".data"))} == set(ROOMS)


def test_the_wheel_has_every_file_of_the_packages(names: set[str]) -> None:
    """Every file of the rooms is in the wheel: `py.typed`, templates and scripts included."""
    for room in ("bifrost_kernel", "scheduler/bifrost_scheduler", "voila_apps/bifrost_portal"):
        folder = ROOT / room
        for path in folder.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("."):
                assert f"{folder.name}/{path.relative_to(folder).as_posix()}" in names


def test_the_wheel_has_the_shared_data(names: set[str]) -> None:
    """The kernel and Lab's settings come to where Jupyter looks for them."""
    shared = {name.partition(".data/data/")[2] for name in names if ".data/data/" in name}
    there = {f"{to}/{path.name}" for to, folder in SHARED.items() for path in (ROOT / folder).iterdir()}
    assert there <= shared


def test_the_wheel_starts_the_command(wheel: zipfile.Path, names: set[str]) -> None:
    """The wheel names the command, papermill's engine and Jupyter's provisioner."""
    (entry,) = [name for name in names if name.endswith("entry_points.txt")]
    text = (wheel / entry).read_text()
    for line in ("bifrost = ", "[papermill.engine]", "[jupyter_client.kernel_provisioners]"):
        assert line in text
