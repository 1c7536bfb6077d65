"""Making the tables and changing them, with Alembic: imported only where there is something to do, as that takes a
fifth of the time in which a collector starts.
"""

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError


class LaterRevisionError(Exception):
    """The tables are of a revision that is not known here; says which."""


def upgrade(connection: sa.Connection) -> None:
    """Bring the tables to the newest revision, in the transaction that is under way; raises LaterRevisionError."""
    config = Config()
    config.set_main_option("script_location", "edgeproxy.collector.database:migrations")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise LaterRevisionError(str(error)) from error
