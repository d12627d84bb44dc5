"""The portal's style sheets and scripts, served under an address that names their content, for good.

`pages` name them through `url`; whoever has an older page open still gets what it asks for.
"""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

from tornado import web

from bifrost_portal import gate

FOLDER = Path(__file__).parent / "static"
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".png": "image/png"}


BUNDLED = ("voila", "ipywidgets", "anywidget", "jupyterlab_widgets")
"""Packages whose scripts are served for good under the same version as ours."""


class Assets:
    def __init__(self, folder: Path = FOLDER) -> None:
        self.files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in TYPES}
        packages = " ".join(f"{name} {metadata.version(name)}" for name in BUNDLED)
        self.version = hashlib.sha256(b"".join([*self.files.values(), packages.encode()])).hexdigest()[:12]

    def url(self, name: str) -> str:
        """Raises `KeyError` for a name that is none."""
        assert name in self.files, name
        return f"/assets/{self.version}/{name}"


class AssetHandler(web.RequestHandler):
    """Open to everybody: these few files, by name, from memory; no path leads anywhere."""

    OPEN = True

    def initialize(self, assets: Assets) -> None:
        self._assets = assets

    def get(self, _version: str, name: str) -> None:
        content = self._assets.files.get(name)
        if content is None:
            raise web.HTTPError(404)
        for header, value in gate.SAFE_HEADERS.items():
            self.set_header(header, value)
        self.set_header("Content-Type", f"{TYPES[Path(name).suffix]}; charset=utf-8")
        self.set_header("Cache-Control", "public, max-age=31536000, immutable")
        self.finish(content)
