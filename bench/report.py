"""The result of a throughput run, as one JSON document and as a table."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from measure import Identity, Round, Spread
from peers import OURS
from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console


@dataclasses.dataclass(kw_only=True)
class Outcome:
    """One system's rounds so far; `why_not` says why there are none, or no more."""

    identity: Identity | None = None
    rounds: list[Round] = dataclasses.field(default_factory=list)
    why_not: str | None = None


MEASURED = ("tasks_per_s", "cpu_ms_per_task", "p50_ms", "p99_ms")


def summary(outcome: Outcome, ours: Outcome | None) -> dict[str, Any]:
    """One system as plain data; a ratio pairs the rounds of the same number, ours over its."""
    data: dict[str, Any] = {"why_not": outcome.why_not}
    if outcome.identity is None or not outcome.rounds:
        return data
    data |= dataclasses.asdict(outcome.identity)
    data["tasks"] = outcome.rounds[0].tasks
    data["singles"] = min(one.singles for one in outcome.rounds)
    for field in MEASURED:
        data[field] = dataclasses.asdict(Spread.of([getattr(one, field) for one in outcome.rounds]))
    if ours is not None and ours is not outcome and ours.rounds:
        pairs = list(zip(ours.rounds, outcome.rounds, strict=False))
        data["ours_ratio"] = {
            field: dataclasses.asdict(Spread.of([getattr(a, field) / getattr(b, field) for a, b in pairs]))
            for field in MEASURED
            if all(getattr(b, field) > 0 for _, b in pairs)
        }
    data["rounds"] = [dataclasses.asdict(one) for one in outcome.rounds]
    return data


def document(
    machine: Mapping[str, Any], plan: Mapping[str, Any], outcomes: Mapping[str, Outcome]
) -> dict[str, Any]:
    ours = outcomes.get(OURS)
    return {
        "benchmark": "throughput",
        "machine": dict(machine),
        "plan": dict(plan),
        "systems": {name: summary(outcome, ours) for name, outcome in outcomes.items()},
    }


def _spread(value: Mapping[str, float], digits: int) -> str:
    median, low, high = (f"{value[key]:,.{digits}f}" for key in ("median", "low", "high"))
    return f"{median} ({low}-{high})"


def _rate(value: Mapping[str, float]) -> str:
    return _spread(value, 0 if value["median"] >= 10 else 1)


def print_table(console: Console, report: Mapping[str, Any]) -> None:
    machine, plan = report["machine"], report["plan"]
    console.print(
        f"{plan['tasks']:,} no-op functions, submit → all results in the caller's hands; "
        f"{plan['workers']} worker processes each; median (min-max) of {plan['rounds']} interleaved rounds"
    )
    load = "" if machine["load_1min_before"] is None else f", load before {machine['load_1min_before']:.1f}"
    console.print(
        f"{machine['cores']} cores, Python {machine['python']}, {machine['os']}; "
        f"data on {machine['filesystem']}, fsync p50 {machine['fsync_p50_ms']:.2f} ms{load}\n"
    )
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1))
    table.add_column("system", no_wrap=True)
    table.add_column("durability", no_wrap=True)
    for heading in ("tasks", "tasks/s", "ours/its", "CPU ms/task", "singles", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    measured = {name: data for name, data in report["systems"].items() if "rounds" in data}
    for data in measured.values():
        ratio = data.get("ours_ratio", {}).get("tasks_per_s")
        table.add_row(
            data["name"],
            data["durability"],
            f"{data['tasks']:,}",
            _rate(data["tasks_per_s"]),
            _spread(ratio, 2) if ratio else "",
            _spread(data["cpu_ms_per_task"], 3),
            f"{data['singles']}",
            _spread(data["p50_ms"], 1),
            _spread(data["p99_ms"], 1),
        )
    console.print(table)
    for data in measured.values():
        console.print(f"{data['name']}: {data['version']}; {data['settings']}")
    for name, data in report["systems"].items():
        if data["why_not"]:
            console.print(
                f"{data.get('name', name)}: not run{' again' if 'rounds' in data else ''}: {data['why_not']}"
            )
    console.print(
        "\ndurability: what is on disk when a submit returns. CPU: user and system time of every process involved, the "
        "caller, servers and ended children included.\nFewer tasks or singles: the system was too slow for more within "
        f"{plan['run_limit_s']:g} s and {plan['singles_limit_s']:g} s a round."
    )
