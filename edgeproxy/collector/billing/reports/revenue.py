"""Revenue figures of the metrics, read at intervals because they are too expensive to read at each scrape.

Amounts are millicredits, or ten-thousandths of the smallest unit of another currency.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.invoices import disputes
from edgeproxy.collector.billing.invoices.invoices import HELD as HELD_STATE
from edgeproxy.collector.billing.invoices.invoices import NO_TAX, STRIPE_REFUSES
from edgeproxy.collector.billing.reports import business_report, sales, usage_costs
from edgeproxy.collector.billing.reports.business_report import DayReport
from edgeproxy.collector.billing.reports.currency_scope import CurrencyScope, list_scopes
from edgeproxy.collector.billing.reports.sales import Sales
from edgeproxy.collector.database.billing_tables import invoice_lines, invoices
from edgeproxy.collector.database.credit_tables import credit_balances, credit_entries, credit_transactions
from edgeproxy.collector.database.schema import DAY, customers
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.currency_units import USD

SALES_DAYS = 30
"""The days of sales in the metrics."""
REFUNDS = ("refund_paid", "chargeback", "credit_note", "credit_note_void")
"""Kinds of transactions that return money: of purchases, and of invoices through credit notes."""
HELD = ("refused", "tax", "unrated", "differs")
"""The reasons why invoices are held.

Stripe refuses a request; the tax is unknown; the lines are unknown, or a person holds it; Stripe's draft differs from
ours.
"""


class CurrencyFigures(NamedTuple):
    """Revenue figures in one currency."""

    yesterday: DayReport
    """The last complete day."""
    refunds: int
    """Money returned so far, including disputes of credits."""
    plans: Mapping[str, int]
    """Revenue of that day by the name of the customers' plan; NO_PLAN if they had none."""
    models: Mapping[str, int]
    """The cost of the costliest models on that day."""


class RevenueFigures(NamedTuple):
    """Revenue figures at a moment."""

    currencies: Mapping[str, CurrencyFigures]
    """The figures of each currency that customers are charged in."""
    liability: int
    """Credits that customers have."""
    purchased: int
    """Credits purchased so far."""
    invoices: Mapping[str, int]
    """The number of invoices, by state."""
    disputes: Mapping[str, int]
    """The number of disputes, by state."""
    held: Mapping[str, int]
    """Invoices that wait for a person, by reason: one of HELD."""
    sales: Sales
    """Sales of the last SALES_DAYS days."""


async def fetch_revenue(connection: AsyncConnection, billing: Billing, default: str, now: float) -> RevenueFigures:
    """Return the current figures. Customers without a currency count in the `default` one.

    The transaction must read one snapshot.
    """
    scopes = await list_scopes(connection, default)
    currencies = {scope.currency: await _fetch_figures(connection, billing, scope, now) for scope in scopes}
    balances, columns = credit_balances.c, credit_transactions.c
    in_others = sa.select(customers.c.id).where(customers.c.currency != USD)
    owed = sa.select(sa.func.coalesce(sa.func.sum(balances.balance), 0)).where(
        balances.balance > 0, balances.customer.not_in(in_others)
    )
    # The part of a purchase that paid an overdraft was purchased, too, though it is no longer deferred.
    sold = sa.select(sa.func.coalesce(sa.func.sum(columns.amount), 0)).where(
        columns.kind == "purchase", columns.currency == USD
    )
    states = sa.select(invoices.c.state, sa.func.count()).group_by(invoices.c.state)
    return RevenueFigures(
        currencies,
        int((await connection.execute(owed)).scalar_one()),
        int((await connection.execute(sold)).scalar_one()),
        {row[0]: row[1] for row in await connection.execute(states)},
        await disputes.count_by_state(connection),
        await _count_held(connection),
        await sales.fetch_sales(connection, int(now - SALES_DAYS * DAY) * 1000, int(now) * 1000, scopes[0]),
    )


async def _fetch_figures(
    connection: AsyncConnection, billing: Billing, scope: CurrencyScope, now: float
) -> CurrencyFigures:
    cogs = {} if billing.credits is None else billing.credits.list_costs(scope.currency)
    day = business_report.date_of(int(now)) - timedelta(days=1)
    (yesterday,) = await business_report.fetch_days(connection, day, day, now, cogs, scope)
    columns, entries = credit_transactions.c, credit_entries.c
    back = (
        sa.select(sa.func.coalesce(sa.func.sum(-entries.amount), 0))
        .join_from(credit_transactions, credit_entries, entries.seq == columns.seq)
        .where(columns.kind.in_(REFUNDS), entries.account == "clearing", columns.currency == scope.currency)
    )
    models: dict[str, int] = {}
    begin = business_report.start_of_day(day)
    for model in await usage_costs.fetch_costliest_models(connection, begin, begin + DAY, cogs, scope):
        models[model.model or "none"] = models.get(model.model or "none", 0) + model.cost
    return CurrencyFigures(
        yesterday,
        int((await connection.execute(back)).scalar_one()),
        await business_report.fetch_revenue_by_plan(connection, day, now, scope.currency),
        models,
    )


async def _count_held(connection: AsyncConnection) -> dict[str, int]:
    """Return the number of held invoices, by reason."""
    has_lines = sa.exists().where(invoice_lines.c.invoice == invoices.c.id).label("has_lines")
    statement = sa.select(invoices.c.held_why, has_lines).where(invoices.c.state == HELD_STATE)
    counts = dict.fromkeys(HELD, 0)
    for row in await connection.execute(statement):
        counts[_classify_held(row.held_why, has_lines=row.has_lines)] += 1
    return counts


def _classify_held(stored_why: object, *, has_lines: bool) -> str:
    """Return the reason, one of HELD, for a held invoice. If the text is unreadable, only the lines decide."""
    why = stored_why if isinstance(stored_why, str) else ""
    if why.startswith(STRIPE_REFUSES):
        return "refused"
    if why.startswith(NO_TAX):
        return "tax"
    return "differs" if has_lines else "unrated"
