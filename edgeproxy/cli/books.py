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
    currency: Annotated[
        str, typer.Option(metavar="CODE", help="The books of which currency, such as eur; each has its own.")
    ] = "usd",
) -> None:
    """Print the journal of a day that is over, balanced; the same bytes each time. A collector may run meanwhile."""
    settings = load_collector_file(config)
    from edgeproxy.collector.commands import database
    from edgeproxy.config.collector.currency_units import DECIMALS

    if currency not in DECIMALS:
        fail(f"{currency!r} is no currency in which there are books: write a code such as eur, in lower case", 2)
    code, text = database.export_journal(settings, day.date(), form.value, currency)
    if code:
        fail(text, code)
    sys.stdout.write(text)
