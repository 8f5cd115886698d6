"""The one writer: a thread that runs what was asked for since its last commit in one transaction.

Group commit: whoever asks hears back after the commit that holds their change, and a hundred requests share its fsync.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from idle_accelerator.errors import IdleError, StorageFull, Unavailable

T = TypeVar("T")
Operation = Callable[[Connection], Any]
_BATCH_LIMIT = 512
_log = logging.getLogger(__name__)


class _Asked(NamedTuple):
    operation: Operation
    future: asyncio.Future[Any]
    durable: bool


class Writer:
    """Runs operations one after another, many to a transaction. An operation that raises undoes itself alone."""

    def __init__(self, engine: Engine, *, sync: Callable[[Connection, bool], None]) -> None:
        """``sync``: has the transactions of this connection that begin from now on be on disk when they are committed, or not."""
        self._engine = engine
        self._sync = sync
        self._queue: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._closed = False
        self._door = threading.Lock()
        """Held while ``_closed`` is read or written, so that nothing is queued behind the end."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread.start()

    def close(self) -> None:
        """Finishes what was asked for, then ends. Blocks until then."""
        with self._door:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    async def run(self, operation: Callable[[Connection], T], *, durable: bool = True) -> T:
        """The operation's result, after its commit. A durable one is on disk then, with all that was committed before it; what
        is not durable may be undone by a power cut, never by a crash of this process.

        Raises what the operation raised (then nothing of it is kept), or StorageFull when the disk cannot take the commit.
        """
        with self._door:
            if self._closed or self._loop is None:
                raise Unavailable("the scheduler is stopping.", hint="Try again in a few seconds.")
            future: asyncio.Future[T] = self._loop.create_future()
            self._queue.put(_Asked(operation, future, durable))
        return await future

    def _run(self) -> None:
        with self._engine.connect() as connection:
            ending = False
            while not ending:
                first = self._queue.get()
                batch: list[_Asked] = []
                ending = first is None
                if first is not None:
                    batch.append(first)
                while not ending and len(batch) < _BATCH_LIMIT:
                    try:
                        following = self._queue.get_nowait()
                    except queue.Empty:
                        break
                    if following is None:
                        ending = True
                    else:
                        batch.append(following)
                if batch:
                    self._settle(self._commit(connection, batch))

    def _commit(
        self, connection: Connection, batch: list[_Asked]
    ) -> list[tuple[asyncio.Future[Any], Any, BaseException | None]]:
        try:
            self._sync(connection, any(asked.durable for asked in batch))
            with connection.begin():
                if len(batch) == 1:  # no savepoint: the transaction is the operation's own
                    return [(batch[0].future, batch[0].operation(connection), None)]
                return [(asked.future, *_apart(connection, asked.operation)) for asked in batch]
        except Exception as error:  # noqa: BLE001  # nothing of the batch was kept: everyone in it must hear so
            failure = translate(error)
            if not isinstance(failure, IdleError) or isinstance(failure, StorageFull | Unavailable):
                _log.error("a transaction of %d operation(s) failed: %s", len(batch), failure)
            return [(asked.future, None, failure) for asked in batch]

    def _settle(self, outcomes: list[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
        def in_loop() -> None:
            for future, value, error in outcomes:
                if future.done():
                    continue
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(value)

        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(in_loop)


def _apart(connection: Connection, operation: Operation) -> tuple[Any, BaseException | None]:
    """One operation of many: what it raises undoes it alone. Raises OperationalError, which ends the whole transaction."""
    try:
        with connection.begin_nested():
            return operation(connection), None
    except OperationalError:
        raise
    except Exception as error:  # noqa: BLE001  # the asker gets it; the others' work must go on
        return None, error


def translate(error: BaseException) -> BaseException:
    """A full disk and a locked database as errors that say what to do; anything else as it is."""
    if isinstance(error, OperationalError):
        cause = error.orig
        name = getattr(cause, "sqlite_errorname", "")
        if isinstance(cause, sqlite3.OperationalError) and name.startswith(
            ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE")
        ):
            return StorageFull(
                "the scheduler's disk is full; nothing was changed.",
                hint="Make room in its data directory, then try again.",
            )
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return Unavailable(
                "the store is in use by another process; nothing was changed.",
                hint="Run one scheduler per data directory, and try again.",
            )
    return error
