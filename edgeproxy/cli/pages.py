"""The command that prints a link to sign in to the pages of a collector: `sign-in`."""

from typing import Annotated

import typer

from edgeproxy.cli.files import CollectorFile, load_collector_file
from edgeproxy.cli.outcome import finish


def sign_in(
    config: CollectorFile,
    customer: Annotated[str | None, typer.Option(help="For this customer, instead of as an operator.")] = None,
) -> None:
    """Print a link by which somebody signs in to the pages once, within an hour: as an admin, or for a customer.

    A collector may run meanwhile. Whoever can read FILE and write its database can do so.
    """
    settings = load_collector_file(config)
    from edgeproxy.collector.commands import database

    finish(database.sign_in_link(settings, customer))
