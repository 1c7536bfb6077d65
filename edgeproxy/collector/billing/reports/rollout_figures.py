"""The figures that the gates of the roll-out ask for, by what this database has."""

from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.discrepancies import drift_since
from edgeproxy.collector.billing.invoices import shadow_log
from edgeproxy.collector.billing.reports import business_report, response_counts
from edgeproxy.collector.billing.rollout.charging import Charging
from edgeproxy.collector.billing.rollout.gates import Figures
from edgeproxy.collector.billing.webhooks.receiver import State
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.credit_tables import credit_transactions
from edgeproxy.collector.database.delivery_tables import webhook_events
from edgeproxy.collector.database.schema import DAY
from edgeproxy.config.billing import Billing

PAUSE = "pause"
"""The kind of alerts about customers who were paused because their usage was out of the ordinary."""
UNPAID = "billing_unpaid"
"""That of alerts about customers who were paused with 402."""
USUAL_DAYS = 7
BOOKED_SECONDS = 60
"""Seconds that a purchase has to be booked in after Stripe has told of it."""
TRIED = ("charge.succeeded", "charge.failed")


async def figures(connection: AsyncConnection, now: Charging, at: float, billing: Billing) -> Figures:
    """Return what is known of the stage that began when so many percent were set. In a transaction that reads one
    moment.
    """
    since = now.since
    webhooks, median = await _median(connection, since)
    compared, different = await shadow_log.standing(connection, since)
    tried, succeeded = await _purchases(connection, since, at)
    requests, errors = await response_counts.since(connection, since)
    return Figures(
        seconds=at - since,
        shadow_compared=compared,
        shadow_different=different,
        calculation_errors=await _count(connection, invoices, invoices.c.state == "held"),
        drift=await drift_since(connection, "B" if billing.collection == "meters" else "C", since),
        purchases=tried,
        purchases_succeeded=succeeded,
        webhooks=webhooks,
        webhook_median=median,
        requests=requests,
        errors=errors,
        refused=float(await _paused(connection, UNPAID, at - DAY, at)),
        refused_usually=await _paused(connection, UNPAID, at - (1 + USUAL_DAYS) * DAY, at - DAY) / USUAL_DAYS,
        margin=await _margin(connection, at, billing),
        paused=await _paused(connection, PAUSE, since, at),
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


async def _paused(connection: AsyncConnection, kind: str, since: float, until: float) -> int:
    """How many customers were paused in a time, as alerts of this kind tell."""
    within = (alerts.c.at >= int(since * 1000), alerts.c.at <= int(until * 1000))
    return await _count(connection, alerts, alerts.c.kind == kind, *within)


async def _purchases(connection: AsyncConnection, since: int, at: float) -> tuple[int, int]:
    """How often somebody tried to pay, and how often that led to a payment and, where credits are bought, to these."""
    columns = webhook_events.c
    lately = columns.received >= since * 1000
    charges = (
        sa.select(columns.object, sa.func.max(sa.case((columns.type == TRIED[0], 1), else_=0)).label("paid"))
        .where(columns.type.in_(TRIED), lately)
        .group_by(columns.object)
        .subquery()
    )
    sums = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(charges.c.paid), 0)).select_from(charges)
    tried, paid = (await connection.execute(sums)).one()
    booked = sa.exists().where(credit_transactions.c.kind == "purchase", credit_transactions.c.source == columns.object)
    unbooked = await _count(
        connection,
        webhook_events,
        *(columns.type == "checkout.session.completed", columns.state != State.APPLIED, ~booked),
        *(lately, columns.received < int((at - BOOKED_SECONDS) * 1000)),
    )
    return tried, max(0, int(paid) - unbooked)


async def _margin(connection: AsyncConnection, at: float, billing: Billing) -> float | None:
    """The margin of the last day that is over."""
    if billing.credits is None:
        return None
    day = business_report.day_of(int(at)) - timedelta(days=1)
    (yesterday,) = await business_report.days(connection, day, day, at, billing.credits.cogs)
    return yesterday.margin


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
