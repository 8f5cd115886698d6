"""Real processes, real terminals, the real clock of this machine."""

import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from idle_sense import GuestLedger, Monitor, Policy, State
from idle_sense.probes.load import LoadProbe

if sys.platform != "linux":
    pytest.skip("these look at Linux's /proc and /dev/pts", allow_module_level=True)

from idle_sense.platform.linux import Linux
from idle_sense.platform.terminals import Terminals

BURN = "import time\nend = time.process_time() + {seconds}\nwhile time.process_time() < end: pass"


def test_work_of_a_guest_and_its_short_lived_children_is_seen_whole() -> None:
    """The parent only starts children; almost all of the time is theirs."""
    system, ledger = Linux(), GuestLedger()
    before_s = ledger.spent_s(system)
    program = f"import subprocess, sys\nfor _ in range(5): subprocess.run([sys.executable, '-c', {BURN.format(seconds=0.1)!r}])"
    guest = subprocess.Popen([sys.executable, "-c", program])
    ledger.add(guest.pid)
    while guest.poll() is None:
        ledger.spent_s(system)
        time.sleep(0.05)
    ledger.discard(guest.pid)
    spent_s = ledger.spent_s(system) - before_s
    assert 0.5 <= spent_s < 3.0


def test_what_is_spent_never_falls_while_guests_come_and_go() -> None:
    system, ledger = Linux(), GuestLedger()
    last_s = ledger.spent_s(system)
    for _ in range(4):
        guest = subprocess.Popen([sys.executable, "-c", BURN.format(seconds=0.05)])
        ledger.add(guest.pid)
        ledger.spent_s(system)
        guest.wait(timeout=60)
        ledger.discard(guest.pid)
        now_s = ledger.spent_s(system)
        # Clocks of processes tick in hundredths, and each end may be cut off.
        assert now_s >= last_s + 0.03
        last_s = now_s


def test_children_of_all_threads_are_found() -> None:
    system = Linux()
    program = (
        "import subprocess, threading, sys\n"
        "def start(): children.append(subprocess.Popen(['sleep', '60']))\n"
        "children = []\n"
        "thread = threading.Thread(target=lambda: (start(), done.set(), wait.wait()))\n"
        "done, wait = threading.Event(), threading.Event()\n"
        "thread.start(); done.wait(); start()\n"
        "print(*[child.pid for child in children], flush=True)\n"
        "sys.stdin.read()\n"
        "for child in children: child.kill()\n"
        "wait.set()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    try:
        expected = {int(pid) for pid in parent.stdout.readline().split()}
        info = system.process(parent.pid)
        assert info is not None
        assert set(system.children(info)) == expected
        assert len(expected) == 2
    finally:
        parent.communicate("", timeout=60)


def test_a_process_with_a_strange_name_is_read(tmp_path) -> None:
    import shutil

    program = tmp_path / ") R 1 (x"
    shutil.copy(shutil.which("sleep") or "", program)
    process = subprocess.Popen([str(program), "60"])
    try:
        info = Linux().process(process.pid)
        assert info is not None
        assert info.parent == os.getpid()
    finally:
        process.kill()
        process.wait(timeout=60)


def test_a_process_that_is_gone_is_none() -> None:
    process = subprocess.Popen(["true"])
    process.wait(timeout=60)
    assert Linux().process(process.pid) is None


def test_load_of_others_is_a_share_and_needs_two_looks() -> None:
    system = Linux()
    probe = LoadProbe(system, GuestLedger())
    first = probe.read(time.monotonic()).value
    assert first is not None
    assert first.others_ratio is None
    time.sleep(0.3)
    second = probe.read(time.monotonic()).value
    assert second is not None
    assert second.others_ratio is not None
    assert 0.0 <= second.others_ratio <= 1.0


def test_a_guest_that_burns_a_core_is_not_the_owners_load() -> None:
    """Measured twice at once over the same time: with and without the ledger knowing of it."""
    system, ledger, blind = Linux(), GuestLedger(), GuestLedger()
    knowing, unknowing = LoadProbe(system, ledger), LoadProbe(system, blind)
    guest = subprocess.Popen([sys.executable, "-c", BURN.format(seconds=30)])
    try:
        ledger.add(guest.pid)
        for probe in (knowing, unknowing):
            probe.read(time.monotonic())
        before = system.process(guest.pid)
        time.sleep(1.0)
        told = [probe.read(time.monotonic()).value for probe in (knowing, unknowing)]
        after = system.process(guest.pid)
    finally:
        guest.kill()
        guest.wait(timeout=60)
    assert before is not None
    assert after is not None
    share = (after.cpu_s - before.cpu_s) / (os.cpu_count() or 1)
    difference = told[1].others_ratio - told[0].others_ratio  # type: ignore[union-attr,operator]
    assert difference > 0.5 * share > 0


def test_reading_a_terminal_counts_and_printing_to_it_does_not(eventually: Callable) -> None:
    """A real pseudo-terminal. The kernel keeps access times in steps of 8 s, so the last one is set back first."""
    main, line = pty.openpty()
    try:
        name = os.ttyname(line).removeprefix("/dev/")
        terminals = Terminals.linux(Linux())
        guests = GuestLedger()

        def idle_s() -> float:
            found = terminals.read(time.monotonic(), guests).value or ()
            return next(terminal.idle_s for terminal in found if terminal.name == name)

        os.utime(f"/dev/{name}", (time.time() - 1000, time.time() - 1000))
        assert idle_s() > 990
        os.write(line, b"printed by a program\n")
        assert idle_s() > 990
        os.write(main, b"typed by a person\n")
        assert os.read(line, 100) == b"typed by a person\n"
        eventually(lambda: idle_s() < 60)
    finally:
        os.close(main)
        os.close(line)


def test_memory_is_what_the_kernel_says() -> None:
    import psutil

    use = Linux().memory()
    assert use.total_bytes == psutil.virtual_memory().total
    assert 0 < use.available_bytes <= use.total_bytes
    assert use.stalled_ratio is None or 0 <= use.stalled_ratio <= 1


def test_the_watch_of_a_real_machine_becomes_idle_or_says_why_not(eventually: Callable) -> None:
    heard: list[State] = []
    with Monitor(Policy.server()) as monitor:
        monitor.on_change(lambda verdict: heard.append(verdict.state))
        eventually(lambda: bool(heard))
        assert heard[0] is not State.IDLE
        assert monitor.check().reasons
        assert monitor.capabilities()
        assert monitor.describe()
