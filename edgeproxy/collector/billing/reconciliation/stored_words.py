"""Words in rows of the books that sums depend on: states, kinds and currencies.

A statement that sums the rows of a state or a currency skips a row with a damaged word. So this module finds rows with
an unknown word, and raises an alert for each (unreadable_rows.py).
"""

from collections.abc import Collection, Mapping
from typing import Final, get_args

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.invoices import credit_notes, invoices
from edgeproxy.collector.billing.journal.postings import Account, TransactionKind
from edgeproxy.collector.billing.mismatch import ReconciliationKind
from edgeproxy.collector.billing.rating.rater import LineKind
from edgeproxy.collector.billing.subscriptions import subscription_rows
from edgeproxy.collector.database import billing_tables as billing
from edgeproxy.collector.database import credit_tables as credits
from edgeproxy.collector.database.delivery_tables import reconciliations
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.database.unreadable_rows import UnreadableRowError, set_aside
from edgeproxy.config.collector.currency_units import DECIMALS

WORDS: Final[Mapping[sa.Column[str], Collection[str]]] = {
    customers.c.currency: DECIMALS,
    billing.invoices.c.state: invoices.TRANSITIONS,
    billing.invoices.c.currency: DECIMALS,
    billing.invoice_lines.c.kind: get_args(LineKind),
    billing.credit_notes.c.state: (
        credit_notes.REQUESTED,
        credit_notes.MADE,
        credit_notes.REFUSED,
        credit_notes.VOID,
    ),
    billing.disputes.c.currency: DECIMALS,
    reconciliations.c.kind: get_args(ReconciliationKind),
    billing.subscriptions.c.state: subscription_rows.TRANSITIONS,
    credits.credit_transactions.c.kind: get_args(TransactionKind),
    credits.credit_transactions.c.currency: DECIMALS,
    credits.credit_entries.c.account: get_args(Account),
}
"""The columns, each with all its valid words."""
ROWS_MAX = 100
"""The most rows of one column that are set aside at once."""


async def set_aside_unknown_words(connection: AsyncConnection) -> int:
    """Set rows with an unknown word aside, and return their number. Reads all rows of these tables."""
    count = 0
    for column, words in WORDS.items():
        key = column.table.primary_key
        statement = sa.select(*key).where(column.not_in(sorted(words))).limit(ROWS_MAX)
        for row in await connection.execute(statement):
            error = UnreadableRowError(f"{column} has an unknown word")
            set_aside(column.table.name, ",".join(map(str, row)), error)
            count += 1
    return count
