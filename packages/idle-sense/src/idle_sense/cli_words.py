"""How the command says verdicts and reasons: as lines for people, or as JSON, one value a line."""

import argparse
import json
import sys
from datetime import datetime
from typing import Any

from idle_sense.sentences import CHINESE, ENGLISH, duration, render
from idle_sense.types import Reason, Verdict


def as_json(options: argparse.Namespace, verdict: Verdict) -> dict[str, Any]:
    return {
        "state": verdict.state.value,
        "since_s": round(verdict.since_s, 3),
        "memory_short": verdict.memory_short,
        "reasons": [reason(options, item) for item in verdict.reasons],
    }


def reason(options: argparse.Namespace, item: Reason) -> dict[str, Any]:
    return {
        "code": item.code,
        "severity": item.severity.value,
        "params": dict(item.params),
        "source": item.source,
        "sentence": sentence(options, item),
    }


def sentence(options: argparse.Namespace, item: Reason) -> str:
    return render(item.code, item.params, CHINESE if options.language == "zh" else ENGLISH)


def say(
    options: argparse.Namespace,
    verdict: Verdict,
    *,
    at: datetime | None = None,
    after_s: float | None = None,
) -> None:
    if options.json:
        stamp: dict[str, Any] = {} if at is None else {"at": at.isoformat(timespec="milliseconds")}
        if after_s is not None:
            stamp["after_s"] = round(after_s, 3)
        say_json({**stamp, **as_json(options, verdict)})
        return
    at_text = "" if at is None else f"{at:%H:%M:%S}  "
    since = f" for {duration(verdict.since_s)}" if at is None and verdict.since_s >= 1 else ""
    line(f"{at_text}{verdict.state.value}{since}")
    for item in verdict.reasons:
        line(f"  {sentence(options, item)}")


def say_json(value: dict[str, Any]) -> None:
    line(json.dumps(value, ensure_ascii=False))


def line(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
