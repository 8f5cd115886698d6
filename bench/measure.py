"""What a benchmark needs to be believed: CPU of whole process trees, percentiles, the machine, rounds in turn."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import platform
import queue
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from peers import Entry

START_TIMEOUT_S = 90.0
RUN_TIMEOUT_S = 150.0
STOP_TIMEOUT_S = 15.0
FIRST_SINGLES = 5
FIRST_BATCH = 50
BATCH_WANTED_S = 0.3
FEWEST_TASKS = 100


class PeerError(Exception):
    """A system could not be started or did not finish; the message says why, in one line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Round:
    """One start of one system, and what was measured between its start and its stop."""

    tasks: int
    tasks_per_s: float
    """From the submit until every result is in the caller's hands."""
    cpu_ms_per_task: float
    """User and system time of every process involved, the caller and children that have ended included."""
    singles: int
    p50_ms: float
    p99_ms: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """What a system says about itself once it has started."""

    name: str
    version: str
    durability: str
    settings: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(median=statistics.median(values), low=min(values), high=max(values))


def percentile(values: Sequence[float], ratio: float) -> float:
    """The smallest value that at least `ratio` of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(ratio * len(ordered)) - 1)]


def processes_below(pids: Sequence[int]) -> set[psutil.Process]:
    """The living processes among `pids` and all their descendants."""
    found: set[psutil.Process] = set()
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            found.update((root, *root.children(recursive=True)))
    return found


def cpu_s(pids: Sequence[int]) -> float:
    """CPU seconds that the processes below `pids` and their ended, awaited children have used.

    A child that ends between two calls moves its time to its parent's, so a difference loses nothing. The kernel's
    clock tick, usually 10 ms a process, bounds the precision. Where the system does not tell children's times
    (Windows), those are missing.
    """
    total = 0.0
    for process in processes_below(pids):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
            total += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return total


def fsync_p50_ms(directory: Path, *, count: int = 200) -> float:
    """The median time to append 4 KiB to a file in `directory` and fsync it."""
    block = os.urandom(4096)
    times_s: list[float] = []
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        for _ in range(count):
            started = time.perf_counter()
            file.write(block)
            os.fsync(file.fileno())
            times_s.append(time.perf_counter() - started)
    return statistics.median(times_s) * 1000


def filesystem_of(directory: Path) -> str:
    """The type of the file system that holds `directory`, as the system names it."""
    path = directory.resolve()
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    return next((mounts[place] for place in (path, *path.parents) if place in mounts), "unknown")


def describe_machine(directory: Path) -> dict[str, Any]:
    """The facts without which the numbers mean nothing; `directory` is where the systems keep their data."""
    return {
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "python": platform.python_version(),
        "os": platform.platform(),
        "filesystem": filesystem_of(directory),
        "fsync_p50_ms": fsync_p50_ms(directory),
        "load_1min_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Client:
    """A system in a process of its own (`client.py`), which is the caller whose wait and CPU are measured."""

    def __init__(self, python: Path, entry: Entry, directory: Path, workers: int) -> None:
        self._log = directory / "client.log"
        environment = {
            **os.environ,
            "BENCH_DIRECTORY": str(directory),
            "BENCH_PEER": entry.class_name,
            "BENCH_PORT": str(free_port()),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        client = Path(__file__).with_name("client.py")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [python, client, entry.module, entry.class_name, str(workers)],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        self._pids: list[int] = [self._process.pid]

    def _read(self) -> None:
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def _answer(self, what: str, timeout_s: float) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            raise PeerError(f"{what} took longer than {timeout_s:.0f} s") from None
        if not line:
            words = self._log.read_text(errors="replace").split("\n")
            raise PeerError(f"its client ended: {next((w for w in reversed(words) if w.strip()), 'no word')}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(" ".join(answer["error"].split()))
        return answer

    def _ask(self, what: str, **request: Any) -> dict[str, Any]:
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"do": what, **request}) + "\n")
            self._process.stdin.flush()
        return self._answer(what, RUN_TIMEOUT_S)

    def wait_started(self) -> Identity:
        answer = self._answer("starting", START_TIMEOUT_S)
        self._pids += answer.pop("pids")
        return Identity(**answer)

    def run(self, count: int) -> float:
        """Seconds from the submit of `count` tasks until all their results are in the client's hands."""
        return self._ask("run", count=count)["elapsed_s"]

    def singles(self, count: int, limit_s: float) -> list[float]:
        return self._ask("singles", count=count, limit_s=limit_s)["latencies_s"]

    def cpu_s(self) -> float:
        return cpu_s(self._pids)

    def stop(self) -> None:
        """Let the client stop its system; what is left of both after `STOP_TIMEOUT_S` is killed."""
        involved = processes_below(self._pids)
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT_S)
        for process in involved:
            # A Process remembers its start time, so a reused pid is not hit.
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@contextlib.contextmanager
def started(python: Path, entry: Entry, parent: Path, workers: int) -> Iterator[tuple[Client, Identity]]:
    """A system started in a new directory below `parent`; stopped and its directory removed at the end."""
    directory = Path(tempfile.mkdtemp(dir=parent))
    # PostgreSQL run by root runs as another user, who must be able to walk to its data.
    directory.chmod(0o711)
    client = Client(python, entry, directory, workers)
    try:
        yield client, client.wait_started()
    finally:
        client.stop()
        shutil.rmtree(directory, ignore_errors=True)


def warm_up(client: Client, most: int) -> float:
    """Run a few single tasks, then batches, each twice the last; return the last one's rate in tasks per second.

    The single tasks wait until workers are up, the first batch opens connections: neither says how fast a system is.
    """
    client.singles(FIRST_SINGLES, RUN_TIMEOUT_S)
    client.run(min(FIRST_BATCH, most))
    count = min(FIRST_BATCH * 2, most)
    while True:
        elapsed_s = client.run(count)
        if elapsed_s >= BATCH_WANTED_S or count >= most:
            return count / elapsed_s
        count = min(count * 2, most)


def measure_round(
    client: Client,
    *,
    tasks: int,
    planned: int | None,
    run_limit_s: float,
    singles: int,
    singles_limit_s: float,
) -> Round:
    """Warm up, then measure throughput with CPU, then latency.

    `planned` is the number of tasks of the earlier rounds. Without one, it is `tasks`, or as many as fit into about
    `run_limit_s` at the warm-up's rate.
    """
    rate = warm_up(client, tasks)
    count = planned or max(min(tasks, FEWEST_TASKS), min(tasks, round(rate * run_limit_s, -2)))
    cpu_before_s = client.cpu_s()
    elapsed_s = client.run(int(count))
    cpu_used_s = client.cpu_s() - cpu_before_s
    latencies_s = client.singles(singles, singles_limit_s)
    return Round(
        tasks=int(count),
        tasks_per_s=count / elapsed_s,
        cpu_ms_per_task=cpu_used_s / count * 1000,
        singles=len(latencies_s),
        p50_ms=percentile(latencies_s, 0.50) * 1000,
        p99_ms=percentile(latencies_s, 0.99) * 1000,
    )
