"""Commands about personal data: `privacy books | erase | export | map | requests | stripe`."""

from pathlib import Path
from typing import Annotated

import typer

from edgeproxy.cli.api import CustomerRef
from edgeproxy.cli.endpoint_commands import Rows, build_command
from edgeproxy.cli.files import CollectorFile, load_collector_file
from edgeproxy.cli.outcome import finish

requests = build_command(
    "List requests of people that are open, oldest first.",
    "GET",
    "/v1/privacy/requests?open=true",
    output=Rows("requests", ("id", "due_at", "is_overdue", "kind", "law", "state", "customer", "person")),
)


def books(
    config: CollectorFile,
    clear: Annotated[
        bool, typer.Option("--clear", help="Clear now, as the owner of the tables. A collector does it in time.")
    ] = False,
) -> None:
    """Show the data about people that invoices and the journal keep beyond `retention.invoices`."""
    settings = load_collector_file(config)
    from edgeproxy.collector.commands import privacy

    finish(privacy.clear_books(settings) if clear else privacy.show_books(settings))


def erase(
    config: CollectorFile,
    customer: CustomerRef,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; nothing brings the data back.")] = False,
    end_user: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Erase an end user of the customer alone, as services name it."),
    ] = None,
) -> None:
    """Erase the personal data of a customer, or of one of its end users, without the grace period of a deletion.

    It cannot be undone. A collector may run meanwhile.
    """
    settings = load_collector_file(config)
    who = customer if end_user is None else f"the end user {end_user} of {customer}"
    if not yes:
        typer.confirm(f"Erase the personal data of {who} for good?", abort=True)
    from edgeproxy.collector.commands import privacy

    if end_user is None:
        finish(privacy.erase(settings, customer))
    else:
        finish(privacy.erase_one_end_user(settings, customer, end_user))


def export(
    config: CollectorFile,
    customer: CustomerRef,
    to: Annotated[Path, typer.Argument(metavar="TO", help="The ZIP file to make; it must not be there.")],
) -> None:
    """Write all that the database has of a customer to a ZIP file: JSON, CSV, and a manifest with SHA-256."""
    settings = load_collector_file(config)
    from edgeproxy.collector.commands import privacy

    finish(privacy.export(settings, customer, to))


def stripe(config: CollectorFile) -> None:
    """List erased customers whom Stripe still has, with the reason of each; a collector deletes them there."""
    settings = load_collector_file(config)
    from edgeproxy.collector.commands import privacy

    finish(privacy.list_waiting_at_stripe(settings))


def show_map() -> None:
    """Print the map of personal data: each place that can hold data about a person, in Markdown."""
    from edgeproxy.collector.privacy.data_map import render_page

    typer.echo(render_page())
