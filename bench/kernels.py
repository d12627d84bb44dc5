"""Kernels of forms from the fork server against stock ipykernels that do the same, in the same run.

`python -m bench.kernels [--rounds N] [--kernels N]`. Both alternate within each round. A kernel is ready when it
answers `kernel_info`, and its form is there when the cell that makes it has run. Memory is that of all kernels at once:
RSS counts shared pages in each, PSS shares them out; the fork server's own is added to that of its kernels.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from traitlets.config import Config

from bifrost_kernel.kernel_server import KernelServer
from bifrost_portal.kernels import OwnKernelspec

FORM = """
from bifrost_portal.form_widget import BifrostForm
class Nobody:
    def spec(self): return {"name": "bench", "fields": [{"name": "name", "type": "string"}] * 10}
BifrostForm(Nobody())
"""


class StockKernelspec(KernelSpecManager):
    """This Python's own kernel, started as jupyter_client does."""

    kernel_dirs: list[str] = []  # noqa: RUF012  a trait of the base class


@dataclass
class Started:
    manager: KernelManager
    client: Any
    ready_seconds: float
    form_seconds: float
    process: psutil.Process
    cpu_seconds: float

    def end(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def start(specs: type[KernelSpecManager], file: Path) -> Started:
    manager = KernelManager(kernel_spec_manager=specs(), transport="ipc", connection_file=str(file))
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    started = time.perf_counter()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    manager.start_kernel(env=environment, extra_arguments=["--HistoryManager.enabled=False"], **quiet)
    client = manager.client()
    client.start_channels()
    client.kernel_info(reply=True, timeout=60)
    ready = time.perf_counter()
    reply = client.execute(FORM, reply=True, timeout=60)
    if reply["content"]["status"] != "ok":
        raise RuntimeError(reply["content"])
    there, process = time.perf_counter(), psutil.Process(manager.provisioner.pid)
    times = process.cpu_times()
    return Started(manager, client, ready - started, there - ready, process, times.user + times.system)


def compare(rounds: int, folder: Path) -> None:
    found: dict[str, list[Started]] = {name: [] for name in KINDS}
    for number in range(rounds):
        for name, specs in KINDS.items():
            kernel = start(specs, folder / f"{name}-{number}.json")
            kernel.end()
            found[name].append(kernel)
    print(f"{rounds} rounds, median (ratio: stock / forked)")
    print_row("ready", found, lambda kernel: kernel.ready_seconds)
    print_row("form there", found, lambda kernel: kernel.ready_seconds + kernel.form_seconds)
    print_row("CPU of the kernel", found, lambda kernel: kernel.cpu_seconds)


def print_row(title: str, found: dict[str, list[Started]], value: Callable[[Started], float]) -> None:
    stock, forked = (statistics.median(map(value, found[name])) for name in KINDS)
    print(f"  {title:20} stock {stock * 1000:6.0f} ms   forked {forked * 1000:6.0f} ms   {stock / forked:.1f}×")


def weigh(name: str, count: int, folder: Path, beside: Sequence[int]) -> float:
    """Start many at once and print what they weigh; MB of PSS."""
    with ExitStack() as stack:
        kernels = [start(KINDS[name], folder / f"{name}-many-{number}.json") for number in range(count)]
        for kernel in kernels:
            stack.callback(kernel.end)
        processes = [*(kernel.process for kernel in kernels), *map(psutil.Process, beside)]
        memory = [process.memory_full_info() for process in processes]
        rss, pss = (sum(getattr(one, kind) for one in memory) / 1e6 for kind in ("rss", "pss"))
        print(f"  {count} {name:7} RSS {rss:6.0f} MB   PSS {pss:6.0f} MB   {pss / count:5.1f} MB of PSS each")
        return pss


KINDS: dict[str, type[KernelSpecManager]] = {"stock": StockKernelspec, "forked": OwnKernelspec}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--kernels", type=int, default=20)
    options = parser.parse_args()
    config = Config()
    config.KernelServer.preload = ["bifrost_portal.form_widget"]
    config.KernelServer.has_debugger = False
    server = KernelServer.instance(config=config)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        start(OwnKernelspec, folder / "first.json").end()
        compare(options.rounds, folder)
        assert server.pid is not None
        stock, forked = (
            weigh("stock", options.kernels, folder, ()),
            weigh("forked", options.kernels, folder, [server.pid]),
        )
        print(f"  stock / forked: {stock / forked:.1f}×")
    server.close()


if __name__ == "__main__":
    main()
