"""What the ledger promises of any forest of processes: it never takes the owner's work for a guest's, and where nothing is
lost on the way it takes none of a guest's for the owner's. Processes are scripted; they also end in the midst of a look."""

import os
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from idle_sense import GuestLedger
from idle_sense.platform import cgroups
from idle_sense.platform.cgroups import Cgroup, Mount
from idle_sense.probes.guests import ProcessInfo

OWN = os.getpid()
MANY = settings(
    max_examples=150,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
"""A smaller seed makes no smaller example: nothing is shrunk."""
SEEDS = st.integers(0, 2**32)


@dataclass
class Proc:
    parent: int
    started: float
    grouped: bool
    guest: bool
    own: float = 0.0
    inherited: float = 0.0


@dataclass
class World:
    """A machine of this program, guests and strangers. Whoever ends is waited for at once, unless its parent is gone."""

    random: random.Random
    ledger: GuestLedger = field(default_factory=GuestLedger)
    table: dict[int, Proc] = field(default_factory=dict)
    own_s: float = 0.0
    own_children_s: float = 0.0
    group_s: float = 0.0
    guests_s: float = 0.0
    """The truth."""
    clock: float = 1.0
    meanwhile: deque[Callable[[], None]] = field(default_factory=deque)
    """What happens in the midst of the next look."""

    def spawn(self, parent: int, *, grouped: bool = False, guest: bool = True, add: bool = True) -> int:
        self.clock += 1.0
        pid = self.random.choice([pid for pid in range(10, 40) if pid not in self.table and pid != OWN])
        above = self.table.get(parent)
        grouped = grouped or (above is not None and above.grouped)
        guest = grouped or (above.guest if above is not None else guest)
        self.table[pid] = Proc(parent, self.clock, grouped, guest)
        if add:
            self.ledger.add(pid)
        return pid

    def work(self, pid: int, seconds: float) -> None:
        one = self.table.get(pid)
        if one is None:
            return
        one.own += seconds
        if one.grouped:
            self.group_s += seconds
        if one.guest:
            self.guests_s += seconds

    def end(self, pid: int) -> None:
        one = self.table.pop(pid, None)
        if one is None:
            return
        for child in self.table.values():
            if child.parent == pid:
                child.parent = 1
        if one.parent == OWN:
            self.ledger.discard(pid)
            self.own_children_s += one.own + one.inherited
        elif one.parent in self.table:
            self.table[one.parent].inherited += one.own + one.inherited

    def leaves(self) -> list[int]:
        parents = {one.parent for one in self.table.values()}
        return [pid for pid in self.table if pid not in parents]

    # What the ledger asks.

    def process(self, pid: int) -> ProcessInfo | None:
        if self.meanwhile:
            self.meanwhile.popleft()()
        if pid == OWN:
            return ProcessInfo(OWN, 1, 0, 0, 0.5, 1, self.own_s + self.own_children_s, self.own_children_s)
        one = self.table.get(pid)
        if one is None:
            return None
        return ProcessInfo(pid, one.parent, 0, 0, one.started, 1, one.own + one.inherited, one.inherited)

    def children(self, process: ProcessInfo) -> list[int]:
        return [pid for pid, one in self.table.items() if one.parent == process.pid]

    def look(self) -> float:
        return self.ledger.spent_s(self)


class OneGroup(Cgroup):
    """A control group that is read from the world."""

    def __init__(self, world: World) -> None:
        super().__init__("/groups/guests", Mount("/groups", "/", 2, frozenset()))
        self._world = world

    def cpu_s(self) -> float:
        return self._world.group_s


@pytest.fixture
def make_world(monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    def make(seeded: random.Random, *, grouped: bool = False) -> World:
        world = World(seeded)
        monkeypatch.setattr(
            os, "times", lambda: os.times_result((world.own_s, 0.0, world.own_children_s, 0.0, 0.0))
        )
        monkeypatch.setattr(
            cgroups,
            "membership_of",
            lambda pid: b"0::/guests\n" if pid in world.table and world.table[pid].grouped else b"0::/\n",
        )
        monkeypatch.setattr(cgroups, "cgroup_at", lambda path: OneGroup(world))
        if grouped:
            world.ledger.add_cgroup("/groups/guests")
        return world

    return make


def live(world: World, steps: int, act: Callable[[], None]) -> None:
    """Looks between the acts; what is known is never more than the truth, and never falls."""
    last_s = world.look()
    for _ in range(steps):
        act()
        if world.random.random() < 0.4:
            now_s = world.look()
            assert now_s >= last_s
            assert now_s <= world.guests_s + 1e-6
            last_s = now_s


def settle(world: World) -> float:
    """A child that ended in the midst of a look is settled by the one after it."""
    world.meanwhile.clear()
    world.look()
    return world.look()


@given(seed=SEEDS)
@MANY
def test_trees_whose_parents_wait_are_counted_to_the_last_second(
    make_world: Callable[..., World], seed: int
) -> None:
    seeded = random.Random(seed)
    world = make_world(seeded)

    def act() -> None:
        pids = list(world.table)
        match seeded.random():
            case chance if chance < 0.35 and len(pids) < 20:
                parent = seeded.choice([OWN, *pids])
                world.spawn(parent, add=parent == OWN)
            case chance if chance < 0.7 and pids:
                world.work(seeded.choice(pids), seeded.uniform(0, 9))
            case _ if world.leaves():
                world.end(seeded.choice(world.leaves()))

    live(world, 60, act)
    assert settle(world) == pytest.approx(world.guests_s)


@given(seed=SEEDS)
@MANY
def test_children_that_end_in_the_midst_of_a_look_are_counted_once(
    make_world: Callable[..., World], seed: int
) -> None:
    seeded = random.Random(seed)
    world = make_world(seeded)

    def end_something() -> None:
        if world.leaves():
            world.end(seeded.choice(world.leaves()))

    def act() -> None:
        pids = list(world.table)
        match seeded.random():
            case chance if chance < 0.35 and len(pids) < 20:
                parent = seeded.choice([OWN, *pids])
                world.spawn(parent, add=parent == OWN)
            case chance if chance < 0.7 and pids:
                world.work(seeded.choice(pids), seeded.uniform(0, 9))
            case chance if chance < 0.85:
                world.meanwhile.append(end_something)
            case _:
                end_something()

    live(world, 60, act)
    assert settle(world) == pytest.approx(world.guests_s)


@given(seed=SEEDS)
@MANY
def test_guests_in_a_group_are_counted_exactly_whoever_waits_for_them_and_whether_their_trees_were_added(
    make_world: Callable[..., World], seed: int
) -> None:
    seeded = random.Random(seed)
    world = make_world(seeded, grouped=True)

    def act() -> None:
        pids = list(world.table)
        match seeded.random():
            case chance if chance < 0.35 and len(pids) < 20:
                parent = seeded.choice([OWN, *pids])
                world.spawn(parent, grouped=True, add=seeded.random() < 0.5)
            case chance if chance < 0.7 and pids:
                world.work(seeded.choice(pids), seeded.uniform(0, 9))
            case _ if pids:
                world.end(seeded.choice(pids))

    live(world, 60, act)
    assert settle(world) == pytest.approx(world.guests_s)


@given(seed=SEEDS)
@MANY
def test_the_owners_work_is_never_a_guests_in_any_mixture(
    make_world: Callable[..., World], seed: int
) -> None:
    """Trees, groups, orphans, strangers, trees that are no guests any more, in the midst of looks or not."""
    seeded = random.Random(seed)
    world = make_world(seeded, grouped=True)

    def act() -> None:
        pids = list(world.table)
        match seeded.random():
            case chance if chance < 0.2 and len(pids) < 20:
                parent = seeded.choice([OWN, *pids])
                # Only who added a group starts anybody in it.
                world.spawn(parent, grouped=parent == OWN and seeded.random() < 0.5, add=parent == OWN)
            case chance if chance < 0.3 and len(pids) < 20:
                world.spawn(1, guest=False, add=False)
            case chance if chance < 0.6 and pids:
                world.work(seeded.choice(pids), seeded.uniform(0, 9))
            case chance if chance < 0.8 and pids:
                pid = seeded.choice(pids)
                world.meanwhile.append(lambda: world.end(pid))
            case _ if pids:
                world.end(seeded.choice(pids))

    live(world, 80, act)
    assert settle(world) <= world.guests_s + 1e-6


@given(seed=SEEDS, short=st.integers(1, 200))
@MANY
def test_children_that_live_shorter_than_a_look_are_their_guests(
    make_world: Callable[..., World], seed: int, short: int
) -> None:
    seeded = random.Random(seed)
    world = make_world(seeded)
    guest = world.spawn(OWN)
    world.look()
    for _ in range(short):
        child = world.spawn(guest, add=False)
        world.work(child, 0.1)
        world.end(child)
        if seeded.random() < 0.1:
            assert world.look() == pytest.approx(world.guests_s)
    assert world.look() == pytest.approx(world.guests_s) == pytest.approx(short * 0.1)
