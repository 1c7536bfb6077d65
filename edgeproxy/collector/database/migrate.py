"""Making the tables and changing them, with Alembic: imported only where there is something to do, as that takes a
fifth of the time in which a collector starts.
"""

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util.exc import CommandError


class LaterRevisionError(Exception):
    """The tables are of a revision that is not known here; says which."""


class IrreversibleRevisionError(Exception):
    """The tables cannot be brought to an earlier revision; says why."""


def upgrade(connection: sa.Connection) -> None:
    """Bring the tables to the newest revision, in the transaction that is under way; raises LaterRevisionError."""
    try:
        command.upgrade(_build_config(connection), "head")
    except CommandError as error:
        raise LaterRevisionError(str(error)) from error


def downgrade(connection: sa.Connection, revision: str) -> None:
    """Take back all migrations after a revision, in the transaction that is under way; what they added is gone.

    Raises IrreversibleRevisionError where the revision is not an earlier one, or a migration cannot be taken back.
    """
    config = _build_config(connection)
    current = MigrationContext.configure(connection).get_current_revision()
    try:
        later = list(ScriptDirectory.from_config(config).iterate_revisions(current, revision))
    except (CommandError, RevisionError) as error:
        raise IrreversibleRevisionError(f"the tables are of revision {current}: {error}") from error
    for script in later:
        if not hasattr(script.module, "downgrade"):
            raise IrreversibleRevisionError(f"revision {script.revision} cannot be taken back: restore the backup")
    try:
        command.downgrade(config, revision)
    except CommandError as error:
        raise IrreversibleRevisionError(str(error)) from error


def _build_config(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", "edgeproxy.collector.database:migrations")
    config.attributes["connection"] = connection
    return config
