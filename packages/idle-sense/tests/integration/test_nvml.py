"""NVIDIA's cards, by a driver's library that was compiled for these tests: loaded, called, failing and hanging as the real one.

Emulated: layouts and codes are those of nvml.h; no card was there.
"""

import ctypes
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pynvml
import pytest
from fake_gpus import NVIDIA, Clock, Machine, compile_driver, guests

from idle_sense.facts import GpuUse
from idle_sense.platform import nvml
from idle_sense.platform.gpu_nvidia import LOOK_BACK_US, NvidiaCards
from idle_sense.platform.gpus_linux import LinuxGpus
from idle_sense.platform.nvml import Nvml, NvmlError
from idle_sense.probes.aside import Aside
from idle_sense.probes.gpu import GpuProbe
from idle_sense.probes.guests import GuestLedger

if sys.platform != "linux":
    pytest.skip("the fake driver is built as Linux's library", allow_module_level=True)

NAME = "NVIDIA GPU 0000:01:00.0"
OWNER, GUEST = 30, 20
WALL_S = 1_800_000_000.0


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("nvml")
    new, old = compile_driver(folder), compile_driver(folder, "-DOLD_DRIVER")
    if new is None or old is None:
        pytest.skip(
            "no C compiler (gcc or cc) is here, so NVML is not tried at all; `python3 run.py test` installs one (Debian: gcc)"
        )
    return {"new": new, "old": old}


class Driver:
    """The library with what a test says to it. Each has a copy of its own, so that nothing is left over."""

    def __init__(self, library: Path) -> None:
        self.path = str(library)
        self._library = ctypes.CDLL(self.path)
        self._library.fake_address.restype = ctypes.c_char_p
        self._library.fake_asked_since.restype = ctypes.c_uint64

    def fail(self, call: str, code: int) -> None:
        self._library.fake_fail(call.encode(), code)

    def hang(self, call: str) -> None:
        self._library.fake_hang(call.encode())

    def release(self) -> None:
        self._library.fake_release()

    def busy(self, gpu: int, encoder: int = 0, decoder: int = 0) -> None:
        self._library.fake_percent(gpu, encoder, decoder)

    def used(self, size: int) -> None:
        self._library.fake_used(ctypes.c_uint64(size))

    def mig(self) -> None:
        self._library.fake_mig(1)

    def computes(self, pid: int, size: int = nvml.NOT_AVAILABLE) -> None:
        self._library.fake_compute(pid, ctypes.c_uint64(size))

    def draws(self, pid: int, size: int = nvml.NOT_AVAILABLE) -> None:
        self._library.fake_graphics(pid, ctypes.c_uint64(size))

    def worked(self, pid: int, sm: int, encoder: int = 0, decoder: int = 0, timestamp: int = 1) -> None:
        self._library.fake_work(pid, ctypes.c_uint64(timestamp), sm, encoder, decoder)

    def forget(self) -> None:
        self._library.fake_forget()

    @property
    def held(self) -> int:
        """How often it is open now."""
        return self._library.fake_held()

    @property
    def opened(self) -> int:
        return self._library.fake_opened()

    @property
    def started(self) -> int:
        """How often a card was asked for."""
        return self._library.fake_started()

    @property
    def address(self) -> str:
        return self._library.fake_address().decode()

    @property
    def asked_since(self) -> int:
        return self._library.fake_asked_since()


@pytest.fixture(params=["new", "old"])
def driver(built: dict[str, Path], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Driver]:
    """Of now, and from before 450, which has only the first version of the lists."""
    made = Driver(shutil.copy(built[request.param], tmp_path / "libnvidia-ml.so.1"))
    yield made
    made.release()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    for pid in (OWNER, GUEST):
        machine.program(pid)
    return machine


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Parts:
    def __init__(self, machine: Machine, driver: Driver, clock: Clock, **card: str) -> None:
        self.machine, self.driver, self.clock = machine, driver, clock
        self.card = machine.card(driver="nvidia", vendor=NVIDIA, number=None, **card)  # type: ignore[arg-type]
        self.sees_all = True
        self.library = driver.path

    def probe(self, ledger: GuestLedger | None = None) -> GpuProbe:
        cards = NvidiaCards(
            load=lambda: Nvml([self.library]),
            now_s=self.clock,
            wall_s=lambda: WALL_S,
            sees_all=lambda: self.sees_all,
        )
        reader = LinuxGpus(sysfs=self.machine.sysfs, proc=self.machine.proc, now_s=self.clock, nvidia=cards)
        return GpuProbe(reader, ledger or guests(), self.machine, now_s=self.clock, wait=self.clock.advance)


@pytest.fixture
def parts(machine: Machine, driver: Driver, clock: Clock) -> Parts:
    return Parts(machine, driver, clock)


def only(probe: GpuProbe) -> GpuUse:
    reading = probe.read(0.0)
    assert reading.value is not None, reading.problem
    (use,) = reading.value
    return use


# What is told


def test_without_guests_the_busiest_part_of_the_card_counts(parts: Parts) -> None:
    parts.driver.busy(12, encoder=3, decoder=40)
    parts.driver.used(1 << 30)
    probe = parts.probe(guests())
    assert only(probe) == GpuUse(name=NAME, others_ratio=0.4, others_bytes=1 << 30)
    assert parts.driver.address == "0000:01:00.0"
    assert probe.capability().back_end == "NVML 550.54.14"
    assert probe.capability().verified == "emulated"


def test_guests_work_and_memory_are_taken_off(parts: Parts) -> None:
    parts.driver.busy(100)
    parts.driver.used(5 << 30)
    parts.driver.computes(GUEST, 4 << 30)
    parts.driver.draws(OWNER, 512 << 20)
    parts.driver.worked(GUEST, 96)
    probe = parts.probe(guests(GUEST))
    assert only(probe) == GpuUse(name=NAME, others_ratio=0.0, others_bytes=1 << 30)
    assert parts.driver.asked_since == WALL_S * 1e6 - LOOK_BACK_US
    parts.driver.worked(OWNER, 4, decoder=35)
    parts.clock.advance(2.0)
    assert only(probe).others_ratio == 0.35


def test_a_program_that_computes_and_draws_is_one(parts: Parts) -> None:
    parts.driver.computes(OWNER, 100)
    parts.driver.draws(OWNER, 100)
    parts.driver.draws(OWNER + 1)
    library = Nvml([parts.library])
    library.open()
    assert library.programs(library.device("0000:01:00.0")) == {OWNER: 100, OWNER + 1: None}
    library.close()


def test_a_list_that_outgrew_its_room_is_read_again(parts: Parts) -> None:
    for pid in range(100, 150):
        parts.driver.computes(pid, pid)
    library = Nvml([parts.library])
    library.open()
    assert library.programs(library.device("x")) == {pid: pid for pid in range(100, 150)}
    library.close()


def test_a_guest_that_ended_before_its_work_was_told_of_stays_a_guest(parts: Parts) -> None:
    parts.driver.busy(90)
    parts.driver.computes(GUEST)
    parts.driver.worked(GUEST, 90)
    ledger = guests(GUEST)
    probe = parts.probe(ledger)
    assert only(probe).others_ratio == 0.0
    parts.machine.end(GUEST)
    ledger.discard(GUEST)
    ledger.add(21)
    parts.clock.advance(2.0)
    assert only(probe).others_ratio == 0.0
    # Its number serves another program, which is nobody's guest.
    parts.machine.program(GUEST)
    parts.clock.advance(2.0)
    assert only(probe).others_ratio == 0.9


# What is not told


@pytest.mark.parametrize("why", ["not supported", "garbage", "nobody named", "container"])
def test_where_work_is_not_told_by_program_guests_count_as_others(parts: Parts, why: str) -> None:
    parts.driver.busy(80)
    parts.driver.computes(GUEST)
    parts.driver.draws(OWNER)
    match why:
        case "not supported":
            parts.driver.fail("nvmlDeviceGetProcessUtilization", nvml.NOT_SUPPORTED)
        case "garbage":
            # As older drivers answered (nvtop, issue 110).
            parts.driver.worked(GUEST, 37100, 50583, 50624, timestamp=217144956601725)
        case "container":
            parts.driver.worked(GUEST, 80)
            parts.sees_all = False
        case _:
            pass
    assert only(parts.probe(guests(GUEST))).others_ratio == 0.8


def test_where_it_is_not_told_but_only_guests_are_there_the_work_is_theirs(parts: Parts) -> None:
    parts.driver.busy(80)
    parts.driver.computes(GUEST)
    parts.driver.fail("nvmlDeviceGetProcessUtilization", nvml.NOT_SUPPORTED)
    assert only(parts.probe(guests(GUEST))).others_ratio == 0.0


def test_a_split_card_is_busy_with_anybody_who_is_no_guest(parts: Parts) -> None:
    """MIG: no share is told at all. Who is there is asked of each instance where the whole may not be asked."""
    parts.driver.mig()
    for call in ("nvmlDeviceGetUtilizationRates", "nvmlDeviceGetProcessUtilization"):
        parts.driver.fail(call, nvml.NOT_SUPPORTED)
    parts.driver.fail("compute", nvml.NO_PERMISSION)
    probe = parts.probe(guests(GUEST))
    assert only(probe).others_ratio == 0.0
    parts.driver.computes(GUEST)
    parts.clock.advance(2.0)
    assert only(probe).others_ratio == 0.0
    parts.driver.computes(OWNER)
    parts.clock.advance(2.0)
    assert only(probe).others_ratio == 1.0


@pytest.mark.parametrize(("split", "code"), [(True, nvml.GPU_IS_LOST), (False, nvml.NO_PERMISSION)])
def test_a_list_that_fails_otherwise_counts_as_busy(parts: Parts, split: bool, code: int) -> None:
    if split:
        parts.driver.mig()
    parts.driver.fail("nvmlDeviceGetUtilizationRates", nvml.NOT_SUPPORTED)
    parts.driver.fail("compute", code)
    assert parts.probe(guests(GUEST)).read(0.0).value is None


def test_a_card_too_old_to_tell_anything_decides_nothing(parts: Parts) -> None:
    for call in ("nvmlDeviceGetUtilizationRates", "nvmlDeviceGetProcessUtilization", "compute", "graphics"):
        parts.driver.fail(call, nvml.NOT_SUPPORTED)
    probe = parts.probe(guests(GUEST))
    assert only(probe).others_ratio is None
    assert not probe.capability().serves
    assert "nvidia" in probe.capability().advice


# Failures


@pytest.mark.parametrize(
    ("call", "code", "word"),
    [
        ("nvmlInit_v2", nvml.LIB_RM_VERSION_MISMATCH, "restart"),
        ("nvmlInit_v2", nvml.DRIVER_NOT_LOADED, "modprobe"),
        ("nvmlInit_v2", nvml.NO_PERMISSION, "/dev/nvidiactl"),
        ("nvmlDeviceGetHandleByPciBusId_v2", nvml.GPU_IS_LOST, "Xid"),
        ("nvmlDeviceGetUtilizationRates", nvml.GPU_IS_LOST, "Xid"),
        ("nvmlDeviceGetUtilizationRates", 999, "nvidia-smi"),
    ],
)
def test_a_driver_that_fails_counts_as_busy_and_says_what_to_do(
    parts: Parts, call: str, code: int, word: str
) -> None:
    parts.driver.busy(0)
    probe = parts.probe()
    assert only(probe).others_ratio == 0.0
    # An open handle may hide it; a new one does not.
    parts.driver.fail("nvmlDeviceGetUtilizationRates", 999)
    probe.read(0.0)
    parts.driver.fail(call, code)
    if call != "nvmlDeviceGetUtilizationRates":
        parts.driver.fail("nvmlDeviceGetUtilizationRates", 0)
    parts.clock.advance(2.0)
    reading = probe.read(0.0)
    assert reading.value is None
    assert reading.tells
    assert f"({code})" in reading.problem
    assert word in reading.advice
    assert not probe.capability().serves
    assert probe.capability().advice == reading.advice
    assert parts.driver.held == 0
    # Mended: the next look opens it anew.
    parts.driver.fail(call, 0)
    parts.driver.fail("nvmlDeviceGetUtilizationRates", 0)
    parts.clock.advance(2.0)
    assert only(probe).others_ratio == 0.0
    assert parts.driver.held == 1


def test_a_library_that_is_not_there_counts_as_busy(parts: Parts) -> None:
    parts.library = "/nowhere/libnvidia-ml.so.1"
    reading = parts.probe().read(0.0)
    assert reading.value is None
    assert reading.tells
    assert "libnvidia-ml" in reading.advice


def test_a_file_that_is_no_library_counts_as_busy(parts: Parts, tmp_path: Path) -> None:
    (tmp_path / "broken.so").write_bytes(b"\x7fELF, cut off")
    parts.library = str(tmp_path / "broken.so")
    assert parts.probe().read(0.0).value is None


def test_a_library_without_a_call_says_so_and_does_not_crash(parts: Parts) -> None:
    import ctypes.util

    library = Nvml([ctypes.util.find_library("m") or "libm.so.6"])
    with pytest.raises(NvmlError, match="nvmlInit_v2"):
        library.open()


@pytest.mark.parametrize(
    "call", ["nvmlInit_v2", "nvmlDeviceGetHandleByPciBusId_v2", "nvmlDeviceGetUtilizationRates"]
)
def test_a_driver_that_hangs_grows_old_and_keeps_nobody_waiting(
    machine: Machine, built: dict[str, Path], tmp_path: Path, call: str
) -> None:
    driver = Driver(shutil.copy(built["new"], tmp_path / "libnvidia-ml.so.1"))
    machine.card(driver="nvidia", vendor=NVIDIA, number=None, control="auto", delay_ms=0)
    driver.busy(50)
    reader = LinuxGpus(
        sysfs=machine.sysfs, proc=machine.proc, nvidia=NvidiaCards(load=lambda: Nvml([driver.path]))
    )
    aside = Aside(GpuProbe(reader, guests(), machine), every_s=0.0)
    wait_until(lambda: aside.read(0.0).value is not None)
    driver.hang(call)
    try:
        opened = driver.opened
        wait_until(lambda: aside.read(0.0).age_s > 0.5)
        begun_s = time.monotonic()
        for _ in range(100):
            assert aside.read(0.0).value is not None
        # A hundred questions, of which none waits for the driver.
        assert time.monotonic() - begun_s < 20.0
        assert sum(thread.name == "idle-sense-aside" for thread in threading.enumerate()) == 1
        assert driver.opened <= opened + 1
    finally:
        driver.release()
    # It answers again: the late answer counts, and the card is let go.
    wait_until(lambda: aside.read(0.0).age_s < 0.3)
    wait_until(lambda: not any(thread.name == "idle-sense-aside" for thread in threading.enumerate()))
    aside.close()
    assert driver.held == 0


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


# Sleep


def test_a_card_that_may_sleep_is_let_go_after_each_look(
    machine: Machine, driver: Driver, clock: Clock
) -> None:
    parts = Parts(machine, driver, clock, control="auto")
    driver.busy(60)
    driver.computes(GUEST)
    driver.worked(GUEST, 60)
    probe = parts.probe(guests(GUEST))
    for _ in range(3):
        assert only(probe).others_ratio == 0.0
        assert driver.held == 0
        clock.advance(2.0)


def test_a_card_that_may_sleep_is_let_go_after_a_failure_too(
    machine: Machine, driver: Driver, clock: Clock
) -> None:
    driver.fail("nvmlDeviceGetMemoryInfo", nvml.GPU_IS_LOST)
    assert Parts(machine, driver, clock, control="auto").probe().read(0.0).value is None
    assert driver.held == 0


def test_an_idle_card_that_may_sleep_is_left_alone_and_never_woken(
    machine: Machine, driver: Driver, clock: Clock
) -> None:
    parts = Parts(machine, driver, clock, control="auto")
    driver.busy(0)
    probe = parts.probe(guests(GUEST))
    for _ in range(6):
        assert only(probe).others_ratio == 0.0
        clock.advance(1.9)
    assert driver.opened == 1
    machine.sleep(parts.card)
    for _ in range(60):
        assert only(probe).asleep
        clock.advance(2.0)
    assert driver.opened == 1
    assert driver.started == 1
    # Somebody else wakes it.
    machine.sleep(parts.card, "active")
    driver.busy(70)
    assert only(probe).others_ratio == 0.7


def test_a_card_that_never_sleeps_stays_open_until_the_end(parts: Parts) -> None:
    parts.driver.busy(5)
    probe = parts.probe(guests(GUEST))
    for _ in range(3):
        only(probe)
        parts.clock.advance(2.0)
    assert parts.driver.held == 1
    assert parts.driver.opened == 1
    assert parts.driver.started == 1
    probe.close()
    probe.close()
    assert parts.driver.held == 0


# Layouts


def test_layouts_are_those_of_nvml_h() -> None:
    """On 64-bit systems, by its declarations."""
    assert ctypes.sizeof(nvml.Utilization) == 8
    assert ctypes.sizeof(nvml.MemoryInfo) == 24
    assert ctypes.sizeof(nvml.ProcessInfoV1) == 16
    assert ctypes.sizeof(nvml.ProcessInfo) == 24
    assert ctypes.sizeof(nvml.ProcessSample) == 32
    assert nvml.ProcessSample.sm.offset == 16
    assert nvml.ProcessInfo.gpu_instance.offset == 16


def test_layouts_and_codes_are_those_of_nvidias_own_binding() -> None:
    pairs = (
        (nvml.Utilization, pynvml.c_nvmlUtilization_t),
        (nvml.MemoryInfo, pynvml.c_nvmlMemory_t),
        (nvml.ProcessInfo, pynvml.c_nvmlProcessInfo_v3_t),
        (nvml.ProcessSample, pynvml.c_nvmlProcessUtilizationSample_t),
    )
    for ours, theirs in pairs:
        assert ctypes.sizeof(ours) == ctypes.sizeof(theirs)
        assert [getattr(ours, name).offset for name, _ in ours._fields_] == [
            getattr(theirs, name).offset for name, _ in theirs._fields_
        ]
    for name in (
        "NOT_SUPPORTED",
        "NO_PERMISSION",
        "NOT_FOUND",
        "INSUFFICIENT_SIZE",
        "DRIVER_NOT_LOADED",
        "FUNCTION_NOT_FOUND",
        "GPU_IS_LOST",
        "RESET_REQUIRED",
        "LIB_RM_VERSION_MISMATCH",
    ):
        assert getattr(nvml, name) == getattr(pynvml, f"NVML_ERROR_{name}")
    assert pynvml.NVML_DEVICE_MIG_ENABLE == nvml.MIG_ENABLED
