"""Commands about the books: `billing accounting`."""

import sys
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated

import typer

from edgeproxy.cli.files import CollectorFile, load_collector_file
from edgeproxy.cli.outcome import fail


class Form(StrEnum):
    """How a day is written."""

    csv = "csv"
    quickbooks = "quickbooks"
    xero = "xero"


def accounting(
    config: CollectorFile,
    day: Annotated[datetime, typer.Option("--date", formats=["%Y-%m-%d"], metavar="DATE", help="A day of UTC.")],
    form: Annotated[Form, typer.Option("--format", help="The program that it is for.")] = Form.csv,
) -> None:
    """Print the journal of a day that is over, balanced; the same bytes each time. A collector may run meanwhile."""
    settings = load_collector_file(config)
    from edgeproxy.collector.commands import database

    wanted: date = day.date()
    code, said = database.export_journal(settings, wanted, form.value)
    if code:
        fail(said, code)
    sys.stdout.write(said)
