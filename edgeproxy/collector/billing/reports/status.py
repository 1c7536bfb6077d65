"""The status of billing in figures: work waiting to go to or come from Stripe, and differences between books."""

from collections.abc import Mapping
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing import discrepancies
from edgeproxy.collector.billing.invoices.invoices import DRAFT
from edgeproxy.collector.billing.meter_export import metered_segments, outbox_rows
from edgeproxy.collector.billing.meter_export.outbox import RowState
from edgeproxy.collector.billing.mismatch import COMPARED_BOOKS
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.subscriptions.changes import PERIOD
from edgeproxy.collector.billing.webhooks import receiver
from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.delivery_tables import billing_outbox
from edgeproxy.config.collector.billing import Billing

WAITING = (RowState.READY, RowState.SENDING, RowState.UNKNOWN)


class BillingStatus(NamedTuple):
    """Current status figures."""

    rows: Mapping[str, int]
    """Rows of the outbox, by state."""
    lag: float
    """Seconds since the end of the oldest slice that Stripe does not have."""
    events: Mapping[str, int]
    """Stripe's events, by state."""
    drift: Mapping[tuple[str, str], float]
    """The share of units that recently differed, by reconciliation and meter."""
    reconciled: Mapping[str, float]
    """Seconds since the end of the compared time, by reconciliation."""
    is_charging: bool | None
    """True if charging runs; None if it is off in the configuration."""
    percent: int
    unheld: float
    """Seconds since the end of the oldest period whose Stripe draft was not adopted yet."""


async def fetch_status(connection: AsyncConnection, billing: Billing, now: float) -> BillingStatus:
    """Return the current figures."""
    oldest = sa.select(sa.func.min(billing_outbox.c.until)).where(billing_outbox.c.state.in_(WAITING))
    waiting = (await connection.execute(oldest)).scalar_one()
    reconciled_until = {kind: await discrepancies.find_reconciled_until(connection, kind) for kind in COMPARED_BOOKS}
    charging_state = await charging.fetch_charging(connection, billing)
    conditions = (invoices.c.state == DRAFT, invoices.c.kind == PERIOD, invoices.c.stripe_id.is_(None))
    ended = sa.select(sa.func.min(invoices.c.period_end)).where(*conditions, metered_segments.DRAFTED)
    unheld = (await connection.execute(ended)).scalar_one()
    return BillingStatus(
        await outbox_rows.count_by_state(connection),
        0.0 if waiting is None else max(0.0, now - waiting),
        await receiver.count_by_state(connection),
        await discrepancies.fetch_ratios(connection),
        {kind: now - until for kind, until in reconciled_until.items() if until is not None},
        None if charging_state.mode == "off" else charging_state.is_on,
        charging_state.percent,
        0.0 if unheld is None else max(0.0, now - unheld),
    )
