"""Wiped means gone, whatever a task left, and nothing else is touched; what cannot be wiped is said and tried again."""

import asyncio
import contextlib
import errno
import os
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from idle_accelerator.agent import wiping, workspace
from idle_accelerator.agent.availability import Availability
from idle_accelerator.agent.folders import openat2
from idle_accelerator.agent.runner import Limits, Runner
from idle_accelerator.agent.wiping import Wiping
from idle_accelerator.agent.workshop import Trouble
from idle_accelerator.agent.workspace import Workspaces
from idle_accelerator.core.reclaim import OwnerState
from idle_accelerator.wire.reasons import Reason, reason, render
from idle_accelerator.wire.resources import Resources

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links and modes as POSIX has them")
root_only = pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="needs root")
FLAGS = {"immutable": 0x10, "append-only": 0x20}


@pytest.fixture(params=["openat2", "components"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "components":
        monkeypatch.setattr(openat2, "is_available", lambda: False)
    elif not openat2.is_available():
        pytest.skip("this kernel has no openat2")
    return request.param


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "over"
    place.mkdir()
    return place


def fill(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def wipe(path: Path, *, names: int = 300) -> int:
    """How many steps it took."""
    subject = Wiping(path)
    steps = 1
    while (state := subject.step(names)) == "more":
        steps += 1
    assert state == "gone", subject.problem
    assert not os.path.lexists(path)
    return steps


def dig(folder: Path, levels: int) -> None:
    """Folders within each other, deeper than any path reaches."""
    descriptor = os.open(folder, os.O_RDONLY)
    for level in range(levels):
        if level % 1000 == 0:
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)


def test_all_kinds_of_names_and_files_go(way: str, folder: Path, tmp_path: Path) -> None:
    fill(folder, "plain", "a/b/c", ".hidden/x", "new\nline", "x" * 255, "-rf", "文件")
    raw = os.fsencode(folder)
    for name in (b"\xff\xfe", b"\x01\x7f", b" ", b"a\\b", b"*"):
        os.close(os.open(raw + b"/" + name, os.O_CREAT | os.O_WRONLY))
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "s"))
    (folder / "empty").mkdir()
    wipe(folder)
    assert list(tmp_path.iterdir()) == []


def test_a_file_or_link_in_place_of_a_folder_goes_and_what_is_not_there_is_gone(tmp_path: Path) -> None:
    fill(tmp_path, "owner/keep", "file")
    (tmp_path / "link").symlink_to(tmp_path / "owner")
    wipe(tmp_path / "file")
    wipe(tmp_path / "link")
    wipe(tmp_path / "never there")
    assert (tmp_path / "owner" / "keep").exists()


def test_links_are_removed_and_not_followed(way: str, folder: Path, tmp_path: Path) -> None:
    fill(tmp_path, "owner/keep")
    (folder / "link").symlink_to(tmp_path / "owner")
    (folder / "loop").symlink_to("loop")
    os.link(tmp_path / "owner" / "keep", folder / "hard")
    before = (tmp_path / "owner").stat().st_mode, (tmp_path / "owner" / "keep").stat().st_mode
    wipe(folder)
    assert (tmp_path / "owner" / "keep").read_text() == "owner/keep"
    assert ((tmp_path / "owner").stat().st_mode, (tmp_path / "owner" / "keep").stat().st_mode) == before


def test_no_rights_are_needed_that_the_task_took_away(way: str, folder: Path) -> None:
    fill(folder, "locked/inside/file", "shut/file", "unsearchable/file/deeper", "plain")
    (folder / "locked" / "inside").chmod(0)
    for name, mode in (("locked", 0), ("shut", 0o500), ("unsearchable", 0o600)):
        (folder / name).chmod(mode)
    folder.chmod(0)
    wipe(folder)


def test_rights_of_the_owners_files_are_not_changed_by_way_of_a_link(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder without rights becomes a link to the owner's just before it is given them."""
    fill(tmp_path, "owner/keep")
    (tmp_path / "owner").chmod(0o755)
    (folder / "shut").mkdir()
    real_open = wiping.open_below

    def refuse(parent: int, name: str, flags: int) -> int:
        if name == "shut":
            with_link = folder / "shut"
            if not with_link.is_symlink():
                with_link.rmdir()
                with_link.symlink_to(tmp_path / "owner")
                raise PermissionError(errno.EACCES, "Permission denied", name)
        return real_open(parent, name, flags)

    monkeypatch.setattr(wiping, "open_below", refuse)
    (folder / "shut" / "x").touch()
    (folder / "shut" / "x").unlink()
    monkeypatch.setattr(wiping, "_rmdir_empty", lambda _parent, _name: False)
    Wiping(folder).step(100)
    assert (tmp_path / "owner").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "owner" / "keep").exists()


def test_a_folder_that_becomes_a_link_after_it_was_seen_is_not_entered(
    way: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just between the look and the step, which a guest that still lives would have to hit."""
    fill(tmp_path, "owner/keep", "owner/sub/keep")
    fill(folder, "victim/x")
    real_rmdir = wiping._rmdir_empty

    def swap(parent: int, name: str) -> bool:
        if name == "victim" and not (folder / "victim").is_symlink():
            (folder / "victim").rename(tmp_path / "aside")
            (folder / "victim").symlink_to(tmp_path / "owner")
            return False
        return real_rmdir(parent, name)

    monkeypatch.setattr(wiping, "_rmdir_empty", swap)
    Wiping(folder).step(100)
    assert sorted(path.name for path in (tmp_path / "owner").rglob("*")) == ["keep", "keep", "sub"]
    wipe(folder)


@pytest.mark.parametrize("levels", [31, 32, 33, 100, 5000])
def test_depth_costs_neither_descriptors_nor_stack(way: str, folder: Path, levels: int) -> None:
    # One folder at a time is the slow way.
    dig(folder, min(levels, 200) if way == "components" else levels)
    wipe(folder, names=1000)


def test_a_deep_tree_without_rights_goes_as_well(way: str, folder: Path) -> None:
    """What lies deep is moved, which needs the right to write to the folder that moves."""
    path = folder
    made = []
    for _ in range(80):
        path = path / "d"
        path.mkdir()
        made.append(path)
    for path in reversed(made):
        path.chmod(0o500)
    wipe(folder)


def test_many_files_are_removed_in_bounded_steps_and_memory(folder: Path) -> None:
    """The most that a step holds is a buffer of the system's, not the names of the folder."""
    for number in range(30_000):
        os.close(os.open(f"{folder}/{number:05}", os.O_CREAT | os.O_WRONLY))
    subject = Wiping(folder)
    tracemalloc.start()
    try:
        subject.step(300)
        assert 29_600 <= len(list(folder.iterdir())) <= 29_800
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        subject.step(10_000)
        assert tracemalloc.get_traced_memory()[1] - before < 1 << 20
    finally:
        tracemalloc.stop()
    wipe(folder, names=100_000)


def test_nothing_stays_open_between_steps(way: str, folder: Path) -> None:
    fill(folder, *(f"a/{number}/b/c" for number in range(50)))
    before = len(list(Path("/dev/fd").iterdir()))
    assert Wiping(folder).step(20) == "more"
    assert len(list(Path("/dev/fd").iterdir())) == before


@root_only
@pytest.mark.skipif(sys.platform != "linux", reason="flags as Linux has them")
@pytest.mark.parametrize("flag", FLAGS)
def test_flags_that_bind_even_root_are_taken_away(way: str, folder: Path, flag: str) -> None:
    import fcntl
    import struct

    fill(folder, "file", "sub/inner", "sub/deep/x")
    for name in ("file", "sub/inner", "sub/deep", "sub", "."):
        with opened(folder / name) as descriptor:
            try:
                (flags,) = struct.unpack("i", fcntl.ioctl(descriptor, 0x80086601, bytes(4)))
                fcntl.ioctl(descriptor, 0x40086602, struct.pack("i", flags | FLAGS[flag]))
            except OSError:
                pytest.skip("this file system has no such flags")
    with pytest.raises(PermissionError):
        (folder / "file").unlink()
    away = folder.with_name("away")
    wiping.rename_away(folder, away)
    wipe(away)


def test_what_was_mounted_is_taken_away_and_its_content_is_not(
    way: str, folder: Path, tmp_path: Path
) -> None:
    """In a namespace of its own, so that a test that dies leaves no mount behind."""
    fill(tmp_path, "owner/keep")
    program = f"""
import subprocess, sys
from pathlib import Path
from idle_accelerator.agent.folders import openat2
from idle_accelerator.agent.availability import Availability
from idle_accelerator.agent.runner import Limits, Runner
from idle_accelerator.agent.workshop import Trouble
from idle_accelerator.agent.wiping import Wiping
if {way!r} == "components":
    openat2.is_available = lambda: False
over, owner = map(Path, sys.argv[1:])
(over / "a" / "mounted").mkdir(parents=True)
(over / "memory").mkdir()
(over / "bound").touch()
subprocess.run(["mount", "--bind", owner, over / "a" / "mounted"], check=True)
subprocess.run(["mount", "--bind", owner / "keep", over / "bound"], check=True)
subprocess.run(["mount", "-t", "tmpfs", "none", over / "memory"], check=True)
(over / "memory" / "x").touch()
subject = Wiping(over)
print(subject.step(100), subject.problem)
"""
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may mount nothing here")
    done = subprocess.run(
        [*namespace, sys.executable, "-c", program, folder, tmp_path / "owner"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "gone \n", done.stderr
    assert not folder.exists()
    assert (tmp_path / "owner" / "keep").read_text() == "owner/keep"


def test_nothing_of_the_owners_goes_while_a_guest_swaps_folders_for_links(
    way: str, folder: Path, tmp_path: Path
) -> None:
    fill(tmp_path, "owner/sub/keep", "owner/keep")
    stop = threading.Event()

    def swap() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                (folder / f"d{number % 7}").mkdir()
                (folder / f"d{number % 7}" / "sub").mkdir()
                (folder / f"l{number % 7}").symlink_to(tmp_path / "owner")
                (folder / f"d{number % 7}").rename(folder / "aside")
                (folder / f"l{number % 7}").rename(folder / f"d{number % 7}")
            except OSError:
                with contextlib.suppress(OSError):
                    folder.mkdir()

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for _ in range(300):
            Wiping(folder).step(50)
    finally:
        stop.set()
        swapping.join()
    assert sorted(path.name for path in (tmp_path / "owner").rglob("*")) == ["keep", "keep", "sub"]
    wipe(folder)


# The rooms above it: folders that are over.


def rooms(directory: Path) -> Workspaces:
    return Workspaces(directory, cast("Any", None))


async def test_a_small_workspace_is_gone_at_once_and_its_name_is_free(tmp_path: Path) -> None:
    subject = rooms(tmp_path)
    subject.open()
    place = subject.make("job.0.1")
    fill(place, "a/b")
    await subject.discard(place)
    assert list(tmp_path.iterdir()) == []
    subject.make("job.0.1")


async def test_a_big_workspace_goes_in_the_background_and_counts_until_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "_AT_ONCE", 10)
    monkeypatch.setattr(workspace, "_AT_A_TIME", 10)
    subject = rooms(tmp_path)
    subject.open()
    place = subject.make("job.0.1")
    fill(place, *(f"{number}" for number in range(100)))
    await subject.discard(place, disk_bytes=1234)
    assert not place.exists()
    assert subject.unwiped_bytes == 1234
    assert subject.stuck() is None, "it only takes its time"
    fill(subject.make("job.0.1"), "new")
    await until_empty_but(tmp_path, "job.0.1")
    assert (place / "new").exists()
    async with asyncio.timeout(60):
        while subject.unwiped_bytes:
            await asyncio.sleep(0.01)
    await subject.close()


async def until_empty_but(directory: Path, name: str) -> None:
    async with asyncio.timeout(120):
        while {path.name for path in directory.iterdir()} != {name}:
            await asyncio.sleep(0.01)


async def test_the_event_loop_goes_on_while_a_big_folder_is_wiped(tmp_path: Path) -> None:
    subject = rooms(tmp_path)
    subject.open()
    place = subject.make("job.0.1")
    for number in range(20_000):
        os.close(os.open(f"{place}/{number}", os.O_CREAT | os.O_WRONLY))
    await subject.discard(place)
    turns = 0
    while any(tmp_path.iterdir()):
        await asyncio.sleep(0)
        turns += 1
    assert turns > 1000
    await subject.close()


async def test_what_an_agent_that_died_left_is_found_and_wiped(tmp_path: Path) -> None:
    """Also a folder in the midst of being wiped, and one of a name that is used again at once."""
    fill(tmp_path, "job.0.1/a/b", ".over-0123456789abcdef/rest", "job.0.2/x", "stray file")
    subject = rooms(tmp_path)
    assert subject.open() == 4
    subject.make("job.0.1")
    await until_empty_but(tmp_path, "job.0.1")
    assert subject.unwiped_bytes == 0
    await subject.close()


async def test_a_workspace_that_stays_is_said_counts_as_used_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workspace, "RETRY_S", 0.05)
    monkeypatch.setattr(workspace, "_LOOK_S", 0.01)
    real_unlink = wiping._unlink
    stays = True

    def refuse(folder: int, name: str) -> None:
        if stays and name == "held":
            raise OSError(errno.EBUSY, "Device or resource busy", name)
        real_unlink(folder, name)

    monkeypatch.setattr(wiping, "_unlink", refuse)
    subject = rooms(tmp_path)
    subject.open()
    place = subject.make("job.0.1")
    (place / "held").write_bytes(b"x" * 100_000)
    fill(place, "free")
    await subject.discard(place, disk_bytes=5)
    stuck = subject.stuck()
    assert stuck is not None
    assert "1 workspace(s) of ended tasks cannot be removed yet" in render(stuck)
    assert "'held': Device or resource busy" in render(stuck)
    assert "不能删除" in render(stuck, "zh")
    assert 100_000 <= subject.unwiped_bytes < 200_000
    (left,) = tmp_path.iterdir()
    assert [path.name for path in left.iterdir()] == ["held"], "the rest is gone"
    assert caplog.text.count("could not be removed") == 1
    await asyncio.sleep(0.3)
    assert 100_000 <= subject.unwiped_bytes < 200_000, "tried again, and not counted twice"
    assert caplog.text.count("could not be removed") == 1, "said once"
    stays = False
    async with asyncio.timeout(60):
        while subject.unwiped_bytes:
            await asyncio.sleep(0.01)
    assert subject.stuck() is None
    assert list(tmp_path.iterdir()) == []
    await subject.close()


async def test_what_cannot_be_removed_by_the_thousand_is_given_up_soon(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, *(f"held{number}" for number in range(3000)))
    tried = 0

    def refuse(_folder: int, name: str) -> None:
        nonlocal tried
        tried += 1
        raise OSError(errno.EBUSY, "Device or resource busy", name)

    monkeypatch.setattr(wiping, "_unlink", refuse)
    assert Wiping(folder).step(300) == "stuck"
    assert tried < 1500


async def test_an_agent_that_stops_does_not_wait_for_the_wiping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "_AT_ONCE", 1)
    monkeypatch.setattr(workspace, "_PAUSE_S", 1000.0)
    subject = rooms(tmp_path)
    subject.open()
    place = subject.make("job.0.1")
    fill(place, *(f"{number}" for number in range(1000)))
    await subject.discard(place)
    began_s = time.monotonic()
    await subject.close()
    assert time.monotonic() - began_s < 500
    later = rooms(tmp_path)
    monkeypatch.setattr(workspace, "_AT_ONCE", 10_000)
    assert later.open() == 1
    assert list(tmp_path.iterdir()) == []


async def test_disk_that_is_not_free_yet_is_not_lent_and_the_owner_is_told(tmp_path: Path) -> None:
    class Full:
        unwiped_bytes = 300
        told = reason("agent.unwiped", count=1, detail="held")

        def stuck(self) -> Reason | None:
            return self.told

    full = Full()
    owner = OwnerState(lent=True, lent_jobs=None, reason=reason("node.available"), memory_short=False)
    lent = Availability(lending="available", owner=owner, reasons=(), only_jobs=None)
    limits = Limits(total=Resources(cpus=2, disk_bytes=1000), vacate_after_s=60, grace_s=5)
    shop = cast("Any", SimpleNamespace(workspaces=full, trouble=Trouble(), environments=None))
    runner = Runner(shop, limits, lent, on_change=lambda: None)
    assert runner.offer().free == Resources(cpus=2, disk_bytes=700)
    shop.environments = SimpleNamespace(grown_bytes=500)
    assert runner.offer().free == Resources(cpus=2, disk_bytes=200), "what environments take counts as well"
    assert runner.troubles() == (full.told,)
    full.unwiped_bytes = 2000
    assert runner.offer().free == Resources(cpus=2, disk_bytes=0)
