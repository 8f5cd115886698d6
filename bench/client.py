"""One system in a process of its own: starts it, drives it, times it. `measure.Client` is the other end.

Requests come as JSON lines on standard input, answers go as JSON lines to the standard output it was started with.
When the input ends, whatever the reason, the system is stopped.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peers import Peer


def run(peer: Peer, count: int) -> dict[str, Any]:
    started = time.perf_counter()
    results = peer.run(count)
    elapsed_s = time.perf_counter() - started
    if sorted(results) != list(range(count)):
        raise RuntimeError(f"{len(results)} results of {count} tasks, not each value once")
    return {"elapsed_s": elapsed_s}


def singles(peer: Peer, count: int, limit_s: float) -> dict[str, Any]:
    """Time up to `count` single tasks, one after the other, for no longer than `limit_s` in all."""
    latencies_s: list[float] = []
    deadline = time.perf_counter() + limit_s
    while len(latencies_s) < count and time.perf_counter() < deadline:
        started = time.perf_counter()
        value = peer.single()
        latencies_s.append(time.perf_counter() - started)
        if value != 1:
            raise RuntimeError(f"a single task returned {value!r} instead of 1")
    return {"latencies_s": latencies_s}


def describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def serve(peer: Peer, workers: int) -> None:
    # What a library prints must not come between the answers, so it goes with the errors.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")

    try:
        peer.start(Path(os.environ["BENCH_DIRECTORY"]), workers)
        answer(
            {
                "name": peer.name,
                "version": peer.version,
                "durability": peer.durability,
                "settings": peer.settings,
                "pids": peer.pids(),
            }
        )
        for line in sys.stdin:
            request = json.loads(line)
            if request["do"] == "run":
                answer(run(peer, request["count"]))
            else:
                answer(singles(peer, request["count"], request["limit_s"]))
    except Exception as error:
        traceback.print_exc()
        answer({"error": "; ".join([describe(error), *peer.services.obituaries()])})
    finally:
        peer.stop()


def main() -> None:
    module, class_name, workers = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        peer = getattr(importlib.import_module(module), class_name)()
    except Exception as error:
        traceback.print_exc()
        print(json.dumps({"error": describe(error)}), flush=True)
        sys.exit(1)
    serve(peer, int(workers))


if __name__ == "__main__":
    main()
