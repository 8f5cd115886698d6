"""How many sandboxed `/bin/true` a second, beside bubblewrap alone: with the same view of the machine, and with the least that it can do.

`python3 run.py bench sandbox_rate [--starts 100] [--rounds 3] [--json]`

One after the other, and as many abreast as there are cores. A start of ours includes what bubblewrap alone does not do: a control group of
its own, a filter of system calls, limits, pipes for output, and the proof that nothing of it lives. The goal: half of bubblewrap's own rate.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from measure import describe_machine

from idle_accelerator.agent.sandbox import GuestSpec
from idle_accelerator.agent.sandbox.choice import choose

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from idle_accelerator.agent.sandbox.bubblewrap import BubblewrapSandbox

WARM_UP = 5
ENV = {"PATH": "/usr/bin:/bin"}
LEAST = ("--ro-bind", "/", "/", "--unshare-all", "--proc", "/proc", "--dev", "/dev")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rates:
    """Starts a second, one for each round."""

    abreast: int
    ours: list[float] = dataclasses.field(default_factory=list)
    same_view: list[float] = dataclasses.field(default_factory=list)
    least: list[float] = dataclasses.field(default_factory=list)

    def table(self) -> dict[str, float | int]:
        def paired(others: list[float]) -> float:
            return round(statistics.median(a / b for a, b in zip(self.ours, others, strict=True)), 2)

        return {
            "abreast": self.abreast,
            "ours_per_s": round(statistics.median(self.ours)),
            "bwrap_same_view_per_s": round(statistics.median(self.same_view)),
            "bwrap_least_per_s": round(statistics.median(self.least)),
            "ratio_to_same_view": paired(self.same_view),
            "ratio_to_least": paired(self.least),
        }


async def rate(one: Callable[[int], Awaitable[None]], *, abreast: int, starts: int) -> float:
    async def lane(number: int, left: itertools.count[int]) -> None:
        while next(left) < starts:
            await one(number)

    for _ in range(WARM_UP):
        await asyncio.gather(*(one(number) for number in range(abreast)))
    left = itertools.count()
    began = time.perf_counter()
    await asyncio.gather(*(lane(number, left) for number in range(abreast)))
    return starts / (time.perf_counter() - began)


async def run_bare(arguments: tuple[str, ...]) -> None:
    process = await asyncio.create_subprocess_exec(*arguments)
    if await process.wait():
        sys.exit(f"bubblewrap failed: {' '.join(arguments)}")


async def measured(sandbox: BubblewrapSandbox, folder: Path, *, starts: int, rounds: int) -> list[Rates]:
    async def ours(number: int) -> None:
        workspace = folder / f"workspace-{number}"
        workspace.mkdir(exist_ok=True)
        guest = await sandbox.start(GuestSpec(argv=("/bin/true",), workspace=workspace, env=ENV))
        await guest.wait()

    program, place = str(sandbox.program), str(folder)
    view = (*sandbox.arguments, "--bind", place, place, "--chdir", place)
    found: list[Rates] = []
    try:
        for abreast in dict.fromkeys((1, os.cpu_count() or 1)):
            rates = Rates(abreast=abreast)
            for _ in range(rounds):
                rates.ours.append(await rate(ours, abreast=abreast, starts=starts))
                for arguments, into in ((view, rates.same_view), (LEAST, rates.least)):
                    bare = (program, *arguments, "/bin/true")
                    into.append(
                        await rate(lambda _, bare=bare: run_bare(bare), abreast=abreast, starts=starts)
                    )
            found.append(rates)
    finally:
        await sandbox.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="run.py bench sandbox_rate", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    parser.add_argument("--starts", type=int, default=100, help="in each round of each kind (default: 100)")
    parser.add_argument("--rounds", type=int, default=3, help="in turn (default: 3)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if sys.platform != "linux":
        sys.exit("bubblewrap is Linux's.")
    from idle_accelerator.agent.sandbox.bubblewrap import BubblewrapSandbox

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        machine = describe_machine(folder)
        if os.geteuid() == 0:
            os.environ.setdefault("IDLE_GUEST_USER", "61999")  # root's guests are to be somebody else
        chosen = choose("bubblewrap", scheduler_url="http://127.0.0.1:1", data_dir=folder)
        if not isinstance(chosen.sandbox, BubblewrapSandbox):
            sys.exit("\n".join(chosen.sentences))
        work = folder / "work"
        work.mkdir()
        found = asyncio.run(measured(chosen.sandbox, work, starts=options.starts, rounds=options.rounds))
    tables = [rates.table() for rates in found]
    if options.json:
        print(json.dumps({"machine": machine, "rates": tables}))
        return
    for table in tables:
        print("  ".join(f"{what} {value}" for what, value in table.items()))


if __name__ == "__main__":
    main()
