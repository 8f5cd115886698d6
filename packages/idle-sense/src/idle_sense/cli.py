"""``idle-sense check|watch|explain|doctor [--json]``: what this machine says of itself."""

import argparse
import dataclasses
import json
import platform as machine
import queue
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from idle_sense.errors import SenseError
from idle_sense.monitor import Monitor
from idle_sense.sentences import CHINESE, ENGLISH, duration, render
from idle_sense.types import Policy, State, Verdict

POLICIES = {"desktop": Policy.desktop, "server": Policy.server, "lab": Policy.lab}
MEASURE_S = 1.0
"""Between the two looks that a measure of load needs."""

NOTE = """exit status of check: 0 idle, 1 busy or settling, 2 wrong usage.
check is one look: it asks for no quiet beforehand, except on a machine without a display, where whoever left
a moment ago leaves no trace. watch keeps looking, as a program would."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status; see ``NOTE``."""
    options = _parser().parse_args(arguments)
    try:
        policy = _policy(options)
        return _COMMANDS[options.command](options, policy)
    except SenseError as error:
        sys.stderr.write(f"idle-sense: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="idle-sense",
        description="Is this machine truly idle, why, since when?",
        epilog=NOTE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=sorted(_COMMANDS), help="what to do")
    parser.add_argument("--policy", choices=sorted(POLICIES), default="desktop", help="default: desktop")
    parser.add_argument(
        "--input-idle", type=float, metavar="SECONDS", help="how long without input counts as idle"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--language", choices=("en", "zh"), default="en", help="of the sentences")
    return parser


def _policy(options: argparse.Namespace) -> Policy:
    policy = POLICIES[options.policy]()
    if options.input_idle is not None:
        policy = dataclasses.replace(policy, input_idle_s=options.input_idle)
    return policy


def _check(options: argparse.Namespace, policy: Policy) -> int:
    verdict, _ = _one_look(policy)
    _say(options, verdict)
    return 0 if verdict.state is State.IDLE else 1


def _explain(options: argparse.Namespace, policy: Policy) -> int:
    verdict, monitor_told = _one_look(policy)
    if options.json:
        _say_json({**_as_json(verdict, options.language), "idleness": monitor_told["idleness"]})
    else:
        _say(options, verdict)
        _line("")
        _line("What this machine takes as idleness:")
        for sentence in monitor_told["idleness"]:
            _line(f"  {sentence}")
    return 0


def _doctor(options: argparse.Namespace, policy: Policy) -> int:
    verdict, told = _one_look(policy)
    facts = {
        "idle_sense": metadata.version("idle-sense"),
        "python": machine.python_version(),
        "system": machine.platform(),
        "policy": policy.name,
    }
    if options.json:
        _say_json({**facts, **_as_json(verdict, options.language), **told})
        return 0
    for name, value in facts.items():
        _line(f"{name:<12}{value}")
    _line("")
    for capability in told["capabilities"]:
        serves = "serves" if capability["serves"] else "DOES NOT SERVE"
        _line(f"{capability['probe']:<12}{capability['back_end']} ({capability['verified']}; {serves})")
        if capability["advice"]:
            _line(f"{'':<12}better: {capability['advice']}")
    _line("")
    _line(f"{'a sample':<12}{told['sample_us']:.0f} µs")
    _say(options, verdict)
    return 0


def _watch(options: argparse.Namespace, policy: Policy) -> int:
    with Monitor(policy) as monitor:
        heard: queue.SimpleQueue[Verdict] = queue.SimpleQueue()
        monitor.on_change(heard.put)
        while True:
            _say(options, heard.get(), stamp=True)


_COMMANDS = {"check": _check, "doctor": _doctor, "explain": _explain, "watch": _watch}


def _one_look(policy: Policy) -> tuple[Verdict, dict[str, Any]]:
    """Two samples, since load needs two; without the grace, which only a longer watch can fill."""
    monitor = Monitor(dataclasses.replace(policy, grace_s=0.0))
    try:
        monitor.check()
        time.sleep(MEASURE_S)
        monitor.check()
        began_s = time.perf_counter()
        verdict = monitor.check()
        sample_us = (time.perf_counter() - began_s) * 1e6
        told: dict[str, Any] = {
            "idleness": list(monitor.describe()),
            "capabilities": [dataclasses.asdict(capability) for capability in monitor.capabilities()],
            "sample_us": round(sample_us, 1),
        }
        return verdict, told
    finally:
        monitor.close()


def _as_json(verdict: Verdict, language: str) -> dict[str, Any]:
    templates = CHINESE if language == "zh" else ENGLISH
    return {
        "state": verdict.state.value,
        "since_s": round(verdict.since_s, 3),
        "memory_short": verdict.memory_short,
        "reasons": [
            {
                "code": reason.code,
                "severity": reason.severity.value,
                "params": dict(reason.params),
                "source": reason.source,
                "sentence": render(reason.code, reason.params, templates),
            }
            for reason in verdict.reasons
        ],
    }


def _say(options: argparse.Namespace, verdict: Verdict, *, stamp: bool = False) -> None:
    if options.json:
        at = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())} if stamp else {}
        _say_json({**at, **_as_json(verdict, options.language)})
        return
    templates = CHINESE if options.language == "zh" else ENGLISH
    at_text = f"{time.strftime('%H:%M:%S')}  " if stamp else ""
    since = "" if stamp else f" for {duration(verdict.since_s)}" if verdict.since_s >= 1 else ""
    _line(f"{at_text}{verdict.state.value}{since}")
    for reason in verdict.reasons:
        _line(f"  {render(reason.code, reason.params, templates)}")


def _say_json(value: dict[str, Any]) -> None:
    _line(json.dumps(value, ensure_ascii=False))


def _line(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
