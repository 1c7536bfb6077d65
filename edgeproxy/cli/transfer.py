"""Commands that copy customers and usage between files and the collector's database: `import`, `export`."""

import sys
from typing import Annotated

import typer

from edgeproxy.cli.files import CollectorFile, load_collector_file
from edgeproxy.cli.outcome import fail, finish


def import_customers(
    config: CollectorFile,
    dry: Annotated[bool, typer.Option("--dry-run", help="Tell what would change, and change nothing.")] = False,
) -> None:
    """Import the customers, keys and flags of FILE into the database that it names; all else there stays.

    May run again: what is there already is not changed. A collector may run meanwhile.
    """
    settings = load_collector_file(config)
    from edgeproxy.collector.commands import database

    finish(database.import_configuration(settings, dry=dry))


def export(
    config: CollectorFile,
    parquet: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Export usage instead, each closed hour once, as Parquet files: s3://BUCKET/PREFIX or file:///DIR. "
            "Given twice, to both places, each by itself.",
        ),
    ] = None,
    clickhouse: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Insert these files into ClickHouse, each once: https://HOST:8443/DATABASE."),
    ] = None,
    for_edges: Annotated[
        bool,
        typer.Option("--for-edges", help="Leave out `accounts`, which edges do not get."),
    ] = False,
) -> None:
    """Print the customers, keys and flags of the database as a file that `import` reads. With --for-edges, edge.yaml
    can include it too.
    """
    if clickhouse is not None and not parquet:
        fail("--clickhouse: goes with --parquet, whose files it gets", 2)
    settings = load_collector_file(config)
    if parquet:
        from edgeproxy.collector.commands import parquet as parquet_export

        finish(parquet_export.export_hours(settings, parquet, clickhouse))
        return
    from edgeproxy.collector.commands import database

    code, text = database.export_configuration(settings, sys.stdout, for_edges=for_edges)
    if code:
        fail(text, code)
