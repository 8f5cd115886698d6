"""How well idle-sense foretells how long a machine stays idle, beside the base rate, hour of the week, Weibull and RIPPP.

`python3 run.py bench forecast [--json] [--machines N] [--seed N] [--kinds office,gamer,...] [--export FILE ...]`

Each forecast is made from the past alone, on made-up owners (bench/idleness/owners.py), and on real machines where exports of
ActivityWatch are given. The first weeks, when little is known yet, are scored apart.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from idleness import evidence, owners, score
from idleness.race import EVERYBODY, HORIZONS_S, OURS, Race, race
from rich import box
from rich.console import Console
from rich.table import Table

WARM_UP_WEEKS = 2


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="run.py bench forecast", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    parser.add_argument(
        "--machines", type=int, default=3, metavar="N", help="machines of each kind (default: 3)"
    )
    parser.add_argument(
        "--seed", type=int, default=2026, metavar="N", help="of the made-up owners (default: 2026)"
    )
    parser.add_argument(
        "--kinds",
        type=lambda text: text.split(","),
        default=list(owners.KINDS),
        help=f"some of: {','.join(owners.KINDS)}",
    )
    parser.add_argument(
        "--export",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="an export of ActivityWatch: a real machine instead of made-up ones; may be repeated",
    )
    args = parser.parse_args(arguments)
    unknown = [kind for kind in args.kinds if kind not in owners.KINDS]
    if unknown:
        parser.error(f"--kinds: there is no {', '.join(unknown)}; choose from {', '.join(owners.KINDS)}")
    if args.machines <= 0:
        parser.error(f"--machines must be more than 0, not {args.machines}")
    return args


def summary(races: list[Race]) -> dict[str, Any]:
    """One kind of owner."""
    warm = [one for found in races for one in found.questions if one.week >= WARM_UP_WEEKS]
    cold = [one for found in races for one in found.questions if one.week < WARM_UP_WEEKS]
    told = [one for found in races for one in found.quantiles if one.week >= WARM_UP_WEEKS]
    return {
        "machines": len(races),
        "idle_periods": sum(found.periods for found in races),
        "unanswered": sum(found.unanswered for found in races),
        "horizons": {f"{horizon_s:g}": row for horizon_s, row in score.by_horizon(warm).items()},
        "first_weeks": {f"{horizon_s:g}": row for horizon_s, row in score.by_horizon(cold).items()},
        "coverage_at_start": score.coverage([one for one in told if one.at_start]),
        "coverage_later": score.coverage([one for one in told if not one.at_start]),
        "reliability": score.reliability(warm),
    }


def document(args: argparse.Namespace) -> dict[str, Any]:
    lives: dict[str, list[owners.Machine]] = {}
    if args.export:
        for path in args.export:
            lives.setdefault(path.name, []).append(evidence.machine(path))
    else:
        lives = {kind: owners.machines(kind, args.machines, args.seed) for kind in args.kinds}
    kinds: dict[str, Any] = {}
    for kind, machines in lives.items():
        print(f"{kind} ...", file=sys.stderr, flush=True)
        kinds[kind] = summary([race(machine, args.seed) for machine in machines])
    return {
        "benchmark": "forecast",
        "data": "exports of ActivityWatch" if args.export else f"made up, seed {args.seed}",
        "warm_up_weeks": WARM_UP_WEEKS,
        "kinds": kinds,
        "mean_skill": {part: mean_skill(kinds, part) for part in ("horizons", "first_weeks")},
        "calibration_error": {
            name: fmean(kind["reliability"][name]["error"] for kind in kinds.values()) for name in EVERYBODY
        },
    }


def mean_skill(kinds: dict[str, Any], part: str) -> dict[str, dict[str, dict[str, float]]]:
    """Of ours against each of the others, and of each against the base rate: mean over kinds of owners, at each horizon; and
    for how many kinds ours is the worse one."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for horizon_s in HORIZONS_S:
        rows = [
            kind[part][f"{horizon_s:g}"]["brier"] for kind in kinds.values() if f"{horizon_s:g}" in kind[part]
        ]
        if not rows:
            continue
        found[f"{horizon_s:g}"] = {
            name: {
                "against_base_rate": fmean(score.skill(row, name, EVERYBODY[0]) for row in rows),
                "ours_against_it": fmean(score.skill(row, OURS, name) for row in rows),
                "kinds_where_ours_is_worse": sum(row[OURS] > row[name] for row in rows),
            }
            for name in EVERYBODY
        }
    return found


def print_tables(console: Console, report: dict[str, Any]) -> None:
    kinds = report["kinds"]
    count = sum(kind["machines"] for kind in kinds.values())
    console.print(
        f"{count} machines ({report['data']}); Brier skill score against the base rate, from week "
        f"{report['warm_up_weeks'] + 1} on; 1 is perfect, below 0 is worse than the base rate; * ours is worse\n"
    )
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1))
    for heading in ("owner", "idle periods", "horizon", "questions"):
        table.add_column(heading, justify="left" if heading == "owner" else "right", no_wrap=True)
    for name in EVERYBODY[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    for kind, data in kinds.items():
        for place, (horizon, row) in enumerate(data["horizons"].items()):
            table.add_row(
                kind if place == 0 else "",
                f"{data['idle_periods']:,}" if place == 0 else "",
                _span(float(horizon)),
                f"{row['questions']:,}",
                *(_marked(row["brier"], name) for name in EVERYBODY[1:]),
            )
    for part, label in (
        ("horizons", "mean"),
        ("first_weeks", f"mean, first {report['warm_up_weeks']} weeks"),
    ):
        table.add_section()
        for place, (horizon, row) in enumerate(report["mean_skill"][part].items()):
            cells = [f"{row[name]['against_base_rate']:.3f} " for name in EVERYBODY[1:]]
            table.add_row(label if place == 0 else "", "", _span(float(horizon)), "", *cells)
    console.print(table)
    _print_calibration(console, report)


def _print_calibration(console: Console, report: dict[str, Any]) -> None:
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1))
    table.add_column("residual time below our quantiles", no_wrap=True)
    for heading in ("10 %", "50 %", "90 %", "10 % later", "50 % later", "90 % later"):
        table.add_column(heading, justify="right", no_wrap=True)
    for kind, data in report["kinds"].items():
        cells: list[str] = []
        for part in ("coverage_at_start", "coverage_later"):
            cells += [f"{share * 100:.0f} %" for share in data[part]] if data[part] else ["", "", ""]
        table.add_row(kind, *cells)
    console.print(table)
    errors = ", ".join(f"{name} {error:.3f}" for name, error in report["calibration_error"].items())
    console.print(f"calibration error of the probabilities, mean over owners: {errors}")
    console.print(
        "Quantiles: at the start of idle periods, and later, each half hour while they go on. Questions whose answer nobody "
        "knows, as the machine was switched off, are left out."
    )


def _marked(scores: dict[str, float], name: str) -> str:
    mark = "*" if scores[OURS] > scores[name] else " "
    return f"{score.skill(scores, name, EVERYBODY[0]):.3f}{mark}"


def _span(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds < 3600 else f"{seconds / 3600:g} h"


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    try:
        report = document(args)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        print_tables(Console(width=max(120, Console().width)), report)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
