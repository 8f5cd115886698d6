"""Is somebody there? Keys, pointers, terminals, and sessions that begin, end, are unlocked or come to the foreground."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from idle_sense.facts import Session
from idle_sense.policy import Policy
from idle_sense.rules.readings import unread
from idle_sense.types import Reason, Severity, Snapshot

Origin = Literal["seat", "terminal", "seats", "began", "ended", "unlocked", "switched", "call", "woke"]
"""What the latest sign of a person was."""

_CODES: Mapping[Origin, str] = {
    "seat": "input.recent",
    "terminal": "terminal.recent",
    "seats": "session.changed",
    "switched": "session.changed",
    "began": "session.began",
    "ended": "session.ended",
    "unlocked": "session.unlocked",
    "call": "call.ended",
    "woke": "session.woke",
}
_NAMES: Mapping[Origin, str] = {
    "seat": "seat",
    "terminal": "terminal",
    "began": "session",
    "ended": "session",
    "unlocked": "session",
}
"""The parameter that carries the sign's name, where its sentence has one."""


@dataclass(frozen=True, kw_only=True)
class Sign:
    """The latest sign of a person that is known."""

    at_s: float
    origin: Origin
    name: str = ""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is remembered of people."""

    sign: Sign | None = None
    seats: frozenset[str] | None = None
    """Names of the seats seen last; None: never read."""
    sessions: tuple[Session, ...] | None = None
    """The same."""
    unattended_since_s: float | None = None
    """Since when there is no seat to ask."""


def presence(
    snapshot: Snapshot, policy: Policy, before: Seen, now_s: float, *, woke: bool, in_call: bool
) -> tuple[list[Reason], Seen]:
    """``in_call``: whoever is in a call now is there, and still is when it ends."""
    if not policy.watch_input:
        return [], Seen()
    reasons: list[Reason] = []
    signs: list[Sign] = [] if before.sign is None else [before.sign]
    seats, sessions = before.seats, before.sessions

    failed = unread(snapshot.seats, "input", policy.input_fresh_s, Severity.HARD, required=True)
    if failed is not None:
        reasons.append(failed)
    elif snapshot.seats.value is not None:
        for seat in snapshot.seats.value:
            failed = unread(
                seat.idle_s, f"input on {seat.name}", policy.input_fresh_s, Severity.HARD, required=True
            )
            if failed is not None:
                reasons.append(failed)
            elif seat.idle_s.value is not None:
                at_s = _since(now_s - seat.idle_s.age_s, seat.idle_s.value, now_s)
                signs.append(Sign(at_s=at_s, origin="seat", name=seat.name, source=seat.idle_s.source))
        seats = frozenset(seat.name for seat in snapshot.seats.value)
        if before.seats is not None and seats != before.seats:
            signs.append(Sign(at_s=now_s, origin="seats", source=snapshot.seats.source))

    failed = unread(snapshot.terminals, "terminals", policy.input_fresh_s, Severity.HARD, required=True)
    if failed is not None:
        reasons.append(failed)
    elif snapshot.terminals.value is not None:
        signs.extend(
            Sign(
                at_s=_since(now_s - snapshot.terminals.age_s, terminal.idle_s, now_s),
                origin="terminal",
                name=terminal.name,
                source=snapshot.terminals.source,
            )
            for terminal in snapshot.terminals.value
        )

    failed = unread(snapshot.sessions, "sessions", policy.signal_fresh_s, Severity.HARD)
    if failed is not None:
        reasons.append(failed)
    elif snapshot.sessions.value is not None:
        sessions = snapshot.sessions.value
        if before.sessions is not None and sessions != before.sessions:
            at_s = now_s - snapshot.sessions.age_s
            signs.extend(_moves(before.sessions, sessions, at_s, snapshot.sessions.source))

    if woke:
        signs.append(Sign(at_s=now_s, origin="woke", source="clock"))
    if in_call:
        signs.append(Sign(at_s=now_s, origin="call", source=snapshot.calls.source))
    sign = max(signs, key=lambda item: item.at_s, default=None)
    if (
        sign is not None
        and not (in_call and sign.origin == "call")
        and now_s - sign.at_s < policy.input_idle_s
    ):
        reasons.append(_recent(sign, now_s, policy.input_idle_s))
    # Where there is no keyboard to ask, whoever left just before the watch began leaves no trace: the watch must last.
    unattended_since_s = before.unattended_since_s
    if seats is None or seats:
        unattended_since_s = None
    elif unattended_since_s is None:
        unattended_since_s = now_s
    return reasons, Seen(sign=sign, seats=seats, sessions=sessions, unattended_since_s=unattended_since_s)


def _since(read_at_s: float, idle_s: float, now_s: float) -> float:
    """When it was touched. An idle time that is no number was found just now."""
    at_s = read_at_s - max(0.0, idle_s)
    return at_s if at_s == at_s else now_s  # noqa: PLR0124 - not a number


def _moves(before: tuple[Session, ...], now: tuple[Session, ...], at_s: float, source: str) -> Iterator[Sign]:
    """What only a person does to sessions."""
    known = {session.name: session for session in before}
    for session in now:
        was = known.pop(session.name, None)
        if was is None:
            yield Sign(at_s=at_s, origin="began", name=session.name, source=source)
        elif was.locked is True and session.locked is False:
            yield Sign(at_s=at_s, origin="unlocked", name=session.name, source=source)
        elif session.active and not was.active:
            yield Sign(at_s=at_s, origin="switched", name=session.name, source=source)
    for name in known:
        yield Sign(at_s=at_s, origin="ended", name=name, source=source)


def _recent(sign: Sign, now_s: float, limit_s: float) -> Reason:
    params: dict[str, str | float] = {"age_s": round(now_s - sign.at_s, 1), "limit_s": limit_s}
    name = _NAMES.get(sign.origin)
    if name is not None:
        params[name] = sign.name
    return Reason(code=_CODES[sign.origin], severity=Severity.HARD, params=params, source=sign.source)
