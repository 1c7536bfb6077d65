"""Customers who may have paid an invoice, because Stripe has not returned it since it reported an event about it.

They are neither paused nor stopped meanwhile. That has a bound, and operators get an alert long before.
"""

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.alerts.alert import Alert, fetch_times, raise_alerts
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.invoices.invoices import OPEN
from edgeproxy.collector.billing.webhooks.receiver import EventState
from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.book_text import match_book_text
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.delivery_tables import webhook_events
from edgeproxy.collector.database.schema import DAY, HOUR, customers

UNREPORTED_SECONDS_MAX = 6 * HOUR
"""The seconds of a delay until an alert."""
ALERTED_SECONDS_MAX = 3 * DAY - UNREPORTED_SECONDS_MAX
"""The most seconds after that alert that an unknown payment delays a decision: then the customer counts as unpaid.

So does an unknown payment method the end of a trial. The delay itself may have begun while no collector ran.
"""
INVOICES_AT_ONCE_MAX = 100
"""The most invoices looked up by one statement."""


async def find_possible_payers(database: Database, names: Collection[str], now: float) -> set[str]:
    """Return the customers among these, by name, who may have paid. Raise an alert for each long delay."""
    async with database.reading() as connection:
        delays = {name: since for name, since in (await _list_delays(connection)).items() if name in names}
    long = {name: since for name, since in delays.items() if now - since >= UNREPORTED_SECONDS_MAX}
    alerts = {name: _build_alert(name, since, now) for name, since in long.items()}
    raised: dict[str, float] = {}
    if alerts:
        async with database.writing() as connection:
            await raise_alerts(connection, alerts.values())
            raised = await fetch_times(connection, [alert.key for alert in alerts.values()])
    overdue = {name for name, alert in alerts.items() if now - raised[alert.key] >= ALERTED_SECONDS_MAX}
    return delays.keys() - overdue


async def _list_delays(connection: AsyncConnection) -> dict[str, float]:
    """Return the Unix second of the first waiting event about an open invoice, by the customer's name.

    Dead letters do not count: they raise an alert, and delay nothing.
    """
    columns = webhook_events.c
    waiting = (
        sa.select(columns.object, sa.func.min(columns.received))
        .where(columns.state == EventState.WAITING, columns.object_type == "invoice")
        .group_by(columns.object)
    )
    received = {stripe_id: at / 1000 for stripe_id, at in await connection.execute(waiting)}
    stripe_ids = list(received)
    statement = sa.select(customers.c.name, invoices.c.stripe_id)
    statement = statement.join_from(invoices, customers, customers.c.id == invoices.c.customer)
    delays: dict[str, float] = {}
    for first in range(0, len(stripe_ids), INVOICES_AT_ONCE_MAX):
        matches = match_book_text(connection, invoices.c.stripe_id, *stripe_ids[first : first + INVOICES_AT_ONCE_MAX])
        for name, stripe_id in await connection.execute(statement.where(matches, invoices.c.state == OPEN)):
            delays[name] = min(delays.get(name, received[stripe_id]), received[stripe_id])
    return delays


def _build_alert(name: str, since: float, now: float) -> Alert:
    """Return the alert that Stripe does not return an invoice of a customer, so its payment is unknown."""
    until = now + ALERTED_SECONDS_MAX
    return Alert(
        key=f"billing-payment-unknown-{name}-{int(since)}",
        kind=AlertKind.WEBHOOK_EVENT_FAILED,
        title=f"Stripe reports an invoice of {name} but does not return it: the payment is unknown",
        details={
            "customer": name,
            "since": format_timestamp(int(since * 1000)),
            "counts_as_unpaid_at": format_timestamp(int(until * 1000)),
        },
        at=now,
    )
