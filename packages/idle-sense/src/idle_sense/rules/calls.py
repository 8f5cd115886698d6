"""Is somebody in a call? A microphone or a camera that is open."""

from idle_sense.policy import Policy
from idle_sense.rules.readings import unread
from idle_sense.types import Reason, Severity, Snapshot


def calls(snapshot: Snapshot, policy: Policy) -> list[Reason]:
    if not policy.watch_calls:
        return []
    reading = snapshot.calls
    failed = unread(reading, "microphones and cameras", policy.signal_fresh_s, Severity.HARD)
    if failed is not None or reading.value is None:
        return [] if failed is None else [failed]
    told = (("call.microphone", reading.value.microphones), ("call.camera", reading.value.cameras))
    return [
        Reason(
            code=code,
            severity=Severity.HARD,
            params={"program": ", ".join(sorted(programs))},
            source=reading.source,
        )
        for code, found in told
        if (programs := set(found) - set(policy.ignore_programs))
    ]
