"""Commands about rights in the collector's database: `database rights`."""

import typer

from edgeproxy.cli.files import CollectorFile, load_collector_file
from edgeproxy.cli.outcome import fail


def rights(config: CollectorFile) -> None:
    """Say whether row-level security holds customers apart; if not, print SQL for an administrator, and exit with 1."""
    from edgeproxy.collector.commands import database

    report = database.report_row_security(load_collector_file(config))
    if report.sql is not None:
        typer.echo(report.sql)
    if report.code:
        fail(report.text, report.code)
    typer.echo(report.text)
