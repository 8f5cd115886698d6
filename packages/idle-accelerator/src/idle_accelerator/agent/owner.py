"""The owner's side of this machine: idle-sense's verdict, the owner's word and the room on the disk, watched."""

import asyncio
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from idle_accelerator.agent import control
from idle_accelerator.agent.availability import NO_RULES, Availability, HeldWord, Rules, availability
from idle_accelerator.agent.fingerprint import DISK_RESERVE_BYTES, free_disk_bytes
from idle_accelerator.wire.reasons import Reason, reason
from idle_sense import Monitor, Policy, Verdict

LOOK_FOR_WORD_S = 0.2
LOOK_AROUND_EVERY_S = 10.0
_NO_WORD = HeldWord(word=None, ends_at_s=None)


class OwnerWatch:
    """Calls ``on_change`` in the event loop's thread whenever ``now`` may have become another."""

    def __init__(self, monitor: Monitor, data_dir: Path) -> None:
        """Takes a first look, which blocks for some milliseconds."""
        self.draining = False
        """The agent is stopping: nothing new."""
        self.word_id = ""
        """The last word that ``now`` has in it."""
        self.on_change: Callable[[], None] = _nobody
        self.look_for_terms: Callable[[], bool] = _nothing_new
        """Reads the owner's file anew; true when what it says has changed. May set ``rules``."""
        self.rules: Rules = NO_RULES
        self._open = True
        self._monitor = monitor
        self._data_dir = data_dir
        self._verdict = monitor.check()
        self._held = _NO_WORD
        self._disk_low: Reason | None = None
        self._others: set[int] = set()
        self._look_for_word()
        self._look_at_disk()

    def now(self) -> Availability:
        return availability(
            self._verdict,
            self._held,
            now_s=time.monotonic(),
            draining=self.draining,
            disk_low=self._disk_low,
            rules=self.rules,
            open_now=self.rules.open_at(_local()),
        )

    def be_attentive(self, *, guests_run: bool) -> None:
        """While guests run, the owner's return is looked for ten times a second."""
        if guests_run != self._monitor.attentive:
            self._monitor.attentive = guests_run

    async def watch(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()

        def tell(verdict: Verdict) -> None:
            loop.call_soon_threadsafe(self._sensed, verdict)

        self._monitor.on_change(tell)
        self._monitor.start()
        around_due_s = 0.0
        while True:
            await asyncio.sleep(LOOK_FOR_WORD_S)
            now_s = time.monotonic()
            changed = self._look_for_word() | self.look_for_terms()
            if (is_open := self.rules.open_at(_local())) != self._open:
                self._open = is_open
                changed = True
            if self._held.word is not None and not self._held.holds(now_s):
                self._held = _NO_WORD
                changed = True
            if now_s >= around_due_s:
                around_due_s = now_s + LOOK_AROUND_EVERY_S
                self._look_for_other_agents()
                changed |= self._look_at_disk()
            if changed:
                self.on_change()

    def adopt(self, policy: Policy, rules: Rules) -> None:
        """The owner has other terms from now on."""
        self._monitor.policy = policy
        self.rules = rules

    async def look_now(self) -> None:
        """Have idle-sense look once, in a thread of its own; ``on_change`` is called with what it says."""
        self._sensed(await asyncio.to_thread(self._monitor.check))

    def _sensed(self, verdict: Verdict) -> None:
        self._verdict = verdict
        self.on_change()

    def _look_for_word(self) -> bool:
        """True when the word is another than before."""
        given = control.read_word(self._data_dir)
        if given.word_id == self.word_id:
            return False
        self.word_id = given.word_id
        left_s = given.left_s(time.time())
        self._held = HeldWord(
            word=given.word, ends_at_s=None if left_s is None else time.monotonic() + left_s
        )
        return True

    def _look_for_other_agents(self) -> None:
        """What the guests of another agent on this machine do is not the owner's work either."""
        others = {agent.pid for agent in control.running_agents()} - {os.getpid()}
        for pid in self._others - others:
            self._monitor.guests().discard(pid)
        for pid in others - self._others:
            self._monitor.guests().add(pid)
        self._others = others

    def _look_at_disk(self) -> bool:
        """True when the disk has become full, or has room again."""
        free_bytes = free_disk_bytes(self._data_dir)
        low = free_bytes < DISK_RESERVE_BYTES
        changed = low != (self._disk_low is not None)
        if changed:
            self._disk_low = reason("node.disk_low", free_bytes=free_bytes) if low else None
        return changed


def _local() -> datetime:
    """The time of day where the machine stands."""
    return datetime.fromtimestamp(time.time(), tz=UTC).astimezone()


def _nobody() -> None:
    """Nobody listens yet."""


def _nothing_new() -> bool:
    """There is no file."""
    return False
