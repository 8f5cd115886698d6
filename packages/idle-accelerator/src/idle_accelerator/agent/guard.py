"""What stands between guests and an owner who comes back, beside the runner: the watch, and the kernel's quota of processors."""

import time

from idle_accelerator.agent.hand import Hand
from idle_accelerator.agent.sandbox import Guest, cap_cpus, thaw_groups
from idle_accelerator.agent.watcher import Stopped, Watcher
from idle_accelerator.core.reclaim import Action, OwnerState, reclaim
from idle_accelerator.wire.states import AttemptState


class Guard:
    """For the event loop's thread, as the runner."""

    def __init__(self, watcher: Watcher | None, hand: Hand) -> None:
        self._watcher = watcher
        self._hand = hand
        self._stopped_at_s: dict[str, float] = {}
        """When the watch has frozen groups that are settled just now, by their folders."""
        self._cap: float | None = None
        """How many cores the kernel lets all guests together have."""

    def uncap(self) -> None:
        """Before a freeze: what waits for its next share of a second does not stand still before that."""
        self._set_cap(None)

    def cap(self, owner: OwnerState) -> None:
        """All guests together get no more than the owner's share, whatever they ask for."""
        self._set_cap(None if owner.share is None or not owner.lent else owner.share.cpus)

    def _set_cap(self, cores: float | None) -> None:
        if cores != self._cap:
            self._cap = cores
            cap_cpus(cores)

    def frozen_at_s(self, guest: Guest, now_s: float) -> float:
        """When it stood still, if the watch was quicker than the runner."""
        return min(now_s, self._stopped_at_s.get(guest.record.group, now_s)) if self._stopped_at_s else now_s

    def begin_settling(self, stopped: Stopped) -> None:
        """What follows takes over what the watch did."""
        self._stopped_at_s = dict(stopped.groups)

    def end_settling(self, stopped: Stopped) -> None:
        """Let go of what the watch has frozen and nobody wants frozen."""
        self._stopped_at_s = {}
        frozen = {
            attempt.guest.record.group
            for attempt in self._hand.running()
            if attempt.guest is not None and attempt.state is AttemptState.SUSPENDED
        }
        thaw_groups(set(stopped.groups) - frozen)
        if self._watcher is not None:
            self._watcher.acknowledge(stopped)

    def arm(self, then: OwnerState | None, *, vacate_after_s: float) -> None:
        """Tell the watch what to do at the first input: ``then`` is what the owner's state will be; None: as it is now."""
        if self._watcher is None:
            return
        if not self._hand.has_guests:
            self._watcher.rest()
            return
        if then is None:
            self._watcher.disarm()
            return
        spared: frozenset[str] = frozenset()
        if then.share is not None or then.lent_jobs is not None or self._hand.has_gpus:
            attempts = {attempt.key: attempt for attempt in self._hand.attempts()}
            states = [attempt.guest_state() for attempt in attempts.values()]
            said = reclaim(then, states, now_s=time.monotonic(), vacate_after_s=vacate_after_s)
            stopped = {item.key for item in said if item.action is Action.FREEZE}
            spared = frozenset(
                attempt.guest.record.brand
                for key, attempt in attempts.items()
                if attempt.guest is not None and key not in stopped
            )
        self._watcher.arm(spared)
