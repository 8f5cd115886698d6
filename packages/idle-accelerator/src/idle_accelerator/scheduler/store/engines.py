"""Connections to SQLite: one that writes, several that only read.

WAL with synchronous=FULL: a durable commit has been fsynced when it returns. Only the writing connection ever checkpoints;
SQLite before 3.51.3 can corrupt its WAL when two connections do so at once.
"""

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool, QueuePool

READERS = 4
_BUSY_TIMEOUT_MS = 5_000


def writer_engine(path: Path) -> Engine:
    """An engine whose transactions begin IMMEDIATE. Use one connection of it, in one thread."""
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    _on_connect(
        engine,
        (
            "PRAGMA journal_mode=WAL",
            "PRAGMA synchronous=FULL",
            "PRAGMA foreign_keys=ON",
            f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}",
            "PRAGMA cache_size=-16384",
            "PRAGMA mmap_size=0",
        ),
    )
    _begin_with(engine, "BEGIN IMMEDIATE")
    return engine


class Syncing:
    """Switches a writing connection between its two kinds of transactions, by way of ``PRAGMA synchronous``.

    https://sqlite.org/pragma.html#pragma_synchronous: in WAL mode NORMAL loses no consistency, only the newest commits
    in a power cut; the next FULL commit syncs the whole log, with all that was committed before it.
    """

    def __init__(self) -> None:
        self._full = True

    def __call__(self, connection: Connection, durable: bool) -> None:
        if durable != self._full:
            # On the driver's own cursor: SQLAlchemy would begin a transaction first, in which the pragma does nothing.
            cursor = connection.connection.cursor()
            cursor.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            cursor.close()
            self._full = durable


def reader_engine(path: Path) -> Engine:
    """An engine of connections that cannot write and never checkpoint."""
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool,
        pool_size=READERS,
        max_overflow=0,
        connect_args={"check_same_thread": False},
    )
    _on_connect(
        engine,
        (
            "PRAGMA wal_autocheckpoint=0",
            "PRAGMA query_only=ON",
            f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}",
            "PRAGMA cache_size=-4096",
            "PRAGMA mmap_size=0",
        ),
    )
    _begin_with(engine, "BEGIN")
    return engine


def _on_connect(engine: Engine, pragmas: tuple[str, ...]) -> None:
    def configure(connection: Any, _record: Any) -> None:
        # The driver's own transaction control begins too late for IMMEDIATE; SQLAlchemy's begin event does it instead.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(pragma)
        cursor.close()

    event.listen(engine, "connect", configure)


def _begin_with(engine: Engine, statement: str) -> None:
    def begin(connection: Connection) -> None:
        # On the driver's own cursor: SQLAlchemy's way of running a string costs more than all that BEGIN does.
        cursor = connection.connection.cursor()
        try:
            cursor.execute(statement)
        except sqlite3.OperationalError as error:  # as SQLAlchemy would raise it
            raise OperationalError(statement, None, error) from error
        finally:
            cursor.close()

    event.listen(engine, "begin", begin)
