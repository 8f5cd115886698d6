"""Tasks per second, CPU per task and latency of one task, beside the peers in the same run.

`python3 run.py bench throughput [--json] [--tasks N] [--only ours,huey,...]`
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path

import environment
from measure import PeerError, describe_machine, measure_round, started
from peers import ENTRIES, OURS
from report import Outcome, document, print_table
from rich.console import Console


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py bench throughput", description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument(
        "--tasks", type=int, default=5000, metavar="N", help="functions in a batch (default: 5000)"
    )
    parser.add_argument(
        "--singles", type=int, default=200, metavar="N", help="single tasks a round (default: 200)"
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="interleaved rounds (default: 3)")
    parser.add_argument(
        "--workers", type=int, default=2, metavar="N", help="worker processes each (default: 2)"
    )
    parser.add_argument(
        "--run-limit",
        type=float,
        default=4.0,
        metavar="S",
        help="seconds a batch may take before it is cut (default: 4)",
    )
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=list(ENTRIES),
        help=f"some of: {','.join(ENTRIES)}",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=None,
        metavar="DIR",
        help="where data goes, on the disk to be measured",
    )
    args = parser.parse_args(arguments)
    unknown = [name for name in args.only if name not in ENTRIES]
    if unknown:
        parser.error(f"--only: there is no {', '.join(unknown)}; choose from {', '.join(ENTRIES)}")
    for flag in ("tasks", "singles", "rounds", "workers", "run_limit"):
        if getattr(args, flag) <= 0:
            parser.error(f"--{flag.replace('_', '-')} must be more than 0, not {getattr(args, flag)}")
    if args.data_dir is not None and not args.data_dir.is_dir():
        parser.error(f"--data-dir: {args.data_dir} is not a directory; make it first")
    return args


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure_all(args: argparse.Namespace, parent: Path) -> dict[str, Outcome]:
    outcomes = {name: Outcome() for name in args.only}
    failures = environment.install(
        {name: ENTRIES[name].packages for name in outcomes if ENTRIES[name].packages}
    )
    for name, why in failures.items():
        outcomes[name].why_not = why
    for number in range(1, args.rounds + 1):
        for name, outcome in outcomes.items():
            if outcome.why_not is not None:
                continue
            python = environment.peer_python() if ENTRIES[name].packages else Path(sys.executable)
            try:
                with started(python, ENTRIES[name], parent, args.workers) as (client, identity):
                    outcome.identity = identity
                    one = measure_round(
                        client,
                        tasks=args.tasks,
                        planned=outcome.rounds[0].tasks if outcome.rounds else None,
                        run_limit_s=args.run_limit,
                        singles=args.singles,
                        singles_limit_s=args.run_limit / 2,
                    )
            except PeerError as error:
                outcome.why_not = str(error)
                say(f"round {number}/{args.rounds}  {name}: not run: {error}")
                continue
            outcome.rounds.append(one)
            say(
                f"round {number}/{args.rounds}  {name}: {one.tasks_per_s:,.0f} tasks/s, "
                f"{one.cpu_ms_per_task:.3f} CPU ms/task, p50 {one.p50_ms:.1f} ms"
            )
    return outcomes


def main() -> int:
    args = parse(sys.argv[1:])
    # A polite kill ends like Ctrl-C, so that everything started is stopped on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begun = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(
            prefix="bench-", dir=args.data_dir, ignore_cleanup_errors=True
        ) as parent_name:
            parent = Path(parent_name)
            # PostgreSQL run by root runs as another user, who must be able to walk to its data.
            parent.chmod(0o711)
            machine = describe_machine(parent)
            outcomes = measure_all(args, parent)
    except KeyboardInterrupt:
        say("interrupted; everything that was started has been stopped")
        return 130
    plan = {
        "tasks": args.tasks,
        "singles": args.singles,
        "rounds": args.rounds,
        "workers": args.workers,
        "run_limit_s": args.run_limit,
        "singles_limit_s": args.run_limit / 2,
        "took_s": round(time.monotonic() - begun, 1),
    }
    report = document(machine, plan, outcomes)
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        print_table(Console(width=None if sys.stdout.isatty() else 180), report)
    must_run = outcomes.get(OURS) or next(iter(outcomes.values()))
    return 0 if must_run.rounds and must_run.why_not is None else 1


if __name__ == "__main__":
    sys.exit(main())
