"""The folder between two calls: what was there first stays, all else goes, and nothing outside is touched."""

import os
import time
from pathlib import Path

import pytest

from idle_accelerator.agent.workloads import places
from idle_accelerator.agent.workloads.inside.folder import Folder


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    path = tmp_path / "workspace"
    (path / "in" / "deep").mkdir(parents=True)
    (path / "in" / "a").write_text("a")
    (path / "in" / "deep" / "b").write_text("b")
    (path / "top").write_text("top")
    places.make(path)
    return path


def tree(path: Path) -> set[str]:
    return {str(one.relative_to(path)) for one in path.rglob("*")}


def test_what_a_call_left_goes_and_what_was_there_stays(workspace: Path):
    before = tree(workspace)
    folder = Folder(str(workspace))
    for _ in range(3):
        (workspace / "new" / "deeper").mkdir(parents=True)
        (workspace / "new" / "deeper" / "file").write_text("x")
        (workspace / "in" / "deep" / "left").write_text("x")
        (workspace / "in" / "link").symlink_to("/")
        (places.temporary_dir(workspace) / "t").write_text("x")
        (places.checkpoint_dir(workspace) / "step-1").mkdir()
        folder.clean()
        assert tree(workspace) == before


def test_a_change_after_many_clean_calls_is_seen(workspace: Path):
    before = tree(workspace)
    folder = Folder(str(workspace))
    for path in (workspace, workspace / "in", workspace / "in" / "deep"):
        os.utime(path, (time.time() - 100, time.time() - 100))
    folder.clean()
    (workspace / "in" / "deep" / "late").write_text("x")
    folder.clean()
    assert tree(workspace) == before


def test_our_own_files_and_caches_stay(workspace: Path):
    folder = Folder(str(workspace))
    (places.cache_dir(workspace) / "model").write_text("x")
    (workspace / places.OURS / places.RESULTS / places.result_name(0, 1)).write_text("x")
    folder.clean()
    assert (places.cache_dir(workspace) / "model").exists()
    assert (workspace / places.OURS / places.RESULTS / places.result_name(0, 1)).exists()


def test_a_folder_that_was_replaced_by_a_link_is_not_followed(workspace: Path, tmp_path: Path):
    folder = Folder(str(workspace))
    owners = tmp_path / "owners"
    (owners / "deep").mkdir(parents=True)
    (owners / "letter").write_text("dear")
    (owners / "deep" / "diary").write_text("dear")
    (workspace / "in").rename(workspace / "moved")
    (workspace / "in").symlink_to(owners)
    folder.clean()
    assert (owners / "letter").exists()
    assert (owners / "deep" / "diary").exists()
    assert not (workspace / "moved").exists()


def test_folders_that_a_call_removed_break_nothing(workspace: Path):
    folder = Folder(str(workspace))
    for name in ("in/deep/b", "in/a"):
        (workspace / name).unlink()
    (workspace / "in" / "deep").rmdir()
    (workspace / "in").rmdir()
    places.temporary_dir(workspace).rmdir()
    folder.clean()
    assert places.temporary_dir(workspace).is_dir()
    (workspace / "left").write_text("x")
    folder.clean()
    assert not (workspace / "left").exists()


def test_folders_without_rights_are_removed(workspace: Path):
    folder = Folder(str(workspace))
    closed = workspace / "closed"
    (closed / "inner").mkdir(parents=True)
    (closed / "inner" / "file").write_text("x")
    (closed / "inner").chmod(0)
    closed.chmod(0o500)
    workspace.chmod(0o500)
    folder.clean()
    assert not closed.exists()
