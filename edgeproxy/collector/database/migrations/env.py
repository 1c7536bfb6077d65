"""The environment of the migrations: Alembic runs them on the connection and in the transaction of its caller
(`database.py`).
"""

from alembic import context

from edgeproxy.collector.database.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
