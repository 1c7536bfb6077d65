"""Fees that were suspended while a customer did not pay (unpaid_plans.py), and are charged again once all is paid."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.invoices import invoiced_lines
from edgeproxy.collector.billing.rating import periods
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.subscriptions import changes, subscription_rows
from edgeproxy.collector.billing.subscriptions.changes import PlanChange
from edgeproxy.collector.billing.subscriptions.prepared_changes import discount_change
from edgeproxy.collector.billing.subscriptions.subscriptions import (
    RUNNER,
    invoice_change,
    write_change,
)
from edgeproxy.collector.billing.subscriptions.unpaid_plans import IS_UNPAID
from edgeproxy.collector.database.billing_tables import CANCELED, segments, subscriptions
from edgeproxy.collector.database.billing_tables import invoices as invoices_table


async def list_paid(connection: AsyncConnection, now: float, limit: int) -> list[str]:
    """Return the ids of customers with suspended fees and no unpaid invoices, at most `limit`."""
    columns = subscriptions.c
    is_resting = sa.exists().where(
        segments.c.subscription == columns.id, segments.c.is_resting == 1, segments.c.end > int(now)
    )
    has_unpaid = sa.exists().where(IS_UNPAID, invoices_table.c.customer == columns.customer)
    statement = sa.select(columns.customer).where(columns.state != CANCELED, columns.period_end > int(now))
    rows = await connection.execute(statement.where(is_resting, ~has_unpaid).order_by(columns.customer).limit(limit))
    return list(rows.scalars())


async def resume_fees(connection: AsyncConnection, customer: str, now: float) -> None:
    """Charge a suspended fee again from this Unix second on, with an invoice for the rest of the paid time."""
    loaded = await subscription_rows.get_by_customer(connection, customer, lock=True)
    row, last = loaded.row, loaded.current.last
    if not last.is_resting:
        return
    at = max(periods.floor_to_minute(now), last.span.start)
    resumed = last._replace(span=Span(at, last.span.end), is_resting=False)
    ended = changes.end_segments(loaded.current.segments, at)
    if at == last.span.start:
        ended.pop()
        await subscription_rows.set_fee_charged(connection, row.id, resumed)
    else:
        await subscription_rows.end_segment(connection, row.id, last, at)
        await subscription_rows.begin_segment(connection, row.id, resumed, last.period, "invoice_items")
    invoiced = await invoiced_lines.fetch_lines_of_subscription(connection, row.id)
    lines = changes.compute_fees([*ended, resumed], invoiced)
    change = PlanChange("now", at, resumed, None, lines)
    loaded = loaded._replace(current=loaded.current._replace(segments=ended))
    await invoice_change(connection, row, discount_change(loaded, change, invoiced, loaded.discounts), now)
    await write_change(connection, RUNNER, loaded._replace(row=row), {})
