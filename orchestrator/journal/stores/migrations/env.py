"""Alembic's entry: runs the migrations on the connection that `migrate` opened."""

from alembic import context

from orchestrator.journal.stores.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
