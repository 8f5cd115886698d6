"""The owner returns: from the first movement of the mouse until the kernel says of every guest that it stands still.

    python3 run.py bench first_input [--rounds 60] [--trees 4] [--each 16]

A real agent with a real scheduler runs four commands of 16 busy processes; an X server gets input by XTest; this program reads
the guests' control groups itself. The agent's event loop is idle, or held for 0.3 s at a time by decoding JSON: in one call
each, or in many short ones; each with the watch, a process of its own, and without it, by the agent alone. The goals: median at most
15 ms, 99 in 100 at most 100 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent / "packages" / "idle-sense" / "tests"))

import psutil
from measure import describe_machine, percentile

from idle_accelerator.agent import control
from idle_accelerator.agent.host import cgroups
from idle_accelerator.sdk.client import Client

ROOT = Path(__file__).parent.parent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

READY_S = 120.0
LIMIT_S = 6.0
"""Twice as long as this agent takes an input for use (see quiet_agent.py): then it was missed."""
GUEST = """
import os, sys
for _ in range(int(sys.argv[1]) - 1):
    if os.fork() == 0:
        break
while True:
    pass
"""


def until(look: Callable[[], object], what: str, limit_s: float = READY_S) -> None:
    deadline_s = time.monotonic() + limit_s
    while not look():
        if time.monotonic() > deadline_s:
            sys.exit(f"not within {limit_s:.0f} s: {what}")
        time.sleep(0.01)


@contextlib.contextmanager
def started(*command: str, log: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, *command], stdout=file, stderr=file, env=env)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def groups_of(pid: int) -> list[cgroups.Group]:
    """Those of the commands, not those of the helpers that wait to become one."""
    found = set()
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error, OSError):
            if GUEST in child.cmdline():
                found.add(group_of(child.pid))
    return [cgroups.Group.found(folder) for folder in sorted(found)]


def group_of(pid: int) -> str:
    for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").splitlines():
        number, names, path = line.split(":", 2)
        if cgroups.HOME_PREFIX in path and (number == "0" or names == "freezer"):
            for mount in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/freezer"):
                if Path(mount + path, cgroups.MEMBERS).exists() and (
                    Path(mount + path, "cgroup.freeze").exists()
                    or Path(mount + path, "freezer.state").exists()
                ):
                    return mount + path
    raise OSError(f"process {pid} is in no group of a guest")


def rounds_of(
    agent: subprocess.Popen[bytes], data_dir: Path, use: Callable[[], None], options: argparse.Namespace
) -> tuple[list[float], dict[str, float]]:
    until(lambda: len(groups_of(agent.pid)) == options.trees, "all guests run")
    groups = groups_of(agent.pid)
    until(lambda: all(len(group.pids()) == options.each for group in groups), "all processes of guests run")
    took_ms: list[float] = []
    watch = next(
        (child for child in psutil.Process(agent.pid).children() if "watch.py" in " ".join(child.cmdline())),
        None,
    )
    cost: dict[str, float] = {}
    if watch is not None:
        began_s, cpu_s = time.monotonic(), sum(watch.cpu_times()[:2])
        time.sleep(options.rest)
        per_min = (sum(watch.cpu_times()[:2]) - cpu_s) / (time.monotonic() - began_s) * 60
        memory = watch.memory_full_info()
        cost = {
            "watch_cpu_s_per_min": round(per_min, 2),
            "watch_rss_mib": round(memory.rss / 2**20, 1),
            "watch_own_mib": round(memory.uss / 2**20, 1),
        }
    for _ in range(options.rounds):
        until(lambda: not any(group.is_frozen() for group in groups), "guests go on when it is idle")
        time.sleep(0.7)  # longer than a look, so that it is armed
        began_s = time.perf_counter()
        use()
        while not (stand := all(group.is_frozen() for group in groups)):
            if time.perf_counter() - began_s > LIMIT_S:
                break
            time.sleep(0.0002)
        if not stand:
            cost["missed"] = cost.get("missed", 0) + 1
            continue
        took_ms.append((time.perf_counter() - began_s) * 1e3)
        until(
            lambda: (status := control.read_status(data_dir)) is not None and status.frozen == options.trees,
            "the agent says so",
        )
    return took_ms, cost


def measured(how: list[str], folder: Path, options: argparse.Namespace) -> dict[str, object]:
    from idle_input import input_of
    from seat_servers import X11, running

    state = folder / "state"
    env = {**os.environ, "XDG_STATE_HOME": str(state)}
    port = 18700 + os.getpid() % 1000
    url = f"http://127.0.0.1:{port}"
    data_dir = folder / "agent"
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running(X11, folder / "x"))
        env["DISPLAY"] = server.name
        stack.enter_context(
            started(
                *("-m", "idle_accelerator.cli", "scheduler", "--port", str(port)),
                *("--data-dir", str(folder / "scheduler")),
                log=folder / "scheduler.log",
                env=env,
            )
        )
        agent = stack.enter_context(
            started(
                str(ROOT / "packages/idle-accelerator/tests/quiet_agent.py"),
                *(url, str(data_dir), *how),
                log=folder / "agent.log",
                env=env,
            )
        )
        until(
            lambda: (status := control.read_status(data_dir)) is not None and status.connected,
            "agent connects",
        )
        use = input_of(server)
        use()
        with Client(url) as client:
            client.submit([sys.executable, "-ISc", GUEST, str(options.each)], array=options.trees)
            took_ms, cost = rounds_of(agent, data_dir, use, options)
    ordered = sorted(took_ms) or [float("inf")]
    return {
        "event_loop": next((word for word in how if word != "alone"), "idle"),
        "by": "agent alone" if "alone" in how else "watch",
        "frozen": len(took_ms),
        "p50_ms": round(percentile(ordered, 0.5), 1),
        "p90_ms": round(percentile(ordered, 0.9), 1),
        "p99_ms": round(percentile(ordered, 0.99), 1),
        "worst_ms": round(ordered[-1], 1),
        **cost,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="run.py bench first_input", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--trees", type=int, default=4)
    parser.add_argument("--each", type=int, default=16, help="busy processes of each")
    parser.add_argument(
        "--rest", type=float, default=20.0, help="seconds over which the watch's own cost is taken"
    )
    parser.add_argument("--ways", default="idle,idle alone,busy,busy alone,pieces,pieces alone")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if sys.platform != "linux":
        sys.exit("Control groups are Linux's.")
    rows: list[dict[str, object]] = []
    for way in options.ways.split(","):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            (Path(folder) / "x").mkdir()
            how = [word for word in way.split() if word != "idle"]
            rows.append(measured(how, Path(folder), options))
            if not options.json:
                print("  ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    if options.json:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps({"machine": describe_machine(Path(folder)), "rows": rows}))


if __name__ == "__main__":
    main()
