"""Jupyter's settings in a checkout: `jupyter lab --config jupyter_config.py` beside a running control plane.

The same settings that `bifrost up` uses. No secret stands here: the address and the key come from the environment
(`BIFROST_URL`, `BIFROST_API_KEY`).
"""

from pathlib import Path

from bifrost_portal import lab

lab.configure(get_config(), host="127.0.0.1", port=8888, workspace=str(Path.cwd()))  # type: ignore[name-defined]  # noqa: F821
