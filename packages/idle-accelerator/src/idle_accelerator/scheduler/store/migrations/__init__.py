"""Alembic migrations, inside the package. A store at HEAD is opened without importing Alembic."""

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, text

HEAD = "0001"


def stored_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def migrate(connection: Connection) -> None:
    """Brings the store to HEAD inside the caller's transaction; does nothing when it is there already."""
    if stored_revision(connection) == HEAD:
        return
    from alembic import command  # noqa: PLC0415  # 200 ms that a store at HEAD need not pay

    command.upgrade(alembic_config(connection), HEAD)


def alembic_config(connection: Connection | None = None) -> Any:
    """The configuration that Alembic's commands take; ``env.py`` uses the connection given here."""
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    return config
