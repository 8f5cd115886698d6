"""What cannot be read counts as busy."""

from idle_sense.facts import Reading
from idle_sense.types import Reason, Severity


def unread(
    reading: Reading[object], probe: str, fresh_s: float, severity: Severity, *, required: bool = False
) -> Reason | None:
    """The reason to count as busy when a reading has no value, or is too old; None when it serves, or when this system has no
    way to tell. ``required``: a fact without which nothing may be decided, so that even the latter is a reason."""
    if reading.value is None and not reading.tells and not required:
        return None
    advice = reading.advice or "see idle-sense doctor"
    if reading.value is None:
        return Reason(
            code="probe.missing",
            severity=severity,
            params={"probe": probe, "problem": reading.problem or "no answer", "advice": advice},
            source=reading.source,
        )
    if not reading.age_s <= fresh_s:
        return Reason(
            code="probe.stale",
            severity=severity,
            params={
                "age_s": round(reading.age_s, 1),
                "limit_s": fresh_s,
                "probe": probe,
                "problem": reading.problem or "no newer answer",
                "advice": advice,
            },
            source=reading.source,
        )
    return None
