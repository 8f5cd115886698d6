"""Disk and network rates of others, from trees of files as laptops, servers and containers have them."""

import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from idle_sense import GuestLedger
from idle_sense.facts import Traffic
from idle_sense.platform import connections
from idle_sense.platform.connections import WITH_HEADERS, OwnConnections, total_in
from idle_sense.platform.disks import Disks, Moved, grown, parsed, parsed_io, rise
from idle_sense.platform.linux import Linux
from idle_sense.platform.nics import NetworkOfGuests, Nics
from idle_sense.probes.traffic import WRITTEN_BACK_S, Credit, TrafficProbe

MIB = 1 << 20


class Machine:
    """A /proc and a /sys that tests write."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.sys = folder / "proc", folder / "sys"
        self.disks: dict[str, tuple[int, int]] = {}
        self.nics: dict[str, tuple[int, int]] = {}
        self.numbers: dict[str, int] = {}
        (self.proc / "net").mkdir(parents=True)
        self.sys.mkdir()
        self.process("self", net="net:[1]")

    def disk(self, name: str, *, on: str = "", holders: tuple[str, ...] = ()) -> None:
        """``on``: the disk that this is a partition of."""
        real = self.sys / "devices" / (f"{on}/{name}" if on else name)
        (real / "holders").mkdir(parents=True)
        for holder in holders:
            (real / "holders" / holder).touch()
        if on:
            (real / "partition").write_text("1\n")
        link = self.sys / "class" / "block" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(real)
        self.disks[name] = (0, 0)

    def nic(
        self, name: str, *, real: bool = False, paired: bool = False, parts: tuple[str, ...] = ()
    ) -> None:
        folder = self.sys / "class" / "net" / name
        folder.mkdir(parents=True)
        (folder / "ifindex").write_text("3\n")
        (folder / "iflink").write_text("8\n" if paired else "3\n")
        for part in (*parts, *(("device",) if real else ())):
            (folder / part).mkdir()
        self.nics[name] = (0, 0)

    def process(self, name: str | int, *, net: str, fds: tuple[str, ...] = ()) -> None:
        folder = self.proc / str(name)
        (folder / "ns").mkdir(parents=True)
        (folder / "ns" / "net").symlink_to(net)
        (folder / "fd").mkdir()
        (folder / "net").mkdir()
        (folder / "net" / "unix").write_text("Num RefCount Protocol Flags Type St Inode Path\n")
        for number, target in enumerate(fds):
            (folder / "fd" / str(number)).symlink_to(target)

    def write(self) -> None:
        lines = [
            f"{8 + index // 16:4d} {index % 16:7d} {name} 1 0 {read // 512} 0 1 0 {written // 512} 0 0 0 0 0 0 0 0 0 0"
            for index, (name, (read, written)) in enumerate(self.disks.items())
        ]
        (self.proc / "diskstats").write_text("".join(f"{line}\n" for line in lines))
        nics = [
            f"{name:>6}: {received} 1 0 0 0 0 0 0 {sent} 1 0 0 0 0 0 0"
            for name, (received, sent) in self.nics.items()
        ]
        heading = "Inter-|   Receive   |  Transmit\n face |bytes packets |bytes packets\n"
        (self.proc / "net" / "dev").write_text(heading + "".join(f"{line}\n" for line in nics))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def laptop(machine: Machine) -> Machine:
    """Encrypted root with volumes on it, swap, a boot partition beside, snaps on loops, compressed memory."""
    machine.disk("nvme0n1")
    machine.disk("nvme0n1p1", on="nvme0n1")
    machine.disk("nvme0n1p2", on="nvme0n1")
    machine.disk("nvme0n1p3", on="nvme0n1", holders=("dm-0",))
    machine.disk("dm-0", holders=("dm-1", "dm-2"))
    machine.disk("dm-1")
    machine.disk("dm-2")
    for name in ("loop0", "loop17", "zram0", "ram0", "nvme0c0n1"):
        machine.disk(name)
    machine.nic("lo")
    machine.nic("wlp0s20f3", real=True)
    machine.nic("enp0s31f6", real=True)
    machine.nic("docker0", parts=("bridge",))
    machine.nic("veth12ab", paired=True)
    machine.nic("wg0")
    machine.write()
    return machine


def counted(machine: Machine) -> set[str]:
    disks = Disks(proc=str(machine.proc), sys=str(machine.sys))
    disks.read()
    return set(disks.counted)


def test_on_an_encrypted_laptop_each_byte_is_counted_once(laptop: Machine) -> None:
    assert counted(laptop) == {"nvme0n1p1", "nvme0n1p2", "dm-1", "dm-2"}


def test_a_mirror_counts_once_and_not_by_its_two_disks(machine: Machine) -> None:
    for disk in ("sda", "sdb"):
        machine.disk(disk)
        machine.disk(f"{disk}1", on=disk, holders=("md0",))
    machine.disk("md0")
    machine.disk("sdc")
    machine.disk("sdc1", on="sdc")
    machine.write()
    assert counted(machine) == {"md0", "sdc"}


def test_without_sysfs_partitions_and_volumes_are_told_by_their_names(machine: Machine) -> None:
    for name in (
        "sda",
        "sda1",
        "vda",
        "xvda1",
        "xvda",
        "nvme0n1",
        "nvme0n1p2",
        "mmcblk0",
        "mmcblk0p1",
        "dm-0",
        "md127",
    ):
        machine.disks[name] = (0, 0)
    machine.write()
    assert counted(machine) == {"sda", "vda", "xvda", "nvme0n1", "mmcblk0"}


def test_a_disk_that_is_plugged_in_is_counted_from_then_on(laptop: Machine) -> None:
    disks = Disks(proc=str(laptop.proc), sys=str(laptop.sys))
    disks.read()
    laptop.disk("sda")
    laptop.write()
    disks.read()
    assert "sda" in disks.counted


def test_interfaces_of_real_devices_count_and_what_is_built_upon_them_does_not(laptop: Machine) -> None:
    nics = Nics(proc=str(laptop.proc), sys=str(laptop.sys))
    nics.read()
    assert nics.counted == {"wlp0s20f3", "enp0s31f6"}


def test_inside_a_container_its_own_end_of_the_pair_counts(machine: Machine) -> None:
    machine.nic("lo")
    machine.nic("eth0", paired=True)
    machine.nic("eth0.5", paired=True, parts=("lower_eth0",))
    machine.nic("br-1", parts=("bridge",))
    machine.nic("tun0", parts=("tun_flags",))
    machine.write()
    nics = Nics(proc=str(machine.proc), sys=str(machine.sys))
    nics.read()
    assert nics.counted == {"eth0"}


def test_where_sysfs_shows_another_network_names_decide(machine: Machine) -> None:
    for name in ("lo", "eth0", "docker0", "veth1", "wg0", "virbr0", "wlan0"):
        machine.nics[name] = (0, 0)
    machine.write()
    nics = Nics(proc=str(machine.proc), sys=str(machine.sys))
    nics.read()
    assert nics.counted == {"eth0", "wlan0"}


@pytest.mark.parametrize(
    ("now", "before", "by"), [(10, 4, 6), (4, 4, 0), (3, 4, 3), (0, 2**32 - 1, 0), (5, 2**64 - 1, 5)]
)
def test_a_counter_that_began_anew_or_wrapped_never_fell(now: int, before: int, by: int) -> None:
    assert rise(now, before) == by


def test_a_device_that_went_and_came_back_never_has_a_negative_rate() -> None:
    first = {"sdb": Moved(10 * MIB, MIB)}
    assert grown({}, first, {"sdb"}) == (0, 0)
    assert grown({"sdb": Moved(MIB, 0)}, first, {"sdb"}) == (MIB, 0)
    assert grown({"sdb": Moved(MIB, 0)}, {}, {"sdb"}) == (MIB, 0)


def test_old_and_new_lines_of_diskstats_are_read() -> None:
    table, devices = parsed(
        b"   8       0 sda 100 5 2048 30 50 7 4096 20 0 40 50\n"
        b" 259       0 nvme0n1 100 5 2048 30 50 7 4096 20 0 40 50 0 0 0 0 9 1\n"
        b"   8       1 sda1 5 6 7 8\n"
        b"   7       3 loop3 1 1 1 1 1 1 1 1 1 1 1\n"
    )
    assert table == {"sda": Moved(MIB, 2 * MIB), "nvme0n1": Moved(MIB, 2 * MIB)}
    assert devices == {"sda": "8:0", "nvme0n1": "259:0"}


def test_what_a_process_wrote_and_threw_away_again_was_not_written() -> None:
    text = b"rchar: 9\nwchar: 9\nsyscr: 1\nsyscw: 1\nread_bytes: 4096\nwrite_bytes: 12288\ncancelled_write_bytes: %d\n"
    assert parsed_io(text % 4096) == (4096.0, 8192.0)
    assert parsed_io(text % 99999) == (4096.0, 0.0), "somebody else's bytes were thrown away"


def probe_of(machine: Machine, ledger: GuestLedger | None = None) -> TrafficProbe:
    return TrafficProbe(Linux(), ledger or GuestLedger(), proc=str(machine.proc), sys=str(machine.sys))


def told(probe: TrafficProbe, now_s: float) -> Traffic:
    value = probe.read(now_s).value
    assert value is not None
    return value


def test_rates_need_two_looks_and_are_those_of_devices(laptop: Machine) -> None:
    probe = probe_of(laptop)
    assert told(probe, 0.0) == Traffic(disk_bytes_per_s=None, network_bytes_per_s=None)
    for name in ("dm-1", "dm-0", "nvme0n1", "nvme0n1p3"):
        laptop.disks[name] = (6 * MIB, 2 * MIB)
    laptop.nics["wlp0s20f3"] = (3 * MIB, MIB)
    laptop.nics["wg0"] = laptop.nics["lo"] = (3 * MIB, MIB)
    laptop.write()
    assert told(probe, 2.0) == Traffic(disk_bytes_per_s=4 * MIB, network_bytes_per_s=2 * MIB)
    assert told(probe, 4.0) == Traffic(disk_bytes_per_s=0, network_bytes_per_s=0)


def test_a_second_look_at_once_hands_out_the_last_rates_with_their_age(laptop: Machine) -> None:
    probe = probe_of(laptop)
    probe.read(0.0)
    probe.read(2.0)
    reading = probe.read(2.1)
    assert reading.age_s == pytest.approx(0.1)
    assert reading.value is not None


@pytest.mark.parametrize(
    "garbage", ["   8  0 sda x y z a b c d e f g\n", "   8  0 sda 1 1 ? 1 1 1 1 1 1 1\n"]
)
def test_garbage_after_it_was_told_is_missing_and_never_a_rate(laptop: Machine, garbage: str) -> None:
    probe = probe_of(laptop)
    probe.read(0.0)
    (laptop.proc / "diskstats").write_text(garbage)
    reading = probe.read(2.0)
    assert reading.value is None
    assert reading.tells
    assert "disks" in reading.problem
    laptop.write()
    assert probe.read(4.0).value is not None


def test_files_that_vanish_are_missing_and_files_that_never_were_are_untold(laptop: Machine) -> None:
    probe = probe_of(laptop)
    probe.read(0.0)
    (laptop.proc / "diskstats").unlink()
    assert probe.read(2.0).tells
    blind = probe_of(laptop)
    value = told(blind, 0.0)
    assert value.disk_bytes_per_s is None
    (laptop.proc / "net" / "dev").unlink()
    nothing = probe_of(laptop).read(0.0)
    assert nothing.value is None
    assert not nothing.tells


def test_what_this_program_sends_is_taken_off_where_it_says_so(laptop: Machine) -> None:
    ledger = GuestLedger()
    probe = probe_of(laptop, ledger)
    probe.read(0.0)
    ledger.sent(5 * MIB / WITH_HEADERS)
    laptop.nics["wlp0s20f3"] = (6 * MIB, MIB)
    laptop.write()
    assert told(probe, 2.0).network_bytes_per_s == MIB
    laptop.nics["wlp0s20f3"] = (8 * MIB, MIB)
    laptop.write()
    assert told(probe, 4.0).network_bytes_per_s == MIB, "said once, taken off once"


@pytest.fixture
def with_guest(laptop: Machine, monkeypatch: pytest.MonkeyPatch) -> Callable[..., GuestLedger]:
    """A ledger whose guests are the given processes of the scripted /proc."""

    def make(*pids: int) -> GuestLedger:
        ledger = GuestLedger()
        for pid in pids:
            ledger.add(pid)
        monkeypatch.setattr(GuestLedger, "pids", lambda self: set(pids))
        return ledger

    return make


def test_while_a_guest_uses_the_machines_network_nobody_can_tell_who_does(
    laptop: Machine, with_guest: Callable[..., GuestLedger]
) -> None:
    laptop.process(501, net="net:[1]", fds=("/dev/null", "socket:[77]"))
    probe = probe_of(laptop, with_guest(501))
    probe.read(0.0)
    laptop.nics["wlp0s20f3"] = (8 * MIB, 0)
    laptop.write()
    value = told(probe, 2.0)
    assert value.network_bytes_per_s is None
    assert value.disk_bytes_per_s == 0
    assert "namespace" in probe.capability().advice


def test_a_guest_with_local_sockets_or_none_does_not_hide_the_owners_network(
    laptop: Machine, with_guest: Callable[..., GuestLedger]
) -> None:
    laptop.process(501, net="net:[1]", fds=("/dev/null", "pipe:[3]"))
    laptop.process(502, net="net:[1]", fds=("socket:[77]",))
    unix = laptop.proc / "502" / "net" / "unix"
    unix.write_text(
        unix.read_text() + "0000000000000000: 00000002 00000000 00000000 0001 03 77 /run/one.sock\n"
    )
    probe = probe_of(laptop, with_guest(501, 502))
    probe.read(0.0)
    laptop.nics["wlp0s20f3"] = (8 * MIB, 0)
    laptop.write()
    assert told(probe, 2.0).network_bytes_per_s == 4 * MIB


def test_a_guest_in_a_network_of_its_own_is_taken_off(
    laptop: Machine, with_guest: Callable[..., GuestLedger]
) -> None:
    laptop.process(501, net="net:[4026532]")
    heading = "Inter-|\n face |\n"
    inside = laptop.proc / "501" / "net" / "dev"
    inside.write_text(f"{heading}    lo: 900 1 0 0 0 0 0 0 900 1\n  eth0: 0 0 0 0 0 0 0 0 0 0\n")
    probe = probe_of(laptop, with_guest(501))
    probe.read(0.0)
    inside.write_text(
        f"{heading}    lo: {90 * MIB} 1 0 0 0 0 0 0 900 1\n  eth0: {3 * MIB} 1 0 0 0 0 0 0 {MIB} 1\n"
    )
    laptop.nics["wlp0s20f3"] = (6 * MIB, 0)
    laptop.write()
    assert told(probe, 2.0).network_bytes_per_s == MIB


def test_a_guest_that_just_ended_had_its_part_in_what_was_sent(laptop: Machine) -> None:
    laptop.process(501, net="net:[1]", fds=("socket:[77]",))
    network = NetworkOfGuests(proc=str(laptop.proc))
    assert network.look([501]).shared
    assert network.look([]).shared
    assert not network.look([]).shared


def test_a_guest_that_may_not_be_looked_at_may_use_the_network(
    laptop: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    laptop.process(501, net="net:[1]")
    listed = os.listdir

    def refuse(path: str) -> list[str]:
        if path.endswith("/501/fd"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "listdir", refuse)
    assert NetworkOfGuests(proc=str(laptop.proc)).look([501]).shared


def test_on_a_kernel_without_network_namespaces_any_guest_may_use_the_network(laptop: Machine) -> None:
    for name in ("self", "501"):
        if name != "self":
            laptop.process(name, net="net:[1]")
        (laptop.proc / name / "ns" / "net").unlink()
    network = NetworkOfGuests(proc=str(laptop.proc))
    assert network.look([501]).shared
    assert not network.look([]).shared


class ScriptedIo:
    """Processes whose bytes tests say; groups that do not count."""

    def __init__(self) -> None:
        self.moved: dict[int, tuple[float, float]] = {}
        self.refused = False

    def of_process(self, pid: int) -> tuple[float, float] | None:
        return self.moved.get(pid, (0.0, 0.0))

    def of_group(self, group: object) -> None:
        return None


def test_what_guests_move_on_disks_is_not_the_owners(laptop: Machine) -> None:
    """The guest is this very program, which is always one."""
    probe = probe_of(laptop)
    probe._use = use = ScriptedIo()  # type: ignore[assignment]
    probe.read(0.0)
    use.moved[os.getpid()] = (4 * MIB, 10 * MIB)
    laptop.disks["dm-1"] = (6 * MIB, 0)
    laptop.write()
    assert told(probe, 2.0).disk_bytes_per_s == MIB, "2 MiB of what was read are others'"
    laptop.disks["dm-1"] = (6 * MIB, 10 * MIB)
    laptop.write()
    assert told(probe, 12.0).disk_bytes_per_s == 0, "written back later, and still the guest's"
    laptop.disks["dm-1"] = (6 * MIB, 12 * MIB)
    laptop.write()
    assert told(probe, 14.0).disk_bytes_per_s == MIB


def test_what_guests_wrote_is_taken_off_when_it_reaches_the_disk_later() -> None:
    credit = Credit(WRITTEN_BACK_S)
    credit.add(0.0, 100.0)
    assert credit.draw(10.0, 30.0) == 30.0
    assert credit.draw(20.0, 100.0) == 70.0
    assert credit.draw(20.0, 100.0) == 0.0
    credit.add(30.0, 100.0)
    assert credit.draw(30.0 + WRITTEN_BACK_S + 1, 100.0) == 0.0, "what never came covers nobody"
    credit.add(100.0, -5.0)
    assert credit.draw(100.0, 5.0) == 0.0


def test_bytes_of_a_connection_are_those_that_arrived_both_ways() -> None:
    info = bytearray(232)
    struct.pack_into("=QQ", info, 120, 1000, 234)
    assert total_in(bytes(info)) == 1234
    assert total_in(bytes(104)) == 0, "a kernel that does not count them"


def test_connections_within_the_machine_and_other_sockets_pass_no_device() -> None:
    own = OwnConnections()
    assert own.moved_bytes() == 0
    one, other = socket.socketpair()
    with (
        one,
        other,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as near,
        server.accept()[0] as far,
    ):
        one.send(bytes(1000))
        near.sendall(bytes(100_000))
        left = 100_000
        while left:
            left -= len(far.recv(left))
        assert own.moved_bytes() == 0


def test_connections_to_elsewhere_are_counted_from_their_first_byte_and_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel counts a real connection; only its far end is said to be elsewhere, which no test machine has."""
    monkeypatch.setattr(connections, "_is_within", lambda _one: False)
    own = OwnConnections()
    with socket.create_server(("127.0.0.1", 0)) as server:
        own.moved_bytes()
        with socket.create_connection(server.getsockname()) as near, server.accept()[0] as far:
            near.sendall(bytes(100_000))
            left = 100_000
            while left:
                left -= len(far.recv(left))
            deadline_s = time.monotonic() + 30
            moved = 0.0
            # Both ends are ours here: one has sent, the other has received. The last acknowledgement may be on its way.
            while moved < 200_000 * WITH_HEADERS:
                moved += own.moved_bytes()
                assert time.monotonic() < deadline_s
            assert moved == pytest.approx(200_000 * WITH_HEADERS, abs=10)
            assert own.moved_bytes() == 0
        assert own.moved_bytes() == 0
