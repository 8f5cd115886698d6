"""Alembic migrations, inside the package. A store at HEAD is opened without importing Alembic."""

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, text

from idle_accelerator.errors import Conflict

HEAD = "0002"


def stored_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def migrate(connection: Connection) -> None:
    """Brings the store to HEAD inside the caller's transaction; does nothing when it is there already.

    Raises Conflict when the store is of a version that this one does not know.
    """
    stored = stored_revision(connection)
    if stored == HEAD:
        return
    if stored is not None and stored > HEAD:
        raise Conflict(
            f"the store was written by a newer version (its revision is {stored}, this one knows {HEAD}).",
            field="--data-dir",
            hint="Start the newer version, or give this one a directory of its own.",
        )
    from alembic import command  # noqa: PLC0415  # 200 ms that a store at HEAD need not pay

    command.upgrade(alembic_config(connection), HEAD)


def alembic_config(connection: Connection | None = None) -> Any:
    """The configuration that Alembic's commands take; ``env.py`` uses the connection given here."""
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    return config
