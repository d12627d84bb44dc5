"""Control groups: found where they were given, joined, ended as one; on real ones where this machine permits it."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

from bifrost_kernel.forkserver import control_groups, syscalls
from bifrost_kernel.forkserver.control_groups import NotPermitted, Place, SlotGroups


def make_group(folder: Path, *, controllers: str = "cpu memory pids", members: str = "", marked: bool = True) -> Path:
    """A folder that looks like a control group."""
    folder.mkdir(parents=True)
    (folder / "cgroup.controllers").write_text(controllers)
    (folder / "cgroup.procs").write_text(members)
    if marked:
        try:
            os.setxattr(folder, "user.delegate", b"1")
        except OSError:
            pytest.skip("the temporary folder keeps no attributes")
    return folder


def mounted(at: Path) -> str:
    return f"25 1 0:24 / /proc rw - proc proc rw\n30 23 0:26 / {at} rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"


def test_a_leaf_below_a_delegated_group_is_where_it_should_be(tmp_path: Path) -> None:
    """systemd's DelegateSubgroup: nothing has to move."""
    make_group(tmp_path / "service")
    make_group(tmp_path / "service" / "main", members=str(os.getpid()), marked=False)
    assert control_groups.find(mounted(tmp_path), "0::/service/main\n") == Place(tmp_path / "service", ())


def test_a_delegated_group_of_our_own_is_taken(tmp_path: Path) -> None:
    """Its members, which are ours, are to move."""
    own = make_group(tmp_path / "service", members=str(os.getpid()))
    assert control_groups.find(mounted(tmp_path), "0::/service\n") == Place(own, (os.getpid(),))


def test_a_group_with_others_in_it_is_left_alone(tmp_path: Path) -> None:
    """Whatever the machine would permit: they are not ours to move."""
    make_group(tmp_path / "session", members=f"1 {os.getpid()}")
    with pytest.raises(NotPermitted, match="processes of others"):
        control_groups.find(mounted(tmp_path), "0::/session\n")


@pytest.mark.parametrize("controllers", ["", "hugetlb", "memory", "pids cpu"])
def test_a_group_without_our_controllers_is_of_no_use(tmp_path: Path, controllers: str) -> None:
    """Both are needed; the text names the group."""
    make_group(tmp_path / "service", controllers=controllers, members=str(os.getpid()))
    with pytest.raises(NotPermitted, match="/service was not delegated"):
        control_groups.find(mounted(tmp_path), "0::/service\n")


@pytest.mark.parametrize(("mounts", "own"), [("", "0::/x\n"), (mounted(Path("/cg")), "4:memory:/x\n")])
def test_without_the_second_version_there_are_none(mounts: str, own: str) -> None:
    """The first version has other rules, and is not used."""
    with pytest.raises(NotPermitted, match="cgroup v2"):
        control_groups.find(mounts, own)


def test_this_machine_has_an_answer() -> None:
    """It permits them, or there is a reason; looking changes nothing."""
    before = Path("/proc/self/cgroup").read_text()
    with contextlib.suppress(NotPermitted):
        assert control_groups.find().folder.is_dir()
    assert Path("/proc/self/cgroup").read_text() == before


def until_gone(pid: int) -> bool:
    pidfd = os.pidfd_open(pid)
    try:
        return bool(os.waitid(os.P_PIDFD, pidfd, os.WEXITED))
    finally:
        os.close(pidfd)


def test_a_group_ends_as_one(control_group: Path) -> None:
    """Whoever joined it is in it with all that it starts, and ends with it; the next process finds it empty."""
    groups = SlotGroups(str(control_group), memory_bytes=None, processes=None)
    for number in range(2):
        group = control_group / f"slot-{os.getpid()}-3-{number}"
        assert groups.can_be_entered()
        reading, writing = os.pipe()
        pid = syscalls.fork_into(groups.prepare(3))
        if pid == 0:
            if os.fork() == 0:
                os.setsid()
            os.write(writing, b".")
            signal.pause()
        assert os.read(reading, 1) + os.read(reading, 1) == b".."
        assert len((group / "cgroup.procs").read_text().split()) == 2
        assert groups.end(3) is False
        assert until_gone(pid)
        os.close(reading)
        os.close(writing)
        while (group / "cgroup.procs").read_text():
            os.sched_yield()


def test_a_child_of_a_group_is_like_any_other(control_group: Path) -> None:
    """It forks, reaps, and ends with its own status."""
    groups = SlotGroups(str(control_group), memory_bytes=None, processes=None)
    pid = syscalls.fork_into(groups.prepare(0))
    if pid == 0:
        child = os.fork()
        os._exit(7 if child == 0 else os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert groups.end(0) is False
