"""The figures that the gates of the roll-out ask for, as far as this database has them."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.billing.charging import Charging
from edgeproxy.billing.receiver import State
from edgeproxy.billing.reconciliations import drift_since
from edgeproxy.billing.rollout import Figures
from edgeproxy.database.alert_tables import alerts
from edgeproxy.database.billing_tables import invoices
from edgeproxy.database.delivery_tables import webhook_events

PAUSE = "pause"
"""The kind of alerts about customers who were paused because their usage was out of the ordinary."""


async def figures(connection: AsyncConnection, now: Charging, at: float) -> Figures:
    """Return what is known of the stage that began when so many percent were set; the rest nobody has measured."""
    since = now.since
    webhooks, median = await _median(connection, since)
    return Figures(
        seconds=at - since,
        calculation_errors=await _count(connection, invoices, invoices.c.state == "held"),
        drift=await drift_since(connection, "B", since),
        webhooks=webhooks,
        webhook_median=median,
        paused=await _count(connection, alerts, alerts.c.kind == PAUSE, alerts.c.at >= since * 1000),
        closed_runs=await _count(
            connection,
            invoices,
            invoices.c.kind == "period",
            invoices.c.state.in_(["open", "paid"]),
            invoices.c.closes_at >= since,
        ),
    )


async def _count(connection: AsyncConnection, table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
    return int((await connection.execute(sa.select(sa.func.count()).select_from(table).where(*where))).scalar_one())


async def _median(connection: AsyncConnection, since: int) -> tuple[int, float | None]:
    """How many events were applied since, and the median of seconds from an event to its effect."""
    columns = webhook_events.c
    applied = (columns.state == State.APPLIED, columns.received >= since * 1000)
    count = await _count(connection, webhook_events, *applied)
    if not count:
        return 0, None
    taken = (columns.applied - columns.created * 1000).label("taken")
    middle = sa.select(taken).where(*applied).order_by(taken).offset(count // 2).limit(1)
    return count, max(0, (await connection.execute(middle)).scalar_one()) / 1000
