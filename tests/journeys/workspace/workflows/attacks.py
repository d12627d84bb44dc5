"""What hostile workflow code tries; each way tells whether it got through."""

import ctypes
import errno
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

from bifrost_kernel import OrganizationContext, param, workflow

_libc = ctypes.CDLL(None, use_errno=True)


def _called(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _read(path: str) -> object:
    with open(path, "rb") as file:
        return len(file.read(1))


def _list(path: str) -> object:
    return len(os.listdir(path))


def _write(path: str) -> object:
    return Path(path).write_text("planted")


def _may_write(path: str) -> object:
    if not os.access(path, os.W_OK):
        raise PermissionError(path)
    return True


def _connect(address: str) -> object:
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), 2).close()
    return True


def _connect_unix(path: str) -> object:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path.replace("@", "\0"))
    return True


def _environments(mark: str) -> object:
    """The environment of any process that is visible, and of this one."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                return process.name
        except OSError:
            continue
    raise LookupError(mark)


def _unshare(_: str) -> object:
    return _called(_libc.unshare(0x10000000))


def _ptrace(_: str) -> object:
    return _called(_libc.ptrace(0, 0, 0, 0))


def _keyring(_: str) -> object:
    number = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
    return _called(_libc.syscall(number, 0, -1, 1))


def _mount(_: str) -> object:
    return _called(_libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None))


def _io_uring(_: str) -> object:
    return _called(_libc.syscall(425, 1, ctypes.create_string_buffer(120)))


def _packets(_: str) -> object:
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()


def _virtual_machine(_: str) -> object:
    """The sockets by which a guest talks to its hypervisor."""
    return socket.socket(socket.AF_VSOCK).close()


def _resolve(name: str) -> object:
    return socket.getaddrinfo(name, 80)


def _configure_network(_: str) -> object:
    """Take the loopback interface down (SIOCSIFFLAGS)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return fcntl.ioctl(sock, 0x8914, struct.pack("16sh14x", b"lo", 1 | 8))


def _become_root(_: str) -> object:
    return os.setuid(0)


def _clone(_: str) -> object:
    """A namespace by the back door: clone with CLONE_NEWUSER."""
    number = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
    pid = _libc.syscall(number, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    return _called(pid)


WAYS = {
    "read": _read,
    "list": _list,
    "write": _write,
    "may_write": _may_write,
    "connect": _connect,
    "connect_unix": _connect_unix,
    "environments": _environments,
    "unshare": _unshare,
    "ptrace": _ptrace,
    "keyring": _keyring,
    "mount": _mount,
    "io_uring": _io_uring,
    "packets": _packets,
    "virtual_machine": _virtual_machine,
    "become_root": _become_root,
    "resolve": _resolve,
    "configure_network": _configure_network,
    "clone": _clone,
}


@workflow(name="attack", description="Try something, and tell whether it worked")
@param("way", type="string")
@param("target", type="string", default_value="")
def attack(context: OrganizationContext, way: str, target: str = ""):
    try:
        return {"through": True, "how": repr(WAYS[way](target))}
    except (OSError, LookupError) as error:
        return {"through": False, "how": f"{type(error).__name__}: {error}"}


@workflow(name="attack_from_host", description="The same with the network of the machine", network="host")
@param("way", type="string")
@param("target", type="string", default_value="")
def attack_from_host(context: OrganizationContext, way: str, target: str = ""):
    return attack(context, way, target)


@workflow(name="kill_everybody", description="Signal every process that can be seen")
def kill_everybody(context: OrganizationContext):
    try:
        os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:
        return "nobody to kill"
    return "killed"


@workflow(name="fork_bomb", description="Start processes until that is refused", timeout_seconds=30)
def fork_bomb(context: OrganizationContext):
    started = 0
    while started < 1000:
        try:
            if os.fork() == 0:
                signal.pause()
        except BlockingIOError:
            break
        started += 1
    return started


@workflow(name="eat_memory", description="Ask for more memory than there may be")
def eat_memory(context: OrganizationContext):
    try:
        return len(bytearray(10 * 1024**3))
    except MemoryError:
        return "refused"


@workflow(name="eat_memory_together", description="Take more in many processes than one may", timeout_seconds=60)
@param("processes", type="int")
@param("megabytes", type="int")
def eat_memory_together(context: OrganizationContext, processes: int, megabytes: int):
    for _ in range(processes):
        if os.fork() == 0:
            os.setsid()
            taken = [b"x" * 1024**2 for _ in range(megabytes)]
            while taken:
                signal.pause()
    context.log("info", "forked")
    signal.pause()


@workflow(name="fill", description="Write until the disk is full")
@param("folder", type="string")
def fill(context: OrganizationContext, folder: str):
    written, block = 0, b"x" * (1 << 20)
    for number in range(2000):
        try:
            written += Path(folder, f"block-{number}").write_bytes(block)
        except OSError as error:
            return {"written": written, "error": errno.errorcode[error.errno or 0]}
    return {"written": written, "error": None}


@workflow(name="open_files", description="Open files until that is refused")
def open_files(context: OrganizationContext):
    opened = []
    try:
        while len(opened) < 100_000:
            opened.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        for descriptor in opened:
            os.close(descriptor)
    return len(opened)


def _places(where: str) -> list[str]:
    """Folders from which something might come back; `site` is where Python looks for modules and start-up files."""
    known = {"home": os.path.expanduser("~"), "work": os.getcwd()}
    known["site"] = next(path for path in sys.path if path.endswith("site-packages"))
    return [known.get(name, name) for name in where.split()]


@workflow(name="plant", description="Leave something for whoever runs next")
@param("name", type="string")
@param("where", type="string")
def plant(context: OrganizationContext, name: str, where: str):
    planted = []
    for folder in _places(where):
        try:
            Path(folder, name).write_text("import os")
            planted.append(folder)
        except OSError:
            continue
    return planted


@workflow(name="find_planted", description="Look for what an earlier execution left")
@param("name", type="string")
@param("where", type="string")
def find_planted(context: OrganizationContext, name: str, where: str):
    return [folder for folder in _places(where) if Path(folder, name).exists()]


@workflow(name="linger", description="Leave a process behind and wait", timeout_seconds=60)
@param("mark", type="string")
def linger(context: OrganizationContext, mark: str):
    subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()", mark], start_new_session=True)
    context.log("info", "lingering")
    signal.pause()


@workflow(name="look_around", description="What an execution sees of the machine")
def look_around(context: OrganizationContext):
    return {
        "processes": sorted(name for name in os.listdir("/proc") if name.isdigit()),
        "interfaces": [name for _, name in socket.if_nameindex()],
        "host": socket.gethostname(),
        "user": os.getuid(),
        "environment": sorted(os.environ),
        "root": sorted(os.listdir("/")),
    }
