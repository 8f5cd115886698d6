"""Whose a terminal is: real pseudo-terminals of guests, of a terminal multiplexer within one, and of people."""

import contextlib
import os
import pty
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("these are Linux's terminals", allow_module_level=True)

from fake_bus import until

from idle_sense.platform.linux import Linux
from idle_sense.platform.terminals import Terminals
from idle_sense.probes.guests import GuestLedger

OPENS_A_TERMINAL = (
    "import pty, os, sys, time\n"
    "pid, main = pty.fork()\n"
    "if pid == 0: print(os.ttyname(0), flush=True); time.sleep(600)\n"
    "print(os.read(main, 100).decode().strip(), flush=True)\n"
    "time.sleep(600)\n"
)


@pytest.fixture
def shared_terminals() -> Terminals:
    return Terminals.linux(Linux())


def names(terminals: Terminals, guests: GuestLedger) -> set[str]:
    return {terminal.name for terminal in terminals.read(time.monotonic(), guests).value or ()}


@contextlib.contextmanager
def own_terminal() -> Iterator[str]:
    """One that a person, not a guest, opened."""
    main, line = pty.openpty()
    try:
        yield os.ttyname(line).removeprefix("/dev/")
    finally:
        os.close(main)
        os.close(line)


def watch(terminals: Terminals, guests: GuestLedger, seconds: float = 1.5) -> Iterator[set[str]]:
    """Looks as a monitor does, for as long as a new terminal may be undecided."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        yield names(terminals, guests)
        time.sleep(0.1)


def test_a_guests_terminal_never_counts_and_a_persons_does(shared_terminals: Terminals) -> None:
    terminals, guests = shared_terminals, GuestLedger()
    names(terminals, guests)
    guest = subprocess.Popen([sys.executable, "-c", OPENS_A_TERMINAL], stdout=subprocess.PIPE, text=True)
    assert guest.stdout is not None
    guests.add(guest.pid)
    try:
        theirs = guest.stdout.readline().strip().removeprefix("/dev/")
        assert theirs.startswith("pts/")
        with own_terminal() as ours:
            assert all(theirs not in seen for seen in watch(terminals, guests))
            until(lambda: ours in names(terminals, guests))
    finally:
        guest.kill()
        guest.communicate(timeout=30)


def test_a_number_that_a_guest_gave_back_is_the_persons_who_got_it(shared_terminals: Terminals) -> None:
    """Terminals' numbers are used again at once."""
    terminals, guests = shared_terminals, GuestLedger()
    guest = subprocess.Popen([sys.executable, "-c", OPENS_A_TERMINAL], stdout=subprocess.PIPE, text=True)
    assert guest.stdout is not None
    guests.add(guest.pid)
    theirs = guest.stdout.readline().strip().removeprefix("/dev/")
    names(terminals, guests)
    assert all(theirs not in seen for seen in watch(terminals, guests))
    guest.kill()
    guest.communicate(timeout=30)
    held: list[tuple[int, int]] = []
    try:
        until(lambda: not Path(f"/dev/{theirs}").exists())
        # Nobody looks in between: to the watch it is the same name all along.
        for _ in range(64):
            held.append(pty.openpty())
            if os.ttyname(held[-1][1]) == f"/dev/{theirs}":
                break
        else:
            pytest.skip("somebody else got the number")
        until(lambda: theirs in names(terminals, guests))
    finally:
        for pair in held:
            for one in pair:
                os.close(one)


@pytest.fixture
def group() -> Iterator[Path]:
    for base in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup/cpuacct")):
        made = base / f"idle-sense-{uuid.uuid4().hex[:8]}"
        if not (base / "cgroup.procs").exists():
            continue
        with contextlib.suppress(OSError):
            made.mkdir()
            yield made
            for pid in (made / "cgroup.procs").read_text().split():
                os.kill(int(pid), 9)
            until(lambda made=made: not (made / "cgroup.procs").read_text().split())
            made.rmdir()
            return
    pytest.skip("no control group may be made here")


def test_a_multiplexer_within_a_guests_group_never_counts(
    shared_terminals: Terminals, group: Path, tmp_path: Path
) -> None:
    """tmux's server leaves its parents behind; the group holds it all the same."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed (Debian: tmux)")
    terminals, guests = shared_terminals, GuestLedger()
    guests.add_cgroup(group)
    before = names(terminals, guests)
    words = f"echo $$ > {group}/cgroup.procs && exec tmux -S {tmp_path}/tmux new-session -d 'tty > {tmp_path}/tty; sleep 600'"
    subprocess.run(["sh", "-c", words], check=True, timeout=60)
    until(lambda: (tmp_path / "tty").exists() and (tmp_path / "tty").read_text().endswith("\n"))
    theirs = (tmp_path / "tty").read_text().strip().removeprefix("/dev/")
    assert theirs not in before
    assert all(theirs not in seen for seen in watch(terminals, guests))
    # Without the group nobody would know.
    until(lambda: theirs in names(Terminals.linux(Linux()), GuestLedger()))


def test_a_terminal_tells_whose_it_is(shared_terminals: Terminals) -> None:
    with own_terminal() as ours:
        found = shared_terminals.read(time.monotonic(), GuestLedger()).value or ()
        (terminal,) = (terminal for terminal in found if terminal.name == ours)
        import pwd

        assert terminal.user == pwd.getpwuid(Path(f"/dev/{ours}").stat().st_uid).pw_name
        assert terminal.host == ""
