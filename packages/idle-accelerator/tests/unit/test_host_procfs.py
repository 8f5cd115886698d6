"""Reading /proc: what must hold whatever the kernel prints there."""

import os
import subprocess
import sys
from collections import defaultdict

import pytest

if sys.platform != "linux":
    pytest.skip("reads /proc", allow_module_level=True)

from idle_accelerator.agent.host import procfs


def stat(
    pid: int, parent: int, *, name: str = "guest", state: str = "S", threads: int = 1, flags: int = 0
) -> procfs.Process:
    fields = [
        state,
        parent,
        pid,
        pid,
        0,
        -1,
        flags,
        0,
        0,
        0,
        0,
        100,
        50,
        25,
        25,
        39,
        19,
        threads,
        0,
        4711,
        0,
        3,
    ]
    return procfs.Process(pid, f"{pid} ({name}) {' '.join(map(str, fields))}\n".encode())


@pytest.mark.parametrize("name", ["sh", "a b", "x) Z 1 (y", "))", "", "(", "line\nbreak"])
def test_a_name_cannot_forge_the_fields_after_it(name: str) -> None:
    process = stat(12, 7, name=name)
    assert (process.pid, process.parent, process.group, process.session) == (12, 7, 12, 12)
    assert not process.ended
    assert process.nice == 19
    assert process.started.endswith(":4711")
    assert process.cpu_s == pytest.approx(200 / os.sysconf("SC_CLK_TCK"))
    assert process.rss_bytes == 3 * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("state", "halted"), [("T", True), ("t", True), ("S", False), ("R", False), ("D", False)]
)
def test_a_stopped_process_is_halted_and_no_other(state: str, halted: bool) -> None:
    assert stat(2**22 + 1, 1, state=state).halted is halted  # no such pid: nothing is pending for it


def test_a_zombie_with_living_threads_has_not_ended() -> None:
    assert stat(12, 1, state="Z").ended
    assert not stat(12, 1, state="Z", threads=2).ended


def test_descendants_are_found_once_each_even_where_a_scan_caught_a_pid_twice() -> None:
    children: dict[int, list[procfs.Process]] = defaultdict(list)
    for pid, parent in ((2, 1), (3, 2), (4, 3), (5, 2), (2, 4), (9, 8)):
        children[parent].append(stat(pid, parent))
    found = procfs.descend(children, [stat(2, 1), stat(3, 2)])
    assert sorted(process.pid for process in found) == [2, 3, 4, 5]


def test_a_scan_holds_this_process_and_its_child() -> None:
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        children = procfs.scan()
        assert child.pid in {process.pid for process in children[os.getpid()]}
        own = {process.pid: process for process in children[os.getppid()]}[os.getpid()]
        assert own.started == procfs.read(os.getpid()).started  # pyright: ignore[reportOptionalMemberAccess]
    finally:
        child.communicate()
    assert procfs.read(child.pid) is None


def test_a_process_without_a_brand_has_none_and_an_ended_one_too() -> None:
    assert procfs.brand_of(os.getpid()) == ""
    assert procfs.brand_of(2**22 + 1) == ""
