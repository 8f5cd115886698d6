"""The stores that every contract is checked on. Another engine joins by another parameter."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine
from store_bench import StoreBench

from idle_accelerator.scheduler.store.engines import writer_engine
from idle_accelerator.scheduler.store.migrations import migrate


@pytest.fixture(params=["sqlite"])
def store_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A migrated, empty store."""
    assert request.param == "sqlite"
    engine = writer_engine(tmp_path / "store.sqlite3")
    with engine.begin() as connection:
        migrate(connection)
    yield engine
    engine.dispose()


@pytest.fixture
def bench(store_engine: Engine) -> Iterator[StoreBench]:
    bench = StoreBench(store_engine)
    yield bench
    bench.close()
