"""Which control groups serve: read from what the kernel shows, and tried; and what is said of it."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("control groups are Linux's", allow_module_level=True)

from idle_accelerator.agent import host
from idle_accelerator.agent.host import cgroups, probing
from idle_sense.platform.cgroups import Mount

HYBRID = (
    Mount(place="/sys/fs/cgroup/freezer", root="/", version=1, controllers=frozenset({"freezer"})),
    Mount(place="/sys/fs/cgroup/memory", root="/box", version=1, controllers=frozenset({"memory"})),
    Mount(place="/sys/fs/cgroup/unified", root="/", version=2, controllers=frozenset()),
)


def test_this_programs_own_groups_are_found_in_each_hierarchy() -> None:
    membership = b"5:freezer:/\n4:memory:/box/inner\n0::/user.slice/agent.service\n"
    assert [each.parent for each in probing.hierarchies(HYBRID, membership)] == [
        "/sys/fs/cgroup/freezer",
        "/sys/fs/cgroup/memory/inner",
        "/sys/fs/cgroup/unified/user.slice/agent.service",
    ]


def test_after_it_moved_to_its_leaf_guests_groups_stand_beside_that() -> None:
    membership = f"0::/agent.service/{probing.LEAF}\n".encode()
    (found,) = probing.hierarchies(HYBRID, membership)
    assert (found.version, found.parent) == (2, "/sys/fs/cgroup/unified/agent.service")


@pytest.mark.parametrize("path", ["/../other", "/boxed", "/elsewhere"])
def test_a_group_that_is_not_to_be_seen_in_a_mount_is_not_looked_for_there(path: str) -> None:
    assert probing.hierarchies(HYBRID[1:2], f"4:memory:{path}\n".encode()) == ()


def test_without_any_hierarchy_all_is_done_by_signals_and_priority_and_each_line_says_why() -> None:
    found = probing.try_out(())
    assert found.places == cgroups.Places()
    how = {each.purpose: each.how for each in found.mechanisms}
    assert how["freeze"].startswith("SIGSTOP")
    assert how["kill"].startswith("SIGKILL")
    assert how["cpu"].startswith("nice 19")
    assert (how["memory"], how["processes"], how["share"]) == ("", "", "")
    assert all(each.lacking for each in found.mechanisms if each.purpose != "disk")


def test_a_folder_that_is_no_control_group_does_not_serve_and_is_left_as_it_was(tmp_path: Path) -> None:
    """As where something else is mounted, or nothing may be written."""
    every = (
        probing.Hierarchy(version=2, controllers=frozenset(), parent=str(tmp_path)),
        probing.Hierarchy(
            version=1, controllers=frozenset({"cpu", "freezer"}), parent=str(tmp_path / "gone")
        ),
    )
    found = probing.try_out(every)
    assert found.places == cgroups.Places()
    assert str(tmp_path) in found.mechanisms[0].lacking
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_nothing_of_the_trial_is_left() -> None:
    name = cgroups.home_name()
    probing.try_out(probing.hierarchies(HYBRID, Path("/proc/self/cgroup").read_bytes()))
    assert not [parent for parent in probing.parents() if list(Path(parent).glob(f"{name}/trial*"))]


def test_the_facade_tells_every_purpose_once() -> None:
    purposes = ["freeze", "kill", "cpu", "memory", "processes", "share", "disk"]
    assert [each.purpose for each in host.mechanisms()] == purposes
    assert all(each.sentence.startswith(f"{each.purpose}: ") for each in host.mechanisms())


AS_NOBODY = """
import json, os, sys
from dataclasses import asdict
from idle_accelerator.agent.host import cgroups, probing
b"".decode("ascii"); cgroups.home_name()  # this interpreter's own files may be closed to other users
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.executable = sys.argv[1]
found = probing.found()
print(json.dumps([found.places.tree, found.places.cpu, [asdict(each) for each in found.mechanisms]]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_to_whom_nothing_was_delegated_falls_back_and_says_so() -> None:
    python = shutil.which("python3", path="/usr/bin:/bin")
    if python is None:
        pytest.skip("no interpreter that every user may run")
    ran = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, python], capture_output=True, text=True, check=True
    )
    tree, cpu, told = json.loads(ran.stdout)
    assert (tree, cpu) == (None, None)
    lacking = {each["purpose"]: each["lacking"] for each in told}
    if probing.found().places.tree is not None:
        assert "Permission denied" in lacking["freeze"]
        assert "Permission denied" in lacking["memory"]
    assert {each["purpose"]: each["how"] for each in told}["kill"] == "SIGKILL to each process"


class Shown:
    """A folder that looks like a group of version 2."""

    def __init__(self, folder: Path, *, events: str = "populated 1\nfrozen 0\n") -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        for name, text in (
            ("cgroup.procs", ""),
            ("cgroup.freeze", "0"),
            ("cgroup.kill", ""),
            ("cgroup.events", events),
            ("cpu.stat", "usage_usec 2500000\nuser_usec 1\n"),
        ):
            (folder / name).write_text(text)


def test_a_group_that_the_kernel_does_not_call_frozen_is_not(tmp_path: Path) -> None:
    shown = Shown(tmp_path / "guest")
    group = cgroups.Group.found(str(shown.folder))
    assert group.freeze(0.01) is False
    assert (shown.folder / "cgroup.freeze").read_text() == "1"
    (shown.folder / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    assert group.freeze(0.01) is True


def test_limits_of_version_2_are_written_where_they_are(tmp_path: Path) -> None:
    shown = Shown(tmp_path / "guest")
    for name in ("memory.max", "memory.swap.max", "pids.max"):
        (shown.folder / name).write_text("")
    cgroups.Group.found(str(shown.folder)).limit(memory_bytes=1 << 20, processes=7)
    told = [(shown.folder / name).read_text() for name in ("memory.max", "memory.swap.max", "pids.max")]
    assert told == ["1048576", "0", "7"]


@pytest.mark.parametrize(("tally", "killed"), [("oom 3\noom_kill 0\n", False), ("oom 1\noom_kill 2\n", True)])
def test_in_version_2_a_groups_own_events_tell_that_it_ran_out_of_memory(
    tmp_path: Path, tally: str, killed: bool
) -> None:
    (tmp_path / "memory.events").write_text(tally)
    group = cgroups.Group(str(tmp_path), version=2, kills=False)
    assert group.ran_out_of_memory() is killed


def test_processor_time_is_that_of_the_group_and_of_a_gone_one_unknown(tmp_path: Path) -> None:
    shown = Shown(tmp_path / "guest")
    assert cgroups.Group.found(str(shown.folder)).cpu_s() == 2.5
    assert cgroups.Group.found(str(tmp_path / "gone")).cpu_s() is None


@pytest.mark.parametrize(("name", "gone"), [("0", True), ("own", False), ("stranger", False)])
def test_only_homes_of_ended_programs_of_this_namespace_are_abandoned(
    tmp_path: Path, name: str, gone: bool
) -> None:
    """Another container's programs cannot be seen from here."""
    own = cgroups.home_name()
    namespace = own.removeprefix(cgroups.HOME_PREFIX).partition("-")[0]
    home = {
        "0": f"{cgroups.HOME_PREFIX}{namespace}-{2**22 + 1}-0-0",
        "own": own,
        "stranger": f"{cgroups.HOME_PREFIX}1{namespace}-{2**22 + 1}-0-0",
    }[name]
    (tmp_path / home / "123").mkdir(parents=True)
    cgroups.remove_abandoned([str(tmp_path)], within_s=0)
    assert (tmp_path / home).exists() is not gone


def test_the_group_of_a_guest_is_named_after_its_brand_and_stands_in_a_home() -> None:
    home = f"/sys/fs/cgroup/{cgroups.home_name()}"
    assert cgroups.is_of_guest(f"{home}/4711", "4711")
    assert not cgroups.is_of_guest(f"{home}/4711", "4712")
    assert not cgroups.is_of_guest(f"{home}", "")
    assert not cgroups.is_of_guest("/sys/fs/cgroup/user.slice/4711", "4711")


def test_each_home_is_told_once_where_one_hierarchy_has_several_controllers() -> None:
    places = dataclasses.replace(cgroups.Places(), tree="/t", cpu="/t", memory="/m", pids="/m")
    assert list(places.all()) == ["/t", "/m"]
