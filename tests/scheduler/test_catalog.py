"""Snapshots of a workspace: hot, named by their content, and read in a process that holds no key."""

from __future__ import annotations

import importlib.util
import os
import stat
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from bifrost_kernel import errors
from bifrost_scheduler import catalog as catalogs
from bifrost_scheduler.catalog import Catalog

WORKFLOW = """
    from bifrost_kernel import workflow

    @workflow(name="{name}", description="{description}")
    async def it(context):
        return None
"""
BROKEN = """
    from bifrost_kernel import param, workflow

    @workflow(name="broken", description="Broken")
    @param("nobody", type="string")
    async def it(context):
        return None
"""


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Save a file of the workspace."""

    def make(relative: str, text: str) -> Path:
        path = tmp_path / "workspace" / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return make


@pytest.fixture
def catalog(tmp_path: Path, save: Callable[..., Path]) -> Catalog:
    save("workflows/first.py", WORKFLOW.format(name="first", description="One"))
    return Catalog(workspace=tmp_path / "workspace", code_dir=tmp_path / "code")


def names(catalog: Catalog) -> list[str]:
    return [workflow.name for workflow in catalog.current().description.workflows]


def test_saving_is_enough(catalog: Catalog, save: Callable[..., Path]) -> None:
    """A file that is saved, changed or removed counts at the next look."""
    assert names(catalog) == ["first"]
    second = save("workflows/second.py", WORKFLOW.format(name="second", description="Two"))
    assert sorted(names(catalog)) == ["first", "second"]
    save("workflows/second.py", WORKFLOW.format(name="renamed", description="Two"))
    assert sorted(names(catalog)) == ["first", "renamed"]
    second.unlink()
    assert names(catalog) == ["first"]


def test_nothing_changed(catalog: Catalog) -> None:
    """While nothing is saved, the snapshot is the same one."""
    assert catalog.current() is catalog.current()


def test_named_by_content(catalog: Catalog, save: Callable[..., Path]) -> None:
    """The same content has the same name, and going back to it goes back to its name."""
    before = catalog.current().tree_hash
    text = WORKFLOW.format(name="first", description="One")
    save("workflows/first.py", text + "# changed")
    assert catalog.current().tree_hash != before
    save("workflows/first.py", text)
    assert catalog.current().tree_hash == before


def test_earlier_code_stays(catalog: Catalog, save: Callable[..., Path], tmp_path: Path) -> None:
    """An earlier snapshot is there as it was, also for a control plane that started later."""
    before = catalog.current()
    save("workflows/first.py", WORKFLOW.format(name="first", description="Changed"))
    catalog.current()
    later = Catalog(workspace=tmp_path / "workspace", code_dir=tmp_path / "code")
    for one in (catalog, later):
        assert one.at(before.tree_hash).get_workflow("first").description == "One"
    assert "One" in (before.directory / "workflows" / "first.py").read_text()
    with pytest.raises(errors.NotFound):
        catalog.at("0" * 64)


def test_a_snapshot_is_compiled_once_for_all_kernels(catalog: Catalog, save: Callable[..., Path]) -> None:
    """Readable by their users, valid whatever the times of the files, and no part of the content."""
    save("workflows/broken.py", "def (")
    save("modules/deep/er/helper.py", "VALUE = 1")
    before = os.umask(0o077)
    try:
        snapshot = catalog.current()
    finally:
        os.umask(before)
    compiled = Path(importlib.util.cache_from_source(str(snapshot.directory / "modules/deep/er/helper.py")))
    assert stat.S_IMODE(compiled.stat().st_mode) == 0o644
    assert stat.S_IMODE(compiled.parent.stat().st_mode) == 0o755
    assert compiled.read_bytes()[4:8] == b"\x01\0\0\0"  # unchecked hash (PEP 552)
    assert set(snapshot.files) == {"workflows/first.py", "workflows/broken.py", "modules/deep/er/helper.py"}
    assert Path(importlib.util.cache_from_source(str(snapshot.directory / "workflows/first.py"))).exists()


def test_broken_takes_nothing_down(catalog: Catalog, save: Callable[..., Path]) -> None:
    """A wrong declaration and a module that raises are broken, with their place; the rest works."""
    save("workflows/broken.py", BROKEN)
    save("workflows/raising.py", "raise RuntimeError('at import')")
    assert names(catalog) == ["first"]
    with pytest.raises(errors.Conflict, match=r"workflows/broken\.py:\d+.*nobody"):
        catalog.current().get_workflow("broken")
    reasons = [broken.reason for broken in catalog.current().description.broken]
    assert any("at import" in reason for reason in reasons)


def test_unknown_is_not_broken(catalog: Catalog) -> None:
    """A name that nobody declared is NotFound, for workflows and data providers."""
    with pytest.raises(errors.NotFound):
        catalog.current().get_workflow("nobody")
    with pytest.raises(errors.NotFound):
        catalog.current().get_data_provider("nobody")


def test_links_are_not_followed(catalog: Catalog, save: Callable[..., Path], tmp_path: Path) -> None:
    """A link in the workspace brings nothing from outside into a snapshot."""
    secret = tmp_path / "outside.py"
    secret.write_text("SECRET = 1")
    (tmp_path / "workspace" / "workflows" / "link.py").symlink_to(secret)
    (tmp_path / "workspace" / "folder").symlink_to(tmp_path)
    assert set(catalog.current().files) == {"workflows/first.py"}


@pytest.mark.parametrize("name", [".hidden.py", "__pycache__/a.py", "a.pyc", "a.py~", ".a.py.swp", ".git/config"])
def test_what_does_not_count(catalog: Catalog, save: Callable[..., Path], name: str) -> None:
    """Editors' and tools' own files are no code."""
    before = catalog.current().tree_hash
    save(f"workflows/{name}", "x")
    assert catalog.current().tree_hash == before


def test_no_workspace(tmp_path: Path) -> None:
    """A workspace that is not there yet is empty."""
    assert names(Catalog(workspace=tmp_path / "nowhere", code_dir=tmp_path / "code")) == []


def test_keyless(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that reads author code knows nothing of the control plane's environment."""
    monkeypatch.setenv("BIFROST_API_KEY", "canary")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    monkeypatch.setenv("PYTHONPATH", "canary")
    assert "canary" not in catalogs.keyless_environment().values()


def test_author_code_cannot_end_the_reading(catalog: Catalog, save: Callable[..., Path]) -> None:
    """A module that ends its process or prints is broken at most; the control plane goes on."""
    save("workflows/leaving.py", "print('{not json')\nimport sys\nsys.exit(3)")
    assert names(catalog) == ["first"]
    assert [broken.source.file for broken in catalog.current().description.broken] == ["workflows/leaving.py"]
