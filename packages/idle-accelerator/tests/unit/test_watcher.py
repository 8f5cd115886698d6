"""The agent's side of the watch: it is told what changes and no more, what it did is taken over, and its death is survived."""

import asyncio
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

if sys.platform != "linux":
    pytest.skip("the watch needs Linux's control groups", allow_module_level=True)

from idle_accelerator.agent import guard, watcher
from idle_accelerator.agent.guard import Guard
from idle_accelerator.agent.host.types import GroupHome
from idle_accelerator.agent.watcher import Stopped, Watcher
from idle_accelerator.core.reclaim import OwnerState
from idle_accelerator.wire.reasons import reason
from idle_accelerator.wire.resources import Resources
from idle_accelerator.wire.states import AttemptState

AWAY = OwnerState(lent=True, lent_jobs=None, reason=reason("node.available"), memory_short=False)
BACK = OwnerState(lent=False, lent_jobs=None, reason=reason("owner.returned"), memory_short=False)
SCRIPT = """
import json, sys
print(json.dumps({"ready": True}), flush=True)
with open(HEARD, "a") as heard:
    for line in sys.stdin:
        heard.write(line); heard.flush()
        if json.loads(line)["armed"] and REPORTS:
            print(json.dumps({"input_at_s": 5.0, "frozen": {"/g/11": 5.25}, "missed": ["/g/22"]}), flush=True)
        if json.loads(line)["armed"] and DIES:
            break
"""


class Play:
    """A watch that a test has written, and what it heard."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        self.stopped: list[Stopped] = []
        home = GroupHome(folder=str(folder), version=2, weights=None)
        monkeypatch.setattr(watcher, "group_home", lambda: home)

    def watcher(self, *, reports: bool = False, dies: bool = False) -> Watcher:
        text = SCRIPT.replace("HEARD", repr(str(self.folder / "heard")))
        program = self.folder / "watch.py"
        program.write_text(text.replace("REPORTS", str(reports)).replace("DIES", str(dies)))
        self._monkeypatch.setattr(watcher, "PROGRAM", program)
        return Watcher(input_idle_s=300, on_stopped=self.stopped.append)

    def heard(self) -> list[dict[str, Any]]:
        try:
            lines = (self.folder / "heard").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    return Play(tmp_path, monkeypatch)


async def until(look: Any, *, what: str) -> None:
    deadline_s = time.monotonic() + 60
    while not look():
        assert time.monotonic() < deadline_s, what
        await asyncio.sleep(0.01)


async def test_it_hears_only_what_changes(play: Play) -> None:
    watch = play.watcher()
    assert watch.pid is None, "no guest, no process"
    for _ in range(3):
        watch.arm(frozenset())
    watch.arm(frozenset({"7"}))
    watch.disarm()
    watch.disarm()
    await until(lambda: len(play.heard()) == 3, what="three commands")
    assert [(each["armed"], each["spared"]) for each in play.heard()] == [
        (True, []),
        (True, ["7"]),
        (False, []),
    ]
    watch.close()
    assert watch.pid is None


async def test_input_just_before_it_was_armed_counts_and_input_that_was_answered_does_not(play: Play) -> None:
    watch = play.watcher(reports=True)
    before_s = time.monotonic()
    watch.arm(frozenset())
    await until(lambda: play.stopped, what="it tells what it did")
    assert before_s - 0.51 <= play.heard()[0]["since_s"] <= before_s
    (stopped,) = play.stopped
    assert (stopped.input_at_s, stopped.groups["/g/11"]) == (5.0, 5.25)
    assert "/g/22" in stopped.groups, "what was not seen to stand still is settled too"
    later = Stopped(groups={}, input_at_s=time.monotonic() + 100)
    watch.acknowledge(later)
    watch.arm(frozenset())
    await until(lambda: len(play.heard()) == 3, what="acknowledged, and armed anew")
    assert [each["armed"] for each in play.heard()] == [True, False, True]
    assert play.heard()[2]["since_s"] > (later.input_at_s or 0)
    watch.close()


async def test_its_death_is_survived_and_it_is_not_started_again_at_once(play: Play) -> None:
    watch = play.watcher(dies=True)
    watch.arm(frozenset())
    await until(lambda: watch.pid is None, what="the agent notices")
    watch.arm(frozenset())
    assert watch.pid is None
    watch.close()


async def test_without_guests_it_ends_after_a_while_and_guests_that_come_meanwhile_keep_it(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "LINGER_S", 0.2)
    watch = play.watcher()
    watch.arm(frozenset())
    watch.rest()
    watch.arm(frozenset())
    await asyncio.sleep(0.5)
    assert watch.pid is not None
    watch.rest()
    await until(lambda: watch.pid is None, what="it ends")


def attempt(group: str, state: AttemptState) -> Any:
    record = SimpleNamespace(group=group, brand=group)
    return SimpleNamespace(guest=SimpleNamespace(record=record), state=state)


class Told:
    """A watcher that notes what it is told."""

    def __init__(self) -> None:
        self.said: list[object] = []

    def arm(self, spared: frozenset[str]) -> None:
        self.said.append(spared)

    def disarm(self) -> None:
        self.said.append("disarm")

    def rest(self) -> None:
        self.said.append("rest")

    def acknowledge(self, stopped: Stopped) -> None:
        self.said.append(stopped)


def test_what_the_watch_froze_and_nobody_wants_frozen_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    thawed: set[str] = set()
    monkeypatch.setattr(guard, "thaw_groups", thawed.update)
    hand = SimpleNamespace(
        running=lambda: [
            attempt("/g/frozen", AttemptState.SUSPENDED),
            attempt("/g/leaves", AttemptState.VACATING),
        ]
    )
    told = Told()
    held = Guard(cast("Any", told), cast("Any", hand))
    stopped = Stopped(groups={"/g/frozen": 4.0, "/g/leaves": 4.0, "/g/reserve": 4.0}, input_at_s=3.9)
    held.begin_settling(stopped)
    assert held.frozen_at_s(attempt("/g/frozen", AttemptState.RUNNING).guest, 9.0) == 4.0
    held.end_settling(stopped)
    assert thawed == {"/g/leaves", "/g/reserve"}
    assert told.said == [stopped]
    assert held.frozen_at_s(attempt("/g/frozen", AttemptState.RUNNING).guest, 9.0) == 9.0


def test_the_kernels_quota_follows_the_share_and_is_lifted_for_a_freeze(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quotas: list[float | None] = []
    monkeypatch.setattr(guard, "cap_cpus", quotas.append)
    held = Guard(None, cast("Any", SimpleNamespace()))
    share = OwnerState(
        lent=True,
        lent_jobs=None,
        reason=reason("node.available"),
        memory_short=False,
        share=Resources(cpus=3),
    )
    for owner in (AWAY, share, share, BACK, share):
        held.cap(owner)
    held.uncap()
    held.cap(share)
    assert quotas == [3.0, None, 3.0, None, 3.0]


def test_without_guests_the_watch_rests_and_when_input_changes_nothing_it_is_disarmed() -> None:
    told = Told()
    hand = SimpleNamespace(has_guests=False, has_gpus=False)
    held = Guard(cast("Any", told), cast("Any", hand))
    held.arm(BACK, vacate_after_s=600)
    hand.has_guests = True
    held.arm(None, vacate_after_s=600)
    held.arm(BACK, vacate_after_s=600)
    assert told.said == ["rest", "disarm", frozenset()]
