"""``idle-sense check|watch|explain|doctor|forecast|record|replay [--json]``: what this machine says of itself."""

import argparse
import dataclasses
import itertools
import math
import os
import queue
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from idle_sense.cli_words import as_json, line, reason, say, say_json, sentence
from idle_sense.errors import SenseError
from idle_sense.monitor import Monitor
from idle_sense.policy import Policy
from idle_sense.policy_text import BASES, duration_s, read
from idle_sense.sentences import duration
from idle_sense.types import State, Verdict

MEASURE_S = 1.0
"""Between the two looks that a measure of load needs."""

STATUS = """exit status of check: 0 idle, 1 busy or settling, 2 wrong usage.
check is one look: it asks for no quiet beforehand, except on a machine without a display, where whoever left
a moment ago leaves no trace. watch keeps looking, as a program would."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status; see ``STATUS``."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options, _policy(options))
    except SenseError as error:
        sys.stderr.write(f"idle-sense: {error}\n")
        return 2
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        sys.stderr.write(f"idle-sense: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """argparse's own asks shutil for the width, at each argument that is declared, and shutil loads three compressors."""

    def __init__(self, prog: str) -> None:
        columns = os.environ.get("COLUMNS", "")
        try:
            width = int(columns) if columns.isdigit() else os.get_terminal_size().columns
        except OSError:
            width = 80
        super().__init__(prog, width=width - 2)


_Run = Callable[[argparse.Namespace, Policy], int]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="idle-sense",
        description="Is this machine truly idle, why, since when, for how long?",
        epilog=STATUS,
        formatter_class=_Formatter,
    )
    common = argparse.ArgumentParser(add_help=False, formatter_class=_Formatter)
    common.add_argument(
        "--policy",
        metavar="desktop|server|lab|FILE",
        help="what counts as idle: one of these, or a TOML file (default: desktop; replay: that of the trace)",
    )
    common.add_argument(
        "--input-idle", type=_time, metavar="TIME", help='how long without input counts as idle: 90, "5 min"'
    )
    common.add_argument("--json", action="store_true", help="for programs")
    common.add_argument("--language", choices=("en", "zh"), default="en", help="of the sentences")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: _Run, told: str, example: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=told,
            description=told,
            epilog=f"example:\n  {example}",
            parents=[common],
            formatter_class=_Formatter,
        )
        command.set_defaults(run=run)
        return command

    add(
        "check",
        _check,
        "one look: exit status 0 if idle, 1 if not",
        "idle-sense check && nice ./long-computation",
    )
    watch = add(
        "watch",
        _watch,
        "tells each change, and learns for forecast",
        'idle-sense watch --policy lab --input-idle "10 min" --json',
    )
    watch.add_argument("--no-history", action="store_true", help="learn nothing from what is seen")
    add(
        "explain",
        _explain,
        "all that speaks for and against idleness now, and what this machine takes as idleness",
        "idle-sense explain --language zh",
    )
    add(
        "doctor",
        _doctor,
        "every probe with its back end, cost and how far it was tried, for a bug report",
        "idle-sense doctor",
    )
    forecast = add(
        "forecast",
        _forecast,
        "how long it stays idle, by this machine's own past (that watch, or another program, has seen)",
        'idle-sense forecast --horizon "30 min" --horizon "4 h" --confidence 0.8',
    )
    forecast.add_argument(
        "--horizon", action="append", type=_time, metavar="TIME", help="how likely does it last that long?"
    )
    forecast.add_argument(
        "--confidence",
        action="append",
        type=float,
        default=[],
        metavar="SHARE",
        help="how long does it last with that probability (0 to 1)?",
    )
    record = add(
        "record",
        _record,
        "writes down what the probes see, to be judged again; names of people and programs are left out",
        'idle-sense record monday.trace --for "8 h"',
    )
    record.add_argument("file", type=Path, help="a new file")
    record.add_argument("--for", dest="for_s", type=_time, default=math.inf, metavar="TIME", help="how long")
    record.add_argument("--every", type=_time, default=1.0, metavar="TIME", help="between two looks (1 s)")
    replay = add(
        "replay",
        _replay,
        "what a policy would have said to a recorded trace",
        "idle-sense replay monday.trace --policy lab",
    )
    replay.add_argument("file", type=Path, help="made by record")
    return parser


def _time(text: str) -> float:
    """Seconds, bare or with a unit."""
    try:
        return float(text)
    except ValueError:
        seconds = duration_s(text)
    if seconds is None:
        raise argparse.ArgumentTypeError(f'{text!r} is no time; write it like 90, "90 s" or "5 min"')
    return seconds


def _policy(options: argparse.Namespace) -> Policy:
    name = options.policy or "desktop"
    policy = BASES[name]() if name in BASES else read(Path(name))
    if options.input_idle is not None:
        policy = dataclasses.replace(policy, input_idle_s=options.input_idle)
    return policy


def _check(options: argparse.Namespace, policy: Policy) -> int:
    with _Look(policy) as look:
        say(options, look.verdict)
        return 0 if look.verdict.state is State.IDLE else 1


def _explain(options: argparse.Namespace, policy: Policy) -> int:
    with _Look(policy) as look:
        explanation = look.monitor.explain()
        idleness = look.monitor.describe()
    if options.json:
        evidence = [
            {
                "fact": item.fact,
                "speaks": item.speaks,
                "value": item.reason.value,
                "limit": item.reason.limit,
                "age_s": round(item.age_s, 3),
                **reason(options, item.reason),
            }
            for item in explanation.evidence
        ]
        say_json(
            {
                **as_json(options, explanation.verdict),
                "evidence": evidence,
                "idleness": list(idleness),
                "policy": policy.to_toml(),
            }
        )
        return 0
    say(options, explanation.verdict)
    for speaks, heading in (
        ("busy", "Speaks for busy:"),
        ("idle", "Speaks for idle:"),
        ("nothing", "Says nothing:"),
    ):
        items = [item for item in explanation.evidence if item.speaks == speaks]
        if items:
            line("")
            line(heading)
        for item in items:
            line(f"  {item.fact:<10} {sentence(options, item.reason)} [{item.reason.source}]")
    line("")
    line("What this machine takes as idleness:")
    for told in idleness:
        line(f"  {told}")
    return 0


def _doctor(options: argparse.Namespace, policy: Policy) -> int:
    from idle_sense.report import doctor, doctor_lines  # noqa: PLC0415 - for this command alone

    with _Look(policy) as look:
        told = doctor(look.monitor, look.sample_us)
    if options.json:
        say_json({**told, **as_json(options, look.verdict)})
        return 0
    for text in doctor_lines(told):
        line(text)
    line("")
    say(options, look.verdict)
    return 0


def _watch(options: argparse.Namespace, policy: Policy) -> int:
    from idle_sense.history import History  # noqa: PLC0415 - check and explain start without it

    history = None if options.no_history else History.native(policy.name)
    try:
        monitor = Monitor(policy, history=history)
        # The first look loads what all later ones use: in this thread, whose part of the heap is at hand already.
        monitor.check()
        with monitor:
            heard: queue.SimpleQueue[Verdict] = queue.SimpleQueue()
            monitor.on_change(heard.put)
            while True:
                say(options, heard.get(), at=datetime.now().astimezone())
    finally:
        if history is not None:
            history.close()


def _forecast(options: argparse.Namespace, policy: Policy) -> int:
    from idle_sense.forecast import HORIZONS_S, fit, forecast  # noqa: PLC0415 - as above
    from idle_sense.history import history_path, read_habits  # noqa: PLC0415

    path = history_path(policy.name)
    with _Look(policy) as look:
        verdict = look.verdict
    idle = verdict.state is State.IDLE
    habits = read_habits(path)
    try:
        told = forecast(
            fit(habits),
            local=datetime.now().astimezone(),
            age_s=_idle_for_s(verdict, policy) if idle else 0.0,
            horizons_s=options.horizon or HORIZONS_S,
            confidences=options.confidence,
            idle=idle,
        )
    except ValueError as error:
        raise SenseError(f"{error}.", hint="See idle-sense forecast --help.") from error
    if options.json:
        say_json({"history": str(path), **dataclasses.asdict(told), **as_json(options, verdict)})
        return 0
    for text in told.sentences:
        line(text)
    for confidence in options.confidence:
        line(f"lasts {duration(told.lasts_s(confidence))} with a probability of {confidence * 100:g} %")
    return 0


def _idle_for_s(verdict: Verdict, policy: Policy) -> float:
    """A single look knows of the idle period what the last input tells."""
    age_s = next((item.params["age_s"] for item in verdict.reasons if "age_s" in item.params), 0.0)
    return max(0.0, float(age_s) - policy.input_idle_s - policy.grace_s)


def _record(options: argparse.Namespace, policy: Policy) -> int:
    from idle_sense.traces import Recorder, record  # noqa: PLC0415 - for this command alone

    with Recorder.create(options.file, policy) as recorder:
        monitor = Monitor(policy)
        try:
            count = record(monitor, recorder, seconds=options.for_s, every_s=options.every)
        finally:
            monitor.close()
    if options.json:
        say_json({"file": str(options.file), "snapshots": count})
    else:
        line(f"{count} snapshots in {options.file}")
    return 0


def _replay(options: argparse.Namespace, policy: Policy) -> int:
    from idle_sense.traces import Trace, replay  # noqa: PLC0415 - as above

    trace = Trace.open(options.file)
    given = policy if options.policy or options.input_idle is not None else trace.header.policy
    began_s: float | None = None
    before: tuple[Any, ...] | None = None
    states: list[tuple[float, State]] = []
    for snapshot, verdict in replay(trace, given):
        began_s = snapshot.now_s if began_s is None else began_s
        states.append((snapshot.now_s - began_s, verdict.state))
        if (content := (verdict.state, verdict.codes, verdict.memory_short)) != before:
            before = content
            say(options, verdict, at=snapshot.local, after_s=snapshot.now_s - began_s)
    told = _summary(states)
    if options.json:
        say_json({"policy": given.name, "cut": trace.cut, **told})
        return 0
    cut = "; its last line is cut off" if trace.cut else ""
    line(
        f"{told['snapshots']} snapshots in {duration(told['seconds'])}: idle {told['idle_ratio'] * 100:.0f} % "
        f"of the time, became idle {told['resumes']} times (policy {given.name}){cut}"
    )
    return 0


def _summary(states: Sequence[tuple[float, State]]) -> dict[str, Any]:
    idle_s = sum(
        after_s - at_s for (at_s, state), (after_s, _) in itertools.pairwise(states) if state is State.IDLE
    )
    seconds = states[-1][0] if states else 0.0
    return {
        "snapshots": len(states),
        "seconds": round(seconds, 3),
        "idle_ratio": round(idle_s / seconds, 4) if seconds > 0 else 0.0,
        "resumes": sum(
            before is not State.IDLE and after is State.IDLE
            for (_, before), (_, after) in itertools.pairwise(states)
        ),
    }


class _Look:
    """One look for a command: two samples, since load needs two; without the grace, which only a longer watch can fill."""

    def __init__(self, policy: Policy) -> None:
        self.monitor = Monitor(dataclasses.replace(policy, grace_s=0.0))

    def __enter__(self) -> Self:
        try:
            self.monitor.check()
            time.sleep(MEASURE_S)
            self.monitor.check()
            began_s = time.perf_counter()
            self.verdict = self.monitor.check()
            self.sample_us = (time.perf_counter() - began_s) * 1e6
        except BaseException:
            self.monitor.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.monitor.close()


if __name__ == "__main__":
    sys.exit(main())
