"""The history's file against real processes: killed in the midst of writing, and on a disk that is full."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from idle_sense.history import read_habits

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and limits are POSIX's")

WRITER = """
import sys
from datetime import datetime, timedelta
from pathlib import Path
from idle_sense.history import History
from idle_sense.types import Reason, Severity, State, Verdict

history = History(Path(sys.argv[1]))
now_s, local = 0.0, datetime.fromisoformat("2026-11-02T12:00")

def tell(state, code, severity, seconds):
    global now_s, local
    reasons = (Reason(code=code, severity=severity),)
    history.observe(Verdict(state=state, reasons=reasons, memory_short=False, since_s=0.0), now_s, local)
    now_s, local = now_s + seconds, local + timedelta(seconds=seconds)

def period():
    tell(State.IDLE, "idle.input", Severity.INFO, 900.0)
    tell(State.BUSY, "input.recent", Severity.HARD, 60.0)

"""

FOR_EVER = (
    WRITER
    + """
while True:
    period()
    if history.flush(60.0):
        print(history.habits.periods, flush=True)
"""
)

FULL = (
    WRITER
    + """
import resource, signal
period()
print(history.flush(60.0), history.habits.periods, flush=True)
fill(Path(sys.argv[1]))
period()
print(history.flush(60.0), history.habits.periods, history.problem, flush=True)
clear(Path(sys.argv[1]))
period()
print(history.flush(60.0), history.habits.periods, flush=True)
"""
)

# Any write fails with EFBIG, as it would with ENOSPC.
LIMITED = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def fill(path):
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
def clear(path):
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""

CROWDED = """
def fill(path):
    with open(path.parent / "hog", "wb", buffering=0) as hog:
        size = 65536
        while size:
            try:
                hog.write(bytes(size))
            except OSError:
                size //= 2
def clear(path):
    (path.parent / "hog").unlink()
"""


def test_a_process_killed_while_it_writes_never_breaks_the_file(tmp_path: Path) -> None:
    """Killed 15 times at random moments; the next process goes on with what the last one said was written."""
    path = tmp_path / "history-desktop.json"
    chance = random.Random(1)
    promised = 0
    for _ in range(15):
        process = subprocess.Popen(
            [sys.executable, "-c", FOR_EVER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.05))
        process.send_signal(signal.SIGKILL)
        told = [first, *process.stdout.read().splitlines()]
        assert process.wait(30) == -signal.SIGKILL
        last = max(int(text) for text in told if text.strip().isdigit())
        habits = read_habits(path)
        assert habits.periods >= last > promised, "what was said to be on disk is, and nothing was begun anew"
        promised = last
    assert not path.with_name(path.name + ".aside").exists()


def test_a_write_that_fails_keeps_the_file_and_the_next_one_catches_up(tmp_path: Path) -> None:
    path = tmp_path / "history-desktop.json"
    script = FULL.replace("import resource, signal\n", LIMITED, 1)
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=120, check=True
    )
    before, full, after = done.stdout.splitlines()
    assert before == "True 1"
    assert full.startswith("False 2 ")
    assert "cannot be written (File too large)" in full
    assert after == "True 3"
    assert read_habits(path).periods == 3
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name]


def test_a_full_disk_keeps_the_file_and_the_next_write_catches_up(tmp_path: Path) -> None:
    """A real one: a file system of 1 MiB in a mount namespace of its own."""
    script = tmp_path / "script.py"
    script.write_text(FULL.replace("import resource, signal\n", CROWDED, 1))
    room = tmp_path / "room"
    room.mkdir()
    mount = f'mount -t tmpfs -o size=1m none "{room}" || exit 77; exec "{sys.executable}" "{script}" "{room}/h.json"'
    try:
        done = subprocess.run(
            ["unshare", "--mount", "--map-root-user", "sh", "-c", mount],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("unshare is not installed (util-linux)")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    before, full, after = done.stdout.splitlines()
    assert before == "True 1"
    assert full.startswith("False 2 ")
    assert "cannot be written (No space left on device)" in full
    assert after == "True 3"
