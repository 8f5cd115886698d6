"""Whom root's guests are, and what of the agent's folders becomes theirs."""

import os
import stat
import sys
import tempfile
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("whom guests are is settled on Linux alone", allow_module_level=True)

from idle_accelerator.agent.sandbox import guest_user
from idle_accelerator.agent.sandbox.types import NoSandbox

SOMEBODY = guest_user.GuestUser(name="somebody", uid=61_999, gid=61_998)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone may give files away")


def test_an_agent_that_is_no_root_lets_its_guests_be_its_own_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_user.os, "geteuid", lambda: 1000)
    assert guest_user.find() is None


def test_roots_guests_are_a_user_by_name_or_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_user.os, "geteuid", lambda: 0)
    monkeypatch.setenv(guest_user.VARIABLE, "nobody")
    found = guest_user.find()
    assert found is not None
    assert (found.name, found.uid > 0) == ("nobody", True)
    monkeypatch.setenv(guest_user.VARIABLE, "61999")
    assert guest_user.find() == guest_user.GuestUser(name="61999", uid=61_999, gid=61_999)
    monkeypatch.setenv(guest_user.VARIABLE, "root")
    with pytest.raises(NoSandbox, match="names root"):
        guest_user.find()


@as_root
def test_a_workspace_is_handed_over_whole_and_nothing_that_its_links_point_to(tmp_path: Path) -> None:
    outside, workspace = tmp_path / "outside", tmp_path / "workspace"
    outside.mkdir()
    (outside / "file").write_text("the owner's")
    (workspace / "deep").mkdir(parents=True)
    (workspace / "deep" / "file").write_text("the task's")
    (workspace / "link").symlink_to(outside / "file")
    (workspace / "folder").symlink_to(outside)
    guest_user.hand_over(workspace, SOMEBODY)
    for path in (workspace, *workspace.rglob("*")):
        assert (path.lstat().st_uid, path.lstat().st_gid) == (SOMEBODY.uid, SOMEBODY.gid), path
    assert outside.stat().st_uid == (outside / "file").stat().st_uid == 0


@as_root
def test_the_guests_group_may_pass_to_a_workspace_and_read_nothing_on_the_way(tmp_path: Path) -> None:
    data = tmp_path / "data"
    workspace = data / "work" / "one"
    workspace.mkdir(parents=True)
    before = tmp_path.stat().st_mode
    guest_user.let_pass(workspace, data, SOMEBODY)
    for folder in (data, data / "work"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o710
        assert (folder.stat().st_uid, folder.stat().st_gid) == (0, SOMEBODY.gid)
    assert tmp_path.stat().st_mode == before, "what is above the agent's folder is its owner's affair"


def test_a_folder_through_which_the_guests_may_not_pass_is_named() -> None:
    with tempfile.TemporaryDirectory() as name:  # what is above pytest's own folders is closed
        open_ = Path(name).resolve()
        closed = open_ / "closed"
        (closed / "data").mkdir(parents=True)
        open_.chmod(0o755)
        closed.chmod(0o700)
        assert guest_user.closed_to(closed / "data", SOMEBODY) == closed
        closed.chmod(0o711)
        (closed / "data").chmod(0o711)
        assert guest_user.closed_to(closed / "data", SOMEBODY) is None
