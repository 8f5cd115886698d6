"""Control groups, from files as kernels of both versions write them."""

from pathlib import Path

import pytest

from idle_sense.errors import SenseError
from idle_sense.platform.cgroups import Cgroup, Mount, cgroup_at, mounts_in
from idle_sense.platform.container import Container

UNIFIED = b"29 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
HYBRID = (
    b"30 29 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
    b"31 29 0:28 / /sys/fs/cgroup/systemd rw,nosuid shared:10 - cgroup cgroup rw,xattr,name=systemd\n"
    b"35 29 0:32 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:15 - cgroup cgroup rw,cpu,cpuacct\n"
    b"36 29 0:33 / /sys/fs/cgroup/memory rw,nosuid shared:16 - cgroup cgroup rw,memory\n"
)
IN_A_CONTAINER = (
    b"700 690 0:28 /docker/8a1f /sys/fs/cgroup/cpu,cpuacct ro,nosuid - cgroup cgroup rw,cpu,cpuacct\n"
)
V2 = Mount("/sys/fs/cgroup", "/", 2, frozenset())
V1 = Mount("/sys/fs/cgroup/cpu,cpuacct", "/", 1, frozenset({"cpu", "cpuacct"}))


def test_hierarchies_are_found_where_they_are_mounted() -> None:
    assert [mount.place for mount in mounts_in(UNIFIED)] == ["/sys/fs/cgroup"]
    hybrid = mounts_in(HYBRID)
    assert [mount.version for mount in hybrid] == [2, 1, 1, 1]
    assert hybrid[2].controllers == {"cpu", "cpuacct"}
    assert mounts_in(IN_A_CONTAINER)[0].root == "/docker/8a1f"
    assert mounts_in(b"1 1 0:1 / /mnt/with\\040space rw - cgroup2 none rw\n")[0].place == "/mnt/with space"


@pytest.mark.parametrize("garbage", [b"", b"\n\n", b"a b c", b"1 2 3 / /x rw - cgroup", b"\xff\xfe - \x00\n"])
def test_mounts_that_make_no_sense_are_no_hierarchies(garbage: bytes) -> None:
    assert mounts_in(garbage) == ()


@pytest.mark.parametrize(
    ("path", "mount", "membership", "inside"),
    [
        ("/sys/fs/cgroup/pool.slice/one", V2, b"0::/pool.slice/one\n", True),
        ("/sys/fs/cgroup/pool.slice/one", V2, b"0::/pool.slice/one/deeper\n", True),
        ("/sys/fs/cgroup/pool.slice/one", V2, b"0::/pool.slice/one2\n", False),
        ("/sys/fs/cgroup/pool.slice/one", V2, b"0::/pool.slice\n", False),
        ("/sys/fs/cgroup/pool.slice/one", V2, b"", False),
        # On a hybrid system the same name may stand in another hierarchy.
        ("/sys/fs/cgroup/pool", V2, b"4:memory:/pool\n3:cpu,cpuacct:/\n0::/user.slice\n", False),
        ("/sys/fs/cgroup/cpu,cpuacct/pool", V1, b"4:memory:/\n3:cpu,cpuacct:/pool/a\n0::/\n", True),
        ("/sys/fs/cgroup/cpu,cpuacct/pool", V1, b"4:memory:/pool\n3:cpu,cpuacct:/\n0::/pool\n", False),
        # A process whose group was removed under it, and one with a colon in its group's name.
        ("/sys/fs/cgroup/pool", V2, b"0::/pool (deleted)\n", False),
        ("/sys/fs/cgroup/a:b", V2, b"0::/a:b/c\n", True),
        # Seen from inside of a container, names begin at its own root.
        ("/c/cpu/guests", Mount("/c/cpu", "/docker/8a1f", 1, frozenset({"cpu"})), b"3:cpu:/docker/8a1f/guests\n", True),
        ("/c/cpu/guests", Mount("/c/cpu", "/docker/8a1f", 1, frozenset({"cpu"})), b"3:cpu:/guests\n", False),
    ],
)  # fmt: skip
def test_a_process_is_in_a_group_or_below_it(
    path: str, mount: Mount, membership: bytes, inside: bool
) -> None:
    assert Cgroup(path, mount).holds(membership) is inside


def group(folder: Path, version: int = 2) -> Cgroup:
    return Cgroup(str(folder), Mount(str(folder.parent), "/", version, frozenset({"cpuacct"})))


def test_processor_time_is_read_in_the_units_of_its_version(tmp_path: Path) -> None:
    folder = tmp_path / "guests"
    folder.mkdir()
    assert group(folder).cpu_s() is None
    (folder / "cpu.stat").write_text(
        "usage_usec 4220123\nuser_usec 4000000\nsystem_usec 220123\nnr_periods 0\n"
    )
    assert group(folder).cpu_s() == pytest.approx(4.220123)
    (folder / "cpu.stat").write_text("nr_periods 0\nnr_throttled 0\nthrottled_time 0\n")
    assert group(folder).cpu_s() is None, "version 1's file of that name"
    (folder / "cpuacct.usage").write_text("4220123456\n")
    assert group(folder, version=1).cpu_s() == pytest.approx(4.220123456)
    (folder / "cpuacct.usage").write_text("")
    assert group(folder, version=1).cpu_s() is None


def test_disk_use_is_read_by_device(tmp_path: Path) -> None:
    folder = tmp_path / "guests"
    folder.mkdir()
    assert group(folder).disk_bytes() is None, "the io controller is not enabled"
    (folder / "io.stat").write_text(
        "8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0\n"
        "254:0 \n"
        "253:1 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n"
        "garbage\n"
    )
    assert group(folder).disk_bytes() == {"8:16": (1459200, 314773504), "253:1": (4096, 0)}
    assert group(folder, version=1).disk_bytes() is None


def test_processes_of_groups_below_belong_to_the_group(tmp_path: Path) -> None:
    folder = tmp_path / "guests"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "cgroup.procs").write_text("")
    (folder / "a" / "cgroup.procs").write_text("12\n13\n")
    (folder / "a" / "b" / "cgroup.procs").write_text("14\n0\n")
    assert group(folder).pids() == {12, 13, 14}
    assert group(tmp_path / "gone").pids() == set()


def test_a_folder_that_is_no_group_is_refused_with_a_way_out(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_bytes(UNIFIED)
    with pytest.raises(SenseError, match="no folder"):
        cgroup_at(str(tmp_path / "none"), str(mounts))
    with pytest.raises(SenseError, match=r"no control group.*/sys/fs/cgroup"):
        cgroup_at(str(tmp_path), str(mounts))
    place = tmp_path / "freezer"
    (place / "pool").mkdir(parents=True)
    mounts.write_text(f"30 29 0:27 / {place} rw - cgroup cgroup rw,freezer\n")
    with pytest.raises(SenseError, match="does not tell processor time"):
        cgroup_at(str(place / "pool"), str(mounts))


def test_the_link_with_a_controllers_second_name_leads_to_the_group(tmp_path: Path) -> None:
    place = tmp_path / "cpu,cpuacct"
    (place / "pool").mkdir(parents=True)
    (place / "pool" / "cpuacct.usage").write_text("7000000000\n")
    (tmp_path / "cpuacct").symlink_to("cpu,cpuacct")
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"35 29 0:32 / {place} rw - cgroup cgroup rw,cpu,cpuacct\n")
    found = cgroup_at(str(tmp_path / "cpuacct" / "pool"), str(mounts))
    assert found.path == str(place / "pool")
    assert found.holds(b"3:cpu,cpuacct:/pool\n")
    assert found.cpu_s() == pytest.approx(7.0)


def test_a_container_with_a_share_of_the_machine_tells_what_of_it_is_used(tmp_path: Path) -> None:
    now = [100.0]
    container = Container(groups=str(tmp_path), now=lambda: now[0])
    assert container.cpu_times_s() is None
    assert container.memory() is None
    now[0] += 61.0
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "cpu.stat").write_text("usage_usec 5000000\n")
    (tmp_path / "memory.max").write_text("2147483648\n")
    (tmp_path / "memory.current").write_text("1073741824\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 73741824\nactive_file 1\n")
    assert container.cpu_times_s() == (pytest.approx(5.0), 0.0)
    now[0] += 10.0
    (tmp_path / "cpu.stat").write_text("usage_usec 14000000\n")
    assert container.cpu_times_s() == (pytest.approx(14.0), pytest.approx(15.0))
    room = container.memory()
    assert room is not None
    assert (room.limit_bytes, room.left_bytes) == (2147483648, 2147483648 - 1000000000)
    now[0] += 61.0
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert container.cpu_times_s() is None
    assert container.memory() is None


def test_a_container_of_version_1_tells_the_same(tmp_path: Path) -> None:
    for name, text in {
        "cpu/cpu.cfs_quota_us": "50000",
        "cpu/cpu.cfs_period_us": "100000",
        "cpuacct/cpuacct.usage": "2000000000",
        "memory/memory.limit_in_bytes": "1073741824",
        "memory/memory.usage_in_bytes": "900000000",
        "memory/memory.stat": "cache 1\ntotal_inactive_file 100000000\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    now = [0.0]
    container = Container(groups=str(tmp_path), now=lambda: now[0])
    now[0] = 4.0
    assert container.cpu_times_s() == (pytest.approx(2.0), 0.0), "what was allowed counts from the first look"
    now[0] = 8.0
    assert container.cpu_times_s() == (pytest.approx(2.0), pytest.approx(2.0))
    room = container.memory()
    assert room is not None
    assert room.left_bytes == 1073741824 - 800000000
    (tmp_path / "memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    now[0] += 61.0
    assert container.memory() is None
    assert container.cpu_times_s() is None
