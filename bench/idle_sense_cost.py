"""What idle-sense itself costs: each read, a whole sample, processor time and memory at rest and while guests run.

`python3 run.py bench idle_sense_cost [--json] [--seconds N] [--guests N]`
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from measure import describe_machine, percentile
from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

GOALS = {
    "import_ms": 60.0,
    "sample_us": 300.0,
    "rest_cpu_s_per_min": 0.1,
    "rest_rss_mib": 20.0,
}
"""As docs and README promise them: the median sample, a watch that nothing disturbs."""
SETTLE_S = 3.0
"""What a start costs is no cost at rest."""
READS = 200
SAMPLES = 300

IMPORT = """
import json, sys, time
began = time.perf_counter()
import idle_sense
print(json.dumps({"import_ms": (time.perf_counter() - began) * 1e3}))
"""
READING = """
import json, sys, time
from idle_sense.probes.bundle import native_probes
reads, told = int(sys.argv[1]), {}
probes = native_probes()
for probe in probes:
    probe.read(time.monotonic())
time.sleep(1.0)
for probe in probes:
    times, cpu = [], []
    # A probe that looks seldom looks each time here, as each read is told a later time.
    for number in range(reads):
        now_s = time.monotonic() + number * max(1.0, probe.every_s)
        began, spent = time.perf_counter(), time.thread_time()
        probe.read(now_s)
        cpu.append((time.thread_time() - spent) * 1e6)
        times.append((time.perf_counter() - began) * 1e6)
    capability = probe.capability()
    told[capability.probe] = {
        "every_s": probe.every_s, "back_end": capability.back_end, "times_us": times, "cpu_us": cpu
    }
print(json.dumps(told))
"""
SAMPLING = """
import json, sys, time
from idle_sense import Monitor
from idle_sense.probes.guests import GuestLedger
monitor = Monitor()
for pid in sys.argv[2:]:
    monitor.guests().add(int(pid))
times, cpu = [], []
monitor.check()
for _ in range(int(sys.argv[1])):
    time.sleep(0.02)
    began, spent = time.perf_counter(), time.thread_time()
    monitor.check()
    cpu.append((time.thread_time() - spent) * 1e6)
    times.append((time.perf_counter() - began) * 1e6)
monitor.close()
print(json.dumps({"times_us": times, "cpu_us": cpu}))
"""
WATCHING = """
import sys, time
from idle_sense import Monitor
with Monitor() as monitor:
    monitor.attentive = sys.argv[1] == "attentive"
    for pid in sys.argv[2:]:
        monitor.guests().add(int(pid))
    monitor.on_change(lambda verdict: None)
    sys.stdin.read()
"""
ONE_GUEST = "import os, sys\nfor _ in range(int(sys.argv[1]) - 1):\n    if not os.fork():\n        break\nsys.stdin.read()\n"


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py bench idle_sense_cost", description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        metavar="N",
        help="how long each watch is measured (default: 60)",
    )
    parser.add_argument(
        "--guests", type=int, default=50, metavar="N", help="processes of a guest that sleep (default: 50)"
    )
    args = parser.parse_args(arguments)
    for flag in ("seconds", "guests"):
        if getattr(args, flag) <= 0:
            parser.error(f"--{flag} must be more than 0, not {getattr(args, flag)}")
    return args


def answer_of(program: str, *arguments: str) -> dict[str, Any]:
    """What a program in an interpreter of its own prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True, timeout=300
    )
    return json.loads(done.stdout)


@contextlib.contextmanager
def sleeping_guest(processes: int) -> Iterator[int]:
    """A tree of processes that do nothing; its root."""
    guest = subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", ONE_GUEST, str(processes)], stdin=subprocess.PIPE, text=True
    )
    try:
        time.sleep(1.0)
        yield guest.pid
    finally:
        guest.stdin.close()
        guest.wait(timeout=60)


def spread(told: dict[str, Any]) -> dict[str, float]:
    """Of the times by the clock, which others on the machine lengthen, and the processor time, which they hardly do."""
    return {
        "median_us": statistics.median(told["times_us"]),
        "p99_us": percentile(told["times_us"], 0.99),
        "low_us": min(told["times_us"]),
        "cpu_us": statistics.median(told["cpu_us"]),
    }


def watch(command: list[str], seconds: float) -> dict[str, float]:
    """Processor time by the minute, and memory, of a watch that goes on undisturbed."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT)
        try:
            time.sleep(SETTLE_S)
            watched = psutil.Process(process.pid)
            before, began_s = watched.cpu_times(), time.monotonic()
            time.sleep(seconds)
            after, passed_s = watched.cpu_times(), time.monotonic() - began_s
            memory = watched.memory_full_info()
            return {
                "cpu_s_per_min": (after.user + after.system - before.user - before.system) / passed_s * 60,
                "rss_mib": memory.rss / (1 << 20),
                "uss_mib": memory.uss / (1 << 20),
                "threads": watched.num_threads(),
            }
        except psutil.NoSuchProcess:
            output.seek(0)
            last = output.read().decode(errors="replace").strip().split("\n")[-1]
            raise SystemExit(f"the watch ended: {last}") from None
        finally:
            process.stdin.close()
            process.terminate()
            process.wait(timeout=60)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    imports = [answer_of(IMPORT)["import_ms"] for _ in range(5)]
    reads = answer_of(READING, str(READS))
    with sleeping_guest(args.guests) as pid:
        samples = {
            "alone": spread(answer_of(SAMPLING, str(SAMPLES))),
            f"with {args.guests} processes of guests": spread(answer_of(SAMPLING, str(SAMPLES), str(pid))),
        }
        watching = [sys.executable, "-c", WATCHING]
        watches = {
            "idle-sense watch": watch([sys.executable, "-m", "idle_sense.cli", "watch"], args.seconds),
            "attentive": watch([*watching, "attentive"], args.seconds),
            f"attentive, {args.guests} processes of guests": watch(
                [*watching, "attentive", str(pid)], args.seconds
            ),
        }
    return {
        "import_ms": min(imports),
        "reads": {
            name: {"every_s": told["every_s"], "back_end": told["back_end"], **spread(told)}
            for name, told in reads.items()
        },
        "samples": samples,
        "watches": watches,
    }


def verdicts(measured: dict[str, Any]) -> dict[str, dict[str, Any]]:
    rest = measured["watches"]["idle-sense watch"]
    found = {
        "import_ms": measured["import_ms"],
        "sample_us": measured["samples"]["alone"]["median_us"],
        "rest_cpu_s_per_min": rest["cpu_s_per_min"],
        "rest_rss_mib": rest["rss_mib"],
    }
    return {
        name: {"measured": value, "goal": GOALS[name], "met": value <= GOALS[name]}
        for name, value in found.items()
    }


def print_tables(console: Console, report: dict[str, Any]) -> None:
    machine = report["machine"]
    console.print(
        f"{machine['cores']} cores, Python {machine['python']}, {machine['os']}, "
        f"load before {machine['load_1min_before'] or 0:.1f}; watches of {report['seconds']:g} s\n"
    )
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1))
    table.add_column("one read of", no_wrap=True)
    for heading in ("every s", "median µs", "p99 µs", "CPU µs"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("back end")
    for name, read in report["reads"].items():
        every = f"{read['every_s']:g}" if read["every_s"] else "sample"
        table.add_row(
            name,
            every,
            f"{read['median_us']:.1f}",
            f"{read['p99_us']:.1f}",
            f"{read['cpu_us']:.1f}",
            read["back_end"],
        )
    console.print(table)
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1))
    for heading in ("a whole sample", "median µs", "p99 µs", "CPU µs"):
        table.add_column(heading, justify="left" if heading.startswith("a ") else "right", no_wrap=True)
    for name, sample in report["samples"].items():
        table.add_row(
            name, f"{sample['median_us']:.1f}", f"{sample['p99_us']:.1f}", f"{sample['cpu_us']:.1f}"
        )
    console.print(table)
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1))
    for heading in ("watching", "CPU s/min", "RSS MiB", "of its own", "threads"):
        table.add_column(heading, justify="left" if heading == "watching" else "right", no_wrap=True)
    for name, one in report["watches"].items():
        table.add_row(
            name,
            f"{one['cpu_s_per_min']:.3f}",
            f"{one['rss_mib']:.1f}",
            f"{one['uss_mib']:.1f}",
            f"{one['threads']}",
        )
    console.print(table)
    for name, one in report["goals"].items():
        console.print(
            f"{name}: {one['measured']:.3g} (goal {one['goal']:g}: {'met' if one['met'] else 'NOT met'})"
        )


def main() -> int:
    args = parse(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        machine = describe_machine(Path(folder))
    display = os.environ.get("DISPLAY", "")
    measured = measure(args)
    report = {
        "benchmark": "idle_sense_cost",
        "machine": machine,
        "display": display,
        "seconds": args.seconds,
        **measured,
        "goals": verdicts(measured),
    }
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        print_tables(Console(width=None if sys.stdout.isatty() else 180), report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
