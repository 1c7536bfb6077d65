"""What Alembic runs the steps with: the connection, and its transaction, of whoever asks (`database.py`)."""

from alembic import context

from edgeproxy.collector.database.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
