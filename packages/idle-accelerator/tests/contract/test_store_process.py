"""The store as its scheduler uses it: one process at a time, group commit, and nothing half done when the disk is full."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pool_builders import command_spec
from sqlalchemy import Connection, event, func, select, text
from store_bench import StoreBench

from idle_accelerator.errors import Conflict, NotFound, StorageFull, Unavailable
from idle_accelerator.scheduler.store import Store, engines
from idle_accelerator.scheduler.store import jobs as stored
from idle_accelerator.scheduler.store.engines import writer_engine
from idle_accelerator.scheduler.store.migrations import alembic_config, migrate
from idle_accelerator.scheduler.store.schema import jobs, metadata
from idle_accelerator.wire.ids import from_random


def add(number: int, *argv: str):
    def operation(connection: Connection) -> str:
        return stored.add_job(
            connection,
            job_id=from_random("j", number.to_bytes(10, "big")),
            spec=command_spec(*argv),
            idempotency_key=None,
            now=1.0,
        )

    return operation


def count_jobs(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(jobs)).scalar_one()


def refuse(_connection: Connection) -> None:
    raise NotFound("there is no such thing.")


async def test_an_operation_that_fails_undoes_itself_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    await store.open()

    def half(connection: Connection) -> None:
        add(1)(connection)
        refuse(connection)

    outcomes = await asyncio.gather(
        *(store.write(half if number == 5 else add(100 + number)) for number in range(10)),
        return_exceptions=True,
    )
    assert [isinstance(item, NotFound) for item in outcomes] == [number == 5 for number in range(10)]
    with pytest.raises(NotFound):
        await store.write(half)
    assert await store.read(count_jobs) == 9
    await store.close()


async def test_many_requests_share_a_commit_and_each_is_answered_after_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    await store.open()
    commits: list[int] = []
    event.listen(store._writer._engine, "commit", lambda _connection: commits.append(1))

    async def submit(number: int) -> int:
        await store.write(add(number))
        return await store.read(count_jobs)

    seen = await asyncio.gather(*(submit(number) for number in range(300)))
    assert min(seen) >= 1
    assert len(commits) < 100, "they were asked for together, so they were committed together"
    assert await store.read(count_jobs) == 300
    await store.close()


async def test_what_was_asked_for_before_the_end_is_kept_and_nothing_after_hangs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    await store.open()
    asked = [asyncio.ensure_future(store.write(add(number))) for number in range(20)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*asked)
    with pytest.raises(Unavailable):
        await asyncio.wait_for(store.write(add(99)), 10)
    again = Store(tmp_path)
    await again.open()
    assert await again.read(count_jobs) == 20
    await again.close()


async def test_one_process_at_a_time_has_the_store(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    await first.open()
    with pytest.raises(Conflict) as caught:
        await second.open()
    assert caught.value.field == "--data-dir"
    await first.write(add(1))
    await first.close()
    await second.open()
    await second.close()


async def test_a_store_that_another_program_writes_to_is_said_to_be_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_BUSY_TIMEOUT_MS", 20)
    store = Store(tmp_path)
    await store.open()
    other = sqlite3.connect(tmp_path / "scheduler.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="in use"):
        await store.write(count_jobs)
    other.execute("ROLLBACK")
    other.close()
    assert await store.write(count_jobs) == 0
    await store.close()


async def test_readers_cannot_write(tmp_path: Path) -> None:
    store = Store(tmp_path)
    await store.open()
    with pytest.raises(Exception, match="readonly"):
        await store.read(add(1))
    assert await store.read(count_jobs) == 0
    await store.close()


async def test_a_commit_is_synced_before_it_is_answered(tmp_path: Path) -> None:
    store = Store(tmp_path)
    await store.open()
    kept = await store.write(
        lambda connection: (
            connection.exec_driver_sql("PRAGMA journal_mode").scalar(),
            connection.exec_driver_sql("PRAGMA synchronous").scalar(),
        )
    )
    assert kept == ("wal", 2)
    await store.close()


async def test_a_store_of_a_newer_version_is_refused_with_a_way_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    await store.open()
    await store.write(
        lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    )
    await store.close()
    with pytest.raises(Conflict) as caught:
        await Store(tmp_path).open()
    assert "newer" in str(caught.value)


def test_migrations_make_exactly_the_schema(tmp_path: Path) -> None:
    engine = writer_engine(tmp_path / "store.sqlite3")
    with engine.begin() as connection:
        migrate(connection)
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        made = dict(
            connection.execute(
                text("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")
            ).all()
        )
    plain = writer_engine(tmp_path / "plain.sqlite3")
    with plain.begin() as connection:
        metadata.create_all(connection)
        wanted = connection.execute(
            text("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
        ).all()
    for name, sql in wanted:
        assert made[name].split("WHERE")[1:] == sql.split("WHERE")[1:], "partial indexes say the same"


def test_a_store_of_the_first_shape_keeps_its_jobs(tmp_path: Path) -> None:
    engine = writer_engine(tmp_path / "store.sqlite3")
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "0001")
        connection.execute(
            text(
                "INSERT INTO jobs (job_id, name, kind, summary, spec, requirements, priority, retries, state, submitted_at,"
                " total, queued) VALUES ('j', '', 'command', 'true', '{}', '{}', 0, 0, 'QUEUED', 1.0, 1, 1)"
            )
        )
        connection.execute(text("INSERT INTO tasks (job_seq, task_index, state) VALUES (1, 0, 'QUEUED')"))
    with engine.begin() as connection:
        migrate(connection)
        row = connection.execute(select(jobs)).one()
        assert (row.job_id, row.queued, row.has_saves) == ("j", 1, False)
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_a_migrated_store_opens_without_the_migration_tool(tmp_path: Path) -> None:
    engine = writer_engine(tmp_path / "store.sqlite3")
    with engine.begin() as connection:
        migrate(connection)
    script = (
        "import sys; from pathlib import Path\n"
        "from idle_accelerator.scheduler.store.engines import writer_engine\n"
        "from idle_accelerator.scheduler.store.migrations import migrate\n"
        "with writer_engine(Path(sys.argv[1])).begin() as connection: migrate(connection)\n"
        "sys.exit('alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "store.sqlite3")], check=False)
    assert done.returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB of its own."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux can mount a small file system")
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], check=False, capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small file system can be mounted: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


async def test_a_full_disk_refuses_all_of_a_job_and_more_room_ends_it(small_disk: Path) -> None:
    store = Store(small_disk)
    await store.open()
    accepted = 0
    refused: StorageFull | None = None
    while refused is None:
        try:
            await store.write(add(accepted, "echo", "x" * 120_000))
            accepted += 1
        except StorageFull as error:
            refused = error
    assert refused.hint
    assert accepted > 3
    together = await asyncio.gather(
        *(store.write(add(200 + number, "x" * 120_000)) for number in range(5)), return_exceptions=True
    )
    assert all(isinstance(item, StorageFull) for item in together)
    assert await store.read(count_jobs) == accepted
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    await store.write(add(300, "echo", "x" * 120_000))
    await store.close()
    bench = StoreBench(writer_engine(small_disk / "scheduler.sqlite3"))
    assert len(bench.do(lambda connection: connection.execute(select(jobs)).all())) == accepted + 1
    bench.close()


async def test_what_is_relied_on_is_synced_and_a_heartbeat_is_not(tmp_path: Path) -> None:
    def synchronous(connection: Connection) -> int:
        return int(connection.exec_driver_sql("PRAGMA synchronous").scalar_one())

    store = Store(tmp_path)
    await store.open()
    try:
        assert await store.write(synchronous) == 2, "FULL: on disk before the answer"
        assert await store.write(synchronous, durable=False) == 1, "NORMAL: no fsync"
        together = await asyncio.gather(
            *(store.write(synchronous, durable=number == 3) for number in range(6)), store.write(synchronous)
        )
        assert together[3] == together[-1] == 2, "one that must be on disk takes all of its transaction along"
    finally:
        await store.close()
