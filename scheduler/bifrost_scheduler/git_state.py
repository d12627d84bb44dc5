"""The commit of a folder, and whether something in it changed since, asked of git.

`catalog` calls it. Settings and attributes of a repository can name programs: git is told to run none of them, and its
environment holds no key. It never runs a hook, a monitor, a filter or a transport.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

LIMIT_SECONDS = 10.0

_GIT = ("git", "--no-optional-locks")

_FILTER = re.compile(r"^(filter\.[^\n]*)\.(?:clean|smudge|process|required)$", re.IGNORECASE)

_SETTINGS = {"core.fsmonitor": "false", "core.hooksPath": os.devnull, "core.attributesFile": os.devnull}


def find(folder: Path) -> tuple[str | None, bool | None]:
    """Commit and dirtiness; None for both when the folder is under no version control that can be asked."""
    top = next((place for place in (folder, *folder.parents) if (place / ".git").exists()), None)
    if top is None:
        return None, None
    settings = _SETTINGS | {"safe.directory": str(top)}
    names = _ask(folder, settings, "config", "--includes", "--name-only", "--list")
    if names is None:
        return None, None
    settings |= _without_filters(names)
    commit = _ask(folder, settings, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return None, None
    status = _ask(folder, settings, "status", "--porcelain", "--ignore-submodules=all", "--", ".")
    return commit.strip(), None if status is None else bool(status.strip())


def _without_filters(names: str) -> dict[str, str]:
    """What takes its programs from every filter of the repository (gitattributes(5)): an empty command is none."""
    filters = {found[1] for name in names.splitlines() if (found := _FILTER.match(name))}
    empty = {f"{one}.{what}": "" for one in sorted(filters) for what in ("clean", "smudge", "process")}
    return empty | {f"{one}.required": "false" for one in sorted(filters)}


def _ask(folder: Path, settings: dict[str, str], *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            [*_GIT, *arguments],
            cwd=folder,
            env=_environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
            timeout=LIMIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _environment(settings: dict[str, str]) -> dict[str, str]:
    """An allow-list, and the settings in a form that takes names with any character (git(1), GIT_CONFIG_COUNT)."""
    given = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (name, value) in enumerate(settings.items()):
        given |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return given | {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.devnull,
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        # A repository that lacks objects would fetch them, by programs that it names.
        "GIT_ALLOW_PROTOCOL": "",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_TERMINAL_PROMPT": "0",
    }
