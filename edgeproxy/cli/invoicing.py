"""Commands about invoices: `billing close`, `billing invoices`."""

from typing import Annotated

import typer

from edgeproxy.cli.files import CollectorFile, load_collector_file
from edgeproxy.cli.outcome import say

Period = Annotated[
    str, typer.Option("--period", metavar="DAY", help="The day on which the period begins, or its month: 2027-01.")
]


def close(
    config: CollectorFile,
    period: Period,
    dry: Annotated[bool, typer.Option("--dry-run", help="Show what would be closed, and close nothing.")] = False,
) -> None:
    """Close the invoices of a period now, without waiting for its freeze, and bring them to Stripe.

    May be repeated, whatever happened before: there is one invoice. Exit code 1 if one is held or left open.
    """
    settings = load_collector_file(config)
    from edgeproxy.collector.closing_now import closed

    say(closed(settings, period, dry=dry))


def invoices(
    config: CollectorFile,
    customer: Annotated[str | None, typer.Option("--customer", metavar="NAME", help="Only this customer's.")] = None,
    period: Annotated[str | None, typer.Option("--period", metavar="DAY", help="Only of this period.")] = None,
    state: Annotated[str | None, typer.Option("--state", metavar="STATE", help="Only in this state.")] = None,
) -> None:
    """List the newest invoices, a line for each."""
    settings = load_collector_file(config)
    from edgeproxy.collector.closing_now import listed

    say(listed(settings, customer=customer, period=period, state=state))
