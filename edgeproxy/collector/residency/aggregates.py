"""Sums of a residency, which operators of other residencies may see. Nothing in them is about one customer.

They cover whole days, up to the last midnight (UTC), so that two sums differ by a whole day of all customers. A sum of
fewer than CUSTOMERS_MIN customers is left out.
"""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.billing.invoices.invoices import PAID
from edgeproxy.collector.database.alert_tables import alert_handling, alerts
from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.credit_tables import credit_transactions
from edgeproxy.collector.database.schema import DAY, HOUR, customers
from edgeproxy.collector.ledger import rollup
from edgeproxy.collector.ledger.queries import LedgerQuery, build_statement
from edgeproxy.collector.traffic.queries import TrafficQuery, fetch_traffic
from edgeproxy.config.collector.currency_units import MILLICREDITS

DAYS: Final = 30
"""Days of usage and payments."""
CUSTOMERS_MIN: Final = 5
"""The minimum number of customers in a sum."""
SEVERITIES: Final = ("page", "warn", "info")


class RegionSum(TypedDict):
    """The requests of a region on the last whole day."""

    region: str
    """The region of edges; empty for edges without one."""
    requests: int
    """All requests."""
    limited: int
    """The requests answered with 429."""
    failed: int
    """The requests answered with 5xx."""


class MeterSum(TypedDict):
    """The usage of a meter."""

    meter: str
    """The meter."""
    units: int
    """The units used by all customers together."""


class CurrencySum(TypedDict):
    """The payments in a currency, for invoices and credits."""

    currency: str
    """The currency (ISO 4217)."""
    amount: int
    """The sum in the smallest unit of the currency."""


class AlertCount(TypedDict):
    """Alerts that are not acknowledged."""

    severity: str
    """`page`, `warn` or `info`."""
    alerts: int
    """The number of alerts."""


class Aggregates(TypedDict):
    """Sums of a residency. They identify no customer."""

    residency: str
    """The residency."""
    since: str
    """The start of usage and payments, at midnight (UTC)."""
    until: str
    """The end of usage and payments, at the last midnight (UTC)."""
    customers: int
    """Customers who are not being deleted."""
    left_out: int
    """The number of sums left out, because fewer than five customers have contributed to each."""
    traffic: list[RegionSum]
    """Requests of the last whole day, by region."""
    usage: list[MeterSum]
    """Usage by meter."""
    payments: list[CurrencySum]
    """Payments by currency."""
    alerts: list[AlertCount]
    """Alerts that are not acknowledged, by severity."""


async def fetch_aggregates(connection: AsyncConnection, residency: str, now: float) -> Aggregates:
    """Return the sums of the days up to the last midnight before the Unix second `now`."""
    until = int(now) // DAY * DAY
    since = until - DAYS * DAY
    usage, usage_left_out = await _fetch_usage(connection, since, until)
    payments, payments_left_out = await _fetch_payments(connection, since, until)
    traffic, traffic_left_out = await _fetch_traffic(connection, until)
    is_here = customers.c.erased_at.is_(None) & customers.c.deleting_since.is_(None)
    count = sa.select(sa.func.count()).select_from(customers).where(is_here)
    return {
        "residency": residency,
        "since": format_timestamp(since * 1000),
        "until": format_timestamp(until * 1000),
        "customers": int((await connection.execute(count)).scalar_one()),
        "left_out": usage_left_out + payments_left_out + traffic_left_out,
        "traffic": traffic,
        "usage": usage,
        "payments": payments,
        "alerts": await _count_alerts(connection),
    }


async def _fetch_usage(connection: AsyncConnection, since: int, until: int) -> tuple[list[MeterSum], int]:
    """Return usage by meter, and how many meters are left out."""
    query = LedgerQuery(None, None, since, until, ("customer", "meter"))
    by_customer = build_statement(query, await rollup.fetch_state(connection)).order_by(None).subquery()
    high, low = list(by_customer.c)[-2:]
    statement = (
        sa.select(by_customer.c.meter, sa.func.count(), *(_sum(half) for half in (high, low)))
        .where((high != 0) | (low != 0))
        .group_by(by_customer.c.meter)
        .order_by(by_customer.c.meter)
    )
    rows = (await connection.execute(statement)).all()
    shown = [(meter, (high << 32) + low) for meter, count, high, low in rows if count >= CUSTOMERS_MIN]
    return [{"meter": meter, "units": units} for meter, units in shown], len(rows) - len(shown)


async def _fetch_payments(connection: AsyncConnection, since: int, until: int) -> tuple[list[CurrencySum], int]:
    """Return payments by currency, and how many currencies are left out."""
    paid, booked = invoices.c, credit_transactions.c
    of_invoices = sa.select(paid.currency, paid.customer, paid.amount_paid.label("amount")).where(
        paid.state == PAID, paid.amount_paid != 0, paid.paid_at >= since, paid.paid_at < until
    )
    of_credits = sa.select(booked.currency, booked.customer, booked.amount // MILLICREDITS).where(
        booked.kind == "purchase", booked.at >= since * 1000, booked.at < until * 1000
    )
    both = sa.union_all(of_invoices, of_credits).subquery()
    count = sa.func.count(sa.distinct(both.c.customer))
    statement = sa.select(both.c.currency, count, _sum(both.c.amount)).group_by(both.c.currency)
    rows = (await connection.execute(statement.order_by(both.c.currency))).all()
    shown = [(currency, amount) for currency, number, amount in rows if number >= CUSTOMERS_MIN]
    return [{"currency": currency, "amount": amount} for currency, amount in shown], len(rows) - len(shown)


async def _fetch_traffic(connection: AsyncConnection, until: int) -> tuple[list[RegionSum], int]:
    """Return the requests of the last whole day by region, and how many regions are left out.

    Reports of traffic name no customer. The ledger tells whose requests they were.
    """
    since = until - DAY
    query = LedgerQuery(None, None, since, until, ("customer", "region"))
    served = build_statement(query, await rollup.fetch_state(connection)).order_by(None).subquery()
    counted = sa.select(served.c.region, sa.func.count()).group_by(served.c.region)
    counts = {region or "": int(count) for region, count in await connection.execute(counted)}
    rows = await fetch_traffic(connection, TrafficQuery(since, until, DAY, ("region",), HOUR))
    shown: list[RegionSum] = [
        {
            "region": row.group[0] or "",
            "requests": row.counts.requests,
            "limited": row.counts.rate_limited,
            "failed": row.counts.server_errors,
        }
        for row in rows
        if counts.get(row.group[0] or "", 0) >= CUSTOMERS_MIN
    ]
    return shown, len(rows) - len(shown)


async def _count_alerts(connection: AsyncConnection) -> list[AlertCount]:
    handling = alert_handling.c
    is_handled = sa.exists().where(
        handling.alert == alerts.c.id, handling.side == "operator", handling.acknowledged_at.is_not(None)
    )
    statement = sa.select(alerts.c.severity, sa.func.count()).where(~is_handled).group_by(alerts.c.severity)
    counts = {severity: int(count) for severity, count in await connection.execute(statement)}
    return [{"severity": severity, "alerts": counts.get(severity, 0)} for severity in SEVERITIES]


def _sum(column: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    return sa.cast(sa.func.sum(column), sa.BigInteger)
