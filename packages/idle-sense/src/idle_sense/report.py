"""What ``idle-sense doctor`` says: every probe in one table, fit for a bug report."""

import platform as machine
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from idle_sense.monitor import Monitor
from idle_sense.probes.bundle import FACTS

_COLUMNS = ("fact", "status", "how", "cost", "verified", "back end")


def doctor(monitor: Monitor, sample_us: float) -> dict[str, Any]:
    """As plain values. ``monitor`` has looked."""
    snapshot = monitor.snapshot
    probes: list[dict[str, Any]] = []
    for fact, capability in zip(FACTS, monitor.capabilities(), strict=True):
        reading = None if snapshot is None else getattr(snapshot, fact)
        probes.append(
            {
                "fact": fact,
                "status": "serves" if capability.serves else "missing" if capability.tells else "untold",
                "how": "event" if capability.event else "poll",
                "cost_us": capability.cost_us,
                "verified": capability.verified,
                "back_end": capability.back_end,
                "problem": "" if reading is None else reading.problem,
                "advice": capability.advice or ("" if reading is None else reading.advice),
            }
        )
    return {
        "idle_sense": metadata.version("idle-sense"),
        "python": machine.python_version(),
        "system": machine.platform(),
        "policy": monitor.policy.name,
        "sample_us": round(sample_us, 1),
        "probes": probes,
        "idleness": list(monitor.describe()),
    }


def doctor_lines(told: Mapping[str, Any]) -> Iterator[str]:
    """As text: the facts about the machine, the table, and what would give better answers."""
    for name in ("idle_sense", "python", "system", "policy"):
        yield f"{name:<12}{told[name]}"
    yield f"{'a sample':<12}{told['sample_us']:.0f} µs"
    yield ""
    rows = [_COLUMNS, *(_row(probe) for probe in told["probes"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    better = [probe for probe in told["probes"] if probe["advice"] or probe["status"] != "serves"]
    if better:
        yield ""
        yield "For better answers:"
    for probe in better:
        parts = [part for part in (probe["problem"], probe["advice"]) if part]
        yield f"  {probe['fact']}: {': '.join(dict.fromkeys(parts)) or 'nothing known'}"
    yield ""
    yield "serves: it is read. missing: it cannot be read, and counts as busy where the policy asks for it."
    yield "untold: this system has no way to tell it, and it decides nothing."


def _row(probe: Mapping[str, Any]) -> tuple[str, ...]:
    cost = "" if probe["cost_us"] is None else f"{probe['cost_us']:.0f} µs"
    status = "MISSING" if probe["status"] == "missing" else probe["status"]
    return (probe["fact"], status, probe["how"], cost, probe["verified"], probe["back_end"])
