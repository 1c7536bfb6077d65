"""How billing is, in figures: what waits on its way to Stripe and from there, and how far books are apart."""

from collections.abc import Mapping
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing import discrepancies
from edgeproxy.collector.billing.invoices.invoices import DRAFT
from edgeproxy.collector.billing.meter_export import metered_segments, outbox_rows
from edgeproxy.collector.billing.meter_export.outbox import State
from edgeproxy.collector.billing.mismatch import ABOUT
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.subscriptions.changes import PERIOD
from edgeproxy.collector.billing.webhooks import receiver
from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.delivery_tables import billing_outbox
from edgeproxy.config.billing import Billing

WAITING = (State.READY, State.SENDING, State.UNKNOWN)


class Standing(NamedTuple):
    """The figures of a moment."""

    rows: Mapping[str, int]
    """Rows of the outbox, by state."""
    lag: float
    """Seconds since the end of the oldest slice that Stripe does not have."""
    events: Mapping[str, int]
    """Events of Stripe's, by state."""
    drift: Mapping[tuple[str, str], float]
    """By reconciliation and meter, what share of units differed lately."""
    reconciled: Mapping[str, float]
    """By reconciliation, seconds since the end of the time that it was done for."""
    is_charging: bool | None
    """None where nobody is ever charged, by the configuration."""
    percent: int
    unheld: float
    """Seconds since the end of the oldest period of which Stripe makes a draft that is not held yet."""


async def read(connection: AsyncConnection, billing: Billing, now: float) -> Standing:
    """Return the figures of this moment."""
    oldest = sa.select(sa.func.min(billing_outbox.c.until)).where(billing_outbox.c.state.in_(WAITING))
    waiting = (await connection.execute(oldest)).scalar_one()
    done = {kind: await discrepancies.reached(connection, kind) for kind in ABOUT}
    who = await charging.read(connection, billing)
    own = (invoices.c.state == DRAFT, invoices.c.kind == PERIOD, invoices.c.stripe_id.is_(None))
    ended = sa.select(sa.func.min(invoices.c.period_end)).where(*own, metered_segments.DRAFTED)
    unheld = (await connection.execute(ended)).scalar_one()
    return Standing(
        await outbox_rows.standing(connection),
        0.0 if waiting is None else max(0.0, now - waiting),
        await receiver.standing(connection),
        await discrepancies.ratios(connection),
        {kind: now - until for kind, until in done.items() if until is not None},
        None if who.mode == "off" else who.is_on,
        who.percent,
        0.0 if unheld is None else max(0.0, now - unheld),
    )
