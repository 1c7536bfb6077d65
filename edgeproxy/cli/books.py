"""Commands about the books: `billing accounting`."""

import sys
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer

from edgeproxy.cli.files import CollectorFile, load_collector_file
from edgeproxy.cli.outcome import fail


class Form(StrEnum):
    """The file formats of a day's journal."""

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

    code, text = database.export_journal(settings, day.date(), form.value)
    if code:
        fail(text, code)
    sys.stdout.write(text)
