"""States of sound cards' streams, as the kernel writes them."""

from pathlib import Path

import pytest

from idle_sense.platform.alsa import Cards, Stream, owner

RUNNING = """state: RUNNING
owner_pid   : {pid}
trigger_time: 13402.116511207
tstamp      : 0.000000000
delay       : 1088
avail       : 15296
avail_max   : 15296
-----
hw_ptr      : 1027072
appl_ptr    : 1028160
"""


def stream(folder: Path, name: str, status: str) -> Path:
    path = folder / name / "status"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(status)
    return path


@pytest.mark.parametrize(
    ("status", "pid"),
    [
        (RUNNING.format(pid=4711), 4711),
        (RUNNING.format(pid=0), 0),
        (RUNNING.format(pid=9).replace("RUNNING", "DRAINING"), 9),
        (RUNNING.format(pid=9).replace("RUNNING", "XRUN"), 9),
        (RUNNING.format(pid=9).replace("RUNNING", "PREPARED"), None),
        (RUNNING.format(pid=9).replace("RUNNING", "SUSPENDED"), None),
        ("state: RUNNING\n", 0),
        ("closed\n", None),
        ("", None),
        ("\x00\xff garbage owner_pid : x", None),
    ],
)
def test_a_stream_is_in_use_when_sound_moves(status: str, pid: int | None) -> None:
    assert owner(status.encode("latin-1")) == pid


def test_cards_streams_are_found_with_what_they_do(tmp_path: Path) -> None:
    stream(tmp_path, "card0/pcm0c/sub0", RUNNING.format(pid=7))
    stream(tmp_path, "card0/pcm0p/sub0", "closed\n")
    stream(tmp_path, "card0/pcm3p/sub1", RUNNING.format(pid=8))
    stream(tmp_path, "card1/pcm0c/sub0", "closed\n")
    (tmp_path / "cards").write_text("0 [PCH]\n")
    cards = Cards(str(tmp_path))
    assert cards.here
    cards.look_around()
    assert cards.number == 4
    assert cards.running() == (
        Stream("card0 pcm0c", capture=True, pid=7),
        Stream("card0 pcm3p", capture=False, pid=8),
    )


def test_a_card_that_is_unplugged_is_gone(tmp_path: Path) -> None:
    path = stream(tmp_path, "card1/pcm0c/sub0", RUNNING.format(pid=7))
    cards = Cards(str(tmp_path))
    cards.look_around()
    assert cards.running()
    path.unlink()
    assert cards.running() == ()


def test_a_machine_without_sound_has_no_cards(tmp_path: Path) -> None:
    cards = Cards(str(tmp_path / "none"))
    assert not cards.here
    cards.look_around()
    assert cards.running() == ()
    assert not Cards(str(tmp_path)).here, "a folder without cards, as containers have it"
