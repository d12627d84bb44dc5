"""The master keys of a home, and the only place where something is encrypted with them.

`LocalSecretStore` makes one over `keys/`. Keys are files `master.key`, `master.2.key`, … of 32 random bytes; the
highest seals, all of them open. A key file is written once and never overwritten, changed or deleted here.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import threading
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bifrost_kernel import errors

KEY_BYTES = 32
NONCE_BYTES = 12
_FIRST = 1
_LAST = 255
_FILE = re.compile(r"master(?:\.(\d{1,3}))?\.key")


class KeyRing:
    """AES-256-GCM under keys that HKDF-SHA256 (RFC 5869) derives from a master key for each scope.

    A sealed value is one byte (which master key), 12 random bytes (the nonce) and the ciphertext with its tag.
    """

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            Unavailable: a key file is readable to others, or damaged.
        """
        self._folder = folder
        self._lock = threading.Lock()
        self._masters = {version: _read_key(path) for version, path in _key_files(folder)}

    @property
    def empty(self) -> bool:
        return not self._masters

    @property
    def current(self) -> int:
        """The number of the key that seals."""
        return max(self._masters)

    def add_key(self) -> int:
        """Create the next master key, which seals from now on; returns its number.

        Raises:
            Conflict: another process has just created it, or there are 255 already.
        """
        with self._lock:
            version = max(self._masters, default=0) + 1
            if version > _LAST:
                raise errors.Conflict(f"there are {_LAST} master keys already")
            key = secrets.token_bytes(KEY_BYTES)
            _write_key(self._folder / _file_name(version), key)
            self._masters = {**self._masters, version: key}
        return version

    def seal(self, plain: bytes, *, kind: str, scope: str, name: str, version: int) -> bytes:
        """Encrypt for exactly this kind, scope, name and version."""
        number = self.current
        nonce = secrets.token_bytes(NONCE_BYTES)
        cipher = AESGCM(self._derive(number, f"{kind}/{scope}"))
        return bytes([number]) + nonce + cipher.encrypt(nonce, plain, _place(kind, scope, name, version))

    def open(self, sealed: bytes, *, kind: str, scope: str, name: str, version: int) -> bytes:
        """
        Raises:
            Unavailable: the key is missing or another one, or the row was changed or moved.
        """
        number, nonce, ciphertext = sealed[:1], sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        if not number or number[0] not in self._masters:
            raise errors.Unavailable(
                f"the key that {kind} {name!r} in {scope} was sealed with is not in {self._folder}"
            )
        cipher = AESGCM(self._derive(number[0], f"{kind}/{scope}"))
        try:
            return cipher.decrypt(nonce, ciphertext, _place(kind, scope, name, version))
        except (InvalidTag, ValueError):
            raise errors.Unavailable(
                f"{kind} {name!r} in {scope} does not open: its row was changed, or the key is another one"
            ) from None

    def hmac(self, organization: str, value: str) -> str:
        """HMAC-SHA256 under a key of the organization; of the first master key, so that it outlives rotations."""
        key = self._derive(min(self._masters), f"value/{organization}")
        return hmac.new(key, value.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

    def _derive(self, number: int, purpose: str) -> bytes:
        info = b"bifrost/" + purpose.encode("utf-8", "surrogatepass")
        return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(self._masters[number])


def _place(kind: str, scope: str, name: str, version: int) -> bytes:
    """The associated data; JSON because its quoting keeps `a/b` + `c` and `a` + `b/c` apart."""
    return json.dumps([kind, scope, name, version]).encode()


def _file_name(version: int) -> str:
    return "master.key" if version == _FIRST else f"master.{version}.key"


def _key_files(folder: Path) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    matches = ((_FILE.fullmatch(path.name), path) for path in folder.iterdir())
    return [(int(match[1] or _FIRST), path) for match, path in matches if match]


def _read_key(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        key = file.read(KEY_BYTES + 1)
    if mode & 0o077:
        raise errors.Unavailable(f"{path} is readable by others; say `chmod 600` and consider a rotation")
    if len(key) != KEY_BYTES:
        raise errors.Unavailable(f"{path} is no master key: it has {len(key)} bytes instead of {KEY_BYTES}")
    return key


def _write_key(path: Path, key: bytes) -> None:
    """Durable before anything is sealed with it; a file that exists is never touched."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise errors.Conflict(f"{path} exists already") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(descriptor)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
