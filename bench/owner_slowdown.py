"""What an owner loses while guests work, and while they stand frozen: processors, memory, disk and a 10 ms ticker.

`python3 run.py bench owner_slowdown [--rounds 5] [--seconds 2] [--json]`

The owner's program of each kind runs alone, beside guests of the same kind under each mechanism, and beside the same guests frozen,
in turn; a figure is the median over rounds of what is lost against the same round alone. Guests: one for each processor that computes, copies memory, or writes
and syncs a file. The goals: at most 2 % lost at work where the kernel has cpu.idle or its like (the disk is reported), at most 0.5 % frozen.
A machine that others use tells nothing: the spread of the rounds alone is told too.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from measure import describe_machine

from idle_accelerator.agent import host

if TYPE_CHECKING:
    from collections.abc import Sequence

SETTLE_S = 0.3
KINDS = {"processors": "compute", "memory": "copy", "disk": "sync", "ticker": "tick"}
"""What is measured, and what the owner's program does for it. Guests compute while the owner ticks."""
PROGRAM = """
import os, sys, time
kind, seconds, folder = sys.argv[1], float(sys.argv[2]), sys.argv[3]
clock = time.perf_counter
count, end = 0, clock() + seconds
if kind == "compute":
    while clock() < end:
        x = 1
        for i in range(2000):
            x = (x * 31 + i) & 0xffffffff
        count += 1
elif kind == "copy":
    a, b = bytearray(1 << 25), bytearray(1 << 25)
    while clock() < end:
        b[:] = a
        count += 1
elif kind == "sync":
    block = os.urandom(4096)
    with open(os.path.join(folder, str(os.getpid())), "wb", buffering=0) as file:
        while clock() < end:
            file.write(block)
            os.fsync(file.fileno())
            count += 1
            if count % 4096 == 0:
                file.seek(0)
else:
    due = clock()
    late = 0.0
    while clock() < end:
        due += 0.01
        time.sleep(max(0.0, due - clock()))
        late += max(0.0, clock() - due)
        count += 1
    count = 1 / (0.01 + late / max(1, count))
print(count)
"""
FOREVER_S = 1e9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """How guests are held to the lowest priority."""

    name: str
    grouped: bool
    nice: bool


WAYS = (
    Way(name="group", grouped=True, nice=True),
    Way(name="nice and autogroup", grouped=False, nice=True),
    Way(name="no priority", grouped=False, nice=False),
)


def owner(kind: str, seconds: float, folder: Path) -> float:
    """How much of its work the owner's program got done a second, in a session of its own as from a terminal or desktop."""
    workers = (os.cpu_count() or 1) if kind == "compute" else 1
    running = [
        subprocess.Popen(
            [sys.executable, "-ISc", PROGRAM, kind, str(seconds), str(folder)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for _ in range(workers)
    ]
    done = [process.communicate()[0] for process in running]
    return sum(map(float, done)) / (1.0 if kind == "tick" else seconds)


async def guests(kind: str, way: Way, folder: Path) -> list[host.Guest]:
    doing = "compute" if kind == "tick" else kind
    launch = host.Launch(
        argv=(sys.executable, "-ISc", PROGRAM, doing, str(FOREVER_S), str(folder)),
        cwd=folder,
        env={},
        stdout="null",
        stderr="null",
        nice=way.nice,
    )
    return [await started(launch, way) for _ in range(os.cpu_count() or 1)]


async def started(launch: host.Launch, way: Way) -> host.Guest:
    if way.grouped:
        return await host.spawn(launch)
    from idle_accelerator.agent.host import linux, posix

    return await posix.spawn(launch, linux.System())


async def one_round(kind: str, way: Way, seconds: float, folder: Path) -> tuple[float, float, float]:
    """The owner's rate alone, beside guests at work, and beside them frozen."""
    alone = await asyncio.to_thread(owner, kind, seconds, folder)
    beside = await guests(kind, way, folder)
    try:
        await asyncio.sleep(SETTLE_S)
        working = await asyncio.to_thread(owner, kind, seconds, folder)
        for guest in beside:
            guest.begin_freeze()
        for guest in beside:
            guest.freeze()
        frozen = await asyncio.to_thread(owner, kind, seconds, folder)
    finally:
        await asyncio.gather(*(guest.kill() for guest in beside))
    return alone, working, frozen


def lost_percent(pairs: Sequence[tuple[float, float]]) -> float:
    """Median over rounds of (alone - then) / alone."""
    return round(statistics.median(100 * (alone - then) / alone for alone, then in pairs), 2)


async def measured(rounds: int, seconds: float, folder: Path) -> list[dict[str, float | str]]:
    results: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for _ in range(rounds):
        for what, kind in KINDS.items():
            for way in WAYS:
                found = await one_round(kind, way, seconds, folder)
                results.setdefault((what, way.name), []).append(found)
    tables: list[dict[str, float | str]] = []
    for (what, way), found in results.items():
        alone = [each[0] for each in found]
        tables.append(
            {
                "owner's": what,
                "guests held by": way,
                "lost_at_work_percent": lost_percent([(each[0], each[1]) for each in found]),
                "lost_frozen_percent": lost_percent([(each[0], each[2]) for each in found]),
                "spread_alone_percent": round(100 * (max(alone) - min(alone)) / statistics.median(alone), 2),
            }
        )
    return tables


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="run.py bench owner_slowdown", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    parser.add_argument("--rounds", type=int, default=5, help="of every kind and mechanism (default: 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each look (default: 2)")
    parser.add_argument(
        "--folder", type=Path, help="on the disk that is meant (default: the temporary folder)"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if sys.platform != "linux":
        sys.exit("The mechanisms that are compared are Linux's.")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        machine = describe_machine(folder)
        tables = asyncio.run(measured(options.rounds, options.seconds, folder))
    sentences = [each.sentence for each in host.mechanisms()]
    if options.json:
        print(json.dumps({"machine": machine, "mechanisms": sentences, "losses": tables}))
        return
    for sentence in sentences:
        print(sentence)
    for table in tables:
        print("  ".join(f"{what} {value}" for what, value in table.items()))


if __name__ == "__main__":
    main()
