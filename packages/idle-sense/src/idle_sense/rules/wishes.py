"""What the owner does not want: their word, battery, heat, quiet hours, a network that costs money."""

import dataclasses
import math

from idle_sense.facts import Thermal
from idle_sense.policy import Policy
from idle_sense.rules.readings import unread
from idle_sense.types import Reason, Severity, Snapshot

HEADROOM_C = 5.0
"""So far below its own critical value a sensor counts as hot, whatever the policy says."""
SLOWED = frozenset({"heavy", "trapping", "sleeping"})
"""Thermal pressures at which the system slows the machine."""


def paused(snapshot: Snapshot) -> list[Reason]:
    left_s = snapshot.paused_for_s
    if left_s is None:
        return []
    if math.isinf(left_s):
        return [Reason(code="pause.set", severity=Severity.HARD, source="owner")]
    params = {"remaining_s": round(left_s, 1)}
    return [Reason(code="pause.timed", severity=Severity.HARD, params=params, source="owner")]


def battery(snapshot: Snapshot, policy: Policy) -> list[Reason]:
    if policy.lend_on_battery:
        return []
    reading = snapshot.power
    failed = unread(reading, "power", policy.power_fresh_s, Severity.POLICY)
    if failed is not None or reading.value is None:
        return [] if failed is None else [failed]
    if not reading.value.battery or reading.value.on_mains is True:
        return []
    if reading.value.on_mains is None:
        told = dataclasses.replace(
            reading,
            value=None,
            problem="there is a battery, and the system does not tell whether it is in use",
            advice=reading.advice or "a policy with lend_on_battery = true does not ask",
        )
        failed = unread(told, "power", policy.power_fresh_s, Severity.POLICY)
        return [] if failed is None else [failed]
    return [Reason(code="power.battery", severity=Severity.POLICY, source=reading.source)]


def heat(snapshot: Snapshot, policy: Policy, *, hot: bool) -> tuple[list[Reason], bool]:
    """Reasons and the latch. The guests' own heat counts as well: it is the machine that must stay whole."""
    reading = snapshot.thermal
    failed = unread(reading, "temperature", policy.power_fresh_s, Severity.POLICY)
    if failed is not None or reading.value is None:
        return ([], False) if failed is None else ([failed], hot)
    hot_c, cool_c = heat_limits(reading.value, policy)
    reasons: list[Reason] = []
    hottest_c = reading.value.hottest_c
    if hottest_c is not None and not math.isfinite(hottest_c):
        hottest_c = hot_c
    hot = hottest_c is not None and not hottest_c < (cool_c if hot else hot_c)
    if hot and hottest_c is not None:
        params: dict[str, str | float] = {
            "hottest_c": round(hottest_c, 1),
            "limit_c": cool_c,
            "sensor": reading.value.sensor or "a sensor",
        }
        reasons.append(
            Reason(code="heat.hot", severity=Severity.POLICY, params=params, source=reading.source)
        )
    if reading.value.pressure in SLOWED:
        params = {"pressure": reading.value.pressure}
        reasons.append(
            Reason(code="heat.slowed", severity=Severity.POLICY, params=params, source=reading.source)
        )
    return reasons, hot


def heat_limits(thermal: Thermal, policy: Policy) -> tuple[float, float]:
    """(hot, cool) in degrees Celsius."""
    hot_c = policy.hot_c
    if thermal.limit_c is not None and math.isfinite(thermal.limit_c):
        hot_c = min(hot_c, thermal.limit_c - HEADROOM_C)
    return hot_c, hot_c - (policy.hot_c - policy.cool_c)


def quiet(snapshot: Snapshot, policy: Policy) -> list[Reason]:
    if not policy.quiet_hours:
        return []
    if snapshot.local is None:
        params: dict[str, str | float] = {
            "probe": "time of day",
            "problem": "nobody told it",
            "advice": "hand the snapshot the local time",
        }
        return [Reason(code="probe.missing", severity=Severity.POLICY, params=params, source="clock")]
    for hours in policy.quiet_hours:
        if hours.contain(snapshot.local):
            return [
                Reason(
                    code="quiet.hours", severity=Severity.POLICY, params={"hours": str(hours)}, source="clock"
                )
            ]
    return []


def metered(snapshot: Snapshot, policy: Policy) -> list[Reason]:
    if policy.lend_on_metered:
        return []
    reading = snapshot.network
    failed = unread(reading, "kind of network", policy.power_fresh_s, Severity.POLICY)
    if failed is not None or reading.value is None:
        return [] if failed is None else [failed]
    if not reading.value.metered:
        return []
    return [Reason(code="network.metered", severity=Severity.POLICY, source=reading.source)]
