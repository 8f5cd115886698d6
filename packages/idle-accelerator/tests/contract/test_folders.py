"""Folders of strangers: both ways of opening below one keep the same promises."""

import errno
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from idle_accelerator.agent.folders import Folder, open_folder, openat2

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="descriptors and links as POSIX has them")
AWAY = {errno.ELOOP, errno.ENOTDIR}


@pytest.fixture(params=["openat2", "components"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "components":
        monkeypatch.setattr(openat2, "is_available", lambda: False)
    elif not openat2.is_available():
        pytest.skip("this kernel has no openat2")
    return request.param


@pytest.fixture
def owner(tmp_path: Path) -> Path:
    """What belongs to the owner of the machine."""
    place = tmp_path / "owner"
    (place / "folder").mkdir(parents=True)
    (place / "secret").write_text("secret")
    (place / "folder" / "secret").write_text("secret")
    return place


@pytest.fixture
def work(tmp_path: Path) -> Path:
    place = tmp_path / "work"
    (place / "a" / "b").mkdir(parents=True)
    (place / "a" / "b" / "file").write_text("mine")
    return place


@pytest.fixture
def folder(way: str, work: Path) -> Folder:
    return open_folder(work)


def test_what_lies_below_is_opened_and_read(folder: Folder) -> None:
    with folder.file("a/b/file") as file:
        assert file.readall() == b"mine"
    with folder.folder("a") as below, below.file("b/file") as file:
        assert file.readall() == b"mine"
    with folder.folder("a/b") as below, below.entries() as entries:
        (entry,) = entries
        assert (entry.name, entry.is_file, entry.is_folder, entry.is_link) == ("file", True, False, False)


@pytest.mark.parametrize(
    "path",
    ["..", "../owner/secret", "a/../../owner/secret", "a/..", ".", "", "a//b", "/etc/passwd", "a/b/", "a\0b"],
)
def test_a_path_never_leads_up_or_out(folder: Folder, owner: Path, path: str) -> None:
    for step in (folder.file, folder.folder, folder.create, folder.unlink):
        with pytest.raises(OSError) as refused:
            step(path)
        assert refused.value.errno == errno.EINVAL


def test_a_link_is_followed_in_no_place_of_a_path(folder: Folder, work: Path, owner: Path) -> None:
    (work / "file").symlink_to(owner / "secret")
    (work / "folder").symlink_to(owner / "folder")
    (work / "inside").symlink_to("a")
    (work / "a" / "up").symlink_to("../../owner")
    (work / "magic").symlink_to(f"/proc/self/fd/{os.open(owner, os.O_RDONLY)}")
    for path in (
        "file",
        "folder",
        "folder/secret",
        "inside/b/file",
        "a/up/secret",
        "a/up/folder/secret",
        "magic",
        "magic/secret",
    ):
        for step in (folder.file, folder.folder):
            with pytest.raises(OSError) as refused:
                step(path)
            assert refused.value.errno in AWAY, path
    for path in ("file", "folder/new", "inside/new", "a/up/new", "magic/new"):
        with pytest.raises(OSError):
            folder.create(path)
    with pytest.raises(OSError):
        folder.unlink("folder/secret")
    assert sorted(path.name for path in owner.rglob("*")) == ["folder", "secret", "secret"]


def test_the_folder_itself_may_be_no_link(way: str, work: Path) -> None:
    (work.parent / "link").symlink_to(work)
    with pytest.raises(OSError) as refused:
        open_folder(work.parent / "link")
    assert refused.value.errno in AWAY


def test_a_new_file_stands_where_nothing_stood(folder: Folder, work: Path) -> None:
    folder.create("a/new")
    assert (work / "a" / "new").read_bytes() == b""
    (work / "dangling").symlink_to(work / "elsewhere")
    for path in ("a/new", "dangling", "a/b"):
        with pytest.raises(FileExistsError):
            folder.create(path)
    folder.unlink("a/new")
    folder.unlink("dangling")
    assert [path.name for path in work.iterdir()] == ["a"]


def test_opening_a_pipe_or_socket_waits_for_nobody(folder: Folder, work: Path) -> None:
    os.mkfifo(work / "pipe")
    done = threading.Event()

    def look() -> None:
        folder.file("pipe").close()
        done.set()

    threading.Thread(target=look, daemon=True).start()
    assert done.wait(60)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(work / "s"))
        with pytest.raises(OSError):
            folder.file("s")


def test_what_was_mounted_below_is_not_entered(way: str, work: Path, owner: Path) -> None:
    """In a namespace of its own, so that a test that dies leaves no mount behind."""
    program = f"""
import errno, subprocess, sys
from pathlib import Path
from idle_accelerator.agent.folders import open_folder, openat2
if {way!r} == "components":
    openat2.is_available = lambda: False
work, owner = map(Path, sys.argv[1:])
(work / "mounted").mkdir()
(work / "bound").touch()
subprocess.run(["mount", "--bind", owner, work / "mounted"], check=True)
subprocess.run(["mount", "--bind", owner / "secret", work / "bound"], check=True)
folder = open_folder(work)
for step, path in ((folder.folder, "mounted"), (folder.file, "mounted/secret"), (folder.file, "bound")):
    try:
        step(path)
    except OSError as error:
        assert error.errno == errno.EXDEV, (path, error)
    else:
        raise AssertionError(path)
print("refused")
"""
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may mount nothing here")
    done = subprocess.run(
        [*namespace, sys.executable, "-c", program, work, owner], capture_output=True, text=True, check=False
    )
    assert done.stdout == "refused\n", done.stderr


def test_nobody_swaps_a_folder_for_a_link_while_it_is_passed(way: str, work: Path, owner: Path) -> None:
    """A thread swaps as fast as it can; whatever is opened, it is never the owner's."""
    (owner / "b").mkdir()
    (owner / "b" / "file").write_text("secret")
    (work / "evil").symlink_to(owner)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (work / "a").rename(work / "aside")
            (work / "evil").rename(work / "a")
            (work / "a").rename(work / "evil")
            (work / "aside").rename(work / "a")

    swapping = threading.Thread(target=swap)
    swapping.start()
    read = refused = 0
    try:
        with open_folder(work) as folder:
            for _ in range(200_000):
                try:
                    with folder.file("a/b/file") as file:
                        assert file.readall() == b"mine"
                    read += 1
                except OSError:
                    refused += 1
                if read > 200 and refused > 200:
                    break
    finally:
        stop.set()
        swapping.join()
    assert read
    assert refused, "the swap was never met"


def test_a_closed_folder_leaves_no_descriptor(way: str, work: Path) -> None:
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(20):
        folder = open_folder(work)
        folder.folder("a/b").close()
        with folder, pytest.raises(OSError):
            folder.file("a/none/file")
        open_folder(work)  # nobody refers to it
    assert len(list(Path("/dev/fd").iterdir())) == before


@pytest.mark.skipif(sys.platform != "linux", reason="openat2 is Linux's")
def test_a_kernel_that_refuses_the_call_is_found_out_by_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under a filter of a container that answers EPERM to what it does not know."""

    def refused(*_: object) -> int:
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr(openat2, "open_beneath", refused)
    assert openat2.is_available.__wrapped__() is False
