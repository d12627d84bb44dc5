"""How much memory the processes of an execution take together, looked at four times a second while they run.

The runner has one watch for all kernels; where a control group holds them to the limit it does not need it. It reads
`/proc` from outside, so that nothing a workflow does to itself hides it, and ends nothing: it tells.
What no process has mapped (a file in memory that is only written) is not seen.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

WATCH_SECONDS = 0.25

_KIB = 1024
_RESIDENT = re.compile(r"^(?:VmRSS|VmSwap):\s+(\d+) kB", re.MULTILINE)
_PROPORTIONAL = re.compile(r"^(?:Pss|SwapPss):\s+(\d+) kB", re.MULTILINE)


class MemoryWatch:
    """One thread that looks at every kernel that is at work."""

    def __init__(self, limit_bytes: int, *, watch_seconds: float = WATCH_SECONDS) -> None:
        self._limit = limit_bytes
        self._watch_seconds = watch_seconds
        self._watched: dict[tuple[int, ...], Callable[[], None]] = {}
        self._lock = threading.Lock()
        self._busy = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look_again, name="memory", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._busy.set()
        if self._thread.is_alive():
            self._thread.join()

    @contextlib.contextmanager
    def watching(self, pidfds: tuple[int, ...], on_excess: Callable[[], None]) -> Iterator[None]:
        """Call `on_excess` as often as the trees of these processes are found above the limit; they stay open."""
        with self._lock:
            self._watched[pidfds] = on_excess
            self._busy.set()
        try:
            yield
        finally:
            with self._lock:
                del self._watched[pidfds]

    def _look_again(self) -> None:
        while not self._stopping.wait(self._watch_seconds):
            self._busy.wait()
            with self._lock:
                watched = list(self._watched)
                if not watched:
                    self._busy.clear()
            for pidfds in watched:
                self._look(pidfds)

    def _look(self, pidfds: tuple[int, ...]) -> None:
        # Not while it is taken out: its descriptors may be another one's afterwards.
        with self._lock:
            on_excess = self._watched.get(pidfds)
            pids = {pid for pid in map(find_pid, pidfds) if pid is not None} if on_excess is not None else set()
        if on_excess is not None and takes_more(pids, self._limit):
            on_excess()


def find_pid(pidfd: int) -> int | None:
    """The process behind a pidfd as this process sees it; None when it is gone (proc_pid_fdinfo(5))."""
    try:
        text = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    except OSError:
        return None
    found = re.search(r"^Pid:\s+(-?\d+)$", text, re.MULTILINE)
    pid = int(found[1]) if found else -1
    return pid if pid > 0 else None


def takes_more(pids: Iterable[int], limit_bytes: int) -> bool:
    """Whether processes and all below them take more than this; what they share with others counts in part only."""
    tree = {one for pid in pids for one in list_tree(pid)}
    # Cheap and never too low: pages that a fork shares count for each.
    if sum(_sum_of(_RESIDENT, f"/proc/{one}/status") for one in tree) * _KIB <= limit_bytes:
        return False
    return sum(map(_proportional_kib, tree)) * _KIB > limit_bytes


def list_tree(pid: int) -> Iterator[int]:
    """The process and everything below it.

    The first process of a pid namespace has everything below it that is not below whoever was forked into it.
    """
    yield pid
    with contextlib.suppress(OSError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in _read(str(children)).split():
                yield from list_tree(int(child))


def _proportional_kib(pid: int) -> int:
    path = f"/proc/{pid}/smaps_rollup"
    try:
        return sum(map(int, _PROPORTIONAL.findall(Path(path).read_text())))
    except ProcessLookupError:
        return 0
    except OSError:  # whoever hides from this user counts in full
        return _sum_of(_RESIDENT, f"/proc/{pid}/status")


def _sum_of(pattern: re.Pattern[str], path: str) -> int:
    return sum(map(int, pattern.findall(_read(path))))


def _read(path: str) -> str:
    """Empty where the process is gone."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""
