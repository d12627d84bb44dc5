"""Kernels of JupyterLab and the portal: forked, looked after like any other, and gone with whoever owns them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from traitlets.config import Config

from bifrost_kernel import errors, installed
from bifrost_kernel.kernel_server import KernelServer
from bifrost_kernel.provisioner import BifrostProvisioner

ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "TOLD": "this"}
ARGUMENTS = ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}", "--HistoryManager.enabled=False"]
CHILD = "import subprocess; child = subprocess.Popen(['sleep', '600']); print(child.pid, flush=True)"


@dataclass
class Kernel:
    manager: KernelManager
    client: Any

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.manager.provisioner.pid)

    def run(self, code: str, on_text: Callable[[], None] = lambda: None) -> str:
        """What the code prints, errors included."""
        said: list[str] = []

        def hear(message: dict[str, Any]) -> None:
            content = message["content"]
            text = content.get("text", content.get("ename", ""))
            said.append(text)
            if message["msg_type"] == "stream":
                on_text()

        self.client.execute_interactive(code, output_hook=hear, timeout=60)
        return "".join(said)


StartKernel = Callable[..., Kernel]


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder in which something can be installed."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    return folder


@pytest.fixture
def server(packages: Path) -> Iterator[KernelServer]:
    config = Config()
    config.KernelServer.preload = ["ipywidgets"]
    config.KernelServer.package_folders = [str(packages)]
    started = KernelServer.instance(config=config)
    yield started
    started.close()
    KernelServer.clear_instance()


@pytest.fixture
def start(server: KernelServer, tmp_path: Path) -> Iterator[StartKernel]:
    kernels: list[Kernel] = []

    def start_(arguments: list[str] = ARGUMENTS, **given: Any) -> Kernel:
        manager = KernelManager(kernel_name="forked", kernel_spec_manager=specs(tmp_path, arguments), transport="ipc")
        manager.connection_file = str(tmp_path / f"k{len(kernels)}.json")
        manager.start_kernel(**{"env": ENVIRONMENT, "cwd": str(tmp_path), **given})
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        kernels.append(Kernel(manager, client))
        return kernels[-1]

    yield start_
    for kernel in kernels:
        kernel.client.stop_channels()
        kernel.manager.shutdown_kernel(now=True)


def specs(folder: Path, arguments: list[str]) -> KernelSpecManager:
    provisioner = {"provisioner_name": "bifrost-provisioner", "config": {"opens_session": False}}
    spec = {"argv": arguments, "display_name": "Forked", "metadata": {"kernel_provisioner": provisioner}}
    (folder / "specs" / "forked").mkdir(parents=True, exist_ok=True)
    (folder / "specs" / "forked" / "kernel.json").write_text(json.dumps(spec))
    return KernelSpecManager(kernel_dirs=[str(folder / "specs")])


def gone(*processes: psutil.Process) -> bool:
    return not psutil.wait_procs(processes, timeout=10)[1]


def test_a_kernel_is_forked_with_what_it_is_given(start: StartKernel, server: KernelServer, tmp_path: Path) -> None:
    """Its environment and folder are those of the request and nothing else; no process was executed for it."""
    kernel = start()
    assert kernel.process.ppid() == server.pid
    told = kernel.run("import os, json; print(json.dumps([os.getcwd(), dict(os.environ)]))")
    folder, environment = json.loads(told)
    assert folder == str(tmp_path)
    assert {name: environment.pop(name) for name in ENVIRONMENT} == ENVIRONMENT
    assert set(environment) <= {"MPLBACKEND", "JPY_PARENT_PID", "JPY_SESSION_NAME", "CLICOLOR", "TERM", "PAGER",
                                "GIT_PAGER", "FORCE_COLOR", "CLICOLOR_FORCE", "PYDEVD_USE_FRAME_EVAL"}  # fmt: skip


def test_no_token_is_seen_from_outside(start: StartKernel) -> None:
    """What a kernel is told stands in no file of `/proc`, where every process of this user could read it."""
    kernel = start(env={**ENVIRONMENT, "BIFROST_TOKEN": "canary-of-a-token"})
    assert "canary-of-a-token" in kernel.run("import os; print(os.environ['BIFROST_TOKEN'])")
    for name in ("environ", "cmdline"):
        assert b"canary-of-a-token" not in Path(f"/proc/{kernel.process.pid}/{name}").read_bytes()


def test_its_name_is_that_of_a_kernel(start: StartKernel) -> None:
    """`ps` tells kernels apart by their connection files, as it does with others."""
    kernel = start()
    assert "ipykernel_launcher" in " ".join(kernel.process.cmdline())
    assert kernel.manager.connection_file in " ".join(kernel.process.cmdline())


def test_modules_are_found_as_in_any_kernel(start: StartKernel, tmp_path: Path) -> None:
    """Those beside the notebook, as a fresh Python finds them; the fork server's own place is not among them."""
    (tmp_path / "beside.py").write_text("value = 42")
    kernel = start()
    assert kernel.run("import beside; print(beside.value)") == "42\n"
    assert kernel.run("import sys; print(sys.path.count(''), sys.flags.safe_path)") == "1 False\n"


def test_two_kernels_differ(start: StartKernel) -> None:
    """They share neither variables nor random numbers, nor the name of their session."""
    one, other = start(), start()
    one.run("leaked = 1")
    code = "import random; print(random.random(), get_ipython().kernel.session.session, 'leaked' in globals())"
    told = [kernel.run(code).split() for kernel in (one, other)]
    assert told[0][0] != told[1][0]
    assert told[0][1] != told[1][1]
    assert told[1][2] == "False"


def test_widgets_that_were_imported_before_work(start: StartKernel) -> None:
    """A front end can open a widget's channel in a kernel that has not imported widgets itself."""
    targets = start().run("print(*get_ipython().kernel.comm_manager.targets)").split()
    assert {"jupyter.widget", "jupyter.widget.control"} <= set(targets)


def test_a_debugger_attaches(start: StartKernel) -> None:
    """JupyterLab's debugger finds in a forked kernel what it finds in others."""
    kernel = start()
    assert kernel.client.kernel_info(reply=True, timeout=60)["content"]["supported_features"].count("debugger") == 1
    attach = {"justMyCode": True, "connect": {"host": "127.0.0.1", "port": 0}}
    for sequence, (command, arguments) in enumerate([("initialize", {"clientID": "test", "adapterID": ""}),
                                                     ("attach", attach)]):  # fmt: skip
        request = {"type": "request", "seq": sequence, "command": command, "arguments": arguments}
        kernel.client.control_channel.send(kernel.client.session.msg("debug_request", request))
        assert kernel.client.get_control_msg(timeout=60)["content"]["success"] is True


def test_an_interrupt_stops_a_busy_cell(start: StartKernel) -> None:
    """The cell fails with KeyboardInterrupt, and the kernel lives on."""
    kernel = start()
    said = kernel.run("print('on', flush=True)\nwhile True: pass", on_text=kernel.manager.interrupt_kernel)
    assert said.endswith("KeyboardInterrupt")
    assert kernel.run("print('alive')") == "alive\n"


def test_an_interrupt_reaches_a_program_of_the_cell(start: StartKernel) -> None:
    """What a cell runs is interrupted with it."""
    kernel = start()
    kernel.run(CHILD + "\nimport time; time.sleep(600)", on_text=kernel.manager.interrupt_kernel)
    assert kernel.run("print(child.wait(10))") == f"-{int(signal.SIGINT)}\n"


def test_a_restart_is_a_new_process(start: StartKernel) -> None:
    """At the same address, without a variable of the old one."""
    kernel = start()
    before = kernel.process
    kernel.run("old = 1")
    kernel.manager.restart_kernel(now=True)
    kernel.client.wait_for_ready(timeout=60)
    assert gone(before)
    assert kernel.run("print('old' in globals())") == "False\n"


def test_a_kernel_ends_when_it_is_asked_to(start: StartKernel) -> None:
    """A shutdown is answered by an end of its own, after its exit handlers."""
    kernel = start()
    kernel.run("import atexit, pathlib; atexit.register(lambda: pathlib.Path('farewell').touch())")
    process, folder = kernel.process, Path(kernel.process.cwd())
    kernel.manager.shutdown_kernel()
    assert gone(process)
    assert (folder / "farewell").exists()


def test_programs_end_with_their_kernel(start: StartKernel) -> None:
    """A killed kernel leaves no program behind that it started in its session."""
    kernel = start()
    child = psutil.Process(int(kernel.run(CHILD)))
    kernel.manager.shutdown_kernel(now=True)
    assert gone(child)


@pytest.mark.parametrize(
    ("code", "status"), [("import os; os._exit(3)", 3), ("import os; os.kill(os.getpid(), 9)", -9)]
)
def test_its_status_tells_how_it_ended(start: StartKernel, code: str, status: int) -> None:
    """A kernel that dies is noticed, with its exit code or the signal."""
    kernel = start()
    assert kernel.manager.is_alive()
    process = kernel.process
    kernel.client.execute(code)
    assert gone(process)
    assert not kernel.manager.is_alive()
    assert ended(kernel.manager.provisioner) == status


def ended(provisioner: BifrostProvisioner) -> int | None:
    return asyncio.run(provisioner.wait())


def test_many_may_wait_for_its_end(start: StartKernel) -> None:
    """Whoever restarts and whoever shuts down both come back, whichever is first."""
    kernel = start()
    provisioner = kernel.manager.provisioner

    async def end() -> list[int | None]:
        waiting = [asyncio.create_task(provisioner.wait()) for _ in range(3)]
        await provisioner.kill()
        return await asyncio.wait_for(asyncio.gather(*waiting), timeout=30)

    assert sorted(asyncio.run(end())) == [-9, 0, 0]
    assert not provisioner.has_process


def test_kernels_die_with_their_server_and_the_next_has_another(start: StartKernel, server: KernelServer) -> None:
    """A fork server that is killed takes its kernels along; the next request gets a kernel of a new one."""
    kernel, before = start(), server.pid
    assert before is not None
    process = kernel.process
    os.kill(before, signal.SIGKILL)
    assert gone(process)
    kernel.manager.restart_kernel(now=True)
    kernel.client.wait_for_ready(timeout=60)
    assert kernel.run("print('alive')") == "alive\n"
    assert server.pid != before


def test_what_is_installed_is_in_the_next_kernel(start: StartKernel, server: KernelServer, packages: Path) -> None:
    """After an installation kernels come from a new fork server; those of the old one live on, and it with them."""
    old = start()
    before = psutil.Process(server.pid)
    (packages / "thing-2.0.dist-info").mkdir()
    new = start()
    assert new.process.ppid() == server.pid != before.pid
    assert old.run("print('alive')") == "alive\n"
    old.manager.shutdown_kernel(now=True)
    before.wait(timeout=10)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"cwd": "/no/such/folder"}, "No such file or directory"),
        ({"stdout": subprocess.PIPE}, "not to a pipe"),
        ({"arguments": ["R", "--slave", "{connection_file}"]}, "forks ipykernel_launcher only"),
    ],
)
def test_what_cannot_be_started_is_refused(start: StartKernel, given: dict[str, Any], reason: str) -> None:
    """It says why, and the next one starts."""
    with pytest.raises(errors.Unavailable, match=reason):
        start(**given)
    assert start().run("print('alive')") == "alive\n"


def test_a_module_that_cannot_be_preloaded_is_named(server: KernelServer, start: StartKernel) -> None:
    """Without its own modules no kernel starts, and the error says which one is missing."""
    server.preload = ["no_such_module_here"]
    with pytest.raises(errors.Unavailable, match="no_such_module_here"):
        start()


def test_everything_ends_with_the_process_that_owns_it() -> None:
    """A Jupyter server that is killed leaves neither the fork server nor a kernel behind."""
    code = """
        import os, sys, tempfile, time
        from bifrost_kernel.kernel_server import KernelServer, Launch
        folder = tempfile.mkdtemp()
        server = KernelServer.instance()
        launch = Launch(arguments=("-f", folder + "/k.json", "--transport=ipc", f"--ip={folder}/k"),
                        environment=dict(os.environ, IPYTHONDIR=folder, JUPYTER_RUNTIME_DIR=folder), folder=folder)
        print(server.launch(launch, 1, 2).pid, server.pid, flush=True)
        time.sleep(600)
    """
    owner = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    processes = [psutil.Process(int(pid)) for pid in owner.stdout.readline().split()]
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert gone(*processes)


def test_the_stamp_changes_with_what_is_installed(tmp_path: Path) -> None:
    """Installing, replacing and removing a package make another stamp; other files don't, nor does a missing folder."""
    stamps = [installed.read_stamp([str(tmp_path), "/no/such/folder"])]
    (tmp_path / "notes.txt").touch()
    assert installed.read_stamp([str(tmp_path), "/no/such/folder"]) == stamps[0]
    package = tmp_path / "thing-1.0.dist-info"
    package.mkdir()
    stamps.append(installed.read_stamp([str(tmp_path)]))
    os.utime(package, ns=(1, 1))
    stamps.append(installed.read_stamp([str(tmp_path)]))
    package.rmdir()
    stamps.append(installed.read_stamp([str(tmp_path)]))
    assert len(set(stamps)) == 4
