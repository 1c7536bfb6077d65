"""Spend alerts: amounts that customers choose, and the alert once their current period costs as much.

The compared amount is the part of the period's fees and usage that is still due, before tax, as if the period were
invoiced now. Prepaid credits are not included.
"""

from collections.abc import Mapping, Sequence
from itertools import islice

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit, customers
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.alerts.alert import Alert, raise_alerts
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.period_close.invoice_lines import compute_running_cost
from edgeproxy.collector.billing.rating import periods
from edgeproxy.collector.billing.rating.money import format_amount
from edgeproxy.collector.billing.subscriptions import subscription_rows
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.billing_tables import spend_alerts
from edgeproxy.config.meters import Meter

AMOUNTS_MAX = 10
"""The most amounts of a customer."""
PERIOD_ALERTS_MAX = 20
"""The most alerts of a customer's period, because operators get them, too, and a customer may keep choosing other
amounts."""
columns = spend_alerts.c


async def fetch_amounts(connection: AsyncConnection, customer: str) -> list[int]:
    """Return the amounts of a customer, by id, in its currency's smallest unit, in ascending order."""
    statement = sa.select(columns.amount).where(columns.customer == customer).order_by(columns.amount)
    return list(await connection.scalars(statement))


async def put_amounts(connection: AsyncConnection, caller: Caller, ref: str, amounts: Sequence[int]) -> None:
    """Replace the amounts of a customer, by id or name. Raises ChangeRejectedError."""
    owner = await customers.get_row(connection, ref, lock=True)
    before, after = await fetch_amounts(connection, owner.id), sorted(set(amounts))
    if after != before:
        await connection.execute(sa.delete(spend_alerts).where(columns.customer == owner.id))
        if after:
            rows = [{"customer": owner.id, "amount": amount} for amount in after]
            await connection.execute(sa.insert(spend_alerts), rows)
        entry = AuditEntry("customer.spend_alerts", owner.name, {"amounts": before}, {"amounts": after})
        await audit.append_entry(connection, caller, entry)


async def list_customers(connection: AsyncConnection, after: str, limit: int) -> list[str]:
    """Return the ids of the next customers after the id `after` who have chosen amounts."""
    statement = sa.select(columns.customer).distinct().where(columns.customer > after)
    return list(await connection.scalars(statement.order_by(columns.customer).limit(limit)))


async def raise_reached(connection: AsyncConnection, customer: str, meters: Mapping[str, Meter], now: float) -> None:
    """Raise the alerts of the amounts that a customer, by id, has reached by the Unix second `now`, once per period."""
    row = await subscription_rows.find_live(connection, customer)
    amounts = await fetch_amounts(connection, customer)
    if row is None or not amounts:
        return
    loaded = await subscription_rows.load_subscription(connection, row)
    spent, period = await compute_running_cost(connection, loaded, meters), loaded.current.period
    name, since = loaded.customer.name, periods.format_period(period)
    prefix = f"spend:{name}:{since}:"
    keys = {f"{prefix}{amount}": amount for amount in amounts if amount <= spent}
    if not keys:
        return
    raised = await _fetch_raised_keys(connection, name, prefix)
    currency = loaded.current.last.plan.currency
    details = {"period_start": format_timestamp(period.start * 1000), "spent_cents": spent, "currency": currency}
    total = format_amount(spent, currency)
    reached = (
        Alert(
            key=key,
            kind=AlertKind.SPEND_REACHED,
            customer=name,
            title=f"{name} has spent {total} since {since}, and {format_amount(amount, currency)} is reached",
            details={"amount_cents": amount, **details},
            at=now,
        )
        for key, amount in keys.items()
        if key not in raised
    )
    await raise_alerts(connection, islice(reached, max(0, PERIOD_ALERTS_MAX - len(raised))))


async def _fetch_raised_keys(connection: AsyncConnection, name: str, prefix: str) -> set[str]:
    """Return the keys with this prefix of the alerts of a customer, by name."""
    of_period = (alerts.c.customer == name, alerts.c.key.startswith(prefix, autoescape=True))
    statement = sa.select(alerts.c.key).where(alerts.c.kind == AlertKind.SPEND_REACHED, *of_period)
    return set(await connection.scalars(statement))
