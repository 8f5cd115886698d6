"""The durable state of a scheduler: whatever was answered as accepted is here, on disk.

``Store`` is the one way in. Changes go through its single writer and are answered after their commit; looks go to
read-only connections. Nothing is decided in SQL, and nothing stays locked while something is decided.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from idle_accelerator import locks
from idle_accelerator.errors import Conflict
from idle_accelerator.scheduler.store.engines import READERS, Syncing, reader_engine, writer_engine
from idle_accelerator.scheduler.store.migrations import migrate
from idle_accelerator.scheduler.store.writer import Writer, translate

T = TypeVar("T")


class Store:
    """A data directory's store. One process at a time may have it open.

    Raises Conflict from ``open`` when another process has it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / "scheduler.sqlite3"
        self._lock: IO[str] | None = None

    async def open(self) -> None:
        self._lock = _take_lock(self._directory / "scheduler.lock")
        engine = writer_engine(self._path)
        try:
            with engine.begin() as connection:
                migrate(connection)
        except OperationalError as error:
            self._lock.close()
            raise translate(error) from error
        except BaseException:
            self._lock.close()
            raise
        self._path.chmod(0o600)
        self._writer = Writer(engine, sync=Syncing())
        self._writer.start(asyncio.get_running_loop())
        self._readers = reader_engine(self._path)
        self._threads = ThreadPoolExecutor(max_workers=READERS, thread_name_prefix="store-reader")

    async def close(self) -> None:
        """Commits what was asked for, then lets go of the files."""
        await asyncio.to_thread(self._writer.close)
        self._threads.shutdown()
        self._readers.dispose()
        if self._lock is not None:
            self._lock.close()

    async def write(self, operation: Callable[[Connection], T], *, durable: bool = True) -> T:
        """Runs in the writer's transaction; answers after the commit. See Writer.run for ``durable``, and for what it raises."""
        return await self._writer.run(operation, durable=durable)

    async def read(self, operation: Callable[[Connection], T]) -> T:
        """Runs on a read-only connection, in a thread of its own."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, operation)

    def _read(self, operation: Callable[[Connection], T]) -> T:
        try:
            with self._readers.begin() as connection:
                return operation(connection)
        except OperationalError as error:
            raise translate(error) from error


def _take_lock(path: Path) -> IO[str]:
    handle = locks.take(path)
    if handle is None:
        raise Conflict(
            f"another scheduler has the data directory {path.parent} open.",
            field="--data-dir",
            hint="Stop that one, or give this one a directory of its own.",
        )
    return handle
