"""Outputs: what patterns match, and that nothing of a stranger's tricks is ever taken along, nor what was fine lost by them."""

import asyncio
import contextlib
import hashlib
import os
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from io import FileIO
from pathlib import Path
from types import SimpleNamespace

import pytest

from idle_accelerator.agent import outputs
from idle_accelerator.agent.folders import Entry, openat2
from idle_accelerator.agent.folders.posix import PosixFolder
from idle_accelerator.agent.outputs import BYTES_LIMIT, Collected, OutputCaps, caps_for, collect_outputs
from idle_accelerator.errors import InvalidInput
from idle_accelerator.wire.jobs import Requirements
from idle_accelerator.wire.reasons import render

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="links and modes as POSIX has them")
root_only = pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="needs root")
MiB = 1 << 20


class Memory:
    """Keeps what it is sent. Refuses, as a scheduler does, what is not what its digest says."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.before_sending: Callable[[FileIO], None] = lambda _file: None

    async def store_bytes(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        self.kept[digest] = content
        return digest

    async def store_open(self, file: FileIO, digest: str, size_bytes: int) -> None:
        self.before_sending(file)
        file.seek(0)
        content = file.read(size_bytes)
        if hashlib.sha256(content).hexdigest() != digest:
            raise InvalidInput("the content is not what was announced.", field="digest")
        self.kept[digest] = content


@pytest.fixture(params=["openat2", "components"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "components":
        monkeypatch.setattr(openat2, "is_available", lambda: False)
    elif not openat2.is_available():
        pytest.skip("this kernel has no openat2")
    return request.param


@pytest.fixture
def keeper() -> Memory:
    return Memory()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    place = tmp_path / "workspace"
    place.mkdir()
    return place


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the owner's."""
    place = tmp_path / "owner"
    place.mkdir()
    (place / "secret.txt").write_text("secret")
    return place


def fill(workspace: Path, *names: str) -> None:
    for name in names:
        path = workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")


async def once(keep: Callable[[], Awaitable[str]]) -> str:
    return await keep()


async def collect(
    keeper: Memory, workspace: Path, *patterns: str, caps: OutputCaps | None = None
) -> Collected:
    return await collect_outputs(keeper, workspace, patterns, caps or OutputCaps(), patiently=once)


def taken(collected: Collected) -> list[str]:
    return [artifact.path for artifact in collected.artifacts]


def said(collected: Collected) -> str:
    assert collected.refused is not None
    assert render(collected.refused, "zh") != collected.refused.code
    return render(collected.refused)


async def test_patterns_match_as_a_shells_do(keeper: Memory, workspace: Path) -> None:
    fill(
        workspace,
        "a.png",
        "b.txt",
        "out/1.png",
        "out/deep/2.png",
        ".idle/stdout",
        "out/.hidden.png",
        "x[1].png",
    )

    async def found(*patterns: str) -> list[str]:
        return taken(await collect(keeper, workspace, *patterns))

    assert await found("*.png") == ["a.png", "x[1].png"]
    assert await found("out/*.png") == ["out/1.png"]
    assert await found("**/*.png") == ["a.png", "out/1.png", "out/deep/2.png", "x[1].png"]
    assert await found("out/**") == ["out/1.png", "out/deep/2.png"]
    assert await found("[!b].???") == ["a.png"]
    assert await found("out/.hidden*") == ["out/.hidden.png"]


async def test_what_is_found_is_kept_under_its_digest_once_and_in_order(
    keeper: Memory, workspace: Path
) -> None:
    fill(workspace, "b/2", "a", "b/1")
    (workspace / "large").write_bytes(b"x" * MiB)
    (workspace / "empty").write_bytes(b"")
    collected = await collect(keeper, workspace, "**", "b/*", "a")
    assert collected.refused is None
    assert taken(collected) == ["a", "b/1", "b/2", "empty", "large"]
    assert [keeper.kept[artifact.digest] for artifact in collected.artifacts] == [
        b"a",
        b"b/1",
        b"b/2",
        b"",
        b"x" * MiB,
    ]
    assert [artifact.size_bytes for artifact in collected.artifacts] == [1, 3, 3, 0, MiB]


async def test_a_pattern_without_a_match_is_said(keeper: Memory, workspace: Path) -> None:
    fill(workspace, "a")
    collected = await collect(keeper, workspace, "nothing/*.png", "a")
    assert said(collected) == "an output was not collected: nothing matches 'nothing/*.png'"
    assert taken(collected) == ["a"]


@posix_only
async def test_links_are_neither_followed_nor_taken(keeper: Memory, workspace: Path, secret: Path) -> None:
    fill(workspace, "real.txt", "sub/inner.txt")
    (workspace / "file.txt").symlink_to(secret / "secret.txt")
    (workspace / "folder").symlink_to(secret)
    (workspace / "sub" / "up").symlink_to("../../owner")
    (workspace / "inside.txt").symlink_to("real.txt")
    os.link(secret / "secret.txt", workspace / "hard.txt")
    collected = await collect(keeper, workspace, "*.txt", "folder/*", "sub/up/*", "**/*.txt")
    assert taken(collected) == ["real.txt", "sub/inner.txt"]
    assert b"secret" not in keeper.kept.values()
    sentence = said(collected)
    for what in (
        "file.txt is a link",
        "folder is a link",
        "sub/up is a link",
        "hard.txt has more than one name",
    ):
        assert what in sentence


@posix_only
async def test_a_link_in_place_of_the_workspace_gives_nothing(
    keeper: Memory, workspace: Path, secret: Path
) -> None:
    workspace.rmdir()
    workspace.symlink_to(secret)
    collected = await collect(keeper, workspace, "**")
    assert taken(collected) == []
    assert "cannot be read" in said(collected)
    workspace.unlink()
    assert "cannot be read" in said(await collect(keeper, workspace, "**"))


@posix_only
async def test_pipes_and_sockets_are_no_outputs(keeper: Memory, workspace: Path) -> None:
    fill(workspace, "fine.txt")
    os.mkfifo(workspace / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(workspace / "s.txt"))
        collected = await collect(keeper, workspace, "*.txt")
    assert taken(collected) == ["fine.txt"]
    assert "pipe.txt is a pipe, a socket or a device" in said(collected)
    assert "s.txt is a pipe, a socket or a device" in said(collected)


@posix_only
async def test_what_is_no_file_is_not_even_opened(
    keeper: Memory, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening a device may do something."""
    fill(workspace, "fine.txt")
    os.mkfifo(workspace / "pipe.txt")
    opened: list[str] = []
    real_file = PosixFolder.file

    def noted(folder: PosixFolder, path: str) -> FileIO:
        opened.append(path)
        return real_file(folder, path)

    monkeypatch.setattr(PosixFolder, "file", noted)
    await collect(keeper, workspace, "*.txt")
    assert opened == ["fine.txt"]


@posix_only
async def test_what_was_a_file_when_it_was_seen_and_is_none_when_it_is_opened_is_refused(
    keeper: Memory, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(workspace / "pipe.txt")

    @contextlib.contextmanager
    def entries(_folder: PosixFolder) -> Iterator[Iterator[Entry]]:
        yield iter([Entry("pipe.txt", is_folder=False, is_link=False, is_file=True)])

    monkeypatch.setattr(PosixFolder, "entries", entries)
    collected = await collect(keeper, workspace, "*.txt")
    assert taken(collected) == []
    assert "pipe.txt is a pipe, a socket or a device" in said(collected)


@root_only
async def test_devices_and_files_of_others_are_no_outputs(keeper: Memory, workspace: Path) -> None:
    fill(workspace, "fine.txt", "foreign.txt")
    os.chown(workspace / "foreign.txt", 12345, 12345)
    try:
        os.mknod(workspace / "zero.txt", 0o20600, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("this root may make no devices")
    collected = await collect(keeper, workspace, "*.txt")
    assert taken(collected) == ["fine.txt"]
    assert "zero.txt is a pipe, a socket or a device" in said(collected)
    assert "foreign.txt belongs to another user" in said(collected)


@posix_only
@pytest.mark.parametrize(
    "name",
    [
        "new\nline.txt",
        "tab\t.txt",
        "bell\x07.txt",
        "back\\slash.txt",
        "not-utf8-\udcff.txt",
        "turned\u202etxt.txt",
        "line\u2028.txt",
        "dot.txt.",
        "space.txt ",
        "con.txt",
        "LPT1.txt",
        "c:.txt",
    ],
)
async def test_a_name_that_not_every_system_stores_is_refused_and_said(
    keeper: Memory, workspace: Path, name: str
) -> None:
    fill(workspace, "fine.txt")
    try:
        (workspace / name).write_text("x", encoding="utf-8")
    except OSError:
        pytest.skip("this file system does not store it")
    collected = await collect(keeper, workspace, "*.txt*")
    assert taken(collected) == ["fine.txt"]
    assert "not every system stores" in said(collected)
    assert said(collected).isprintable()
    said(collected).encode()


@posix_only
async def test_any_other_name_is_taken(keeper: Memory, workspace: Path) -> None:
    names = [
        "-rf",
        "*",
        "x" * 255,
        "😀👩\u200d🔬.png",
        "文件.txt",
        "é",
        "a b",
        "$(id)",
        "'\"",
        "~",
        "console.txt",
    ]
    for name in names:
        (workspace / name).write_text("x", encoding="utf-8")
    collected = await collect(keeper, workspace, "*")
    assert taken(collected) == sorted(names)
    assert collected.refused is None


@posix_only
async def test_a_path_over_the_limit_is_refused(keeper: Memory, workspace: Path) -> None:
    fill(workspace, "/".join(["y" * 100] * 9 + ["z" * 91]), "/".join(["y" * 100] * 9 + ["z" * 92]))
    collected = await collect(keeper, workspace, "**")
    assert [len(path) for path in taken(collected)] == [1000]
    assert "is longer than 1000 characters: shorten it" in said(collected)


@posix_only
async def test_a_folder_deeper_than_the_limit_is_not_entered(keeper: Memory, workspace: Path) -> None:
    fill(workspace, "top", "d/" * 64 + "in", "d/" * 65 + "out")
    collected = await collect(keeper, workspace, "**")
    assert taken(collected) == ["d/" * 64 + "in", "top"]
    assert "is a folder deeper than 64 others: pack" in said(collected)


@posix_only
async def test_a_tree_of_any_depth_ends_at_the_limit(keeper: Memory, workspace: Path) -> None:
    descriptor = os.open(workspace, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    collected = await collect(keeper, workspace, "**/x")
    assert taken(collected) == []
    assert "deeper than 64" in said(collected)


async def test_more_files_than_the_limit_are_said_and_the_first_are_kept(
    keeper: Memory, workspace: Path
) -> None:
    fill(workspace, *(f"out/{number:02}" for number in range(12)))
    collected = await collect(keeper, workspace, "out/*", "late", caps=OutputCaps(files=10))
    assert taken(collected) == [f"out/{number:02}" for number in range(10)]
    assert said(collected) == (
        "an output was not collected: out/10 and what comes after it is over the limit of 10 files: pack them into one"
    )


async def test_twenty_thousand_files_are_searched_and_the_limit_holds(
    keeper: Memory, workspace: Path
) -> None:
    (workspace / "many").mkdir()
    for number in range(20_000):
        (workspace / "many" / f"{number:05}").touch()
    collected = await collect(keeper, workspace, "many/*")
    assert taken(collected) == [f"many/{number:05}" for number in range(10_000)]
    assert "over the limit of 10000 files" in said(collected)


async def test_a_search_without_end_is_ended(keeper: Memory, workspace: Path) -> None:
    fill(workspace, "a", *(f"m/{number}" for number in range(30)), "z/fine")
    collected = await collect(keeper, workspace, "**/fine", "a", caps=OutputCaps(looks=10))
    assert taken(collected) == ["a"]
    assert said(collected).startswith(
        "an output was not collected: the search ended in m/ at the limit of 10 names"
    )


async def test_sizes_over_the_limits_are_refused_and_the_rest_is_kept(
    keeper: Memory, workspace: Path
) -> None:
    for name, size in (("a", 600), ("b", 2000), ("c", 600), ("d", 300)):
        (workspace / name).write_bytes(name.encode() * size)
    collected = await collect(keeper, workspace, "*", caps=OutputCaps(file_bytes=1500, total_bytes=1000))
    assert taken(collected) == ["a", "d"]
    assert "b is of 2.0 KiB, over the limit of 1.5 KiB for a file: split it, or ask for more disk" in said(
        collected
    )
    assert "with c all outputs would be over the limit of 1000 B" in said(collected)


@posix_only
async def test_a_sparse_file_counts_by_its_apparent_size(keeper: Memory, workspace: Path) -> None:
    with (workspace / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    fill(workspace, "fine")
    collected = await collect(keeper, workspace, "*")
    assert taken(collected) == ["fine"]
    assert "sparse is of 1.0 TiB, over the limit of 64.0 GiB" in said(collected)


def test_a_task_may_leave_as_much_as_the_disk_that_it_asked_for() -> None:
    assert caps_for(Requirements(disk_bytes=MiB)).file_bytes == MiB
    assert caps_for(Requirements(disk_bytes=MiB)).total_bytes == MiB
    assert caps_for(Requirements()).total_bytes == BYTES_LIMIT


@posix_only
async def test_what_may_not_be_read_is_said(keeper: Memory, workspace: Path) -> None:
    fill(workspace, "closed", "locked/x", "fine")
    (workspace / "closed").chmod(0)
    (workspace / "locked").chmod(0)
    try:
        collected = await collect(keeper, workspace, "**")
    finally:
        (workspace / "locked").chmod(0o700)
    if os.geteuid() == 0:
        assert taken(collected) == ["closed", "fine", "locked/x"]
    else:
        assert taken(collected) == ["fine"]
        assert "closed cannot be read (Permission denied)" in said(collected)
        assert "locked cannot be read (Permission denied)" in said(collected)


async def test_of_many_refusals_the_first_are_told_and_the_rest_counted(
    keeper: Memory, workspace: Path
) -> None:
    collected = await collect(keeper, workspace, *(f"none{number}" for number in range(8)))
    assert said(collected).endswith("nothing matches 'none4'; and 3 more")


async def test_a_file_that_grows_while_it_is_sent_is_refused(keeper: Memory, workspace: Path) -> None:
    (workspace / "large").write_bytes(b"x" * MiB)
    fill(workspace, "fine")

    def write(file: FileIO) -> None:
        with (workspace / "large").open("r+b") as other:
            other.write(b"changed")

    keeper.before_sending = write
    collected = await collect(keeper, workspace, "*")
    assert taken(collected) == ["fine"]
    assert "large was still written to while it was read" in said(collected)


async def test_a_short_file_that_grows_after_it_was_looked_at_is_refused(
    keeper: Memory, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(workspace, "fine")
    (workspace / "growing").write_bytes(b"12345")

    def look_and_grow(descriptor: int) -> os.stat_result:
        status = os.fstat(descriptor)
        if status.st_size == 5:
            with (workspace / "growing").open("ab") as file:
                file.write(b"6")
        return status

    monkeypatch.setattr(outputs, "os", SimpleNamespace(fstat=look_and_grow))
    collected = await collect(keeper, workspace, "*")
    assert taken(collected) == ["fine"]
    assert "growing was still written to while it was read" in said(collected)


@posix_only
async def test_files_that_grow_all_the_time_end_the_reading(keeper: Memory, workspace: Path) -> None:
    """A writer that escaped appends as fast as it can: each file is taken as it was, or refused; none is read without end."""
    stop = threading.Event()
    (workspace / "large").write_bytes(b"x" * MiB)

    def grow() -> None:
        with (workspace / "large").open("ab") as large, (workspace / "small").open("ab") as small:
            while not stop.is_set():
                for file in (large, small):
                    if file.tell() > 4 * MiB:
                        file.truncate(MiB)
                    file.write(b"y" * 4096)
                    file.flush()

    growing = threading.Thread(target=grow)
    growing.start()
    try:
        for _ in range(20):
            collected = await collect(keeper, workspace, "*")
            for artifact in collected.artifacts:
                assert len(keeper.kept[artifact.digest]) == artifact.size_bytes
            keeper.kept.clear()
    finally:
        stop.set()
        growing.join()


@posix_only
async def test_no_foreign_byte_is_sent_whatever_is_swapped_meanwhile(
    keeper: Memory, workspace: Path, secret: Path
) -> None:
    """A thread swaps files, and folders on the way to them, for links and hard links to the owner's as fast as it can."""
    fill(workspace, "file.txt", "folder/secret.txt")
    (workspace / "file.txt").write_text("mine")
    (workspace / "folder" / "secret.txt").write_text("mine")
    (workspace / ".evil").mkdir()
    (workspace / ".evil" / "file").symlink_to(secret / "secret.txt")
    (workspace / ".evil" / "folder").symlink_to(secret)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for name, evil in (("file.txt", "file"), ("folder", "folder")):
                place, aside, link = workspace / name, workspace / ".aside", workspace / ".evil" / evil
                place.rename(aside)
                link.rename(place)
                place.rename(link)
                os.link(secret / "secret.txt", workspace / "hard.txt")
                (workspace / "hard.txt").unlink()
                aside.rename(place)

    swapping = threading.Thread(target=swap)
    swapping.start()
    refused = took = 0
    deadline = time.monotonic() + 120
    try:
        while (refused < 50 or took < 50) and time.monotonic() < deadline:
            collected = await collect(keeper, workspace, "file.txt", "folder/*.txt", "hard.txt")
            took += len(collected.artifacts)
            refused += collected.refused is not None
    finally:
        stop.set()
        swapping.join()
    assert took >= 50
    assert refused >= 50, "the swap was never met"
    assert set(keeper.kept.values()) == {b"mine"}


@posix_only
async def test_nothing_stays_open(keeper: Memory, workspace: Path) -> None:
    fill(workspace, *(f"{number}/file" for number in range(40)))
    (workspace / "large").write_bytes(b"x" * MiB)
    await collect(keeper, workspace, "**")
    before = len(list(Path("/dev/fd").iterdir()))
    await collect(keeper, workspace, "**")

    async def broken(_keep: Callable[[], Awaitable[str]]) -> str:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await collect_outputs(keeper, workspace, ["**"], OutputCaps(), patiently=broken)
    with pytest.raises(asyncio.CancelledError):
        await collect_outputs(keeper, workspace, ["large"], OutputCaps(), patiently=broken)
    assert len(list(Path("/dev/fd").iterdir())) == before


async def test_a_scheduler_that_is_away_is_waited_for_with_the_file_still_open(
    keeper: Memory, workspace: Path
) -> None:
    """What was looked at is what is sent, also at the second try; whatever has come to stand under its name."""
    (workspace / "large").write_bytes(b"x" * MiB)
    tries = 0

    async def twice(keep: Callable[[], Awaitable[str]]) -> str:
        nonlocal tries
        await keep()
        keeper.kept.clear()
        (workspace / "large").unlink()
        (workspace / "large").write_bytes(b"y" * MiB)
        tries += 1
        return await keep()

    collected = await collect_outputs(keeper, workspace, ["*"], OutputCaps(), patiently=twice)
    assert tries == 1
    assert [keeper.kept[artifact.digest] for artifact in collected.artifacts] == [b"x" * MiB]
