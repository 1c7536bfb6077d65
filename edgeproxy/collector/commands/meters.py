"""Commands for meters at Stripe, with or without a running collector.

Each returns an exit code and a text, as the commands of database.py do.
"""

import time
from collections.abc import Mapping

import sqlalchemy as sa

from edgeproxy.base import event_loop
from edgeproxy.collector.billing.stripe.client import Stripe, StripeCallError, StripeConfigurationError
from edgeproxy.collector.billing.stripe_sync import catalog
from edgeproxy.collector.billing.subscriptions import plan_versions
from edgeproxy.collector.commands.database import CommandError, CommandResult, run_on_database
from edgeproxy.collector.database.database import Database, UnusableDatabaseError
from edgeproxy.collector.database.delivery_tables import billing_exporter
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.collector.settings import CollectorSettings


def sync_catalog(settings: CollectorSettings, *, dry: bool) -> CommandResult:
    """Sync Stripe's meters, products and prices with the plans; with `dry`, report the differences."""
    billing = settings.billing
    if billing is None:
        return 1, "nothing is sold: write billing"

    async def work() -> list[catalog.SyncStep]:
        stripe = Stripe(billing.stripe)
        try:
            plans = {**await _fetch_scheduled(settings), **settings.plans}
            if refused := _list_refused(plans):
                raise CommandError("\n".join([*refused, "nothing was changed"]))
            return await (catalog.fetch_sync_steps if dry else catalog.sync_catalog)(stripe, plans)
        finally:
            await stripe.close()

    try:
        steps = event_loop.run(work())
    except StripeConfigurationError as error:
        return 2, str(error)
    except CommandError as error:
        return 1, str(error)
    except StripeCallError as error:
        return 1, f"Stripe does not do it: {error}"
    text = "\n".join(map(str, steps)) or "Stripe has all of it"
    if dry and steps:
        text += "\nnothing was changed: it was a dry run"
    return (1 if any(not step.call for step in steps) else 0), text


def _list_refused(plans: Mapping[str, Plan]) -> list[str]:
    """Return a line for each plan that Stripe's meters cannot charge, with the reason."""
    return [
        f"refused   plan     {version}: it has {reason}, which Stripe's meters cannot charge"
        for version, plan in plans.items()
        if (reason := plan.find_items_reason()) is not None
    ]


async def _fetch_scheduled(settings: CollectorSettings) -> dict[str, Plan]:
    """Return the target versions of price changes, or none if there is no database yet."""
    try:
        database = await Database.connect(settings.database, as_it_is=True)
    except UnusableDatabaseError:
        return {}
    try:
        async with database.reading() as connection:
            moves = await plan_versions.fetch_moves(connection)
            return await plan_versions.fetch_readable_plans(connection, [move.after for move in moves])
    finally:
        await database.close()


def recheck_usage(settings: CollectorSettings, since: float) -> CommandResult:
    """Mark waiting usage for a look-up at Stripe before it is sent.

    The database was restored from a backup of the Unix second `since`, so it lacks the marks of later sendings.
    """

    async def mark(database: Database) -> str:
        now = time.time()
        if since >= now:
            raise CommandError("that is yet to come")
        # Usage that waited then may have been sent since, at any age.
        values = {"recheck_from": 0, "recheck_until": int(now), "stopped": None}
        async with database.writing() as connection:
            await connection.execute(sa.update(billing_exporter).values(values))
        return "usage until now is looked up at Stripe before it is sent; what Stripe has is not sent again"

    return run_on_database(settings, mark)
