"""Idle inhibitors as logind writes them down."""

import os
from pathlib import Path

import pytest

from idle_sense.platform.inhibitors import idle_inhibitors, parsed

FILE = """# This is private data. Do not parse.
WHAT={what}
MODE={mode}
UID=1000
PID=4711
WHO={who}
WHY={why}
FIFO=/run/systemd/inhibit/3.ref
"""


@pytest.mark.parametrize(
    ("what", "mode", "counts"),
    [
        ("idle", "block", True),
        ("sleep:idle", "block", True),
        ("idle:handle-lid-switch", "block-weak", True),
        ("idle", "delay", False),
        ("sleep", "block", False),
        ("shutdown:sleep", "block", False),
        ("handle-power-key", "block", False),
    ],
)
def test_only_what_blocks_idleness_counts(what: str, mode: str, counts: bool) -> None:
    found = parsed(FILE.format(what=what, mode=mode, who="mpv", why="playing"))
    assert (found is not None) is counts


@pytest.mark.parametrize(
    ("written", "who"),
    [
        ("mpv", "mpv"),
        ("My\\x20Player", "My Player"),
        ('"My\\\\x20Player"', "My Player"),
        ("\\303\\251t\\303\\251", "été"),
        ('a \\"film\\"', 'a "film"'),
        ("", "a program without name"),
    ],
)
def test_names_are_read_as_systemd_escapes_them(written: str, who: str) -> None:
    found = parsed(FILE.format(what="idle", mode="block", who=written, why="x"))
    assert found is not None
    assert (found.who, found.pid, found.uid) == (who, 4711, 1000)


def test_a_folder_is_read_and_noise_in_it_is_nobody(tmp_path: Path) -> None:
    (tmp_path / "1").write_text(FILE.format(what="idle", mode="block", who="mpv", why="film"))
    (tmp_path / "2").write_bytes(os.urandom(3000))
    (tmp_path / "3").write_text("")
    os.mkfifo(tmp_path / "1.ref")
    assert [one.who for one in idle_inhibitors(str(tmp_path))] == ["mpv"]
    assert idle_inhibitors(str(tmp_path / "none")) == ()
