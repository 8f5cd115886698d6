"""Run by Alembic: migrates over the connection that ``migrate`` put into the configuration."""

from alembic import context

from idle_accelerator.scheduler.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
