"""Function jobs on this machine: one warm process a slot, fed from the job's queue.

A process belongs to one job and ends with it: nothing is shared between jobs or users. Calls are handed to it a few at a
time, as many as it does in some milliseconds; what it has not been handed can be given back when the owner returns.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from idle_accelerator.agent.attempts import Attempt, RunClock
from idle_accelerator.agent.ends import death_reason, ended_by_us, kill_guest, patiently
from idle_accelerator.agent.environments import EnvironmentRefused, EnvironmentTrouble, Held
from idle_accelerator.agent.functions import FunctionCode, outcome_of
from idle_accelerator.agent.output import cut
from idle_accelerator.agent.provisions import Provision
from idle_accelerator.agent.sandbox import Guest, SpawnFailed
from idle_accelerator.agent.workloads.contract import in_environment, task_environment
from idle_accelerator.agent.workloads.function import FunctionHost, HostDied, Output, Returned
from idle_accelerator.agent.workshop import Workshop, held_for
from idle_accelerator.agent.workspace import InputMissing
from idle_accelerator.errors import IdleError, TooLarge
from idle_accelerator.wire.ids import AttemptRef
from idle_accelerator.wire.jobs import Function, JobSpec
from idle_accelerator.wire.nodes import WarmJob
from idle_accelerator.wire.reasons import Reason, reason
from idle_accelerator.wire.states import AttemptState

_log = logging.getLogger(__name__)
LINGER_S = 5.0
"""A warm process without work is kept this long, unless its room is needed."""
OVER_LINGER_S = 0.002
"""The same when all tasks of its job have succeeded here."""
HANDED_S = 0.01
"""So much work is in a process's hands at once."""
HANDED_LIMIT = 256
_MEAN_WEIGHT = 0.2


class FunctionJob:
    """All attempts of one function job that this agent holds, and the warm processes that serve them."""

    def __init__(
        self,
        job_id: str,
        spec: JobSpec,
        function: Function,
        shop: Workshop,
        *,
        threads: int,
        grace_s: float,
        on_begin: Callable[[], None],
        on_change: Callable[[], None],
    ) -> None:
        """``on_begin``: calls were handed on. ``on_change``: a process began, ended, or has nothing to do."""
        self.job_id = job_id
        self.spec = spec
        self.function = function
        self.shop = shop
        self.threads = threads
        self.grace_s = grace_s
        self.queue: deque[Attempt] = deque()
        self.slots: list[Slot] = []
        self.on_begin = on_begin
        self.on_change = on_change
        self.mean_s: float | None = None
        """Of the calls that came back, the newest counting most."""
        self._code: FunctionCode | None = None
        self._opened = 0
        self._succeeded: set[int] = set()

    async def code(self) -> FunctionCode:
        """Raises InputMissing, or Unavailable."""
        if self._code is None:
            self._code = await FunctionCode.load(self.function, self.shop.cache)
        return self._code

    def warm(self) -> WarmJob:
        return WarmJob(job_id=self.job_id, slots=len(self.slots), queued=len(self.queue))

    def note_success(self, task_index: int) -> None:
        self._succeeded.add(task_index)

    @property
    def is_over(self) -> bool:
        """All tasks of the job have succeeded here, so nothing more will come."""
        return len(self._succeeded) == self.spec.tasks

    def wants_slot(self) -> bool:
        """Whether more is queued than processes without work are about to take."""
        return len(self.queue) > sum(not slot.handed and not slot.closing for slot in self.slots)

    def open_slot(self) -> None:
        slot = Slot(self, f"{self.job_id}.slot{self._opened}")
        self._opened += 1
        self.slots.append(slot)
        slot.start()

    def feed(self) -> None:
        """Hand on what is queued to processes that have room."""
        for slot in self.slots:
            slot.feed()

    def attempts(self) -> list[Attempt]:
        return [*(attempt for slot in self.slots for attempt in slot.handed.values()), *self.queue]

    def slot_of(self, attempt: Attempt) -> "Slot | None":
        key = (attempt.ref.task_index, attempt.ref.epoch)
        return next((slot for slot in self.slots if slot.handed.get(key) is attempt), None)

    def drop_queued(self, attempt: Attempt) -> None:
        with suppress(ValueError):
            self.queue.remove(attempt)
        if not self.queue:
            for slot in self.slots:
                slot.stop_preparing()

    def put_back(self, attempts: Iterable[Attempt]) -> None:
        """In front of the queue, in their order: their process is gone before it ran them."""
        for attempt in reversed(list(attempts)):
            attempt.state = AttemptState.LEASED
            attempt.clock = None
            attempt.guest = None
            self.queue.appendleft(attempt)

    def reject_queued(self, why: Reason) -> None:
        """This machine cannot start a process for them."""
        self.shop.trouble.happened(why)
        while self.queue:
            attempt = self.queue.popleft()
            attempt.vacate_reason = why
            self.shop.outbox.finish(ended_by_us(attempt))

    def fail_next(self, why: Reason) -> None:
        """The job's own fault: its next attempt pays."""
        if self.queue:
            self.shop.outbox.finish(self.queue.popleft().report(AttemptState.FAILED, why))

    def close_idle(self, *, for_s: float, now_s: float) -> bool:
        """Ends warm processes that have had nothing to do for so long; True when there were some."""
        closing = [slot for slot in self.slots if slot.is_idle_for(for_s, now_s)]
        for slot in closing:
            slot.close()
        return bool(closing)

    async def end(self) -> None:
        """Kill every process of the job and wait for its end."""
        await asyncio.gather(*(slot.end() for slot in list(self.slots)))


class Slot:
    """One warm process of one job, from its start to its end."""

    def __init__(self, job: FunctionJob, name: str) -> None:
        self.job = job
        self.handed: dict[tuple[int, int], Attempt] = {}
        """In the order in which the process runs them."""
        self.host: FunctionHost | None = None
        self.closing = False
        self.idle_since_s: float | None = None
        self._name = name
        self._code: FunctionCode | None = None
        self._provision = Provision(None, None)
        self._task: asyncio.Task[None] | None = None
        self._preparing: asyncio.Task[Held | None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._live(), name=self._name)

    @property
    def guest(self) -> Guest | None:
        return None if self.host is None else self.host.guest

    @property
    def is_busy(self) -> bool:
        return bool(self.handed) or (self.host is None and bool(self.job.queue))

    @property
    def current(self) -> Attempt | None:
        """The attempt that runs now."""
        return next(iter(self.handed.values()), None)

    def is_idle_for(self, for_s: float, now_s: float) -> bool:
        return (
            self.idle_since_s is not None
            and not self.closing
            and not self.handed
            and now_s - self.idle_since_s >= for_s
        )

    def close(self) -> None:
        """Nothing more for this process; it ends when it has nothing in hand."""
        self.closing = True
        if self.host is not None and not self.handed:
            self.host.close()

    def stop_preparing(self) -> None:
        """Nobody waits for the environment that is being made for it."""
        if self._preparing is not None:
            self._preparing.cancel()

    async def _environment(self) -> Held | None:
        """See ``held_for``. Raises EnvironmentTrouble also when nobody waits for it any more."""
        if self.job.spec.environment is None:
            return None
        self._preparing = asyncio.create_task(held_for(self.job.spec, self.job.shop), name=self._name)
        try:
            await asyncio.wait({self._preparing})
            if self._preparing.cancelled():
                raise EnvironmentTrouble("nobody waits for it any more.")
            return self._preparing.result()
        except asyncio.CancelledError:
            self._preparing.cancel()
            raise
        finally:
            self._preparing = None

    def notify(self) -> None:
        """Tell the process to save and leave."""
        if not self.closing and self.host is not None:
            self.closing = True
            self.host.notify_vacate()
            self.host.guest.thaw()  # a frozen guest hears it when it goes on

    async def end(self) -> None:
        self.closing = True
        self.stop_preparing()
        if self.guest is not None:
            await kill_guest(self.guest)
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def feed(self) -> None:
        """Hand on calls, as long as the process has less than HANDED_S of work."""
        job = self.job
        if self.host is None or self.closing or not job.queue:
            return
        current = self.current
        if current is not None and current.state is not AttemptState.RUNNING:
            return
        mean_s = job.mean_s
        fits = 1 if mean_s is None else max(1, min(HANDED_LIMIT, math.floor(HANDED_S / max(mean_s, 1e-6))))
        share = math.ceil(len(job.queue) / max(1, len(job.slots)))
        now_s = time.monotonic()
        batch: list[Attempt] = []
        while job.queue and len(self.handed) < fits and len(batch) < share:
            attempt = job.queue.popleft()
            attempt.move(AttemptState.STAGING)
            attempt.move(AttemptState.RUNNING)
            attempt.guest = self.host.guest
            attempt.clock = RunClock(started_at_s=now_s)
            self.handed[attempt.ref.task_index, attempt.ref.epoch] = attempt
            batch.append(attempt)
        if batch:
            self.idle_since_s = None
            self._send(self.host, batch)
            job.on_begin()

    def _send(self, host: FunctionHost, batch: list[Attempt]) -> None:
        if self._code is None:
            return
        for attempt in batch:
            try:
                host.send([self._code.call(attempt.ref)])
            except (InputMissing, TooLarge) as error:
                del self.handed[attempt.ref.task_index, attempt.ref.epoch]
                why = reason("agent.input_missing", path="arguments", detail=error.message[:500])
                self.job.shop.outbox.finish(attempt.report(AttemptState.FAILED, why))

    async def _live(self) -> None:
        job, shop = self.job, self.job.shop
        workspace: Path | None = None
        held: Held | None = None
        try:
            self._code = await job.code()
            held = await self._environment()
            workspace = shop.workspaces.make(self._name)
            provision = self._provision = shop.provide(job.job_id, job.spec.requirements)
            env = task_environment(
                ref=AttemptRef(job.job_id, 0, 1),
                task_count=job.spec.tasks,
                threads=job.threads,
                workspace=workspace,
                grace_s=job.grace_s,
                extra=job.spec.env,
            )
            if held is not None:
                env = in_environment(env, held.folder, held.programs)
            host = await FunctionHost.start(
                sandbox=shop.sandbox,
                workspace=workspace,
                env=provision.environment(env),
                code=self._code.code,
                results=job.function.results,
                job_id=job.job_id,
                task_count=job.spec.tasks,
                grace_s=job.grace_s,
                clean_cwd=True,
                memory_bytes=job.spec.requirements.memory_bytes or None,
                environment=held,
                network=provision.way,
                devices=provision.devices,
            )
            shop.guest_began(host.guest)
            try:
                self.host = host
                await self._converse(host)
            finally:
                await asyncio.shield(kill_guest(host.guest))
                shop.guest_ended(host.guest)
                host.let_go()
        except InputMissing as error:
            job.fail_next(reason("agent.input_missing", path=error.path, detail=error.detail[:500]))
        except EnvironmentRefused as error:
            while job.queue:  # it is the same for all of them
                job.fail_next(error.why)
        except EnvironmentTrouble as error:
            if job.queue:
                job.reject_queued(error.why)
        except (SpawnFailed, TooLarge) as error:
            job.fail_next(reason("agent.spawn_failed", detail=error.message[:500]))
        except (IdleError, OSError) as error:
            _log.warning("no process for %s: %s", job.job_id, error)
            job.reject_queued(reason("agent.spawn_failed", detail=str(error)[:500]))
        finally:
            self._provision.give_back()
            job.slots.remove(self)
            if held is not None and shop.environments is not None:
                shop.environments.release(held)
            if workspace is not None:
                await asyncio.shield(shop.workspaces.discard(workspace))
            job.on_change()

    async def _converse(self, host: FunctionHost) -> None:
        try:
            while True:
                self.feed()
                if not self.handed and self.idle_since_s is None:
                    self.idle_since_s = time.monotonic()
                    self.job.on_change()
                for event in await host.receive():
                    if isinstance(event, Output):
                        self._output(event)
                    else:
                        await self._returned(event)
                if self.closing and not self.handed:
                    host.close()
        except HostDied as death:
            self._died(death)

    def _output(self, output: Output) -> None:
        attempt = self.handed.get((output.index, output.epoch))
        if attempt is not None and not attempt.stale:
            for chunk in cut(attempt.ref, output.stream, output.offset, output.data):
                self.job.shop.outbox.log(chunk)

    async def _returned(self, returned: Returned) -> None:
        attempt = self.handed.pop((returned.index, returned.epoch), None)
        if attempt is None:
            return
        outbox = self.job.shop.outbox
        now_s = time.monotonic()
        following = self.current
        if following is not None and following.clock is not None:
            following.clock = RunClock(started_at_s=now_s, frozen_at_s=following.clock.frozen_at_s)
        mean_s = self.job.mean_s
        self.job.mean_s = (
            returned.wall_s
            if mean_s is None
            else mean_s + _MEAN_WEIGHT * (max(0.0, returned.wall_s) - mean_s)
        )
        if attempt.stale:
            outbox.forget(attempt.ref)
            return
        try:
            report = await patiently(attempt, lambda: outcome_of(returned, attempt, self.job.shop.link))
            if report.state is AttemptState.FAILED:
                report = report.model_copy(update={"reason": self._provision.explain(report.reason)})
            outbox.finish(report)
            if report.state is AttemptState.SUCCEEDED:
                self.job.note_success(attempt.ref.task_index)
                if self.job.is_over:
                    # Soon, and not when another job needs its room; but its result goes first.
                    asyncio.get_running_loop().call_later(OVER_LINGER_S, self.close)
        except (IdleError, OSError) as error:
            attempt.vacate_reason = reason(
                "agent.spawn_failed", detail=f"its result could not be stored: {error}"[:500]
            )
            outbox.finish(ended_by_us(attempt))

    def _died(self, death: HostDied) -> None:
        """The process is gone: whose fault was it, and what becomes of the calls that it had in hand?"""
        outbox = self.job.shop.outbox
        handed = list(self.handed.values())
        self.handed.clear()
        innocent: list[Attempt] = []
        blamed = None if death.blamed is None else (death.blamed.index, death.blamed.epoch)
        for attempt in handed:
            if attempt.stale:
                outbox.forget(attempt.ref)
            elif attempt.timed_out:
                why = reason("task.timeout", timeout_s=attempt.spec.timeout_s or 0.0)
                outbox.finish(
                    attempt.report(AttemptState.FAILED, why).model_copy(update={"usage": attempt.usage()})
                )
            elif attempt.vacating_at_s is not None:
                outbox.finish(ended_by_us(attempt))
            elif blamed == (attempt.ref.task_index, attempt.ref.epoch):
                why = self._provision.explain(death_reason(death, attempt.spec))
                report = attempt.report(AttemptState.FAILED, why)
                outbox.finish(report.model_copy(update={"usage": attempt.usage()}))
            else:
                innocent.append(attempt)
        self.job.put_back(innocent)
