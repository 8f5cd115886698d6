"""Takes leases in hand, starts what fits, and obeys core.reclaim when the owner comes."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from idle_accelerator.agent.attempts import Attempt
from idle_accelerator.agent.availability import Availability
from idle_accelerator.agent.ends import ended_by_us, kill_guest
from idle_accelerator.agent.guard import Guard
from idle_accelerator.agent.hand import Hand
from idle_accelerator.agent.sandbox import FreezeFailed, Guest
from idle_accelerator.agent.single import Single
from idle_accelerator.agent.slots import LINGER_S, FunctionJob
from idle_accelerator.agent.watcher import Stopped, Watcher
from idle_accelerator.agent.workshop import Workshop
from idle_accelerator.core.reclaim import Action, Instruction, next_deadline_s, reclaim
from idle_accelerator.core.resources import demand, minus, times
from idle_accelerator.wire.exchange import ExchangeAnswer, Order
from idle_accelerator.wire.ids import AttemptRef
from idle_accelerator.wire.isolation import RanUnder
from idle_accelerator.wire.jobs import Function, JobSpec, Wasm
from idle_accelerator.wire.nodes import ONLY_WASM, Offer
from idle_accelerator.wire.reasons import Reason, reason
from idle_accelerator.wire.resources import Resources
from idle_accelerator.wire.states import AttemptState

_log = logging.getLogger(__name__)
TELL_STATES_EVERY_S = 0.25
"""States on the way are told no more often: most short tasks end before."""
_END_S = 10.0
_HOUR_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the owner lends at most, and on which terms."""

    total: Resources
    vacate_after_s: float
    grace_s: float


class Runner:
    """All calls are made from the event loop's thread."""

    def __init__(
        self,
        shop: Workshop,
        limits: Limits,
        availability: Availability,
        *,
        on_change: Callable[[], None],
        watcher: Watcher | None = None,
    ) -> None:
        """``watcher``: freezes guests at the first input by itself; None where there is none."""
        self._shop = shop
        self._limits = limits
        self._availability = availability
        self._on_change = on_change
        self.hand = Hand()
        self.ran_under: RanUnder | None = None
        """What keeps the attempts that come from now on apart from the owner."""
        self.most_memory_bytes: int | None = None
        """Of one task, where nothing limits it hard and the work is somebody else's; None: no such limit."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._dying: set[Guest] = set()
        self._poke = asyncio.Event()
        self._has_begun = False
        self._stopping = False
        self._guard = Guard(watcher, self.hand)

    # What the session asks and brings.

    def offer(self) -> Offer:
        """What this machine lends now, less what runs."""
        now = self._availability
        trouble = self._shop.trouble.now
        if trouble is not None and now.lending in ("available", "lent"):
            return Offer(
                lending="in_use",
                free=self._free(),
                warm=self.hand.warm(),
                reasons=(trouble,),
            )
        return Offer(
            lending=now.lending,
            free=self._free(),
            only_jobs=now.only_jobs,
            warm=self.hand.warm(),
            reasons=now.reasons,
        )

    def _lent(self) -> Resources:
        """All that is lent, less the disk that ended attempts and environments take."""
        unwiped_bytes = self._shop.workspaces.unwiped_bytes
        if self._shop.environments is not None:
            unwiped_bytes += self._shop.environments.grown_bytes
        if not unwiped_bytes:
            return self._limits.total
        return minus(self._limits.total, Resources(disk_bytes=unwiped_bytes))

    def _free(self, *, warm_counts: bool = False) -> Resources:
        """What is lent and not in use; of the owner's share too, while that holds."""
        return self.hand.free_within(self._lent(), self._availability.owner.share, warm_counts=warm_counts)

    def set_limits(self, limits: Limits) -> None:
        """The owner has other terms from now on; what has begun keeps its grace."""
        self._limits = limits
        self.apply()

    def troubles(self) -> tuple[Reason, ...]:
        """What the owner of the machine should know of."""
        stuck = self._shop.workspaces.stuck()
        return () if stuck is None else (stuck,)

    def known_jobs(self) -> tuple[str, ...]:
        return tuple(self.hand.specs)

    def take_in(self, answer: ExchangeAnswer) -> None:
        """Leases and orders of an answer; both may have been seen before."""
        for grant in answer.grants:
            if grant.spec is not None:
                self.hand.specs[grant.job_id] = grant.spec
            spec = self.hand.specs.get(grant.job_id)
            if spec is None:
                continue  # Forgotten meanwhile: the lease is granted again, with its spec, as it is not held.
            for task_index, epoch in grant.attempts:
                ref = AttemptRef(grant.job_id, task_index, epoch)
                if self._shop.outbox.hold(ref):
                    resume = tuple(item.checkpoint for item in grant.resume if item.task_index == task_index)
                    self._accept(
                        Attempt(
                            ref=ref,
                            spec=spec,
                            grace_s=self._limits.grace_s,
                            resume=resume,
                            ran_under=self.ran_under,
                        )
                    )
        for order in answer.orders:
            self._obey(order)
        if answer.grants or answer.orders:
            self.apply()

    def _accept(self, attempt: Attempt) -> None:
        if times(self._limits.total, demand(attempt.spec.requirements)) < 1:
            self._reject(
                attempt, reason("agent.not_available")
            )  # granted to an earlier agent, which lent more
            return
        if attempt.spec.environment is not None and self._shop.environments is None:
            self._reject(attempt, reason("match.environments"))  # as above
            return
        most = self.most_memory_bytes
        if most is not None and (needed := attempt.spec.requirements.memory_bytes) > most:
            self._reject(
                attempt, reason("match.memory_unlimited", needed_bytes=needed, offered_bytes=most)
            )  # granted before the scheduler knew of it
            return
        workload = attempt.spec.workload
        if self._shop.sandbox.tier == ONLY_WASM and not isinstance(workload, Wasm):
            self._reject(attempt, reason("match.only_wasm"))  # granted to an earlier agent, as above
            return
        if isinstance(workload, Function) and not attempt.spec.inputs and not attempt.spec.outputs:
            job = self.hand.jobs.get(attempt.ref.job_id)
            if job is None:
                job = FunctionJob(
                    attempt.ref.job_id,
                    attempt.spec,
                    workload,
                    self._shop,
                    threads=_threads(attempt.spec),
                    grace_s=self._limits.grace_s,
                    on_begin=self._begun,
                    on_change=self._changed,
                )
                self.hand.jobs[attempt.ref.job_id] = job
            job.queue.append(attempt)
        else:
            self.hand.waiting.append(attempt)

    def _obey(self, order: Order) -> None:
        ref = AttemptRef(order.job_id, order.task_index, order.epoch)
        attempt = next((item for item in self.hand.attempts_of(ref.job_id) if item.ref == ref), None)
        if attempt is None:
            # Its end is on its way, or it is over for both sides.
            if order.reason.code == "lease.stale":
                self._shop.outbox.forget(ref)
            return
        attempt.cancelled = True
        if order.reason.code == "lease.stale":
            attempt.stale = True
            self._kill(attempt)
        elif attempt.vacating_at_s is None:
            self._vacate(attempt, order.reason)

    # What the owner and time bring.

    def set_availability(self, availability: Availability) -> None:
        """The owner came, went, or spoke: what must stand still does so before this returns."""
        self._availability = availability
        self.apply()

    def apply(self) -> None:
        """Do what core.reclaim says now, then start what may be started."""
        now_s = time.monotonic()
        attempts = {attempt.key: attempt for attempt in self.hand.attempts()}
        instructions = reclaim(
            self._availability.owner,
            [attempt.guest_state() for attempt in attempts.values()],
            now_s=now_s,
            vacate_after_s=self._limits.vacate_after_s,
        )
        self._freeze_and_thaw(instructions, attempts, now_s)
        for instruction in instructions:
            attempt = attempts[instruction.key]
            if instruction.action is Action.VACATE:
                self._vacate(attempt, instruction.reason)
            elif instruction.action is Action.KILL:
                self._kill(attempt)
            elif instruction.action is Action.REJECT:
                self._reject(attempt, instruction.reason)
        self._start_what_fits()
        self._changed()

    def _freeze_and_thaw(
        self, instructions: Sequence[Instruction], attempts: dict[str, Attempt], now_s: float
    ) -> None:
        handled: dict[Guest, bool] = {}
        owner = self._availability.owner
        freezes = any(each.action is Action.FREEZE for each in instructions)
        if freezes:
            self._guard.uncap()
        else:
            self._guard.cap(owner)  # before anything goes on
        for guest in {attempts[each.key].guest for each in instructions if each.action is Action.FREEZE}:
            if guest is not None:
                guest.begin_freeze()
        for instruction in instructions:
            attempt = attempts[instruction.key]
            guest = attempt.guest
            if guest is None or attempt.clock is None:
                continue
            if instruction.action is Action.FREEZE:
                if guest not in handled:
                    handled[guest] = self._freeze(guest)
                if handled[guest]:
                    attempt.move(AttemptState.SUSPENDED)
                    attempt.clock.freeze(self._guard.frozen_at_s(guest, now_s))
                    self._shop.outbox.state(attempt.report(AttemptState.SUSPENDED, instruction.reason))
                else:
                    attempt.vacate_reason = instruction.reason
                    self._vacate(attempt, instruction.reason)
                    self._kill(attempt)
            elif instruction.action is Action.THAW:
                if guest not in handled:
                    handled[guest] = True
                    guest.thaw()
                attempt.move(AttemptState.RUNNING)
                attempt.clock.thaw(now_s)
                self._shop.outbox.state(attempt.report(AttemptState.RUNNING))
        if freezes:
            self._guard.cap(owner)
        if not owner.lent or (owner.share is not None and self.hand.exceeds(owner.share)):
            for job in self.hand.jobs.values():
                job.close_idle(for_s=0.0, now_s=now_s)

    def settle(self, stopped: Stopped) -> None:
        """The watch has frozen guests by itself: take it over where ``core.reclaim`` says the same now, and let go of the rest.

        To be called when the availability is known that came of the same input.
        """
        self._guard.begin_settling(stopped)
        try:
            self.apply()
        finally:
            self._guard.end_settling(stopped)
        self._arm()

    def _arm(self) -> None:
        then = None if self._stopping else self._availability.if_returned
        self._guard.arm(then, vacate_after_s=self._limits.vacate_after_s)

    def _freeze(self, guest: Guest) -> bool:
        """False when the tree does not let itself be frozen."""
        try:
            guest.freeze()
        except FreezeFailed as error:
            _log.warning("%s %s", error.message, error.hint)
            return False
        return True

    def _vacate(self, attempt: Attempt, why: Reason) -> None:
        """Notice, so that it can save and leave; what has not begun is given back at once."""
        if attempt.state is AttemptState.LEASED:
            self._reject(attempt, why)
            return
        now_s = time.monotonic()
        attempt.vacating_at_s = now_s
        attempt.vacate_reason = why
        if attempt.clock is not None:
            attempt.clock.thaw(now_s)
        attempt.move(AttemptState.VACATING)
        self._shop.outbox.state(attempt.report(AttemptState.VACATING, why))
        single = self.hand.singles.get(attempt)
        if single is not None:
            single.vacate()
            return
        job = self.hand.jobs.get(attempt.ref.job_id)
        slot = job.slot_of(attempt) if job is not None else None
        if slot is not None:
            slot.notify()

    def _reject(self, attempt: Attempt, why: Reason) -> None:
        """Give back a lease that has not begun."""
        attempt.vacate_reason = why
        if attempt in self.hand.waiting:
            self.hand.waiting.remove(attempt)
        job = self.hand.jobs.get(attempt.ref.job_id)
        if job is not None:
            job.drop_queued(attempt)
        if attempt.stale:
            self._shop.outbox.forget(attempt.ref)
        else:
            self._shop.outbox.finish(ended_by_us(attempt))

    def _kill(self, attempt: Attempt) -> None:
        if attempt.state is AttemptState.LEASED:
            self._reject(attempt, attempt.vacate_reason or reason("lease.stale"))
            return
        if attempt.guest is not None:
            if attempt.guest not in self._dying:
                self._dying.add(attempt.guest)
                self._spawn(self._kill_guest(attempt.guest))
        elif (single := self.hand.singles.get(attempt)) is not None:
            attempt.vacating_at_s = attempt.vacating_at_s or time.monotonic()
            single.vacate()

    async def _kill_guest(self, guest: Guest) -> None:
        try:
            await kill_guest(guest)
        finally:
            self._dying.discard(guest)

    # Starting.

    def _start_what_fits(self) -> None:
        """In the order in which leases came; what finds no room waits here, its lease is renewed."""
        if self._stopping:
            return
        now_s = time.monotonic()
        while self.hand.waiting:
            attempt = self.hand.waiting[0]
            if not self._make_room(demand(attempt.spec.requirements), now_s):
                break
            self.hand.waiting.popleft()
            single = Single(attempt, self._shop, threads=_threads(attempt.spec), on_begin=self._begun)
            self.hand.singles[attempt] = single
            self._spawn(self._run_single(attempt, single))
        self._open_slots()
        for job in self.hand.jobs.values():
            job.feed()

    async def _run_single(self, attempt: Attempt, single: Single) -> None:
        try:
            await single.run()
        finally:
            self.hand.singles.pop(attempt, None)
            self._ended()

    def _make_room(self, needed: Resources, now_s: float) -> bool:
        """Whether it fits now; warm processes without work make way."""
        if times(self._free(), needed) < 1:
            return False
        if times(self._free(warm_counts=True), needed) < 1:
            for job in self.hand.jobs.values():
                job.close_idle(for_s=0.0, now_s=now_s)
        return True

    # Ends.

    def _begun(self) -> None:
        self._has_begun = True
        self._poke.set()

    def _ended(self) -> None:
        self._start_what_fits()
        self._changed()

    def _changed(self) -> None:
        """Something began, ended or moved: look at the deadlines anew, and tell whoever shows or sends it."""
        if not self._stopping:
            self.hand.tidy()
            self._open_slots()
        self._poke.set()
        self._arm()
        self._on_change()

    def _open_slots(self) -> None:
        now_s = time.monotonic()
        for job in list(self.hand.jobs.values()):
            while job.wants_slot() and self._make_room(demand(job.spec.requirements), now_s):
                job.open_slot()

    # Time.

    async def watch_deadlines(self) -> None:
        """Until cancelled: timeouts, the end of graces, warm processes that nobody needs, states to be told."""
        while True:
            self._poke.clear()
            if self._has_begun:
                self._has_begun = False
                if self._availability.owner.share is not None:
                    self.apply()  # a warm process that was being made when the owner came may now be one too many
                self._arm()
            wait_s = self._next_deadline_s() - time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.005, wait_s)):
                    await self._poke.wait()
            if time.monotonic() >= self._next_deadline_s():
                self._act_on_time()

    def _next_deadline_s(self) -> float:
        now_s = time.monotonic()
        deadlines = [now_s + _HOUR_S]
        # What is dead and only waits for its last words to be sent has no deadline here.
        states = [
            attempt.guest_state()
            for attempt in self.hand.running()
            if attempt.guest not in self._dying
            and (attempt.guest is not None or attempt.vacating_at_s is None)
        ]
        reclaim_s = next_deadline_s(states, vacate_after_s=self._limits.vacate_after_s)
        if reclaim_s is not None:
            deadlines.append(reclaim_s)
        for attempt in self.hand.running():
            left_s = attempt.timeout_in_s(now_s)
            if left_s is not None:
                deadlines.append(now_s + left_s)
            if attempt.told_state is not attempt.state and attempt.clock is not None:
                deadlines.append(attempt.clock.started_at_s + TELL_STATES_EVERY_S)
        deadlines += [
            slot.idle_since_s + LINGER_S
            for slot in self.hand.slots()
            if slot.idle_since_s is not None and not slot.closing
        ]
        return min(deadlines)

    def _act_on_time(self) -> None:
        now_s = time.monotonic()
        for attempt in self.hand.running():
            left_s = attempt.timeout_in_s(now_s)
            if left_s is not None and left_s <= 0 and not attempt.timed_out:
                attempt.timed_out = True
                self._kill(attempt)
            elif attempt.told_state is not attempt.state:
                if attempt.state is AttemptState.RUNNING:
                    self._shop.outbox.state(attempt.report(AttemptState.RUNNING))
                attempt.told_state = attempt.state
                self._shop.outbox.news.set()
        for job in self.hand.jobs.values():
            job.close_idle(for_s=LINGER_S, now_s=now_s)
        self.apply()

    async def stop(self) -> None:
        """Everything goes: notice, grace, kill. On return nothing of any guest runs, and every end is filed."""
        self._stopping = True
        for attempt in self.hand.attempts():
            if attempt.vacating_at_s is None:
                self._vacate(attempt, reason("agent.stopping"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.grace_s + _END_S):
                while self.hand.attempts():
                    await asyncio.sleep(0.02)
                    self.apply()
        for job in list(self.hand.jobs.values()):
            await job.end()
        for attempt in self.hand.singles:
            if attempt.guest is not None:
                await kill_guest(attempt.guest)
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=_END_S)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _threads(spec: JobSpec) -> int:
    return max(1, int(spec.requirements.cpus))
