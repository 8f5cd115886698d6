"""May guests run now? idle-sense's verdict and the owner's word, put together. Pure: time is passed in."""

from collections.abc import Iterable
from dataclasses import dataclass

from idle_accelerator.agent.control import OwnerWord
from idle_accelerator.core.reclaim import OwnerState
from idle_accelerator.wire.nodes import Lending
from idle_accelerator.wire.reasons import Reason, reason
from idle_sense import Reason as SensedReason
from idle_sense import State, Verdict

HINT = reason("lend.hint")


@dataclass(frozen=True, kw_only=True)
class HeldWord:
    """The owner's word with its end on the agent's monotonic clock."""

    word: OwnerWord | None
    ends_at_s: float | None

    def holds(self, now_s: float) -> bool:
        return self.word is not None and (self.ends_at_s is None or now_s < self.ends_at_s)


@dataclass(frozen=True, kw_only=True)
class Availability:
    """What the machine lends now, and why."""

    lending: Lending
    only_jobs: tuple[str, ...] | None
    reasons: tuple[Reason, ...]
    owner: OwnerState


def availability(
    verdict: Verdict, held: HeldWord, *, now_s: float, draining: bool, disk_low: Reason | None
) -> Availability:
    """The owner's word goes before idle-sense, in both directions; a full disk and an agent that stops lend nothing."""
    word = held.word if held.holds(now_s) else None
    left_s = None if word is None or held.ends_at_s is None else max(1.0, round(held.ends_at_s - now_s))
    if draining:
        return _given("draining", (reason("node.draining"),), verdict)
    if word is not None and word.kind == "pause":
        why = reason("node.paused") if left_s is None else reason("node.paused_for", remaining_s=left_s)
        return _refused("paused", (why,), verdict, stop=reason("owner.paused"))
    if disk_low is not None:
        return _given("in_use", (disk_low,), verdict)
    if verdict.state is State.IDLE:
        return _given("available", (reason("node.available"), *_said(verdict.reasons)), verdict)
    if word is not None:
        remaining = reason("node.lent", remaining_s=left_s or 0)
        if word.jobs is None:
            return _given("lent", (remaining,), verdict)
        why = (reason("node.lent_to_jobs", count=len(word.jobs)), *_said(verdict.reasons), HINT)
        return Availability(
            lending="lent",
            only_jobs=word.jobs,
            reasons=why,
            owner=OwnerState(
                lent=True,
                lent_jobs=frozenset(word.jobs),
                reason=_first(verdict),
                memory_short=verdict.memory_short,
            ),
        )
    if verdict.state is State.SETTLING:
        return _refused("settling", (reason("node.settling"), *_said(verdict.reasons), HINT), verdict)
    return _refused("in_use", (*_said(verdict.reasons), HINT), verdict)


def _given(lending: Lending, why: tuple[Reason, ...], verdict: Verdict) -> Availability:
    """What runs may go on. Whether there may be more is in ``lending``."""
    owner = OwnerState(lent=True, lent_jobs=None, reason=why[0], memory_short=verdict.memory_short)
    return Availability(lending=lending, only_jobs=None, reasons=why, owner=owner)


def _refused(
    lending: Lending, why: tuple[Reason, ...], verdict: Verdict, *, stop: Reason | None = None
) -> Availability:
    owner = OwnerState(
        lent=False, lent_jobs=None, reason=stop or _first(verdict), memory_short=verdict.memory_short
    )
    return Availability(lending=lending, only_jobs=None, reasons=why, owner=owner)


def _first(verdict: Verdict) -> Reason:
    said = _said(verdict.reasons)
    return said[0] if said else reason("owner.returned")


def _said(reasons: Iterable[SensedReason]) -> tuple[Reason, ...]:
    """idle-sense's reasons as the wire carries them: with its own sentence for readers that do not know the code."""
    return tuple(
        Reason(code=item.code, params=dict(item.params), text=item.sentence[:2000]) for item in reasons
    )
