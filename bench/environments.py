"""Environments: how long an attempt waits for the packages that it needs, beside plain `uv venv` and `uv pip install`.

`python3 run.py bench environments [--rounds 5] [--packages numpy idna six] [--json]`

cold     nothing is here: wheels are fetched from this machine's index, so the network decides
warm     the wheels are here and the environment is not: it is made of links
hit      the environment is here

The packages are pinned to their hashes first, which is not measured. Both ways install the same lock, wheels alone, with hashes, and take
turns. Ours runs at the lowest priority ("unhurried"), as for a guest, which on a busy machine takes as long as the machine pleases; and, so
that the ways compare, at uv's own. uv alone is measured without compiling and with `--compile-bytecode`; ours compiles, seals and measures what it takes.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import describe_machine

from idle_accelerator.agent.environments import EnvironmentLimits, Environments
from idle_accelerator.agent.environments.shelf import Shelf, wipe
from idle_accelerator.agent.environments.uv import find_interpreters, find_uv
from idle_accelerator.agent.sandbox import Guest, GuestSpec, Sandbox, open_sandbox
from idle_accelerator.sdk.environments import environment_for
from idle_accelerator.sdk.indexes import index_environment
from idle_accelerator.wire.environments import Environment

WAYS = ("uv", "uv, compiled", "ours", "ours, unhurried")


class Hurried:
    """A sandbox whose guests have the priority of anybody else, so that the two ways compare on a machine that has other work."""

    def __init__(self) -> None:
        self.inner = open_sandbox()
        self.tier, self.verified = self.inner.tier, self.inner.verified
        self.start_forked, self.close = self.inner.start_forked, self.inner.close

    async def start(self, spec: GuestSpec) -> Guest:
        return await self.inner.start(dataclasses.replace(spec, nice=False))


def by_uv(uv: Path, lock: Path, folder: Path, cache: Path, *, compiled: bool) -> float:
    """Seconds."""
    python = find_interpreters()[0].path
    env = {
        **index_environment(),
        "PATH": os.defpath,
        "UV_CACHE_DIR": str(cache),
        "UV_PYTHON_DOWNLOADS": "never",
    }
    began_s = time.perf_counter()
    options = ["--compile-bytecode"] if compiled else []
    python_in = folder / "bin" / "python"
    install = ["pip", "install", "--no-config", "--quiet", "--python", python_in, "--only-binary", ":all:"]
    for words in (
        ["venv", "--no-config", "--quiet", "--python", python, folder],
        [*install, "--require-hashes", *options, "-r", lock],
    ):
        subprocess.run([uv, *words], env=env, check=True)
    return time.perf_counter() - began_s


class Ours:
    def __init__(self, folder: Path, uv: Path, sandbox: Sandbox) -> None:
        self.folder = folder
        self.made = Environments(
            Shelf(folder),
            uv,
            find_interpreters(),
            sandbox=sandbox,
            unlocked=False,
            limits=EnvironmentLimits(),
        )
        self.made.open()

    async def hold(self, environment: Environment) -> float:
        began_s = time.perf_counter()
        held = await self.made.hold(environment)
        took_s = time.perf_counter() - began_s
        self.made.release(held)
        return took_s


async def measured(
    environment: Environment, uv: Path, rounds: int, folder: Path
) -> dict[str, dict[str, list[float]]]:
    lock = folder / "lock.txt"
    lock.write_text(environment.requirements, encoding="utf-8")
    took: dict[str, dict[str, list[float]]] = {stage: {way: [] for way in WAYS} for stage in ("cold", "warm")}
    took["hit"] = {"ours": [], "ours, unhurried": []}
    for number in range(rounds):
        place = folder / str(number)
        place.mkdir()
        for way in ("uv", "uv, compiled"):
            cache = place / f"{way} cache"
            for stage in ("cold", "warm"):
                target = place / f"{way} {stage}"
                took[stage][way].append(by_uv(uv, lock, target, cache, compiled=way != "uv"))
        for way, sandbox in (("ours", Hurried()), ("ours, unhurried", open_sandbox())):
            ours = Ours(place / way, uv, sandbox)
            took["cold"][way].append(await ours.hold(environment))
            for made in (ours.folder / "made").iterdir():
                wipe(made)
            took["warm"][way].append(await ours.hold(environment))
            took["hit"][way].append(await ours.hold(environment))
            await ours.made.close()
            wipe(ours.folder)
        shutil.rmtree(place)
    return took


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench environments")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--packages", nargs="+", default=["numpy", "idna", "six"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    uv = find_uv()
    machine = describe_machine(Path(tempfile.gettempdir()))
    if uv is None or sys.platform == "win32":
        print("needs uv, and Linux or macOS: pip install uv", file=sys.stderr)
        return 1
    environment = environment_for(
        requirements=options.packages,
        lock=None,
        python=find_interpreters()[0].minor,
        function_python=None,
        own_pool=False,
    )
    assert environment is not None
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        took = asyncio.run(measured(environment, uv, options.rounds, Path(name)))
    table = {
        stage: {
            way: {
                "median_ms": round(statistics.median(values) * 1000, 1),
                "best_ms": round(min(values) * 1000, 1),
            }
            for way, values in ways.items()
        }
        for stage, ways in took.items()
    }
    ratios = {
        f"{stage}, ours to {way}": round(
            statistics.median(a / b for a, b in zip(took[stage]["ours"], took[stage][way], strict=True)), 2
        )
        for stage in ("cold", "warm")
        for way in ("uv", "uv, compiled")
    }
    if options.json:
        print(
            json.dumps(
                {
                    "benchmark": "environments",
                    "machine": machine,
                    "packages": options.packages,
                    "rounds": options.rounds,
                    "table": table,
                    "ratios": ratios,
                },
                indent=1,
            )
        )
        return 0
    print(f"{' '.join(options.packages)}, {options.rounds} rounds; {machine}")
    for stage, ways in table.items():
        for way, values in ways.items():
            print(
                f"{stage:5} {way:15} median {values['median_ms']:9.1f} ms   best {values['best_ms']:9.1f} ms"
            )
    for what, ratio in ratios.items():
        print(f"{what}: {ratio}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
