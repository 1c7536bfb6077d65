"""Commands that move things between files and the collector's database: `import`, `export`."""

import sys
from typing import Annotated

import typer

from edgeproxy.cli.files import CollectorFile, load_collector_file
from edgeproxy.cli.outcome import fail, say


def bring(
    config: CollectorFile,
    dry: Annotated[bool, typer.Option("--dry-run", help="Tell what would change, and change nothing.")] = False,
) -> None:
    """Bring the customers, keys and flags of FILE into the database that it names; all else there stays.

    May be said again: what is there already is not changed. A collector may run meanwhile.
    """
    settings = load_collector_file(config)
    from edgeproxy.collector.commands import database

    say(database.import_configuration(settings, dry=dry))


def take(
    config: CollectorFile,
    parquet: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Export usage instead, each closed hour once, as Parquet files: s3://BUCKET/PREFIX or file:///DIR.",
        ),
    ] = None,
) -> None:
    """Print the customers, keys and flags of the database as a file that edge.yaml and collector.yaml can include."""
    settings = load_collector_file(config)
    if parquet is not None:
        from edgeproxy.collector.commands import parquet as parquet_export

        say(parquet_export.export_hours(settings, parquet))
        return
    from edgeproxy.collector.commands import database

    code, said = database.export_configuration(settings, sys.stdout)
    if code:
        fail(said, code)
