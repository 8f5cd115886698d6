"""Memory and load, from files as kernels of several ages and containers write them."""

from pathlib import Path

import pytest

from idle_sense import GuestLedger
from idle_sense.platform.container import Container
from idle_sense.platform.linux import Linux
from idle_sense.platform.meminfo import Memory
from idle_sense.probes.load import LoadProbe

MEMINFO = """MemTotal:       16261040 kB
MemFree:          734832 kB
MemAvailable:    9876543 kB
Buffers:          312444 kB
SwapTotal:       8388604 kB
"""
GIB = 1 << 30


def psi(avg10: float, total_us: int) -> str:
    return f"some avg10={avg10:.2f} avg60=0.00 avg300=0.00 total={total_us}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"


class Proc:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_s = 1000.0
        (folder / "pressure").mkdir()
        (folder / "meminfo").write_text(MEMINFO)
        container = Container(groups=str(folder / "cgroup"), now=lambda: self.now_s)
        self.memory = Memory(proc=str(folder), container=container, now=lambda: self.now_s)

    def stalled(self, avg10: float, total_us: int, *, after_s: float = 1.0) -> float | None:
        self.now_s += after_s
        (self.folder / "pressure" / "memory").write_text(psi(avg10, total_us))
        use = self.memory.read()
        assert use is not None
        return use.stalled_ratio


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


def test_available_memory_is_what_the_kernel_says(proc: Proc) -> None:
    use = proc.memory.read()
    assert use is not None
    assert (use.total_bytes, use.available_bytes) == (16261040 * 1024, 9876543 * 1024)
    assert use.stalled_ratio is None, "neither stalls nor swapping are told"


def test_a_storm_of_swapping_shows_before_the_kernels_mean_does_and_as_long(proc: Proc) -> None:
    assert proc.stalled(0.0, 5_000_000) == 0.0
    assert proc.stalled(0.0, 5_000_000) == 0.0
    assert proc.stalled(9.0, 6_000_000) == pytest.approx(0.25), "one second of nothing but waiting"
    assert proc.stalled(18.0, 7_000_000) == pytest.approx(0.5)
    assert proc.stalled(40.0, 7_000_000, after_s=30.0) == pytest.approx(0.4), "the longer mean holds on"


def test_one_short_wait_is_no_storm(proc: Proc) -> None:
    proc.stalled(0.0, 0)
    assert proc.stalled(0.5, 100_000) == pytest.approx(0.025)


def test_a_count_of_waits_that_began_anew_is_no_wait(proc: Proc) -> None:
    proc.stalled(0.0, 5_000_000)
    assert proc.stalled(0.0, 1000) == 0.0
    assert proc.stalled(0.0, 1000) == 0.0


def test_without_stall_times_pages_that_come_back_from_swap_tell_of_a_storm(proc: Proc) -> None:
    def swapping(pages: int) -> float | None:
        proc.now_s += 1.0
        (proc.folder / "vmstat").write_text(f"nr_free_pages 5\npgpgin 4\npswpin {pages}\npswpout 9\n")
        use = proc.memory.read()
        assert use is not None
        return use.stalled_ratio

    assert swapping(1000) == 0.0
    assert swapping(1020) == pytest.approx(0.0005)
    assert swapping(1020 + 10_000) == pytest.approx(0.2505, abs=0.001)


def test_a_kernel_without_memavailable_is_left_to_others(proc: Proc) -> None:
    (proc.folder / "meminfo").write_text("MemTotal: 100 kB\nMemFree: 50 kB\nBuffers: 1 kB\n")
    assert proc.memory.read() is None


@pytest.mark.parametrize("garbage", ["MemTotal: x kB\nMemFree: 1 kB\nMemAvailable: 1 kB\n", "MemTotal:\n"])
def test_garbage_is_no_memory(proc: Proc, garbage: str) -> None:
    (proc.folder / "meminfo").write_text(garbage)
    with pytest.raises((ValueError, IndexError)):
        proc.memory.read()


def test_a_container_with_less_memory_than_the_machine_has_what_is_left_of_its_own(proc: Proc) -> None:
    groups = proc.folder / "cgroup"
    groups.mkdir()
    for name, number in {"memory.max": 2 * GIB, "memory.current": GIB + GIB // 2}.items():
        (groups / name).write_text(f"{number}\n")
    (groups / "memory.stat").write_text("inactive_file 0\n")
    use = proc.memory.read()
    assert use is not None
    assert (use.total_bytes, use.available_bytes) == (2 * GIB, GIB // 2)


class Machine(Linux):
    """Its processor times are what tests say."""

    def __init__(self) -> None:
        super().__init__()
        self.times = (0.0, 0.0)
        self.confined: tuple[float, float] | None = None

    def cpu_times_s(self) -> tuple[float, float]:
        return self.times

    def confined_cpu_times_s(self) -> tuple[float, float] | None:
        return self.confined


class Nobody(GuestLedger):
    spent = 0.0

    def spent_s(self, processes: object) -> float:
        return self.spent


@pytest.fixture
def machine() -> Machine:
    return Machine()


def others(probe: LoadProbe, now_s: float) -> float | None:
    value = probe.read(now_s).value
    assert value is not None
    return value.others_ratio


def test_load_is_what_guests_leave_of_the_busy_part(machine: Machine) -> None:
    ledger = Nobody()
    probe = LoadProbe(machine, ledger)
    assert others(probe, 0.0) is None
    machine.times, ledger.spent = (3.0, 8.0), 1.0
    assert others(probe, 1.0) == pytest.approx(0.25)
    machine.times, ledger.spent = (3.5, 16.0), 9.0
    assert others(probe, 2.0) == 0.0, "clocks tick unevenly"


def test_counters_that_stand_still_grow_old(machine: Machine) -> None:
    """As sandboxes that virtualise /proc have them: an old ratio would be taken for a fresh one."""
    probe = LoadProbe(machine, Nobody())
    probe.read(0.0)
    reading = probe.read(7.0)
    assert reading.age_s == 7.0
    assert "stand still" in reading.problem
    machine.times = (1.0, 4.0)
    reading = probe.read(8.0)
    assert reading.age_s == 0.0
    assert reading.value is not None
    assert reading.value.others_ratio == pytest.approx(0.25)


def test_counters_that_begin_anew_are_a_new_beginning_and_never_negative(machine: Machine) -> None:
    probe = LoadProbe(machine, Nobody())
    machine.times = (1000.0, 4000.0)
    probe.read(0.0)
    machine.times = (1.0, 4.0)
    reading = probe.read(1.0)
    assert reading.age_s == 1.0
    machine.times = (2.0, 8.0)
    assert others(probe, 2.0) == pytest.approx(0.25)


def test_in_a_container_others_in_its_share_count_as_well(machine: Machine) -> None:
    """2 of 64 processors are its share, and others use half of it: little of the machine, much of the share."""
    ledger = Nobody()
    probe = LoadProbe(machine, ledger)
    machine.confined = (0.0, 0.0)
    probe.read(0.0)
    machine.times, machine.confined, ledger.spent = (2.0, 64.0), (1.5, 2.0), 0.5
    assert others(probe, 1.0) == pytest.approx(0.5)
    assert "container" in probe.capability().back_end
    machine.times, machine.confined, ledger.spent = (34.0, 128.0), (1.5, 4.0), 0.5
    assert others(probe, 2.0) == pytest.approx(0.5), "the whole machine is busy"
