"""Is somebody watching or listening, without touching anything? A full screen, sound, a wish to keep the screen on."""

from idle_sense.facts import Session
from idle_sense.policy import Policy
from idle_sense.rules.latches import Latch, present
from idle_sense.rules.readings import unread
from idle_sense.types import Reason, Severity, Snapshot

CALM_S = 5.0
"""Time constant with which what is gone is forgotten: free about 10 s later."""


def fullscreen(
    snapshot: Snapshot, policy: Policy, before: Latch, passed_s: float
) -> tuple[list[Reason], Latch]:
    """Busy at once, and until nothing has filled the screen for some seconds."""
    if not policy.watch_fullscreen:
        return [], Latch()
    reading = snapshot.screen
    failed = unread(reading, "screen", policy.signal_fresh_s, Severity.SOFT)
    if failed is not None or reading.value is None:
        return ([], Latch()) if failed is None else ([failed], before)
    # Nobody watches what a lock screen covers; the lock itself may be the window that fills the screen.
    seats = () if _locked(snapshot.sessions.value) else reading.value.fullscreen
    latch = present(before, there=bool(seats), passed_s=passed_s, smoothing_s=0.0, easing_s=CALM_S)
    if not latch.on:
        return [], latch
    seat = ", ".join(seats) or "the screen"
    return [
        Reason(code="screen.fullscreen", severity=Severity.SOFT, params={"seat": seat}, source=reading.source)
    ], latch


def media(
    snapshot: Snapshot, policy: Policy, playing: Latch, inhibited: Latch, passed_s: float
) -> tuple[list[Reason], Latch, Latch]:
    """Sound must last for some seconds, since a notification is none; a program that keeps the screen on counts at once."""
    if not policy.watch_media:
        return [], Latch(), Latch()
    reading = snapshot.media
    failed = unread(reading, "media", policy.signal_fresh_s, Severity.SOFT)
    if failed is not None or reading.value is None:
        return ([], Latch(), Latch()) if failed is None else ([failed], playing, inhibited)
    ignored = set(policy.ignore_programs)
    players, keepers = set(reading.value.playing) - ignored, set(reading.value.inhibitors) - ignored
    playing = present(
        playing,
        there=bool(players),
        passed_s=passed_s,
        smoothing_s=policy.smoothing_s,
        easing_s=policy.easing_s,
    )
    inhibited = present(inhibited, there=bool(keepers), passed_s=passed_s, smoothing_s=0.0, easing_s=CALM_S)
    reasons: list[Reason] = []
    for code, latch, programs in (
        ("media.playing", playing, players),
        ("media.inhibitor", inhibited, keepers),
    ):
        if latch.on:
            params = {"program": ", ".join(sorted(programs)) or "a program that has just stopped"}
            reasons.append(Reason(code=code, severity=Severity.SOFT, params=params, source=reading.source))
    return reasons, playing, inhibited


def _locked(sessions: tuple[Session, ...] | None) -> bool:
    """All desktops that somebody could look at are locked, and there is one."""
    here = [session for session in sessions or () if session.active and session.locked is not None]
    return bool(here) and all(session.locked for session in here)
