"""The owner returns: four guests with 16 busy processes each are frozen, and one with 300 is killed; by control groups and by the walk.

`python3 run.py bench guests_freeze [--rounds 100] [--kills 5] [--json]`

Freezing is measured from the first call until the kernel has said of the last guest that it stands still. Both ways take turns, so
that both have the same machine. The goals: median at most 15 ms, 99 in 100 at most 100 ms; kill at most 100 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from measure import describe_machine, percentile

from idle_accelerator.agent import host

if TYPE_CHECKING:
    from collections.abc import Sequence

TREES = 4
BUSY = 16
MANY = 300
READY_S = 120.0
GUEST = """
import os, sys, time
for _ in range(int(sys.argv[1]) - 1):
    if os.fork() == 0:
        break
while True:
    if sys.argv[2] == "sleeps":
        time.sleep(1)
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """One way to freeze and kill, with what it took, in milliseconds."""

    name: str
    freezes: list[float] = dataclasses.field(default_factory=list)
    thaws: list[float] = dataclasses.field(default_factory=list)
    kills: list[float] = dataclasses.field(default_factory=list)

    def table(self) -> dict[str, float | str | int | None]:
        def at(values: Sequence[float], part: float) -> float | None:
            return round(percentile(sorted(values), part), 2) if values else None

        return {
            "way": self.name,
            "freezes": len(self.freezes),
            "freeze_p50_ms": at(self.freezes, 0.5),
            "freeze_p99_ms": at(self.freezes, 0.99),
            "freeze_worst_ms": at(self.freezes, 1.0),
            "thaw_p50_ms": at(self.thaws, 0.5),
            "kills": len(self.kills),
            "kill_p50_ms": at(self.kills, 0.5),
            "kill_worst_ms": at(self.kills, 1.0),
        }


async def started(processes: int, kind: str, *, grouped: bool) -> host.Guest:
    """A guest of so many processes. Without a group it is found by the walk alone, as where there are no groups."""
    launch = host.Launch(
        argv=(sys.executable, "-ISc", GUEST, str(processes), kind),
        cwd=Path("/"),
        env={},
        stdout="null",
        stderr="null",
    )
    guest = await (host.spawn(launch) if grouped else spawned_without_group(launch))
    deadline = time.monotonic() + READY_S
    while guest.usage().processes < processes:
        if time.monotonic() > deadline:
            sys.exit(f"not {processes} processes within {READY_S:.0f} s")
        await asyncio.sleep(0.02)
    return guest


async def spawned_without_group(launch: host.Launch) -> host.Guest:
    from idle_accelerator.agent.host import linux, posix

    return await posix.spawn(launch, linux.System())


async def freeze_all(ways: list[Way], rounds: int) -> None:
    guests = {
        way.name: [await started(BUSY, "is busy", grouped=way.name == "groups") for _ in range(TREES)]
        for way in ways
    }
    for every in guests.values():
        for guest in every:
            guest.freeze()
    try:
        for _ in range(rounds):
            for way in ways:
                mine = guests[way.name]
                began = time.perf_counter()
                for guest in mine:
                    guest.thaw()
                way.thaws.append((time.perf_counter() - began) * 1e3)
                await asyncio.sleep(0.05)
                began = time.perf_counter()
                for guest in mine:
                    guest.begin_freeze()
                for guest in mine:
                    guest.freeze()
                way.freezes.append((time.perf_counter() - began) * 1e3)
    finally:
        await asyncio.gather(*(guest.kill() for every in guests.values() for guest in every))


async def kill_many(ways: list[Way], rounds: int) -> None:
    for _ in range(rounds):
        for way in ways:
            guest = await started(MANY, "sleeps", grouped=way.name == "groups")
            began = time.perf_counter()
            await guest.kill()
            way.kills.append((time.perf_counter() - began) * 1e3)


async def measured(rounds: int, kills: int) -> list[Way]:
    ways = [Way(name="groups"), Way(name="walk")]
    await freeze_all(ways, rounds)
    await kill_many(ways, kills)
    return ways


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="run.py bench guests_freeze", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    parser.add_argument("--rounds", type=int, default=100, help="of freezing and thawing (default: 100)")
    parser.add_argument("--kills", type=int, default=5, help="of 300 processes (default: 5)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if sys.platform != "linux":
        sys.exit("Control groups are Linux's.")
    with tempfile.TemporaryDirectory() as folder:
        machine = describe_machine(Path(folder))
    tables = [way.table() for way in asyncio.run(measured(options.rounds, options.kills))]
    sentences = [each.sentence for each in host.mechanisms()]
    if options.json:
        print(json.dumps({"machine": machine, "mechanisms": sentences, "ways": tables}))
        return
    for sentence in sentences:
        print(sentence)
    for table in tables:
        print("  ".join(f"{name} {value}" for name, value in table.items()))


if __name__ == "__main__":
    main()
