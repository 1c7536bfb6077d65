"""The figures for the gates of the roll-out, from this database."""

from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.discrepancies import find_drift_since
from edgeproxy.collector.billing.invoices import shadow_log
from edgeproxy.collector.billing.reports import business_report, response_counts
from edgeproxy.collector.billing.reports.currency_scope import list_scopes
from edgeproxy.collector.billing.rollout.charging import Charging
from edgeproxy.collector.billing.rollout.gates import StageFigures
from edgeproxy.collector.billing.webhooks.receiver import EventState
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.credit_tables import credit_transactions
from edgeproxy.collector.database.delivery_tables import webhook_events
from edgeproxy.collector.database.schema import DAY
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.currency_units import USD

USUAL_DAYS = 7
BOOKED_SECONDS = 60
"""A purchase must be booked within this many seconds of Stripe's report."""
TRIED = ("charge.succeeded", "charge.failed")


async def fetch_figures(
    connection: AsyncConnection, charging_state: Charging, at: float, billing: Billing, default: str = USD
) -> StageFigures:
    """Return the figures of the stage that began when this percentage was set.

    `default` is the currency of customers without a chosen one. The transaction must read one snapshot.
    """
    since = charging_state.since
    webhooks, median = await _fetch_median(connection, since)
    compared, different = await shadow_log.fetch_comparison(connection, since)
    tried, succeeded = await _count_purchases(connection, since, at)
    requests, errors = await response_counts.fetch_since(connection, since)
    return StageFigures(
        seconds=at - since,
        shadow_for=billing.rollout.shadow_for,
        shadow_compared=compared,
        shadow_different=different,
        # Without `since`: a held invoice must be settled before any further stage, however old it is.
        calculation_errors=await _count(connection, invoices, invoices.c.state == "held"),
        drift=await find_drift_since(connection, "B" if billing.collection == "meters" else "C", since),
        purchases=tried,
        purchases_succeeded=succeeded,
        webhooks=webhooks,
        webhook_median=median,
        requests=requests,
        errors=errors,
        refused=float(await _count_paused(connection, AlertKind.INVOICE_UNPAID, at - DAY, at)),
        refused_usually=await _count_paused(connection, AlertKind.INVOICE_UNPAID, at - (1 + USUAL_DAYS) * DAY, at - DAY)
        / USUAL_DAYS,
        margin=await _fetch_margin(connection, at, billing, default),
        paused=await _count_paused(connection, AlertKind.CUSTOMER_PAUSED, since, at),
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


async def _count_paused(connection: AsyncConnection, kind: AlertKind, since: float, until: float) -> int:
    """Return the number of customers paused between two Unix seconds, according to alerts of this kind."""
    in_span = (alerts.c.at >= int(since * 1000), alerts.c.at <= int(until * 1000))
    return await _count(connection, alerts, alerts.c.kind == kind, *in_span)


async def _count_purchases(connection: AsyncConnection, since: int, at: float) -> tuple[int, int]:
    """Return the number of attempts to pay, and how many led to a payment and, for credits, to a booking."""
    columns = webhook_events.c
    is_recent = columns.received >= since * 1000
    charges = (
        sa.select(columns.object, sa.func.max(sa.case((columns.type == TRIED[0], 1), else_=0)).label("paid"))
        .where(columns.type.in_(TRIED), is_recent)
        .group_by(columns.object)
        .subquery()
    )
    sums = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(charges.c.paid), 0)).select_from(charges)
    # Counted by charge, not by event: a charge with both events is one attempt, which was paid.
    tried, paid = (await connection.execute(sums)).one()
    booked = sa.exists().where(credit_transactions.c.kind == "purchase", credit_transactions.c.source == columns.object)
    unbooked = await _count(
        connection,
        webhook_events,
        *(columns.type == "checkout.session.completed", columns.state != EventState.APPLIED, ~booked),
        *(is_recent, columns.received < int((at - BOOKED_SECONDS) * 1000)),
    )
    # A customer who paid and has no credits is no success, whatever Stripe reports.
    return tried, max(0, int(paid) - unbooked)


async def _fetch_margin(connection: AsyncConnection, at: float, billing: Billing, default: str) -> float | None:
    """Return the margin of the last complete day, the lowest one of several currencies."""
    if billing.credits is None:
        return None
    day = business_report.date_of(int(at)) - timedelta(days=1)
    margins = []
    for scope in await list_scopes(connection, default):
        cogs = billing.credits.list_costs(scope.currency)
        (yesterday,) = await business_report.fetch_days(connection, day, day, at, cogs, scope)
        margins += [] if yesterday.margin is None else [yesterday.margin]
    # The gate must hold in each currency.
    return min(margins, default=None)


async def _fetch_median(connection: AsyncConnection, since: int) -> tuple[int, float | None]:
    """Return the number of events applied since then, and the median time in seconds from an event to its effect."""
    columns = webhook_events.c
    applied = (columns.state == EventState.APPLIED, columns.received >= since * 1000)
    count = await _count(connection, webhook_events, *applied)
    if not count:
        return 0, None
    duration = (columns.applied - columns.created * 1000).label("taken")
    median_row = sa.select(duration).where(*applied).order_by(duration).offset(count // 2).limit(1)
    return count, max(0, (await connection.execute(median_row)).scalar_one()) / 1000
