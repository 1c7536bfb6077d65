"""Commands about invoices, meters and payments: `billing close`, `invoices`, `sync`, `import`, `recover` and
`reconcile`."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from edgeproxy.cli.files import CollectorFile, load_collector_file
from edgeproxy.cli.outcome import finish

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
    from edgeproxy.collector.commands.invoices import close_invoices

    finish(close_invoices(settings, period, dry=dry))


def invoices(
    config: CollectorFile,
    customer: Annotated[
        str | None, typer.Option("--customer", metavar="CUSTOMER", help="Only those of this customer.")
    ] = None,
    period: Annotated[str | None, typer.Option("--period", metavar="DAY", help="Only of this period.")] = None,
    state: Annotated[str | None, typer.Option("--state", metavar="STATE", help="Only in this state.")] = None,
) -> None:
    """List the newest invoices, a line for each."""
    settings = load_collector_file(config)
    from edgeproxy.collector.commands.invoices import list_invoices

    finish(list_invoices(settings, customer=customer, period=period, state=state))


def sync(
    config: CollectorFile,
    dry: Annotated[bool, typer.Option("--dry-run", help="Show what would be changed, and change nothing.")] = False,
) -> None:
    """Create the meters, products and prices at Stripe that the plans need.

    Shows what is missing, archived, renamed, or differs. Exit code 1 if something differs that cannot be changed, or if
    Stripe's meters cannot charge a plan; then nothing is created.
    """
    settings = load_collector_file(config)
    from edgeproxy.collector.commands.meters import sync_catalog

    finish(sync_catalog(settings, dry=dry))


def import_account(
    config: CollectorFile,
    file: Annotated[
        Path | None, typer.Option("--map", metavar="FILE", help="A CSV file: Stripe's id, our customer or plan.")
    ] = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
    at: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Leave subscriptions to Stripe that renew before this day."),
    ] = None,
    metadata_key: Annotated[
        str, typer.Option(metavar="KEY", help="The metadata of Stripe's customers with our name, id or external_id.")
    ] = "edgeproxy_customer",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Import the customers and subscriptions of an existing Stripe account.

    Each subscription ends at Stripe with the period that was paid there, and begins here at that moment. May be
    repeated, whatever happened before. What cannot be mapped is listed, and stays at Stripe.
    """
    settings = load_collector_file(config)
    from edgeproxy.collector.billing.stripe_import.import_plan import ImportOptions
    from edgeproxy.collector.commands.stripe_import import import_account

    since = 0.0 if at is None else at.replace(tzinfo=UTC).timestamp()
    finish(import_account(settings, file, ImportOptions({}, metadata_key, since), is_dry=dry, as_json=as_json))


def recover(
    config: CollectorFile,
    since: Annotated[
        datetime,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"], help="When the backup was made: 2027-01-31T04:00:00Z."
        ),
    ],
) -> None:
    """After the database was restored: have usage looked up at Stripe before it is sent, so that none is sent twice.

    The collector does so by itself where its last heartbeat is over an hour old.
    """
    settings = load_collector_file(config)
    from edgeproxy.collector.commands.meters import recheck_usage

    finish(recheck_usage(settings, since.replace(tzinfo=UTC).timestamp()))


def reconcile(
    config: CollectorFile,
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="The first day that is compared; by default a week ago."),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Apply what Stripe has, as where webhooks were lost; then compare.")
    ] = False,
) -> None:
    """Compare the balance at Stripe with the journal, to the cent, and each purchase and invoice.

    May be repeated. Exit code 1 if something differs, or still does.
    """
    settings = load_collector_file(config)
    from edgeproxy.collector.commands.payments import reconcile_payments

    first = datetime.now(UTC) - timedelta(days=7) if since is None else since.replace(tzinfo=UTC)
    finish(reconcile_payments(settings, first.timestamp(), is_repair=repair))
