"""What is installed for this interpreter, as one short text that changes when a package does.

Whoever keeps a fork server asks: modules that it imported once are out of date when the text is another one. It
imports nothing and looks at names and times only, so that it may be asked before every kernel.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence

_MARKS = (".dist-info", ".egg-info", ".egg-link", ".pth")
"""What every installer leaves in `site-packages`, and makes anew when it replaces a package."""


def read_stamp(folders: Sequence[str] | None = None) -> str:
    """The same text as long as nothing was installed, replaced or removed; changes of sources don't count.

    Args:
        folders: where packages lie; None means wherever this interpreter looks.
    """
    found = hashlib.sha256()
    for folder in _package_folders() if folders is None else folders:
        found.update("\0".join([folder, *sorted(_marks(folder))]).encode())
    return found.hexdigest()[:16]


def _package_folders() -> Iterable[str]:
    return dict.fromkeys(folder for folder in sys.path if folder)


def _marks(folder: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(_MARKS):
                    yield f"{entry.name} {entry.stat().st_mtime_ns}"
    except OSError:
        # No such folder, or one that an installer takes away just now: another stamp than with it.
        return
