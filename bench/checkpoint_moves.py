"""What a move costs: one saving task goes to and fro between two machines whose owners come back; the work that has to be done again.

`python3 run.py bench checkpoint_moves [--moves 10] [--intervals 2,5,10] [--graces 30,0] [--state 1MiB] [--upload-limit 4MiB] [--json]`

Two real agents and a scheduler on this machine. The task hashes without a pause and commits a checkpoint every interval. At a moment drawn at
random, one to two intervals after it has begun, the owner of its machine returns; the agent freezes it and has it leave at once. Two ways:
with a grace of 30 s the task hears the notice, saves and leaves; with none it is killed, and goes on from what was sent while it ran. Lost is
the time between the checkpoint that the next attempt begins with and the last step of the one before. Away is the time from the owner's return
until the next attempt has done its first step: freezing, saving, sending, finding a machine, restoring. The goal: at most 60 s lost in 95 of
100 moves, and at most one interval. The end of the task is compared with a run that nobody disturbs.

A scheduler on this machine has no limit for uploads; with --upload-limit the agents reach it by this machine's own address instead, as over a network, and
have a sandbox or say that they have none.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measure import describe_machine, free_port, percentile

from idle_accelerator import Client
from idle_accelerator.agent import control
from idle_accelerator.agent.control import OwnerWord
from idle_accelerator.errors import IdleError
from idle_accelerator.wire.states import AttemptState
from idle_accelerator.wire.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from idle_accelerator import JobHandle

DEADLINE_S = 300.0
PROGRAM = """
import hashlib, os, sys, time
from idle_accelerator import task
interval_s, size = float(sys.argv[1]), int(sys.argv[2])
step, value = 0, b""
if saved := task.resume_from():
    step, value = task.resume_step(), (saved / "value").read_bytes()
due = task.every(interval_s)
print("from", step, time.time())
while not os.path.exists("end"):
    for _ in range(2000):
        value = hashlib.sha256(value).digest()
    step += 1
    print(step, time.time())
    if due():
        task.commit(step, {"value": value, "ballast": os.urandom(size)})
        if task.should_stop():
            task.leave()
print("end", step, value.hex())
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Move:
    """From one machine to the other."""

    steps_again: int
    lost_s: float
    away_s: float
    heard: bool
    """It left by its own exit status, within its grace."""


def until(look: Callable[[], Any], what: str) -> Any:
    deadline_s = time.monotonic() + DEADLINE_S
    while not (value := look()):
        if time.monotonic() > deadline_s:
            raise SystemExit(f"checkpoint_moves: did not happen within {DEADLINE_S:.0f} s: {what}")
        time.sleep(0.02)
    return value


class Pool:
    """A scheduler and two agents, each a process; gone at the end."""

    def __init__(self, home: Path, *, grace: str, upload_limit: str | None) -> None:
        self.home = home
        self.port = free_port()
        self.host = "127.0.0.1" if upload_limit is None else own_address()
        self.url = f"http://{self.host}:{self.port}"
        self._env = {
            **os.environ,
            "XDG_STATE_HOME": str(home / "state"),
            "IDLE_CONFIG": str(home / "none.toml"),
        }
        self._processes: list[subprocess.Popen[bytes]] = []
        self._options = ["--grace", grace, "--upload-limit", upload_limit or "0"]

    @contextlib.contextmanager
    def running(self) -> Iterator[Client]:
        try:
            self._start(
                "scheduler",
                "--host",
                self.host,
                "--port",
                str(self.port),
                "--data-dir",
                str(self.home / "scheduler"),
            )
            key_file = self.home / "scheduler" / "scheduler.key"
            if self.host != "127.0.0.1":
                until(key_file.exists, "the scheduler makes its key")
                self._env["IDLE_KEY"] = key_file.read_text(encoding="utf-8").strip()
            with Client(self.url, self._env.get("IDLE_KEY")) as client:
                until(lambda: answers(client), "the scheduler answers")
                for name in ("one", "two"):
                    self._start(
                        "agent", "--scheduler", self.url, "--data-dir", str(self.home / name), "--name", name,
                        "--policy", "server", "--lend-for", "6h", "--cpus", "1", "--vacate-after", "1ms", *self._options,
                    )  # fmt: skip
                yield client
        finally:
            for process in reversed(self._processes):
                process.terminate()
            for process in self._processes:
                process.wait(timeout=60)

    def word(self, node: str, word: OwnerWord) -> None:
        control.give_word(self.home / node, word)

    def _start(self, *words: str) -> None:
        with (self.home / f"{words[0]}.log").open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "idle_accelerator.cli", *words],
                    env=self._env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            )


def own_address() -> str:
    found = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    if not found:
        raise SystemExit(
            "checkpoint_moves: this machine has no address but loopback, so nothing limits uploads."
        )
    return found[0]


def answers(client: Client) -> bool:
    with contextlib.suppress(IdleError):
        return bool(client.nodes()) or True
    return False


def runs_after(job: JobHandle[Any], epoch: int) -> tuple[int, str] | None:
    attempts = job.task(0).attempts
    if not attempts or attempts[-1].epoch <= epoch or attempts[-1].state is not AttemptState.RUNNING:
        return None
    return attempts[-1].epoch, attempts[-1].node_name


def steps_of(job: JobHandle[Any], epoch: int) -> tuple[int, float, dict[int, float]]:
    """Where it went on from and when, and when each step was done."""
    # Whatever was being written at the kill is no line.
    begun, *lines = job.logs(epoch=epoch).decode().rpartition("\n")[0].splitlines()
    _, step, at = begun.split()
    done = dict(line.split() for line in lines if not line.startswith("end"))
    return int(step), float(at), {int(number): float(moment) for number, moment in done.items()}


def measure(
    pool: Pool, client: Client, *, interval_s: float, size: int, moves: int, draw: random.Random
) -> list[Move]:
    job = client.submit([sys.executable, "-c", PROGRAM, str(interval_s), str(size)])
    epoch, node = until(lambda: runs_after(job, 0), "the task runs")
    epochs, returns = [epoch], []
    for _ in range(moves):
        held = epoch
        until(lambda: [one for one in job.checkpoints() if one.epoch == held], "it saves")  # noqa: B023
        time.sleep(interval_s * draw.random())
        returns.append(time.time())
        pool.word(node, OwnerWord(kind="pause", for_s=None))
        before = node
        epoch, node = until(lambda: runs_after(job, held), "it moves")  # noqa: B023
        epochs.append(epoch)
        pool.word(before, OwnerWord(kind="lend", for_s=6 * 3600))
    (work,) = pool.home.glob(f"*/work/{job.id}*")
    (work / "end").touch()
    result = job.result(timeout=DEADLINE_S)
    check(result.stdout)
    exits = {item.epoch: item.exit_code for item in job.task(0).attempts}
    seen = {epoch: steps_of(job, epoch) for epoch in epochs}
    found: list[Move] = []
    for (before, after), returned in zip(itertools.pairwise(epochs), returns, strict=True):
        resumed, _, following = seen[after]
        started, began_at, done = seen[before]
        last = max(done, default=started)
        kept_at = done.get(resumed, began_at)
        found.append(
            Move(
                steps_again=last - resumed,
                lost_s=max(0.0, done.get(last, began_at) - kept_at),
                away_s=min(following.values(), default=returned) - returned,
                heard=exits[before] == 85,
            )
        )
    return found


def check(stdout: bytes) -> None:
    """Its end is that of a run that nobody disturbed."""
    _, steps, value = stdout.decode().splitlines()[-1].split()
    expected = b""
    for _ in range(int(steps) * 2000):
        expected = hashlib.sha256(expected).digest()
    if expected.hex() != value:
        raise SystemExit("checkpoint_moves: the result differs from that of an undisturbed run.")


def table(grace: str, interval_s: float, size: int, moves: list[Move]) -> dict[str, Any]:
    def at(values: list[float], part: float) -> float:
        return round(percentile(values, part), 2)

    lost, away = [one.lost_s for one in moves], [one.away_s for one in moves]
    return {
        "grace_s": float(grace),
        "interval_s": interval_s,
        "state_bytes": size,
        "moves": len(moves),
        "left_by_itself": sum(one.heard for one in moves),
        "steps_again_p50": at([one.steps_again for one in moves], 0.5),
        "lost_p50_s": at(lost, 0.5),
        "lost_p95_s": at(lost, 0.95),
        "lost_intervals_p95": round(percentile(lost, 0.95) / interval_s, 2),
        "away_p50_s": at(away, 0.5),
        "away_p95_s": at(away, 0.95),
        "result": "as undisturbed",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--moves", type=int, default=10, help="moves for each line of the table")
    parser.add_argument(
        "--intervals", default="2,5,10", help="seconds between checkpoints, several with commas"
    )
    parser.add_argument("--graces", default="30,0", help="seconds that the owners allow, several with commas")
    parser.add_argument("--state", default="1MiB", help="bytes of a checkpoint, new ones each time")
    parser.add_argument("--upload-limit", default=None, help="so much a second, as over a network")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    size = parse_size(options.state, field="--state")
    rows: list[dict[str, Any]] = []
    for grace in options.graces.split(","):
        for interval_s in map(float, options.intervals.split(",")):
            with tempfile.TemporaryDirectory(prefix="idle-moves-") as home:
                pool = Pool(Path(home), grace=grace, upload_limit=options.upload_limit)
                with pool.running() as client:
                    draw = random.Random(f"{options.seed} {grace} {interval_s}")
                    moves = measure(
                        pool, client, interval_s=interval_s, size=size, moves=options.moves, draw=draw
                    )
            rows.append(table(grace, interval_s, size, moves))
            if not options.json:
                print("  ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    if options.json:
        print(
            json.dumps(
                {
                    "bench": "checkpoint_moves",
                    "machine": describe_machine(Path(tempfile.gettempdir())),
                    "rows": rows,
                },
                indent=2,
            )
        )


if __name__ == "__main__":
    main()
