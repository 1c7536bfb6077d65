"""Create and change the tables with Alembic.

The module is imported only if a migration is due, because the import takes a fifth of a collector's start.
"""

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util.exc import CommandError

BASELINE = "0001"
"""The revision that makes the tables of an empty database."""


class LaterRevisionError(Exception):
    """The tables have a revision that this version does not know. The message names it."""


class IrreversibleRevisionError(Exception):
    """The tables cannot be brought to an earlier revision. The message gives the reason."""


def upgrade(connection: sa.Connection) -> None:
    """Migrate the tables to the newest revision in the current transaction. Raises LaterRevisionError.

    The baseline makes the tables of today, so an empty database needs none of the revisions that follow it.
    """
    config = _build_config(connection)
    try:
        if MigrationContext.configure(connection).get_current_revision() is None:
            command.upgrade(config, BASELINE)
            command.stamp(config, "head")
        else:
            command.upgrade(config, "head")
    except CommandError as error:
        raise LaterRevisionError(str(error)) from error


def downgrade(connection: sa.Connection, revision: str) -> None:
    """Undo all migrations after a revision in the current transaction. Their added data is lost.

    Raises IrreversibleRevisionError if the revision is not an earlier one, or if a migration cannot be undone.
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
