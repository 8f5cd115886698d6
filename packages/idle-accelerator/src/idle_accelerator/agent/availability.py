"""May guests run now? idle-sense's verdict and the owner's word, put together. Pure: time is passed in."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal

from idle_accelerator.agent.control import OwnerWord
from idle_accelerator.core.reclaim import OwnerState
from idle_accelerator.wire.nodes import Lending
from idle_accelerator.wire.reasons import Reason, reason
from idle_accelerator.wire.resources import Resources
from idle_sense import Reason as SensedReason
from idle_sense import Severity, State, Verdict
from idle_sense.quiet_hours import QuietHours

HINT = reason("lend.hint")
PRESENCE: Final = ("input.", "terminal.", "session.", "call.ended")
"""Beginnings of the codes by which idle-sense tells that somebody is there, and nothing more."""
_INPUT = SensedReason(
    code="input.recent",
    severity=Severity.HARD,
    params={"age_s": 0.0, "limit_s": 0.0, "seat": ""},
    source="expected",
)
_NOTHING: Final = Resources()
OnBattery = Literal["vacate", "freeze", "lend"]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the owner's terms say about when to lend, and how much."""

    total: Resources = _NOTHING
    """All that is lent at most."""
    present: Resources | None = None
    """What may run on while somebody uses the machine; None: nothing."""
    tolerated: tuple[str, ...] = PRESENCE
    """Beginnings of idle-sense's codes that leave ``present`` to the guests; any other reason for busy takes all."""
    hours: tuple[QuietHours, ...] = ()
    """When lending is allowed; empty: always. The owner's word to lend goes before that."""
    on_battery: OnBattery = "vacate"
    watches_input: bool = True
    """By its policy somebody may sit here."""

    def open_at(self, local: datetime) -> bool:
        """Whether lending is allowed at this time of day where the machine stands."""
        return not self.hours or any(span.contain(local) for span in self.hours)


NO_RULES: Final = Rules()


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
    if_returned: OwnerState | None = None
    """What ``owner`` will be with the first key or mouse; None: that changes nothing."""


def availability(
    verdict: Verdict,
    held: HeldWord,
    *,
    now_s: float,
    draining: bool,
    disk_low: Reason | None,
    rules: Rules = NO_RULES,
    open_now: bool = True,
) -> Availability:
    """The owner's word goes before idle-sense and their hours, in both directions; a full disk and an agent that stops lend nothing.

    ``open_now``: what ``Rules.open_at`` says.
    """
    now = _now(
        verdict, held, now_s=now_s, draining=draining, disk_low=disk_low, rules=rules, open_now=open_now
    )
    if verdict.state is not State.IDLE or not rules.watches_input or not now.owner.lent or draining:
        return now
    busy = replace(verdict, state=State.BUSY, reasons=(_INPUT,))
    then = _now(busy, held, now_s=now_s, draining=draining, disk_low=disk_low, rules=rules, open_now=open_now)
    stays = then.owner.lent and then.owner.lent_jobs is None and then.owner.share is None
    return now if stays else replace(now, if_returned=then.owner)


def _now(
    verdict: Verdict,
    held: HeldWord,
    *,
    now_s: float,
    draining: bool,
    disk_low: Reason | None,
    rules: Rules,
    open_now: bool,
) -> Availability:
    word = held.word if held.holds(now_s) else None
    left_s = None if word is None or held.ends_at_s is None else max(1.0, round(held.ends_at_s - now_s))
    if draining:
        return _given("draining", (reason("node.draining"),), verdict)
    if word is not None and word.kind == "pause":
        why = reason("node.paused") if left_s is None else reason("node.paused_for", remaining_s=left_s)
        return _refused("paused", (why,), verdict, stop=reason("owner.paused"))
    if disk_low is not None:
        return _given("in_use", (disk_low,), verdict)
    if word is None and not open_now:
        why = reason("node.hours", hours=", ".join(map(str, rules.hours)))
        return _refused("in_use", (why, HINT), verdict, leave=reason("owner.hours"))
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
    if rules.present is not None and _is_only_presence(verdict, rules):
        return _shared(rules.present, verdict, rules)
    if verdict.state is State.SETTLING:
        return _refused("settling", (reason("node.settling"), *_said(verdict.reasons), HINT), verdict)
    leave = None
    if rules.on_battery == "vacate" and "power.battery" in verdict.codes:
        leave = reason("owner.battery")
    return _refused("in_use", (*_said(verdict.reasons), HINT), verdict, leave=leave)


def _is_only_presence(verdict: Verdict, rules: Rules) -> bool:
    """Somebody is there, or has just left, and nothing else speaks against guests."""
    if verdict.memory_short:
        return False
    return verdict.state is State.SETTLING or all(
        item.severity is Severity.INFO or item.code.startswith(rules.tolerated) for item in verdict.reasons
    )


def _shared(share: Resources, verdict: Verdict, rules: Rules) -> Availability:
    owner = OwnerState(
        lent=True,
        lent_jobs=None,
        reason=reason("owner.share_taken", cpus=share.cpus),
        memory_short=False,
        share=share,
    )
    why = reason("node.shared", cpus=share.cpus, total=rules.total.cpus)
    return Availability(
        lending="lent", only_jobs=None, reasons=(why, *_said(verdict.reasons), HINT), owner=owner
    )


def _given(lending: Lending, why: tuple[Reason, ...], verdict: Verdict) -> Availability:
    """What runs may go on. Whether there may be more is in ``lending``."""
    owner = OwnerState(lent=True, lent_jobs=None, reason=why[0], memory_short=verdict.memory_short)
    return Availability(lending=lending, only_jobs=None, reasons=why, owner=owner)


def _refused(
    lending: Lending,
    why: tuple[Reason, ...],
    verdict: Verdict,
    *,
    stop: Reason | None = None,
    leave: Reason | None = None,
) -> Availability:
    owner = OwnerState(
        lent=False,
        lent_jobs=None,
        reason=stop or leave or _first(verdict),
        memory_short=verdict.memory_short,
        leave=leave,
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
