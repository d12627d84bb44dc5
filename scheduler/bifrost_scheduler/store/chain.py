"""How one ledger entry is linked to the one before it. The store writes links with it, `ledger` checks them.

Pure functions over text; it reads no database and holds no key.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

GENESIS = "0" * 64
"""The hash before the first entry."""


def canonical(value: dict[str, Any]) -> str:
    """One text for one value: sorted keys, no blanks, ASCII, no NaN (after RFC 8785)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def link_hash(prev_hash: str, body: str) -> str:
    """The hash of an entry: sha256 over the previous hash, a newline and the body."""
    return hashlib.sha256(f"{prev_hash}\n{body}".encode()).hexdigest()
