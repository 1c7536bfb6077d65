"""Commands about a collector's tables and rights to them: `database migrate | downgrade | rights | copy`."""

import os
from typing import Annotated

import typer

from edgeproxy.cli.files import CollectorFile, load_collector_file
from edgeproxy.cli.outcome import fail, finish
from edgeproxy.config.secret_text import InvalidSecretError, read_secret_variable

OWNER = "EDGEPROXY_DATABASE_OWNER"
"""The variable with the URL of the owner. Instead of it, OWNER_FILE may name a file."""


def migrate(
    config: CollectorFile,
    owner: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar=OWNER,
            help="The same database as in the file, as the user who owns its tables; by default the user in the file.",
        ),
    ] = None,
) -> None:
    """Make the collector's tables or bring them up to date, and give the user in the file its rights to them."""
    from edgeproxy.collector.commands import database

    finish(database.migrate(load_collector_file(config), owner or _read_owner_file()))


def downgrade(
    config: CollectorFile,
    revision: Annotated[str, typer.Argument(metavar="REVISION", help="That of the earlier version, such as 0001.")],
    owner: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar=OWNER,
            help="The same database as in the file, as the user who owns its tables.",
        ),
    ] = None,
) -> None:
    """Bring the collector's tables back to an earlier version. All collectors must have ended. Data that later
    versions added is lost.
    """
    from edgeproxy.collector.commands import database

    finish(database.downgrade(load_collector_file(config), revision, owner or _read_owner_file()))


def rights(config: CollectorFile) -> None:
    """Report who owns the tables and whether row-level security separates customers; if not, print SQL for an
    administrator, and exit with 1.
    """
    from edgeproxy.collector.commands import database

    report = database.report_rights(load_collector_file(config))
    if report.sql is not None:
        typer.echo(report.sql)
    if report.code:
        fail(report.text, report.code)
    typer.echo(report.text)


def copy(
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="URL",
            envvar="EDGEPROXY_DATABASE_FROM",
            help="The database; its collector has ended.",
        ),
    ],
    target: Annotated[
        str, typer.Option("--to", metavar="URL", envvar="EDGEPROXY_DATABASE_TO", help="An empty database.")
    ],
    dry: Annotated[bool, typer.Option("--dry-run", help="Tell what would be copied, and change nothing.")] = False,
) -> None:
    """Copy a collector's whole database into an empty one, for example from SQLite to PostgreSQL.

    An interrupted copy continues with the next run. At the end both databases are compared and verified.
    """
    from edgeproxy.collector.commands import database_copy

    finish(database_copy.copy(source, target, dry=dry))


def _read_owner_file() -> str | None:
    """Return the URL in the owner's file, if there is one. Exits with 2 for a file that has none."""
    try:
        return read_secret_variable(OWNER, os.environ) or None
    except InvalidSecretError as error:
        fail(str(error), 2)
