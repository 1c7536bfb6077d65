"""Invoices within a period: the usage of a plan with a `threshold`, once so much of it is not invoiced.

Usage is invoiced once: the transaction that writes the lines computes the difference to earlier lines, and locks the
subscription. The period's invoice has the rest, and all meters that are not sums.
"""

from collections.abc import Callable, Mapping

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.billing.meter_export.metered_segments import METERS
from edgeproxy.collector.billing.period_close import invoice_lines
from edgeproxy.collector.billing.period_close.quantities import QuantityTooLargeError, UsageNotStoredError
from edgeproxy.collector.billing.rating.discounts import rate_discounts
from edgeproxy.collector.billing.rating.rater import RatedLine, sum_amounts
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.subscriptions import plan_versions, subscription_rows
from edgeproxy.collector.billing.subscriptions.changes import THRESHOLD
from edgeproxy.collector.billing.subscriptions.subscription_rows import ACTIVE, LoadedSubscription
from edgeproxy.collector.database.billing_tables import subscriptions
from edgeproxy.collector.database.database import CONNECTION_ERRORS, Database
from edgeproxy.collector.database.schema import customers
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.meters import Meter

LOOK_SECONDS = 60.0
"""Seconds between two checks of subscriptions whose plans have a threshold."""


class ThresholdInvoices:
    """Creates the invoices. `settings` returns the current configuration."""

    def __init__(self, database: Database, settings: Callable[[], CollectorSettings]) -> None:
        self._database = database
        self._settings = settings
        self._look_at = 0.0
        self._limited_log = log.RateLimitedLog(60.0)

    async def step(self, now: float, billing: Billing) -> bool:
        """Create the invoices of thresholds reached at this Unix second. Return whether there were any."""
        if now < self._look_at:
            return False
        self._look_at = now + LOOK_SECONDS
        async with self._database.reading() as connection:
            numbers = await _list_charged(connection, billing, now)
        created = False
        for number in numbers:
            try:
                created |= await self.invoice_usage(number, now)
            except CONNECTION_ERRORS:
                raise
            except (QuantityTooLargeError, UsageNotStoredError) as error:  # The period's invoice is held because of it.
                why = "usage cannot be invoiced at its threshold, and is when its period ends"
                self._limited_log.error(why, str(error), subscription=number)
            except Exception as error:
                log.get_logger().error("a fault in the collector", subscription=number, exc_info=error)
        return created

    async def invoice_usage(self, number: str, now: float) -> bool:
        """Create the invoice of a subscription, by id, if its threshold is reached. Return whether it was."""
        meters = self._settings().meters
        async with self._database.reading(whole=True) as connection:
            (row,) = await subscription_rows.fetch_subscriptions(connection, subscriptions.c.id == number)
            loaded = await subscription_rows.load_subscription(connection, row)
            # Most subscriptions are below their threshold, so the first look takes no lock.
            if not await _compute_reached(connection, loaded, meters):
                return False
        async with self._database.writing() as connection:
            # Read again in the transaction that writes: the plan or the invoiced usage may have changed since.
            loaded = await subscription_rows.get_by_id(connection, number)
            if loaded.row.state != ACTIVE or loaded.row.period_end <= now:
                return False
            # Otherwise usage that is rolled up meanwhile would count twice.
            await self._database.ledger.lock_rollup(connection)
            lines = await _compute_reached(connection, loaded, meters)
            if lines:
                kind = await invoices.choose_kind(connection, loaded.row.customer, loaded.current.period, THRESHOLD)
                await invoices.create_invoice(
                    connection,
                    loaded.row.customer,
                    number,
                    kind,
                    loaded.current.period,
                    lines,
                    currency=loaded.current.last.plan.currency,
                    now=now,
                )
        return bool(lines)


async def _list_charged(connection: AsyncConnection, billing: Billing, now: float) -> list[str]:
    """Return the ids of running subscriptions whose plans have a threshold and whose customers are charged."""
    charging_state = await charging.fetch_charging(connection, billing)
    is_running = (subscriptions.c.state == ACTIVE, subscriptions.c.period_end > now)
    versions = await connection.execute(sa.select(subscriptions.c.plan_version).distinct().where(*is_running))
    plans = await plan_versions.fetch_readable_plans(connection, versions.scalars())
    bounded = [version for version, plan in plans.items() if plan.threshold is not None]
    statement = (
        sa.select(subscriptions.c.id, customers.c.name)
        .join_from(subscriptions, customers, customers.c.id == subscriptions.c.customer)
        .where(*is_running, subscriptions.c.plan_version.in_(bounded), customers.c.deleting_since.is_(None))
    )
    return [row.id for row in await connection.execute(statement) if charging_state.charges(row.name)]


async def _compute_reached(
    connection: AsyncConnection, loaded: LoadedSubscription, meters: Mapping[str, Meter]
) -> list[RatedLine]:
    """Return the lines of uninvoiced usage in the running period, with discounts; empty below the threshold."""
    last = loaded.current.last
    if last.plan.threshold is None or await subscription_rows.get_collection(connection, loaded.row.id, last) == METERS:
        return []
    known, lines = await invoice_lines.compute_running_usage(connection, loaded, meters)
    if sum_amounts(lines) < last.plan.threshold:
        return []
    return [*lines, *rate_discounts(lines, known.invoiced, loaded.current.segments, loaded.discounts)]
