"""Records of who is logged in, in both layouts that glibc knows."""

import os
import random
import struct
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("Windows has no utmp", allow_module_level=True)

from idle_sense.platform import utmp
from idle_sense.platform.owners import Owner, Owners
from idle_sense.platform.programs import Accounts


def record(
    size: int, *, kind: int = 7, pid: int = 1, line: str = "", user: str = "", host: str = ""
) -> bytes:
    """struct utmp of <utmp.h>, for 32-bit (384 bytes) and 64-bit times (400)."""
    head = struct.pack("=h2xi32s4s32s256s", kind, pid, line.encode(), b"ts/0", user.encode(), host.encode())
    exit_status = struct.pack("=hh", 0, 0)
    times = "=iii4i20x" if size == 384 else "=qqq4i20x4x"
    whole = head + exit_status + struct.pack(times, 1, 1_700_000_000, 5, 1, 2, 3, 4)
    assert len(whole) == size
    return whole


@pytest.mark.parametrize("size", utmp.SIZES)
def test_logins_are_read_in_either_layout(size: int) -> None:
    raw = (
        record(size, kind=2, pid=0, line="~", user="reboot", host="6.1.0-amd64")
        + record(size, kind=6, pid=600, line="tty1", user="LOGIN")
        + record(size, pid=700, line="tty2", user="ada")
        + record(size, pid=800, line="pts/1", user="bob", host="10.0.0.5")
        + record(size, pid=801, line="pts/2", user="bob", host="tmux(4711).%0")
        + record(size, pid=802, line=":1", user="cy", host=":1")
        + record(size, kind=8, pid=900, line="pts/4", user="gone")
    )
    found = {login.line: login for login in utmp.parsed(raw)}
    assert list(found) == ["tty2", "pts/1", "pts/2", ":1"]
    assert [login.remote for login in found.values()] == [False, True, False, False]
    assert (found["pts/1"].user, found["pts/1"].host, found["pts/1"].pid) == ("bob", "10.0.0.5", 800)


@pytest.mark.parametrize("count", [24, 25, 50])
def test_a_file_of_a_length_that_fits_both_layouts_is_read_by_what_it_says(count: int) -> None:
    """25 records of 384 bytes are as long as 24 of 400."""
    for size in utmp.SIZES:
        raw = b"".join(record(size, pid=100 + n, line=f"pts/{n}", user="ada") for n in range(count))
        assert [login.pid for login in utmp.parsed(raw)] == [100 + n for n in range(count)]


def test_noise_and_torn_files_are_nobody() -> None:
    rolled = random.Random(7)
    for length in (0, 1, 383, 384, 400, 768, 9600):
        for login in utmp.parsed(rolled.randbytes(length)):
            assert login.line.isprintable()
    assert utmp.parsed(record(384, line="pts/1", user="ada")[:-1]) == ()


def test_a_record_whose_process_is_dead_is_nobody(tmp_path: Path) -> None:
    file = tmp_path / "utmp"
    file.write_bytes(
        record(384, pid=os.getpid(), line="pts/1", user="ada")
        + record(384, pid=2**22 + 5, line="pts/2", user="bob")
    )
    proc = tmp_path / "proc"
    (proc / str(os.getpid())).mkdir(parents=True)
    assert [login.user for login in utmp.logins(str(file), str(proc))] == ["ada"]
    assert utmp.logins(str(tmp_path / "none")) == ()


def test_a_terminal_belongs_to_whom_its_file_does_and_came_from_where_a_login_says(tmp_path: Path) -> None:
    accounts = tmp_path / "passwd"
    accounts.write_text("root:x:0:0::/root:/bin/sh\nada:x:1000:1000:Ada:/home/ada:/bin/sh\nnonsense\n")
    sessions = tmp_path / "sessions"
    sessions.mkdir()
    (sessions / "5").write_text("USER=bob\nTTY=pts/5\nREMOTE=1\nREMOTE_HOST=far.example\n")
    file = tmp_path / "utmp"
    file.write_bytes(record(384, pid=800, line="pts/1", user="ada", host="10.0.0.5"))
    (tmp_path / "proc" / "800").mkdir(parents=True)
    owners = Owners(
        sessions=str(sessions),
        utmp_path=str(file),
        proc=str(tmp_path / "proc"),
        accounts=Accounts(str(accounts)),
    )
    assert owners.of("pts/1", 1000) == Owner("ada", "10.0.0.5")
    assert owners.of("pts/5", 1001) == Owner("bob", "far.example")
    assert owners.of("pts/7", 1000) == Owner("ada", "")
    assert owners.of("pts/8", 4242) == Owner("uid 4242", "")


def test_an_account_that_is_made_later_is_known_then(tmp_path: Path) -> None:
    file = tmp_path / "passwd"
    file.write_text("root:x:0:0::/root:/bin/sh\n")
    accounts = Accounts(str(file))
    assert accounts.name(1000) == "uid 1000"
    file.write_text("root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n")
    assert (accounts.name(1000), accounts.home(1000)) == ("ada", "/home/ada")
    assert Accounts(str(tmp_path / "none")).name(0) == "uid 0"
