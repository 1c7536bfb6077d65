"""Plans of customers who are refused for unpaid invoices: `billing.unpaid` suspends their fees or ends them.

A plan is checked when its period ends. Suspended fees resume once nothing is unpaid.
"""

from collections.abc import Collection
from typing import Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.alerts.words import UNPAID_STEPS
from edgeproxy.collector.billing.invoices import dunning, invoices
from edgeproxy.collector.billing.invoices.dunning import EXHAUSTED
from edgeproxy.collector.billing.rating.periods import format_period
from edgeproxy.collector.billing.rating.rater import Segment, Span
from edgeproxy.collector.billing.subscriptions.subscription_rows import LoadedSubscription
from edgeproxy.collector.database.billing_tables import CANCELED, subscriptions
from edgeproxy.collector.database.billing_tables import dunning as dunning_table
from edgeproxy.collector.database.billing_tables import invoices as invoices_table
from edgeproxy.collector.database.schema import customers
from edgeproxy.config.collector.billing import Unpaid

UnpaidStep = Literal["pause", "cancel", "uncollectible"]
IS_UNPAID = (invoices_table.c.state == invoices.OPEN) & (invoices_table.c.total > 0)


class UnpaidInvoices(NamedTuple):
    """The unpaid invoices of a customer."""

    number: int
    is_exhausted: bool
    """True if the last retry of one of them is over, or one is paid by hand."""
    is_refused: bool
    """True if edges refuse the customer because of them."""


def decide_step(unpaid: UnpaidInvoices, settings: Unpaid, *, is_resting: bool = False) -> UnpaidStep | None:
    """Return the step for a customer's plan, or None if it continues. Pure.

    `is_resting` means that the fee is already suspended. It stays so until everything is paid, even if a part is.
    """
    if is_resting and settings.after == "pause":
        return "pause" if unpaid.number else None
    # A customer whose payment may still succeed keeps the plan, however many periods are open.
    if settings.after == "keep" or not (unpaid.is_refused and unpaid.is_exhausted):
        return None
    return settings.after if unpaid.number >= settings.periods else None


async def fetch_unpaid(connection: AsyncConnection, customer: str) -> UnpaidInvoices:
    """Return the unpaid invoices of a customer, by id."""
    state = dunning_table.c.state
    # An invoice without dunning is paid by hand, so no retry of it is to come.
    is_over = sa.case((sa.or_(state.is_(None), state == EXHAUSTED), 1), else_=0)
    joined = sa.outerjoin(invoices_table, dunning_table, dunning_table.c.invoice == invoices_table.c.id)
    statement = sa.select(sa.func.count(), sa.func.coalesce(sa.func.max(is_over), 0)).select_from(joined)
    count, exhausted = (
        await connection.execute(statement.where(IS_UNPAID, invoices_table.c.customer == customer))
    ).one()
    refused = sa.select(sa.literal(1)).where(customers.c.id == customer, dunning.IS_REFUSED)
    return UnpaidInvoices(count, bool(exhausted), (await connection.execute(refused)).first() is not None)


async def list_refused(connection: AsyncConnection, numbers: Collection[str]) -> dict[str, str]:
    """Return the names of customers who are refused for unpaid invoices, by the id of their subscription."""
    joined = sa.join(subscriptions, customers, customers.c.id == subscriptions.c.customer)
    statement = sa.select(subscriptions.c.id, customers.c.name).select_from(joined)
    statement = statement.where(subscriptions.c.id.in_(numbers), dunning.IS_REFUSED)
    return {row.id: row.name for row in await connection.execute(statement)} if numbers else {}


async def raise_stopped(connection: AsyncConnection, loaded: LoadedSubscription, step: UnpaidStep, now: float) -> None:
    """Raise the alert that a plan has ended or its fees are suspended, since the end of its period."""
    row, end = loaded.row, loaded.current.period.end
    if step == "pause" and loaded.current.last.is_resting:
        return  # The fees are already suspended.
    alert = Alert(
        key=f"plan-stopped:{row.id}:{end}",
        kind=AlertKind.PLAN_STOPPED,
        title=f"The plan {row.plan_version} of {loaded.customer.name} is not paid: {UNPAID_STEPS[step]}",
        details={
            "subscription": row.id,
            "of": loaded.customer.name,
            "after": step,
            "since": format_period(Span(end, end)),
        },
        at=now,
    )
    await raise_once(connection, alert)


async def stop_unpaid(
    connection: AsyncConnection, loaded: LoadedSubscription, begun: Segment, settings: Unpaid, now: float
) -> Segment | None:
    """Return the next segment, with a suspended fee if the customer does not pay, or None if the plan ends."""
    last = loaded.current.last
    if begun.paid == last.paid:
        return begun  # The fee of the year is invoiced.
    step = decide_step(await fetch_unpaid(connection, loaded.customer.id), settings, is_resting=last.is_resting)
    if step is None:
        return begun
    await raise_stopped(connection, loaded, step, now)
    return begun._replace(is_resting=True) if step == "pause" else None


async def write_off_ended(connection: AsyncConnection, limit: int) -> None:
    """Write off the unpaid invoices, at most `limit`, of refused customers whose plan has ended."""
    ended = sa.exists().where(subscriptions.c.id == invoices_table.c.subscription, subscriptions.c.state == CANCELED)
    # Only EXHAUSTED ones: invoices that are still retried may be paid after all.
    rows = await invoices.fetch_invoices(
        connection, IS_UNPAID & ended, dunning_table.c.state == EXHAUSTED, dunning.IS_REFUSED, limit=limit, lock=True
    )
    for row in rows:
        await invoices.transition(connection, row.id, row.state, invoices.WRITING_OFF, try_at=0, tries=row.tries + 1)
