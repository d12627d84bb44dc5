"""What an enclosed kernel sees of the machine: a tree of read-only mounts, and folders of its own in it.

`build` runs once in the fork server and takes the place of its root; `make_private` runs in each kernel's first
process. Paths stay what they are on the machine, so that tracebacks and import paths mean the same everywhere.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from bifrost_kernel.forkserver import syscalls

HOME = "/tmp"  # noqa: S108 - a file system of its own
"""Home, working folder and temporary folder of a kernel."""

SHARED_MEMORY_BYTES = 64 * 1024 * 1024
"""Size of `/dev/shm`, where `multiprocessing` keeps its locks and shared memory."""

USER_ID = 1000
"""What a kernel takes itself for, whoever it is on the machine."""

_PACKAGE = str(Path(__file__).parents[1])
"""The folder of `bifrost_kernel`, which in a checkout lies in no environment."""

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC_FOLDERS = ("/etc/alternatives", "/etc/ld.so.conf.d", "/etc/pki/ca-trust/extracted")
_CERTIFICATES = ("/etc/ssl/certs", "/etc/pki/tls/certs")
"""Not the folders above them, which hold private keys, too."""
_ETC_FILES = (
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/localtime", "/etc/timezone", "/etc/mime.types", "/etc/os-release",
    "/etc/protocols", "/etc/services", "/etc/ssl/openssl.cnf", "/etc/pki/tls/cert.pem", "/etc/pki/tls/openssl.cnf",
)  # fmt: skip
_ETC_WRITTEN = {
    "passwd": f"root:x:0:0::/:/bin/false\nbifrost:x:{USER_ID}:{USER_ID}::{HOME}:/bin/sh\n",
    "group": f"root:x:0:\nbifrost:x:{USER_ID}:\n",
    "hosts": "127.0.0.1 localhost kernel\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    # Names are resolved by the egress proxy; without a server here a lookup fails at once.
    "resolv.conf": "",
}
_RESOLVER = ("/etc/hosts", "/etc/resolv.conf")
_DEVICES = ("null", "zero", "full", "random", "urandom")
_DEVICE_LINKS = {
    "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx",
}  # fmt: skip
_PACKAGE = str(Path(__file__).resolve().parents[1])
_MINE = syscalls.MS_NOSUID | syscalls.MS_NODEV
_READ_ONLY = ("ro", "nosuid", "nodev")


def build(mount_point: str, *, visible: Sequence[str] = (), hidden: Sequence[str] = ()) -> tuple[str, ...]:
    """Become a process whose root holds the system, this Python and `visible`, all read-only, and nothing else.

    Args:
        mount_point: an empty folder to build on.
        visible: folders that kernels may read beside.
        hidden: folders of which nothing but what is `visible` is shown, also where they lie within a shown one.

    Returns the shown paths below `HOME`, which `make_private` has to show again.

    Raises:
        OSError: the machine does not permit it.
    """
    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount("tmpfs", mount_point, "tmpfs", _MINE, "mode=755,size=16m")
    for folder in ("proc", "tmp", "run", "var", "dev/pts", "dev/shm"):
        os.makedirs(f"{mount_point}/{folder}")
    syscalls.mount("tmpfs", f"{mount_point}{HOME}", "tmpfs", _MINE, "mode=1777,size=16m")
    os.symlink(HOME, f"{mount_point}/var/tmp")  # noqa: S108
    syscalls.mount("proc", f"{mount_point}/proc", "proc", _MINE | syscalls.MS_NOEXEC)
    _write_etc(mount_point)
    _make_devices(f"{mount_point}/dev")
    system = (*_SYSTEM, *_ETC_FOLDERS, *_CERTIFICATES, *_python_paths())
    shown = [path for path in system if _show(mount_point, path)]
    covered = _cover(mount_point, hidden, shown)
    shown += [path for path in visible if _show(mount_point, path)]
    for target in (mount_point, *covered):
        syscalls.set_mount_attributes(target, *_READ_ONLY)
    os.chdir(mount_point)
    syscalls.pivot_here()
    return tuple(path for path in shown if Path(path).is_relative_to(HOME))


def make_private(below_home: Iterable[str], *, home_bytes: int, owner: int) -> None:
    """Mount the folders that are this kernel's alone; the caller has a mount namespace of its own.

    Args:
        below_home: what `build` returned.
        owner: the user id that they belong to.

    Raises:
        OSError: no memory.
    """
    with _held(below_home) as descriptors:
        _mount_memory(HOME, home_bytes, owner)
        for path, descriptor in descriptors.items():
            _make_target(path, is_folder=os.path.isdir(f"/proc/self/fd/{descriptor}"))
            syscalls.mount(f"/proc/self/fd/{descriptor}", path, flags=syscalls.MS_BIND | syscalls.MS_REC)
    _mount_memory("/dev/shm", SHARED_MEMORY_BYTES, owner)  # noqa: S108
    syscalls.mount("devpts", "/dev/pts", "devpts", syscalls.MS_NOSUID, "newinstance,ptmxmode=0666,mode=0600")
    syscalls.mount("proc", "/proc", "proc", _MINE | syscalls.MS_NOEXEC, "hidepid=2")


def read_resolver() -> dict[str, bytes]:
    """How this machine resolves names, by the path of the file; to be called before `build`."""
    return {path: Path(path).read_bytes() for path in _RESOLVER if os.path.isfile(path)}


def show_resolver(files: Mapping[str, bytes]) -> None:
    """Resolve names as the machine does, in a mount namespace of one's own after `make_private`.

    Raises:
        OSError: no memory.
    """
    for path, content in files.items():
        copy = Path(HOME, Path(path).name)
        copy.write_bytes(content)
        copy.chmod(0o444)
        syscalls.mount(str(copy), path, flags=syscalls.MS_BIND)
        syscalls.set_mount_attributes(path, *_READ_ONLY)
        copy.unlink()


def hide(folders: Iterable[str], kept: Iterable[str]) -> None:
    """Cover folders, but for what is kept of them; the caller is the first process of namespaces of its own.

    Raises:
        OSError: the machine does not permit it.
    """
    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    held = {os.path.realpath(path) for path in kept}
    for folder in filter(os.path.isdir, map(os.path.realpath, folders)):
        with _held(sorted(path for path in held if Path(path).is_relative_to(folder))) as descriptors:
            syscalls.mount("tmpfs", folder, "tmpfs", _MINE, "mode=755,size=1m")
            for path, descriptor in descriptors.items():
                _make_target(path, is_folder=os.path.isdir(f"/proc/self/fd/{descriptor}"))
                syscalls.mount(f"/proc/self/fd/{descriptor}", path, flags=syscalls.MS_BIND | syscalls.MS_REC)
        syscalls.set_mount_attributes(folder, *_READ_ONLY)
    # Other processes' roots would lead to what was covered.
    syscalls.mount("proc", "/proc", "proc", _MINE | syscalls.MS_NOEXEC)


def _mount_memory(target: str, size_bytes: int, owner: int) -> None:
    # A size of 0 would mean no limit.
    room = f"size={max(size_bytes, 4096)},nr_inodes={max(size_bytes // 4096, 64)}"
    syscalls.mount("tmpfs", target, "tmpfs", _MINE, f"mode=700,uid={owner},gid={owner},{room}")


@contextlib.contextmanager
def _held(paths: Iterable[str]) -> Iterator[dict[str, int]]:
    """Descriptors of folders that are about to be covered."""
    descriptors = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in paths}
    try:
        yield descriptors
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)


def _python_paths() -> list[str]:
    """This Python, its environment, the package that kernels import, and the certificates; parents first."""
    places = [sys.base_prefix, sys.base_exec_prefix, sys.prefix, sys.exec_prefix, _PACKAGE]
    authorities = ssl.get_default_verify_paths()
    places += [path for path in (authorities.cafile, authorities.capath) if path]
    return sorted({found for path in places for found in (os.path.abspath(path), os.path.realpath(path))}, key=len)


def _show(root: str, path: str) -> bool:
    """Bind a path of the machine read-only at the same place below `root`; False when there was nothing to do."""
    target = root + path
    if os.path.lexists(target) or not os.path.exists(path):
        return False
    if os.path.islink(path) and os.path.dirname(path) == "/":
        os.symlink(os.readlink(path), target)
        return False
    source = os.path.realpath(path)
    _make_target(target, is_folder=os.path.isdir(source))
    syscalls.mount(source, target, flags=syscalls.MS_BIND | syscalls.MS_REC)
    syscalls.set_mount_attributes(target, *_READ_ONLY, recursive=True)
    return True


def _make_target(path: str, *, is_folder: bool) -> None:
    if is_folder:
        os.makedirs(path, mode=0o755, exist_ok=True)
        return
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def _cover(root: str, hidden: Iterable[str], shown: Sequence[str]) -> list[str]:
    """Empty what is to be hidden of a shown folder; returns the mounts made."""
    places = [path for path in map(os.path.realpath, hidden) if any(map(Path(path).is_relative_to, shown))]
    covered = [root + path for path in places if os.path.isdir(root + path)]
    for target in covered:
        syscalls.mount("tmpfs", target, "tmpfs", _MINE, "mode=755,size=1m")
    return covered


def _write_etc(root: str) -> None:
    os.makedirs(f"{root}/etc", exist_ok=True)
    for path in _ETC_FILES:
        if os.path.isfile(path):
            os.makedirs(os.path.dirname(root + path), exist_ok=True)
            Path(root + path).write_bytes(Path(path).read_bytes())
    for name, text in _ETC_WRITTEN.items():
        Path(f"{root}/etc/{name}").write_text(text)


def _make_devices(folder: str) -> None:
    for name in _DEVICES:
        _make_target(f"{folder}/{name}", is_folder=False)
        syscalls.mount(f"/dev/{name}", f"{folder}/{name}", flags=syscalls.MS_BIND)
    for name, target in _DEVICE_LINKS.items():
        os.symlink(target, f"{folder}/{name}")
