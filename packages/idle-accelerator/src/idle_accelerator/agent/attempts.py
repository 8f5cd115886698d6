"""An attempt in the agent's hands: where it stands, how long it has run, why it must go."""

import time
from dataclasses import dataclass, field

from idle_accelerator.agent.sandbox import Guest
from idle_accelerator.core.attempt import Mover, check_move
from idle_accelerator.core.reclaim import GuestState
from idle_accelerator.wire.checkpoints import Checkpoint, Resumed
from idle_accelerator.wire.exchange import AttemptReport
from idle_accelerator.wire.ids import AttemptRef
from idle_accelerator.wire.isolation import RanUnder
from idle_accelerator.wire.jobs import JobSpec, Usage
from idle_accelerator.wire.reasons import Reason
from idle_accelerator.wire.states import AttemptState


@dataclass(slots=True, kw_only=True)
class RunClock:
    """Running time without frozen time. All values are monotonic seconds."""

    started_at_s: float
    frozen_at_s: float | None = None
    frozen_s: float = 0.0

    def freeze(self, now_s: float) -> None:
        if self.frozen_at_s is None:
            self.frozen_at_s = now_s

    def thaw(self, now_s: float) -> None:
        if self.frozen_at_s is not None:
            self.frozen_s += now_s - self.frozen_at_s
            self.frozen_at_s = None

    def suspended_s(self, now_s: float) -> float:
        return self.frozen_s + (now_s - self.frozen_at_s if self.frozen_at_s is not None else 0.0)

    def running_s(self, now_s: float) -> float:
        return max(0.0, now_s - self.started_at_s - self.suspended_s(now_s))


@dataclass(slots=True, kw_only=True, eq=False)
class Attempt:
    """One leased attempt, until its end is filed."""

    ref: AttemptRef
    spec: JobSpec
    grace_s: float
    state: AttemptState = AttemptState.LEASED
    guest: Guest | None = None
    """The process that runs it, while it does; a warm one is shared with the attempts that come after it."""
    clock: RunClock | None = None
    """From the moment it was RUNNING."""
    vacating_at_s: float | None = None
    vacate_reason: Reason | None = None
    cancelled: bool = False
    """Its submitter wants it gone: then an end by our hand is CANCELLED, not VACATED."""
    resume: tuple[Checkpoint, ...] = ()
    """What it may go on from, newest first."""
    resumed: Resumed | None = None
    """What it went on from, once that stands in its workspace."""
    stale: bool = False
    """Its lease is over: nobody waits for its end."""
    timed_out: bool = False
    ran_under: RanUnder | None = None
    """What kept it apart from the owner; None for a plain process."""
    told_state: AttemptState = field(default=AttemptState.LEASED)
    """The state that the scheduler has been told last."""

    @property
    def key(self) -> str:
        return str(self.ref)

    def move(self, after: AttemptState) -> None:
        """Raises InvalidTransition for a move that is not an agent's to make."""
        check_move(self.state, after, Mover.AGENT)
        self.state = after

    def guest_state(self) -> GuestState:
        """As core.reclaim reads it."""
        return GuestState(
            key=self.key,
            job_id=self.ref.job_id,
            state=self.state,
            suspended_since_s=self.clock.frozen_at_s if self.clock is not None else None,
            vacating_since_s=self.vacating_at_s,
            grace_s=self.grace_s,
            needs=self.spec.requirements,
            process="" if self.guest is None else str(self.guest.pid),
            began_s=self.clock.started_at_s if self.clock is not None else None,
        )

    def timeout_in_s(self, now_s: float) -> float | None:
        """Seconds until it has run for its timeout; None while it is frozen, on its way out, over, or has none."""
        if (
            self.spec.timeout_s is None
            or self.clock is None
            or self.guest is None
            or self.state is not AttemptState.RUNNING
        ):
            return None
        return self.spec.timeout_s - self.clock.running_s(now_s)

    def usage(self, *, cpu_s: float | None = None, max_rss_bytes: int | None = None) -> Usage:
        now_s = time.monotonic()
        if self.clock is None:
            return Usage()
        return Usage(
            wall_s=self.clock.running_s(now_s),
            suspended_s=self.clock.suspended_s(now_s),
            cpu_s=cpu_s,
            max_rss_bytes=max_rss_bytes,
            ran_under=self.ran_under,
        )

    def report(self, state: AttemptState, why: Reason | None = None) -> AttemptReport:
        """A report without results."""
        return AttemptReport(
            job_id=self.ref.job_id,
            task_index=self.ref.task_index,
            epoch=self.ref.epoch,
            state=state,
            reason=why,
            resumed=self.resumed,
        )
