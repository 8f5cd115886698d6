"""Outputs: what patterns match, what is never taken along, and that wiped means gone."""

import os
import sys
from pathlib import Path

import pytest

from idle_accelerator.agent.workspace import find_outputs, wipe

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="links and modes as POSIX has them")


def fill(workspace: Path, *names: str) -> None:
    for name in names:
        path = workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")


def found(workspace: Path, *patterns: str) -> list[str]:
    return [path for path, _ in find_outputs(workspace, patterns).files]


def test_patterns_match_as_a_shells_do(tmp_path: Path) -> None:
    fill(
        tmp_path,
        "a.png",
        "b.txt",
        "out/1.png",
        "out/deep/2.png",
        ".idle/stdout",
        "out/.hidden.png",
        "x[1].png",
    )
    assert found(tmp_path, "*.png") == ["a.png", "x[1].png"]
    assert found(tmp_path, "out/*.png") == ["out/1.png"]
    assert found(tmp_path, "**/*.png") == ["a.png", "out/1.png", "out/deep/2.png", "x[1].png"]
    assert found(tmp_path, "out/**") == ["out/1.png", "out/deep/2.png"]
    assert found(tmp_path, "[!b].???") == ["a.png"]
    assert found(tmp_path, "out/.hidden*") == ["out/.hidden.png"]


def test_a_pattern_without_a_match_is_said(tmp_path: Path) -> None:
    assert find_outputs(tmp_path, ["nothing/*.png"]).refused == "nothing matches 'nothing/*.png'"


@posix_only
def test_links_are_neither_followed_nor_taken(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    fill(secret, "owner.txt")
    workspace = tmp_path / "workspace"
    fill(workspace, "real.txt")
    (workspace / "file.txt").symlink_to(secret / "owner.txt")
    (workspace / "folder").symlink_to(secret)
    os.link(secret / "owner.txt", workspace / "hard.txt")
    outputs = find_outputs(workspace, ["*.txt", "folder/*", "**/*.txt"])
    assert [path for path, _ in outputs.files] == ["real.txt"]
    assert outputs.refused is not None


@posix_only
@pytest.mark.parametrize("name", ["new\nline.txt", "tab\t.txt", "back\\slash.txt", "not-utf8-\udcff.txt"])
def test_a_name_that_no_system_takes_is_refused_and_said(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x", encoding="utf-8")
    outputs = find_outputs(tmp_path, ["*.txt"])
    assert outputs.files == ()
    assert outputs.refused is not None
    assert outputs.refused.isascii()


@posix_only
def test_pipes_and_sockets_are_no_outputs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    outputs = find_outputs(tmp_path, ["*.txt"])
    assert outputs.files == ()
    assert outputs.refused == "pipe.txt is no regular file"


@posix_only
def test_wiping_needs_no_rights_that_the_task_took_away(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    fill(folder, "locked/inside/file.txt", "plain.txt")
    (folder / "locked" / "inside").chmod(0)
    (folder / "locked").chmod(0)
    wipe(folder)
    assert not folder.exists()


@posix_only
def test_wiping_does_not_follow_links(tmp_path: Path) -> None:
    fill(tmp_path / "owner", "keep.txt")
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "owner")
    wipe(folder)
    assert (tmp_path / "owner" / "keep.txt").exists()
