"""Where figures were measured: the report says it, so that nobody compares them across machines."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import psutil

from bench.figures import Frozen, shown


class Machine(Frozen):
    """A machine, and how busy it was before the benchmarks began."""

    cores: int
    processor: str
    memory_bytes: int
    kernel: str
    python: str
    sqlite: str
    file_system: str
    load: float
    commit: str
    measured_at: datetime

    def rows(self) -> list[tuple[str, str]]:
        """What a reader wants to know of it."""
        return [
            ("date", f"{self.measured_at:%Y-%m-%d %H:%M} UTC"),
            ("processor", f"{self.processor}, {self.cores} cores"),
            ("memory", shown(self.memory_bytes / 1e9, "GB")),
            ("system", self.kernel),
            ("temporary files", self.file_system),
            ("Python, SQLite", f"{self.python}, {self.sqlite}"),
            ("load before", shown(self.load)),
            ("commit", self.commit),
        ]


def look() -> Machine:
    """This machine as it is now."""
    return Machine(
        cores=os.cpu_count() or 1,
        processor=_processor(),
        memory_bytes=psutil.virtual_memory().total,
        kernel=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        sqlite=sqlite3.sqlite_version,
        file_system=_file_system(Path(tempfile.gettempdir())),
        load=os.getloadavg()[0],
        commit=_commit(),
        measured_at=datetime.now(UTC),
    )


def _processor() -> str:
    with open("/proc/cpuinfo") as lines:
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _file_system(path: Path) -> str:
    around = [part for part in psutil.disk_partitions(all=True) if path.resolve().is_relative_to(part.mountpoint)]
    return str(max(around, key=lambda part: len(part.mountpoint)).fstype)


def _commit() -> str:
    root = Path(__file__).resolve().parent
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=False
    )
    return described.stdout.strip() or "unknown"
