"""Kernels from the fork server: fresh, enclosed, and gone without a trace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from bifrost_kernel import errors
from bifrost_kernel.forkserver import filesystem, sandbox
from bifrost_scheduler.runner.cells import KernelPort, run_cell
from bifrost_scheduler.runner.kernels import Kernel, KernelSource


@pytest.fixture(scope="module", params=["none", "full"])
def source(request: pytest.FixtureRequest) -> Iterator[KernelSource]:
    source = KernelSource.start(spares=1, preload=(), level=sandbox.Level(request.param))
    assert source.wait_ready().level == request.param
    yield source
    source.close()


@pytest.fixture
def kernel(source: KernelSource) -> Iterator[Kernel]:
    kernel = source.acquire()
    yield kernel
    kernel.close()


HIDE = """
import subprocess, sys
subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', '{}'], start_new_session=True)
"""


def say(kernel: Kernel, code: str) -> str:
    """Run code and give back what it printed, errors included."""
    cell, _ = run_cell(KernelPort(kernel.kernel_socket, kernel.console), code)
    return "".join(output.get("text", output.get("evalue", "")) for output in cell["outputs"])


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not (met := condition()) and time.monotonic() < deadline:
        os.sched_yield()
    return met


def test_environment_is_an_allow_list(source: KernelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel sees nothing of the control plane's environment but what is allowed."""
    monkeypatch.setenv("BIFROST_CANARY", "canary")
    own = KernelSource.start(spares=0, preload=())
    try:
        kernel = own.acquire()
        names = set(say(kernel, "import os; print(*os.environ)").split())
        kernel.close()
    finally:
        own.close()
    assert names <= {"PATH", "LANG", "LC_ALL", "SSL_CERT_FILE", "SSL_CERT_DIR", "TZ", "PYTHONUTF8", "HOME", "TMPDIR"}


def test_private_folder(kernel: Kernel) -> None:
    """A kernel works in a folder of its own, which is also its HOME."""
    printed = say(kernel, "import os, tempfile; print(os.getcwd(), os.environ['HOME'], tempfile.gettempdir())")
    assert printed.split() == [kernel.folder or filesystem.HOME] * 3


def test_a_machine_short_of_memory_takes_it_from_kernels(kernel: Kernel) -> None:
    """Before it ends any server: theirs is the highest score."""
    assert say(kernel, "print(open('/proc/self/oom_score_adj').read(), end='')") == "1000\n"


def test_two_kernels_differ(source: KernelSource) -> None:
    """Two kernels share neither random numbers nor variables."""
    kernels = [source.acquire() for _ in range(2)]
    say(kernels[0], "leaked = 1")
    numbers = {say(kernel, "import random; print(random.random(), 'leaked' in globals())") for kernel in kernels}
    for kernel in kernels:
        kernel.close()
    assert len(numbers) == 2
    assert any("False" in number for number in numbers)


def test_only_own_descriptors(kernel: Kernel) -> None:
    """A kernel inherits nothing but its two sockets and the standard streams."""
    code = """
        import os
        paths = [f'/proc/self/fd/{n}' for n in os.listdir('/proc/self/fd')]
        print(sum(os.readlink(path).startswith('socket') for path in paths if os.path.lexists(path)))
    """
    # The wake-up pair of its event loop makes four.
    assert int(say(kernel, textwrap.dedent(code))) == 4


def test_kill_ends_hidden_processes(source: KernelSource) -> None:
    """The end of a kernel ends processes that left its session and its parent."""
    kernel = source.acquire()
    marker = f"hidden-{os.getpid()}"
    say(kernel, HIDE.format(marker))
    assert until(lambda: _is_running(marker))
    kernel.close()
    assert until(lambda: not _is_running(marker))


def test_fallback_sweeps_orphans() -> None:
    """Without namespaces, too, no process outlives its kernel, and the level says so."""
    source = KernelSource.start(spares=0, preload=(), namespaces=False)
    marker = f"orphan-{os.getpid()}"
    try:
        assert source.wait_ready().enclosure == "process_group"
        kernel = source.acquire()
        say(kernel, HIDE.format(marker))
        assert until(lambda: _is_running(marker))
        kernel.close()
        assert until(lambda: not _is_running(marker))
    finally:
        source.close()


def test_fallback_ends_what_was_stopped() -> None:
    """Also when code stopped the process that watches over it, and everything else."""
    source = KernelSource.start(spares=0, preload=(), namespaces=False)
    marker = f"stopped-{os.getpid()}"
    try:
        kernel = source.acquire()
        say(kernel, HIDE.format(marker))
        assert until(lambda: _is_running(marker))
        say(kernel, "import os, signal; os.kill(os.getppid(), signal.SIGSTOP)")
        kernel.close()
        assert until(lambda: not _is_running(marker))
        assert kernel.wait(10) is not None
    finally:
        source.close()


def test_exit_status_tells_how(source: KernelSource) -> None:
    """`wait` gives the exit code, or 128 + the signal that the kernel died of."""
    statuses = []
    for code in ("import os; os._exit(3)", "import os; os.kill(os.getpid(), 9)"):
        kernel = source.acquire()
        say(kernel, code)
        statuses.append(kernel.wait(10))
        kernel.close()
    assert statuses == [3, 128 + signal.SIGKILL]


def test_interrupt_stops_code_that_runs(source: KernelSource) -> None:
    """An interrupt raises KeyboardInterrupt in a busy cell, and the kernel lives on."""
    kernel = source.acquire()
    port = KernelPort(kernel.kernel_socket, kernel.console)
    _, failure = run_cell(port, "print('on')\nwhile True: pass", on_text=kernel.interrupt)
    assert failure is not None
    assert failure[0] == "KeyboardInterrupt"
    assert say(kernel, "print('alive')") == "alive\n"
    kernel.close()


def test_interrupt_cancels_code_that_waits(source: KernelSource) -> None:
    """An interrupt ends a cell that awaits, and the kernel lives on."""
    kernel = source.acquire()
    port = KernelPort(kernel.kernel_socket, kernel.console)
    code = "import asyncio\nprint('on')\nawait asyncio.sleep(600)"
    _, failure = run_cell(port, code, on_text=kernel.interrupt)
    assert failure is not None
    assert failure[0] in {"KeyboardInterrupt", "CancelledError"}
    assert say(kernel, "print('alive')") == "alive\n"
    kernel.close()


def test_fork_server_is_replaced() -> None:
    """When the fork server dies its kernels end, and the next acquire gets one from its successor."""
    source = KernelSource.start(spares=1, preload=())
    try:
        first = source.acquire()
        psutil.Process(source.fork_server_pid()).kill()
        assert first.wait(10) is not None
        second = source.acquire()
        assert say(second, "print(1)") == "1\n"
        second.close()
        first.close()
    finally:
        source.close()


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[KernelSource]:
    """A source that looks often whether something is installed in `tmp_path`."""
    source = KernelSource.start(spares=1, preload=(), package_folders=[str(tmp_path)], look_seconds=0.05)
    source.wait_ready()
    yield source
    source.close()


def install(folder: Path) -> None:
    (folder / "thing-2.0.dist-info").mkdir()


class Busy:
    """Takes kernels one after the other while the block runs, and counts those that said what they should."""

    def __init__(self, source: KernelSource) -> None:
        self._source = source
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(3)]
        self.refusals: list[errors.Unavailable] = []
        self.said: list[str] = []

    def __enter__(self) -> Busy:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while not self._over.is_set():
            try:
                kernel = self._source.acquire()
            except errors.Unavailable as refusal:
                self.refusals.append(refusal)
                continue
            self.said.append(say(kernel, "print('done')"))
            kernel.close()


def test_an_installation_leaves_no_gap(watching: KernelSource, tmp_path: Path) -> None:
    """Kernels come from a new fork server; the old one's run to their end, it ends with them, and none is refused."""
    before, old = psutil.Process(watching.fork_server_pid()), watching.acquire()
    with Busy(watching) as busy:
        install(tmp_path)
        assert until(lambda: watching.fork_server_pid() != before.pid)
        served = len(busy.said)
        assert until(lambda: len(busy.said) > served + 10)
    assert not busy.refusals
    assert set(busy.said) == {"done\n"}
    assert say(old, "print('alive')") == "alive\n"
    old.close()
    before.wait(timeout=10)


def test_a_dead_fork_server_leaves_no_gap(watching: KernelSource) -> None:
    """Kernels that run die with it; whoever asks for one meanwhile waits, and none is refused."""
    before = psutil.Process(watching.fork_server_pid())
    with Busy(watching) as busy:
        before.kill()
        assert until(lambda: watching.fork_server_pid() not in (None, before.pid))
        served = len(busy.said)
        assert until(lambda: len(busy.said) > served + 10)
    assert not busy.refusals
    assert busy.said.count("done\n") >= len(busy.said) - 3


def test_a_successor_that_does_not_start_changes_nothing(watching: KernelSource, tmp_path: Path) -> None:
    """When it ends before it is ready, the old fork server goes on; the next installation is another try."""
    before, family = watching.fork_server_pid(), set(psutil.Process().children())
    install(tmp_path)
    assert until(lambda: bool(set(psutil.Process().children()) - family))
    for successor in set(psutil.Process().children()) - family:
        successor.kill()
    kernel = watching.acquire()
    assert say(kernel, "print('alive')") == "alive\n"
    assert watching.fork_server_pid() == before
    (tmp_path / "other-1.0.dist-info").mkdir()
    assert until(lambda: watching.fork_server_pid() != before)
    assert say(kernel, "print('alive')") == "alive\n"
    kernel.close()


def test_what_cannot_be_preloaded_is_told() -> None:
    """Kernels are there all the same, with what could be."""
    source = KernelSource.start(spares=0, preload=("colorsys", "no_such_module_here"))
    try:
        kernel = source.acquire()
        assert say(kernel, "import sys; print('colorsys' in sys.modules)") == "True\n"
        kernel.close()
        assert "No module named" in source.find_not_preloaded()["no_such_module_here"]
    finally:
        source.close()


def test_no_kernel_outlives_the_control_plane() -> None:
    """A `kill -9` of the control plane ends the fork server and everything that kernels started."""
    marker = f"orphan-of-{os.getpid()}"
    code = f"""
import sys
from bifrost_scheduler.runner.cells import KernelPort, run_cell
from bifrost_scheduler.runner.kernels import KernelSource
kernel = KernelSource.start(spares=1, preload=()).acquire()
run_cell(KernelPort(kernel.kernel_socket, kernel.console), {HIDE.format(marker)!r})
print("started", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as control_plane:
        assert control_plane.stdout is not None
        assert control_plane.stdout.readline() == b"started\n"
        family = psutil.Process(control_plane.pid).children(recursive=True)
        control_plane.kill()
    assert len(family) >= 4
    assert not psutil.wait_procs(family, timeout=10)[1]
    assert not _is_running(marker)


def test_close_leaves_nothing() -> None:
    """A closed source leaves no process, no descriptor and no folder, and hands out nothing more."""
    before = set(os.listdir("/proc/self/fd"))
    processes = set(psutil.Process().children())
    source = KernelSource.start(spares=2, preload=())
    kernel = source.acquire()
    folder = Path(kernel.folder)
    source.close()
    kernel.close()
    # A control plane of other tests may live in this process, too: it may close what it had open, and opens nothing.
    assert until(lambda: set(os.listdir("/proc/self/fd")) <= before)
    assert not folder.parent.exists()
    assert set(psutil.Process().children()) <= processes
    with pytest.raises(errors.Unavailable):
        source.acquire()


@pytest.mark.slow
def test_many_kernels_leak_nothing(source: KernelSource) -> None:
    """500 kernels leave no descriptors, here, in the fork server and in what makes inits, and no zombie."""
    source.acquire().close()
    server = psutil.Process(source.fork_server_pid()).children()[0]
    has_maker = source.wait_ready().enclosure is sandbox.Enclosure.PID_NAMESPACE
    makers = server.children()[:1] if has_maker else []
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(500):
        source.acquire().close()
    # Spares come and go; a leak would be counted in hundreds.
    assert len(os.listdir("/proc/self/fd")) < before + 40
    assert all(process.num_fds() < 30 for process in (server, *makers))
    assert until(lambda: len(server.children()) == len(makers) + 1)
    assert until(lambda: all(len(maker.children()) == 1 for maker in makers))


def _is_running(marker: str) -> bool:
    return any(
        marker in process.info["cmdline"] for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"]
    )
