"""The invoiced lines of a subscription, each with the part that was taken off later.

If an invoice is void, uncollectible or waived, its lines are taken off completely. A credit note or a lost dispute
takes off a share of each line: its own share of the invoice's total. Later charges and refunds are computed from these
lines.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import groupby

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.invoices import invoices as states
from edgeproxy.collector.billing.invoices.credit_notes import COUNTED
from edgeproxy.collector.billing.invoices.line_rows import parse_line
from edgeproxy.collector.billing.rating.rater import RatedLine
from edgeproxy.collector.database.billing_tables import credit_notes, invoice_lines, invoices, subscriptions
from edgeproxy.collector.database.unreadable_rows import reading_row
from edgeproxy.config.collector.currency_units import get_payable_unit

TAKEN_OFF = frozenset({states.VOIDING, states.VOID, states.WRITING_OFF, states.UNCOLLECTIBLE, states.WAIVED})
"""The states of invoices that are not owed. A person's decision counts even before Stripe has carried it out."""


async def fetch_lines_of_subscription(connection: AsyncConnection, subscription: str) -> list[RatedLine]:
    """Return all invoiced lines of a subscription, in the order of their creation. Raises UnreadableRowError."""
    credited = states.sum_credit_notes(credit_notes.c.amount, COUNTED) + states.AMOUNT_LOST
    joined = invoice_lines.join(invoices, invoices.c.id == invoice_lines.c.invoice)
    # Invoices have an index by customer, and none by subscription.
    customer = sa.select(subscriptions.c.customer).where(subscriptions.c.id == subscription).scalar_subquery()
    statement = (
        sa.select(invoice_lines, invoices.c.state, invoices.c.total, invoices.c.currency, credited.label("credited"))
        .select_from(joined)
        .where(invoices.c.customer == customer, invoices.c.subscription == subscription)
        .order_by(invoice_lines.c.invoice, invoice_lines.c.position)
    )
    rows = (await connection.execute(statement)).mappings()
    lines: list[RatedLine] = []
    for (number, state, total, taken, currency), of_invoice in groupby(rows, key=_get_invoice):
        with reading_row(invoices.name, number):
            share = compute_share_taken_off(state, total, taken)
            lines += take_off([parse_line(row) for row in of_invoice], share, get_payable_unit(currency))
    return lines


def _get_invoice(row: sa.RowMapping) -> tuple[str, str, int, int, str]:
    return row["invoice"], row["state"], row["total"], row["credited"], row["currency"]


def compute_share_taken_off(state: str, total: int, credited: int) -> Fraction:
    """Return the share of an invoice that was taken off, from 0 to 1.

    `total` includes tax. `credited` is the sum of the invoice's credit notes and lost disputes.
    """
    if state in TAKEN_OFF:
        return Fraction(1)
    return Fraction(min(credited, total), total) if total > 0 else Fraction(0)


def take_off(lines: Iterable[RatedLine], share: Fraction, unit: int = 1) -> Sequence[RatedLine]:
    """Return the lines of an invoice, with this share of each line taken off.

    The sum is exact to `unit`; all payments in the currency are multiples of it.
    """
    if not share:
        return list(lines)
    taken_off, amount, before = [], 0, 0
    for line in lines:
        amount += line.amount
        sum_taken = unit * round(amount * share / unit)
        taken_off.append(line._replace(taken_off=sum_taken - before, stands=share < 1))
        before = sum_taken
    return taken_off
