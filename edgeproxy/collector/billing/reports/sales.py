"""Sales of credits: purchases begun at Checkout, and purchases paid."""

from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.credits.statements import CalendarMonth
from edgeproxy.collector.billing.reports.currency_scope import IN_USD, CurrencyScope
from edgeproxy.collector.database.credit_tables import credit_transactions
from edgeproxy.collector.database.schema import audit, customers

CHECKOUT = "credits.checkout"
"""The audit action for a customer who got a Checkout page."""


PAYMENTS = ("purchase", "invoice_paid")
"""The kinds of transactions that book a customer's payment."""


class Sales(NamedTuple):
    """Credit purchases in a span."""

    checkouts: int
    """Purchases begun."""
    purchases: int
    """Purchases paid."""
    purchased: int
    """Credits purchased, in millicredits."""

    @property
    def conversion_rate(self) -> float | None:
        """The share of begun purchases that were paid; None if none was begun."""
        # A purchase may be paid in the month after its checkout began.
        return min(1.0, self.purchases / self.checkouts) if self.checkouts else None

    @property
    def mean_purchase(self) -> int | None:
        """The millicredits of an average purchase; None if there was none."""
        return round(self.purchased / self.purchases) if self.purchases else None


async def fetch_sales(connection: AsyncConnection, begin: int, end: int, scope: CurrencyScope = IN_USD) -> Sales:
    """Return the sales in the currency of a scope, from one Unix millisecond to before another."""
    entries, booked = audit.c, credit_transactions.c
    begun = sa.select(sa.func.count()).where(entries.action == CHECKOUT, entries.at >= begin, entries.at < end)
    if not scope.is_only:
        begun = begun.where(scope.is_charged_in(entries.target))
    paid = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(booked.amount), 0)).where(
        booked.kind == "purchase", booked.at >= begin, booked.at < end, booked.currency == scope.currency
    )
    purchases, purchased = (await connection.execute(paid)).one()
    return Sales(int((await connection.execute(begun)).scalar_one()), int(purchases), int(purchased))


async def count_conversion(
    connection: AsyncConnection, calendar_month: CalendarMonth, scope: CurrencyScope
) -> tuple[int, int]:
    """Return the number of a scope's customers who paid for the first time in a month, and how many could have."""
    columns, customer_columns = credit_transactions.c, customers.c

    def paid(*when: sa.ColumnElement[bool]) -> sa.Exists:
        return sa.exists().where(columns.customer == customer_columns.id, columns.kind.in_(PAYMENTS), *when)

    were_there = (customer_columns.created_at < calendar_month.end) & (
        customer_columns.erased_at.is_(None) | (customer_columns.erased_at >= calendar_month.begin)
    )
    could_pay = (were_there, scope.is_charged_in(customer_columns.id))
    # First payments only, so customers who had paid before the month are no candidates.
    unpaid = sa.select(customer_columns.id).where(*could_pay, ~paid(columns.at < calendar_month.begin))
    converted = unpaid.where(paid(columns.at >= calendar_month.begin, columns.at < calendar_month.end))
    counts = (sa.select(sa.func.count()).select_from(chosen.subquery()) for chosen in (converted, unpaid))
    paid_first, could_have = [int((await connection.execute(count)).scalar_one()) for count in counts]
    return paid_first, could_have
