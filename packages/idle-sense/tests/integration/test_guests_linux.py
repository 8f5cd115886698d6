"""Real processes and real control groups: whose processor time and whose bytes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from idle_sense import GuestLedger
from idle_sense.errors import SenseError
from idle_sense.probes.load import LoadProbe

if sys.platform != "linux":
    pytest.skip("these look at Linux's /proc and control groups", allow_module_level=True)

from idle_sense.platform.cgroups import MOUNTS, mounts_in
from idle_sense.platform.disks import Disks, DiskUseOfGuests
from idle_sense.platform.linux import Linux
from idle_sense.platform.nics import NetworkOfGuests

BURN = "import time\nend = time.process_time() + {seconds}\nwhile time.process_time() < end: pass\n"
STORM = """
import os, sys, time
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end: pass
for _ in range({count}):
    child = os.fork()
    if not child:
        burn({seconds}); os._exit(0)
    os.waitpid(child, 0)
print("done", flush=True)
sys.stdin.read()
"""


def python(program: str, **options: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


@contextlib.contextmanager
def running(guest: subprocess.Popen) -> Iterator[subprocess.Popen]:
    try:
        yield guest
    finally:
        guest.kill()
        guest.communicate(timeout=60)


def test_a_storm_of_short_lived_children_is_its_guests_and_hardly_any_of_it_the_owners() -> None:
    """60 children of 30 ms each, looked at now and then: the times that the kernel reports of them are the truth."""
    system, ledger = Linux(), GuestLedger()
    before_s = ledger.spent_s(system)
    with running(python(STORM.format(count=60, seconds=0.03))) as guest:
        ledger.add(guest.pid)
        assert guest.stdout is not None
        os.set_blocking(guest.stdout.fileno(), False)
        deadline_s = time.monotonic() + 120
        while not guest.stdout.readline():
            ledger.spent_s(system)
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        info = system.process(guest.pid)
        own = os.times()
        spent_s = ledger.spent_s(system) - before_s
    assert info is not None
    truth_s = info.cpu_s
    assert truth_s >= 60 * 0.03 * 0.9
    assert spent_s >= 0.95 * truth_s
    assert spent_s <= truth_s + own.user + own.system, "not more than guest and this program together"


def test_an_orphan_goes_on_being_its_guests_and_a_tree_that_ends_is_kept() -> None:
    """The middle process starts a child in the background and ends; the child lives on without a parent of ours."""
    system, ledger = Linux(), GuestLedger()
    program = (
        "import os, sys, time\n"
        "if not os.fork():\n"
        "    child = os.fork()\n"
        "    if child:\n"
        "        time.sleep(1.0); os._exit(0)\n"
        "    print(os.getpid(), os.getppid(), flush=True)\n"
        "    sys.stdin.readline()\n"
        f"    {BURN.format(seconds=0.3).replace(chr(10), chr(10) + '    ')}\n"
        "    print('burnt', flush=True)\n"
        "    time.sleep(60); os._exit(0)\n"
        "os.wait()\n"
        "time.sleep(60)\n"
    )
    with running(python(program)) as guest:
        ledger.add(guest.pid)
        assert guest.stdout is not None
        assert guest.stdin is not None
        orphan, middle = (int(pid) for pid in guest.stdout.readline().split())
        deadline_s = time.monotonic() + 60
        while (info := system.process(orphan)) is not None and info.parent == middle:
            ledger.spent_s(system)
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        assert info is not None
        assert info.parent != guest.pid
        before_s = ledger.spent_s(system)
        guest.stdin.write("\n")
        guest.stdin.flush()
        assert guest.stdout.readline() == "burnt\n"
        assert ledger.spent_s(system) - before_s >= 0.25
        assert ledger.contains(orphan, system)
        os.kill(orphan, signal.SIGKILL)
    total_s = ledger.spent_s(system)
    ledger.discard(guest.pid)
    assert ledger.spent_s(system) >= total_s


@pytest.fixture
def make_group() -> Iterator[Callable[[str], Path]]:
    """New control groups that tell processor time, in every hierarchy where this user may make some."""
    made: list[Path] = []

    def make(name: str) -> Path:
        mounts = mounts_in(Path(MOUNTS).read_bytes())
        for mount in mounts:
            if mount.version == 1 and "cpuacct" not in mount.controllers:
                continue
            if os.environ.get("IDLE_SENSE_CGROUP_VERSION", str(mount.version)) != str(mount.version):
                continue
            own = Path(mount.place) / own_group(mount.version, mount.controllers).lstrip("/")
            folder = own / f"idle-sense-test-{os.getpid()}-{name}"
            try:
                folder.mkdir()
            except OSError:
                continue
            made.append(folder)
            return folder
        pytest.skip("this user may not make control groups")

    yield make
    for folder in reversed(made):
        deadline_s = time.monotonic() + 30
        while True:
            with contextlib.suppress(FileNotFoundError):
                try:
                    folder.rmdir()
                except OSError:
                    assert time.monotonic() < deadline_s
                    time.sleep(0.05)
                    continue
            break


def own_group(version: int, controllers: frozenset[str]) -> str:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, names, path = line.split(":", 2)
        if (number == "0" and not names) if version == 2 else controllers & set(names.split(",")):
            return path
    return "/"


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_guest_in_a_real_group_and_a_tree_is_counted_once_and_exactly(
    make_group: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setenv("IDLE_SENSE_CGROUP_VERSION", version)
    folder = make_group("once")
    system, ledger = Linux(), GuestLedger()
    own_before = os.times()
    before_s = ledger.spent_s(system)
    ledger.add_cgroup(folder)
    with running(
        python("import sys\nsys.stdin.readline()\n" + STORM.format(count=20, seconds=0.03))
    ) as guest:
        ledger.add(guest.pid)
        (folder / "cgroup.procs").write_text(str(guest.pid))
        assert ledger.contains(guest.pid, system)
        assert guest.stdin is not None
        assert guest.stdout is not None
        guest.stdin.write("\n")
        guest.stdin.flush()
        os.set_blocking(guest.stdout.fileno(), False)
        deadline_s = time.monotonic() + 120
        while not guest.stdout.readline():
            ledger.spent_s(system)
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        info = system.process(guest.pid)
    ledger.spent_s(system)
    spent_s = ledger.spent_s(system) - before_s
    ledger.discard(guest.pid)
    ledger.discard_cgroup(folder)
    assert ledger.spent_s(system) - before_s >= spent_s
    own_after = os.times()
    own_s = own_after.user + own_after.system - own_before.user - own_before.system
    assert info is not None
    assert info.cpu_s >= 20 * 0.03 * 0.9
    assert spent_s >= 0.95 * info.cpu_s
    # The start of the interpreter may have been counted before the group was entered.
    assert spent_s <= info.cpu_s + own_s + 0.2


def test_a_group_is_seen_to_spend_by_the_load_probe(make_group: Callable[[str], Path]) -> None:
    """Nobody adds a tree: two probes look over the same time, one of them knows of the group."""
    folder = make_group("load")
    system, ledger = Linux(), GuestLedger()
    ledger.add_cgroup(folder)
    knowing, unknowing = LoadProbe(system, ledger), LoadProbe(system, GuestLedger())
    with running(python("import sys\nsys.stdin.readline()\n" + BURN.format(seconds=60))) as guest:
        (folder / "cgroup.procs").write_text(str(guest.pid))
        assert guest.stdin is not None
        guest.stdin.write("\n")
        guest.stdin.flush()
        for probe in (knowing, unknowing):
            probe.read(time.monotonic())
        before = system.process(guest.pid)
        time.sleep(1.0)
        told = [probe.read(time.monotonic()).value for probe in (knowing, unknowing)]
        after = system.process(guest.pid)
    assert before is not None
    assert after is not None
    share = (after.cpu_s - before.cpu_s) / (os.cpu_count() or 1)
    difference = told[1].others_ratio - told[0].others_ratio  # type: ignore[union-attr,operator]
    assert difference > 0.5 * share > 0


def test_a_folder_that_is_no_group_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SenseError, match="no control group"):
        GuestLedger().add_cgroup(tmp_path)


def test_bytes_that_a_guest_and_its_ended_children_write_are_its_guests(tmp_path: Path) -> None:
    """On a real disk; where the folder is in memory, nothing is written, and nothing is told."""
    use = DiskUseOfGuests(Disks())
    system, ledger = Linux(), GuestLedger()
    amount = 4 << 20
    program = (
        "import os, sys\n"
        f"def write(name):\n"
        f"    with open({str(tmp_path)!r} + '/' + name, 'wb') as file:\n"
        f"        file.write(b'x' * {amount}); file.flush(); os.fsync(file.fileno())\n"
        "write('own')\n"
        "if not os.fork():\n"
        "    write('child'); os._exit(0)\n"
        "os.wait()\n"
        "print('done', flush=True)\n"
        "sys.stdin.read()\n"
    )
    ledger.disk_bytes(system, use)
    with running(python(program)) as guest:
        ledger.add(guest.pid)
        assert guest.stdout is not None
        assert guest.stdout.readline() == "done\n"
        truth = use.of_process(guest.pid)
        _, written = ledger.disk_bytes(system, use)
    if truth is None or truth[1] == 0:
        pytest.skip("this folder is on no disk, or the kernel does not count by process")
    assert truth[1] >= 2 * amount
    assert written >= truth[1]
    last = ledger.disk_bytes(system, use)
    ledger.discard(guest.pid)
    assert ledger.disk_bytes(system, use) >= last


def test_a_guest_with_a_network_socket_is_told_from_one_with_pipes_and_local_sockets() -> None:
    network = NetworkOfGuests()
    quiet = "import socket, sys\npair = socket.socketpair()\nprint('up', flush=True)\nsys.stdin.read()\n"
    loud = "import socket, sys\none = socket.socket()\nprint('up', flush=True)\nsys.stdin.read()\n"
    with running(python(quiet)) as guest:
        assert guest.stdout is not None
        guest.stdout.readline()
        assert not network.look([guest.pid]).shared
    with running(python(loud)) as guest:
        assert guest.stdout is not None
        guest.stdout.readline()
        assert network.look([guest.pid]).shared


def test_a_guest_in_a_network_of_its_own_shares_nothing() -> None:
    unshare = ["unshare", "--net", "--map-root-user"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not make network namespaces")
    program = "import socket, sys\none = socket.socket()\nprint('up', flush=True)\nsys.stdin.read()\n"
    guest = subprocess.Popen(
        [*unshare, sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with running(guest):
        assert guest.stdout is not None
        guest.stdout.readline()
        network = NetworkOfGuests()
        assert network.look([guest.pid]) == (False, 0)
        assert network.look([guest.pid]) == (False, 0)
