"""The chain of sealed records and administrative acts: how entries are made, signed and checked.

`services.build` loads the `Signer` and gives its `sign` to the store; whoever acts makes the entry of it with `audit`;
the command `bifrost audit verify` calls `verify`. What this does not prove: whoever holds the signing key and the
database can write another history, and one that ends early is only noticed beside a head that was exported before.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bifrost_kernel import errors, models
from bifrost_scheduler.identity import Principal
from bifrost_scheduler.store import chain, contract

KEY_FILE = "ledger.key"
_PAGE = 1000


class Head(models.Frozen):
    """The end of the chain: exported and kept elsewhere, it shows later that nothing before it was changed or cut."""

    seq: int
    hash: str
    signature: str = ""


class Signer:
    """Signs the hash of each entry with the Ed25519 key of the home (RFC 8032)."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @property
    def public_key(self) -> str:
        """32 bytes as hex, to be handed to whoever verifies."""
        return self._key.public_key().public_bytes_raw().hex()

    def sign(self, entry_hash: str) -> str:
        return self._key.sign(entry_hash.encode()).hex()


def load_signer(keys_dir: Path) -> Signer:
    """The signer of this home; its key is created with the first start.

    Raises:
        Unavailable: the key file is readable to others, or damaged.
    """
    path = keys_dir / KEY_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return Signer(_read_key(path))
    key = Ed25519PrivateKey.generate()
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.private_bytes_raw())
        file.flush()
        os.fsync(descriptor)
    return Signer(key)


def audit(
    principal: Principal,
    action: str,
    *,
    organization: str | None = None,
    target: str | None = None,
    details: dict[str, Any] | None = None,
    address: str | None = None,
) -> contract.AuditEntry:
    """The entry of an administrative act that happens now; `details` never holds a secret's value."""
    return contract.AuditEntry(
        at=datetime.now(UTC),
        actor=principal.subject,
        action=action,
        organization=organization,
        target=target,
        details=details or {},
        address=address,
    )


def head(store: contract.Store) -> Head:
    """The last entry; seq 0 while there is none."""
    last = store.find_ledger_head()
    if last is None:
        return Head(seq=0, hash=chain.GENESIS)
    return Head(seq=last.seq, hash=last.hash, signature=last.signature)


def verify(store: contract.Store, *, public_key: str | None = None, expected: Head | None = None) -> int | None:
    """The seq of the first entry that is not as it was written; None when the whole chain is sound.

    Args:
        public_key: as `Signer.public_key`; without it signatures are not checked.
        expected: a head exported earlier; a chain that does not pass through it is broken there.
    """
    seq, prev_hash = 0, chain.GENESIS
    key = None if public_key is None else Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
    for entry in _entries(store):
        if not _is_sound(entry, seq=seq + 1, prev_hash=prev_hash, key=key):
            return seq + 1
        seq, prev_hash = entry.seq, entry.hash
        if expected is not None and seq == expected.seq and prev_hash != expected.hash:
            return seq
    if expected is not None and seq < expected.seq:
        return seq + 1
    return None


def _entries(store: contract.Store) -> Iterator[contract.LedgerEntry]:
    after = 0
    while page := store.list_ledger(after=after, limit=_PAGE):
        yield from page
        after = page[-1].seq


def _is_sound(entry: contract.LedgerEntry, *, seq: int, prev_hash: str, key: Ed25519PublicKey | None) -> bool:
    linked = entry.seq == seq and entry.prev_hash == prev_hash and entry.hash == chain.link_hash(prev_hash, entry.body)
    if not linked or (key is not None and not _is_signed(entry, key)):
        return False
    # The columns beside the body are no part of the hash: they have to say the same.
    body = json.loads(entry.body)
    return (body["kind"], body.get("execution_id")) == (entry.kind, entry.execution_id)


def _is_signed(entry: contract.LedgerEntry, key: Ed25519PublicKey) -> bool:
    try:
        key.verify(bytes.fromhex(entry.signature), entry.hash.encode())
    except (InvalidSignature, ValueError):
        return False
    return True


def _read_key(path: Path) -> Ed25519PrivateKey:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        mode, text = os.fstat(descriptor).st_mode, file.read()
    if mode & 0o077:
        raise errors.Unavailable(f"{path} is readable by others; say `chmod 600`")
    try:
        return Ed25519PrivateKey.from_private_bytes(text)
    except ValueError:
        raise errors.Unavailable(f"{path} is no signing key") from None
