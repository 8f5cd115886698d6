"""Graphics processors under Linux: sysfs and fdinfo as the kernel's documentation prints them, in folders of our own."""

import errno
import itertools
import os
import sys
from pathlib import Path

import pytest
from fake_gpus import INTEL, NVIDIA, Clock, Machine, amdgpu, guests, i915, xe

from idle_sense.facts import GpuUse
from idle_sense.platform import drm
from idle_sense.platform.drm_clients import EVERYTHING_EVERY_S, DrmClients, parse
from idle_sense.platform.gpu_devices import find
from idle_sense.platform.gpu_nvidia import NvidiaCards
from idle_sense.platform.gpus import EngineTime
from idle_sense.platform.gpus_linux import LinuxGpus
from idle_sense.probes.gpu import GpuProbe
from idle_sense.probes.guests import GuestLedger

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="links of sysfs need a right of their own there"
)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def no_library() -> object:
    raise OSError("libnvidia-ml.so.1: cannot open shared object file")


def probe_of(machine: Machine, clock: Clock, ledger: GuestLedger | None = None, *, sees_all: bool = True):
    reader = LinuxGpus(
        sysfs=machine.sysfs,
        proc=machine.proc,
        now_s=clock,
        sees_all=lambda: sees_all,
        nvidia=NvidiaCards(load=no_library, now_s=clock),  # type: ignore[arg-type]
    )
    return GpuProbe(reader, ledger or guests(), machine, now_s=clock, wait=clock.advance)


def only(probe: GpuProbe) -> GpuUse:
    reading = probe.read(0.0)
    assert reading.value is not None, reading.problem
    (use,) = reading.value
    return use


# Which there are


def test_a_machine_without_any_has_none_and_that_is_no_failure(machine: Machine, clock: Clock) -> None:
    probe = probe_of(machine, clock)
    assert probe.read(0.0).value == ()
    assert probe.capability().serves
    assert probe.describe() == ()


def test_what_only_shows_pictures_is_none(machine: Machine, clock: Clock) -> None:
    machine.card("0000:00:01.0", driver="virtio-pci", vendor="0x1af4")
    machine.card("0000:00:02.0", driver="ast", vendor="0x1a03", number=1)
    machine.card("0000:00:03.0", driver="", vendor=NVIDIA, number=None)
    assert find(machine.sysfs) == ()


def test_a_card_is_found_by_its_class_or_by_its_node(machine: Machine) -> None:
    machine.card("0000:01:00.0", driver="nvidia", vendor=NVIDIA, number=None, kind="0x030200")
    machine.card("0000:02:00.0", number=1, kind="0x120000")
    machine.card("0000:03:00.0", driver="snd_hda_intel", vendor=NVIDIA, number=None, kind="0x040300")
    found = find(machine.sysfs)
    assert [device.name for device in found] == ["NVIDIA GPU 0000:01:00.0", "AMD GPU 0000:02:00.0"]
    assert found[1].cards == ("card1", "renderD129")


def test_a_driver_that_tells_nothing_decides_nothing_and_doctor_says_so(
    machine: Machine, clock: Clock
) -> None:
    machine.card(driver="nouveau", vendor=NVIDIA)
    probe = probe_of(machine, clock)
    assert only(probe).others_ratio is None
    assert not probe.capability().serves
    assert "nouveau" in probe.capability().advice
    assert all(sentence.endswith(".") for sentence in probe.describe())


def test_a_card_that_is_taken_out_is_gone_and_one_that_is_put_in_is_found(
    machine: Machine, clock: Clock
) -> None:
    card = machine.card()
    (card / "gpu_busy_percent").write_text("12\n")
    probe = probe_of(machine, clock)
    assert only(probe).others_ratio == 0.12
    (machine.sysfs / "bus/pci/devices/0000:01:00.0").unlink()
    for node in ("card0", "renderD128"):
        (machine.sysfs / "class/drm" / node).unlink()
    (card / "gpu_busy_percent").unlink()
    clock.advance(2.0)
    assert probe.read(0.0).value == ()
    (machine.card("0000:05:00.0", number=1) / "gpu_busy_percent").write_text("50\n")
    clock.advance(61.0)
    assert only(probe) == GpuUse(name="AMD GPU 0000:05:00.0", others_ratio=0.5)


# AMD


def test_amd_tells_its_share_and_its_memory(machine: Machine, clock: Clock) -> None:
    card = machine.card()
    (card / "gpu_busy_percent").write_text("37\n")
    (card / "mem_info_vram_used").write_text(f"{512 << 20}\n")
    probe = probe_of(machine, clock)
    assert only(probe) == GpuUse(name="AMD GPU 0000:01:00.0", others_ratio=0.37, others_bytes=512 << 20)
    assert probe.capability().serves
    assert probe.capability().verified == "emulated"
    (card / "vcn_busy_percent").write_text("80\n")
    assert only(probe_of(machine, clock)).others_ratio == 0.8


def test_amd_that_told_and_tells_no_more_counts_as_busy(machine: Machine, clock: Clock) -> None:
    card = machine.card()
    (card / "gpu_busy_percent").write_text("0\n")
    probe = probe_of(machine, clock)
    assert only(probe).others_ratio == 0.0
    for garbage in ("", "none\n"):
        (card / "gpu_busy_percent").write_text(garbage)
        clock.advance(2.0)
        reading = probe.read(0.0)
        assert reading.value is None
        assert reading.tells
        assert reading.advice
        assert not probe.capability().serves
        (card / "gpu_busy_percent").write_text("5\n")
        clock.advance(2.0)
        assert only(probe).others_ratio == 0.05


def test_a_card_that_came_back_with_other_files_is_read_from_those(machine: Machine, clock: Clock) -> None:
    card = machine.card()
    for name in ("gpu_busy_percent", "vcn_busy_percent"):
        (card / name).write_text("10\n")
    probe = probe_of(machine, clock)
    assert only(probe).others_ratio == 0.1
    (card / "vcn_busy_percent").unlink()
    clock.advance(2.0)
    assert probe.read(0.0).value is None
    clock.advance(2.0)
    assert only(probe).others_ratio == 0.1


def test_amd_of_which_no_share_was_ever_told_decides_nothing(machine: Machine, clock: Clock) -> None:
    machine.card()
    probe = probe_of(machine, clock)
    assert only(probe).others_ratio is None
    assert "amdgpu" in probe.capability().advice


# Intel


def counter(card: Path, driver: str, part: int, idle_ms: float) -> None:
    name = {
        "i915": f"drm/card0/gt/gt{part}/rc6_residency_ms",
        "xe": f"tile0/gt{part}/gtidle/idle_residency_ms",
        "old": "drm/card0/power/rc6_residency_ms",
    }[driver]
    (card / name).parent.mkdir(parents=True, exist_ok=True)
    (card / name).write_text(f"{idle_ms:.0f}\n")


@pytest.mark.parametrize("driver", ["i915", "xe", "old"])
def test_intel_is_busy_while_it_does_not_sleep_deeply(machine: Machine, clock: Clock, driver: str) -> None:
    card = machine.card(driver="i915" if driver == "old" else driver, vendor=INTEL)
    counter(card, driver, 0, 50_000)
    probe = probe_of(machine, clock, sees_all=False)
    assert only(probe).others_ratio is None
    clock.advance(2.0)
    counter(card, driver, 0, 50_000 + 1500)
    assert only(probe).others_ratio == 0.25
    clock.advance(2.0)
    counter(card, driver, 0, 50_000 + 3500)
    assert only(probe).others_ratio == 0.0


def test_the_busiest_part_of_an_intel_card_counts(machine: Machine, clock: Clock) -> None:
    """Film is decoded by a part of its own on newer ones."""
    card = machine.card(driver="i915", vendor=INTEL)
    for part in (0, 1):
        counter(card, "i915", part, 1000)
    probe = probe_of(machine, clock, sees_all=False)
    only(probe)
    clock.advance(4.0)
    counter(card, "i915", 0, 5000)
    counter(card, "i915", 1, 2000)
    assert only(probe).others_ratio == 0.75


def test_a_counter_that_began_anew_counts_as_busy_for_that_time(machine: Machine, clock: Clock) -> None:
    card = machine.card(driver="xe", vendor=INTEL)
    counter(card, "xe", 0, 90_000)
    probe = probe_of(machine, clock, sees_all=False)
    only(probe)
    clock.advance(2.0)
    counter(card, "xe", 0, 10)
    assert only(probe).others_ratio == 1.0
    clock.advance(2.0)
    counter(card, "xe", 0, 2010)
    assert only(probe).others_ratio == 0.0


def test_a_counter_that_never_counted_tells_nothing(machine: Machine, clock: Clock) -> None:
    counter(machine.card(driver="xe", vendor=INTEL), "xe", 0, 0)
    probe = probe_of(machine, clock)
    assert only(probe).others_ratio is None
    assert not probe.capability().serves


def test_an_intel_card_that_never_sleeps_deeply_is_judged_by_its_programs(
    machine: Machine, clock: Clock
) -> None:
    """Some stay awake whatever they do. Where all programs may be seen, their work tells."""
    card = machine.card(driver="xe", vendor=INTEL, number=0)
    counter(card, "xe", 0, 7)
    machine.program(20, opens={5: ("/dev/dri/renderD128", xe(3, rcs=1000, total=100_000))})
    probe = probe_of(machine, clock)
    only(probe)
    clock.advance(2.0)
    machine.program(20, opens={5: ("/dev/dri/renderD128", xe(3, rcs=3000, total=200_000))})
    assert only(probe).others_ratio == 0.02
    assert only(probe_of(machine, clock, sees_all=False)).others_ratio is None


# Whose work


def work(machine: Machine, *, guest_s: float, other_s: float) -> None:
    machine.program(20, opens={7: ("/dev/dri/renderD128", amdgpu(3, compute_s=guest_s, vram_kib=1 << 20))})
    machine.program(30, opens={8: ("/dev/dri/renderD128", amdgpu(4, gfx_s=other_s, vram_kib=1 << 18))})


def test_guests_share_is_taken_off_and_others_is_seen_behind_it(machine: Machine, clock: Clock) -> None:
    """A guest keeps the card busy all of the time; what the owner does beside it must not hide."""
    card = machine.card()
    (card / "gpu_busy_percent").write_text("100\n")
    (card / "mem_info_vram_used").write_text(f"{(1 << 30) + (256 << 20)}\n")
    work(machine, guest_s=500.0, other_s=10.0)
    probe = probe_of(machine, clock, guests(20))
    only(probe)
    work(machine, guest_s=502.0, other_s=10.0)
    clock.advance(2.0)
    assert only(probe) == GpuUse(name="AMD GPU 0000:01:00.0", others_ratio=0.0, others_bytes=256 << 20)
    work(machine, guest_s=504.0, other_s=10.8)
    clock.advance(2.0)
    assert only(probe).others_ratio == 0.4
    # And without guests all of it is others'.
    assert only(probe_of(machine, clock)).others_ratio == 1.0


def test_the_first_look_at_programs_waits_for_a_second_instead_of_calling_a_guest_an_owner(
    machine: Machine, clock: Clock
) -> None:
    (machine.card() / "gpu_busy_percent").write_text("100\n")
    work(machine, guest_s=500.0, other_s=10.0)
    assert only(probe_of(machine, clock, guests(20))).others_ratio == 0.0


def test_children_of_guests_are_guests(machine: Machine, clock: Clock) -> None:
    (machine.card() / "gpu_busy_percent").write_text("90\n")
    machine.program(19)
    work(machine, guest_s=1.0, other_s=1.0)
    (machine.proc / "20/parent").write_text("19")
    assert only(probe_of(machine, clock, guests(19))).others_ratio == 0.0
    assert only(probe_of(machine, clock, guests(18))).others_ratio == 0.9


@pytest.mark.parametrize("why", ["container", "hidden", "foreign"])
def test_where_not_all_programs_may_be_seen_guests_count_as_others(
    machine: Machine, clock: Clock, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine.card() / "gpu_busy_percent").write_text("100\n")
    work(machine, guest_s=500.0, other_s=0.0)
    if why == "hidden":
        machine.end(1)
    if why == "foreign":
        real = os.listdir

        def refuse(path="."):
            if str(path).endswith("/30/fd"):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path)

        monkeypatch.setattr(os, "listdir", refuse)
    probe = probe_of(machine, clock, guests(20), sees_all=why != "container")
    assert only(probe).others_ratio == 1.0
    assert "CAP_SYS_PTRACE" in probe.capability().advice
    assert probe.capability().serves


def test_compute_through_kfd_is_a_guests_only_if_nobody_else_is_there(machine: Machine, clock: Clock) -> None:
    """ROCm's work is in no fdinfo: with a foreign user of it nothing may be taken off."""
    (machine.card() / "gpu_busy_percent").write_text("95\n")
    users = machine.sysfs / "class/kfd/kfd/proc"
    (users / "20").mkdir(parents=True)
    machine.program(20, opens={7: ("/dev/dri/renderD128", amdgpu(3))})
    probe = probe_of(machine, clock, guests(20))
    assert only(probe).others_ratio == 0.0
    (users / "31").mkdir()
    clock.advance(2.0)
    assert only(probe).others_ratio == 0.95


def test_user_queues_of_amd_are_not_counted_so_nothing_is_taken_off(machine: Machine, clock: Clock) -> None:
    (machine.card() / "gpu_busy_percent").write_text("95\n")
    parameters = machine.sysfs / "module/amdgpu/parameters"
    parameters.mkdir(parents=True)
    (parameters / "user_queue").write_text("1\n")
    work(machine, guest_s=1.0, other_s=1.0)
    assert only(probe_of(machine, clock, guests(20))).others_ratio == 0.95
    (parameters / "user_queue").write_text("-1\n")
    assert only(probe_of(machine, clock, guests(20))).others_ratio == 0.0


def test_a_handle_that_tells_no_times_takes_nothing_off(machine: Machine, clock: Clock) -> None:
    (machine.card() / "gpu_busy_percent").write_text("60\n")
    work(machine, guest_s=1.0, other_s=1.0)
    machine.program(30, opens={8: ("/dev/dri/renderD128", "pos:\t0\ndrm-driver:\tamdgpu\n")})
    assert only(probe_of(machine, clock, guests(20))).others_ratio == 0.6


def test_a_handle_of_which_no_engine_is_told_takes_nothing_off(machine: Machine, clock: Clock) -> None:
    (machine.card() / "gpu_busy_percent").write_text("60\n")
    work(machine, guest_s=1.0, other_s=1.0)
    told = "drm-driver:\tamdgpu\ndrm-client-id:\t4\ndrm-memory-vram:\t1 KiB\n"
    machine.program(30, opens={8: ("/dev/dri/card0", told)})
    assert only(probe_of(machine, clock, guests(20))).others_ratio == 0.6


def test_two_cards_are_told_apart(machine: Machine, clock: Clock) -> None:
    for address, number in (("0000:01:00.0", 0), ("0000:02:00.0", 1)):
        (machine.card(address, number=number) / "gpu_busy_percent").write_text("50\n")
    machine.program(20, opens={7: ("/dev/dri/renderD128", amdgpu(3, gfx_s=1.0))})
    machine.program(30, opens={7: ("/dev/dri/renderD129", amdgpu(3, gfx_s=1.0))})
    probe = probe_of(machine, clock, guests(20))
    uses = probe.read(0.0).value
    assert uses is not None
    assert [use.others_ratio for use in uses] == [0.0, 0.5]


def test_programs_are_not_looked_at_without_guests_or_work(
    machine: Machine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = machine.card()
    looks: list[float] = []
    real = DrmClients.look
    monkeypatch.setattr(DrmClients, "look", lambda clients: looks.append(clock.now_s) or real(clients))
    for percent, ledger, expected in ((100, guests(), 0), (4, guests(20), 0), (5, guests(20), 1)):
        (card / "gpu_busy_percent").write_text(f"{percent}\n")
        probe_of(machine, clock, ledger).read(0.0)
        assert len(looks) == expected


def test_between_two_whole_looks_only_holders_and_new_programs_are_looked_into(
    machine: Machine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pid in range(100, 150):
        machine.program(pid, opens={1: ("/dev/null", "")})
    work(machine, guest_s=1.0, other_s=1.0)
    clients = DrmClients(proc=machine.proc, now_s=clock)
    asked: list[int] = []
    real = DrmClients._open_cards
    monkeypatch.setattr(DrmClients, "_open_cards", lambda one, pid: asked.append(pid) or real(one, pid))
    clients.look()
    assert len(asked) == 53
    asked.clear()
    machine.program(40, opens={9: ("/dev/dri/renderD128", amdgpu(9, gfx_s=1.0))})
    machine.program(100, opens={9: ("/dev/dri/renderD128", amdgpu(10, gfx_s=1.0))})
    clock.advance(2.0)
    told = clients.look()
    assert told is not None
    assert {use.pid for use in told["renderD128"]} == {20, 30, 40}
    assert asked == [20, 30, 40]
    clock.advance(EVERYTHING_EVERY_S)
    told = clients.look()
    assert told is not None
    assert {use.pid for use in told["renderD128"]} == {20, 30, 40, 100}
    machine.end(20)
    told = clients.look()
    assert told is not None
    assert 20 not in {use.pid for use in told["renderD128"]}


def test_a_refusal_is_not_asked_for_again_at_once(
    machine: Machine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def refuse(clients: DrmClients, pid: int) -> tuple[tuple[str, str], ...]:
        asked.append(pid)
        raise PermissionError

    monkeypatch.setattr(DrmClients, "_open_cards", refuse)
    machine.program(30)
    clients = DrmClients(proc=machine.proc, now_s=clock)
    for _ in range(5):
        assert clients.look() is None
        clock.advance(2.0)
    assert asked == [1]
    clock.advance(60.0)
    assert clients.look() is None
    assert asked == [1, 1]


# Sleep


def test_a_card_that_sleeps_is_not_touched(
    machine: Machine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touched(*arguments: object) -> None:
        raise AssertionError("it was asked")

    monkeypatch.setattr(drm.DrmCards, "sample", touched)
    machine.sleep(machine.card(control="auto"))
    machine.sleep(machine.card("0000:02:00.0", number=1, control="auto"), "suspending")
    # NVIDIA's library is not there at all, which nobody notices either.
    machine.sleep(machine.card("0000:03:00.0", driver="nvidia", vendor=NVIDIA, number=None, control="auto"))
    probe = probe_of(machine, clock, guests(20))
    reading = probe.read(0.0)
    assert reading.value is not None
    assert [(use.asleep, use.others_ratio) for use in reading.value] == [(True, 0.0)] * 3
    assert all("asleep" in sentence for sentence in probe.describe())


@pytest.mark.parametrize(("delay_ms", "rest_s"), [(5000, 6.0), (None, 11.0), (10_000, 11.0), (-1, 0.5)])
def test_an_idle_card_that_may_sleep_is_left_alone_until_it_could(
    machine: Machine,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    delay_ms: int | None,
    rest_s: float,
) -> None:
    """Each question would start the time anew after which it falls asleep."""
    card = machine.card(control="auto", delay_ms=delay_ms)
    (card / "gpu_busy_percent").write_text("0\n")
    asked: list[float] = []
    real = drm.DrmCards.sample
    monkeypatch.setattr(
        drm.DrmCards, "sample", lambda cards, device: asked.append(clock.now_s) or real(cards, device)
    )
    probe = probe_of(machine, clock)
    for _ in range(60):
        reading = probe.read(0.0)
        assert reading.value is not None
        # What it says is as old as the last question.
        assert reading.age_s == pytest.approx(clock.now_s - asked[-1])
        clock.advance(0.5)
    gaps = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert gaps
    assert all(gap == rest_s for gap in gaps)
    # It falls asleep, is woken by somebody, and works: then it is asked at every look.
    machine.sleep(card)
    assert only(probe).asleep
    machine.sleep(card, "active")
    (card / "gpu_busy_percent").write_text("30\n")
    asked.clear()
    for _ in range(4):
        assert only(probe).others_ratio == 0.3
        clock.advance(2.0)
    assert len(asked) == 4


def test_a_card_that_falls_asleep_late_gets_its_time_and_is_then_taken_for_kept_awake(
    machine: Machine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The long rest makes the reading too old for a policy, which says why; it comes again only when it may have changed."""
    card = machine.card(control="auto", delay_ms=60_000)
    (card / "gpu_busy_percent").write_text("0\n")
    asked: list[float] = []
    real = drm.DrmCards.sample
    monkeypatch.setattr(
        drm.DrmCards, "sample", lambda cards, device: asked.append(clock.now_s) or real(cards, device)
    )
    probe = probe_of(machine, clock)

    def pass_time(seconds: int) -> list[float]:
        asked.clear()
        for _ in range(seconds):
            reading = probe.read(0.0)
            assert reading.value is not None
            assert ("asleep" in reading.problem) == (reading.age_s > 2.0)
            clock.advance(1.0)
        return [later - earlier for earlier, later in itertools.pairwise(asked)]

    assert pass_time(130) == [61.0, 11.0, 11.0, 11.0, 11.0, 11.0, 11.0]
    pass_time(1600)
    assert 61.0 in pass_time(200)
    machine.sleep(card)
    assert only(probe).asleep
    machine.sleep(card, "active")
    assert pass_time(70)[0] == 61.0


def test_what_was_told_of_counters_stands_while_the_card_is_left_alone(
    machine: Machine, clock: Clock
) -> None:
    card = machine.card(driver="i915", vendor=INTEL, control="auto", delay_ms=10_000)
    counter(card, "i915", 0, 50_000)
    probe = probe_of(machine, clock, sees_all=False)
    only(probe)
    for _ in range(10):
        clock.advance(2.0)
        counter(card, "i915", 0, 50_000 + (clock.now_s - 1000.0) * 1000)
        assert only(probe).others_ratio == 0.0


def test_a_card_that_may_not_sleep_is_asked_at_every_look(machine: Machine, clock: Clock) -> None:
    card = machine.card(control="on")
    probe = probe_of(machine, clock)
    for percent in (0, 10, 0, 20):
        (card / "gpu_busy_percent").write_text(f"{percent}\n")
        assert only(probe).others_ratio == percent / 100
        clock.advance(2.0)


def test_a_card_that_fell_asleep_between_two_files_sleeps(
    machine: Machine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newer kernels answer EPERM then."""
    card = machine.card(control="auto")
    (card / "gpu_busy_percent").write_text("50\n")
    probe = probe_of(machine, clock)
    assert only(probe).others_ratio == 0.5

    def refuse(file: str) -> str:
        machine.sleep(card)
        raise PermissionError(errno.EPERM, "Operation not permitted", file)

    monkeypatch.setattr(drm, "_read", refuse)
    assert only(probe).asleep


# The texts


def test_fdinfo_of_each_driver_is_read() -> None:
    amd = parse(amdgpu(5, gfx_s=1.5, compute_s=2.0, vram_kib=2048))
    assert amd is not None
    assert amd.times(10.0) == {
        "gfx 5": EngineTime(busy=1.5, whole=10.0),
        "compute 5": EngineTime(busy=2.0, whole=10.0),
    }
    assert amd.used_bytes == 2 << 20
    intel = parse(i915(6, render_s=3.0, video_s=4.0))
    assert intel is not None
    assert intel.times(10.0)["video 6"] == EngineTime(busy=4.0, whole=20.0)
    assert intel.times(10.0)["render 6"] == EngineTime(busy=3.0, whole=10.0)
    assert intel.used_bytes is None
    new = parse(xe(7, rcs=50, vcs=10, total=200))
    assert new is not None
    assert new.times(10.0) == {
        "rcs 7": EngineTime(busy=50.0, whole=200.0),
        "vcs 7": EngineTime(busy=10.0, whole=400.0),
    }
    assert new.used_bytes == 128 << 10


@pytest.mark.parametrize(
    "told",
    [
        "",
        "pos:\t0\nflags:\t0100002\n",
        "drm-driver:\tamdgpu\n",
        "drm-client-id:\t1\n",
        "drm-driver\ndrm-client-id\n",
        "\x00\xff drm-: :\n:::\n",
    ],
)
def test_what_is_no_handle_of_a_card_or_has_no_name_of_its_own_is_none(told: str) -> None:
    assert parse(told) is None


def test_garbage_in_fdinfo_harms_nobody() -> None:
    client = parse(
        "drm-driver:\tamdgpu\ndrm-client-id:\t1\ndrm-engine-gfx:\t-5 ns\ndrm-engine-:\t1 ns\ndrm-engine-dec:\n"
        "drm-engine-capacity-gfx:\t0\ndrm-cycles-x:\t5\ndrm-memory-vram:\t1 GiB\ndrm-engine-enc: 7 ns"
    )
    assert client is not None
    assert client.times(2.0)["enc 1"] == EngineTime(busy=7e-9, whole=2.0)
    assert "gfx 1" not in client.times(2.0)


@pytest.mark.skipif(sys.platform != "linux", reason="asks this machine itself")
def test_this_machine_tells_of_its_own() -> None:
    from idle_sense.platform.linux import Linux

    ledger = GuestLedger()
    probe = Linux().gpus(ledger)
    assert probe.slow
    reading = probe.read(0.0)
    assert reading.value is not None or (reading.problem and reading.advice)
    assert probe.capability().probe == "gpus"
    probe.close()
