"""What git says of the workspace, without a program that its repository names."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bifrost_scheduler import git_state

IDENTITY = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit of one file."""
    (tmp_path / "code.py").write_text("x = 1\n")
    for arguments in (("init", "-q"), ("add", "."), (*IDENTITY, "commit", "-q", "-m", "first")):
        git(tmp_path, *arguments)
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True)


def test_commit_and_dirtiness(repository: Path) -> None:
    """A new file makes a folder dirty, and only its own: what lies beside it is not asked about."""
    commit, dirty = git_state.find(repository)
    assert commit is not None
    assert (len(commit), dirty) == (40, False)
    (repository / "workspace").mkdir()
    (repository / "new.py").write_text("")
    assert git_state.find(repository) == (commit, True)
    assert git_state.find(repository / "workspace") == (commit, False)


def test_no_repository(tmp_path: Path) -> None:
    """None without one, and with one that has no commit."""
    assert git_state.find(tmp_path) == (None, None)
    git(tmp_path, "init", "-q")
    assert git_state.find(tmp_path) == (None, None)


@pytest.mark.parametrize(
    "settings",
    [
        {"core.fsmonitor": "{}; false"},
        {"filter.own.clean": "{}; cat", "filter.own.required": "true"},
        {"filter.own.process": "{}"},
    ],
)
def test_a_repository_runs_nothing(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str]
) -> None:
    """Neither its monitor nor a filter that its attributes name, though git alone would run them."""
    mark = tmp_path_factory.mktemp("mark") / "ran"
    (repository / ".gitattributes").write_text("*.py filter=own\n")
    for name, value in settings.items():
        git(repository, "config", name, value.format(f"touch {mark}"))
    (repository / "code.py").write_text("x = 2\n")
    git_state.find(repository)
    assert not mark.exists()
    subprocess.run(["git", "status", "--porcelain"], cwd=repository, check=False, capture_output=True)
    assert mark.exists()


def test_a_repository_of_another_user_is_asked(repository: Path) -> None:
    """As the workspace of a control plane that is root often is; nothing of it runs anyway."""
    expected = git_state.find(repository)
    if os.getuid() != 0:
        pytest.skip("only root gives files away")
    for path in (repository, repository / ".git"):
        os.chown(path, 65534, 65534)
    assert git_state.find(repository) == expected
