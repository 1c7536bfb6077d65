"""The end of what laws on book-keeping keep about people (`retention.invoices`).

Books are kept from the end of their calendar year on. Then what tells about an erased customer is cleared on its
invoices, as the map of personal data says, and in the journal the details of all. Sums stay. Each step is a
transaction: whoever is killed between two begins anew, and finds what is left.
"""

import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.billing.invoices.credit_notes import REQUESTED
from edgeproxy.collector.billing.invoices.invoices import PAID, UNCOLLECTIBLE, VOID, WAIVED
from edgeproxy.collector.billing.journal import cleared_details
from edgeproxy.collector.billing.journal.verification import JournalTamperedError
from edgeproxy.collector.billing.rating.periods import day_start
from edgeproxy.collector.database.billing_tables import (
    UNBOOKED_INVOICES,
    credit_notes,
    dunning,
    invoice_lines,
    invoices,
)
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.personal_data import TABLES
from edgeproxy.collector.database.schema import customers

CUSTOMERS_PER_STEP = 20
TRANSACTIONS_PER_STEP = 500
PASS_SECONDS = 86400.0
"""Seconds after which erased customers are looked through again."""
ENDED = (PAID, VOID, UNCOLLECTIBLE, WAIVED)
"""The states of invoices of which nothing is expected any more."""


class DueBooks(NamedTuple):
    """What is over, and what of that still tells about people."""

    invoices: int
    """Invoices of erased customers that are to be cleared."""
    cleared: int
    """Transactions of the journal whose details are cleared."""
    transactions: int
    """Transactions whose details are to be cleared."""


def find_end(seconds: float, now: float) -> int:
    """Return the Unix second at which the first year begins whose books are still kept for so many seconds. Pure."""
    return day_start(datetime.fromtimestamp(now - seconds, UTC).year, 1)


async def clear_invoices(connection: AsyncConnection, erased: Sequence[str], before: int) -> Counter[str]:
    """Clear what tells about these customers, by id, on invoices from before this Unix second; return how many rows of
    each table."""
    ended = _select_ended(before).where(invoices.c.customer.in_(erased))
    counts = Counter[str]()
    for table in (invoices, invoice_lines, credit_notes, dunning):
        rest = {name: None if table.c[name].nullable else "" for name in TABLES[table.name].ended}
        which = [(table.c.id if table is invoices else table.c.invoice).in_(ended), _has_some(table)]
        if table is credit_notes:
            which += [table.c.state != REQUESTED, table.c.created_at < before * 1000]
        counts[table.name] = (await connection.execute(sa.update(table).where(*which).values(rest))).rowcount
    return +counts


async def count_due(connection: AsyncConnection, before: int) -> DueBooks:
    """Count what is from before this Unix second."""
    ended = _select_ended(before).join(customers, customers.c.id == invoices.c.customer)
    ended = ended.where(customers.c.erased_at.is_not(None), _has_some(invoices))
    count = sa.select(sa.func.count()).select_from(ended.subquery())
    due = int((await connection.execute(count)).scalar_one())
    return DueBooks(due, *await cleared_details.count_due(connection, before * 1000))


def _select_ended(before: int) -> sa.Select[tuple[str]]:
    """Return the query for ids of invoices from before this Unix second, of which nothing is expected any more."""
    columns = invoices.c
    is_old = (columns.created_at < before * 1000) & (sa.func.coalesce(columns.issued_at, 0) < before)
    return sa.select(columns.id).where(is_old, columns.state.in_(ENDED), sa.text(f"NOT ({UNBOOKED_INVOICES})"))


def _has_some(table: sa.Table) -> sa.ColumnElement[bool]:
    """Return the condition that a row has something in a column that is to be cleared."""
    return sa.or_(*(table.c[name] != "" for name in TABLES[table.name].ended))


class EndedBooks:
    """A pass through the journal and erased customers each day, and at once when a year ends."""

    def __init__(self, database: Database, seconds: float | None, caller: Caller) -> None:
        self._database, self._seconds, self._caller = database, seconds, caller
        self.may_clear = database.ownership is None or database.ownership.has_ownership
        """Whether the database lets this user change books: of tables with an owner of their own that one alone may."""
        self._before = 0
        """What is from before this Unix second is cleared."""
        self._after: str | None = None
        """The last customer of this pass; None where it is over."""
        self._next = 0.0
        """Monotonic time of the next pass, unless a year ends."""
        self._log = log.get_logger()

    async def clear_next(self, now: float) -> bool:
        """Clear a little; False where there is nothing more for now."""
        if self._seconds is None or not self.may_clear:
            return False
        before = find_end(self._seconds, now)
        if before != self._before or (self._after is None and time.monotonic() >= self._next):
            self._before, self._after, self._next = before, "", time.monotonic() + PASS_SECONDS
        if self._after is None:
            return False
        if not self._after and await self._clear_details():
            return True
        self._after = await self._clear_invoices(self._after)
        return self._after is not None

    async def _clear_details(self) -> bool:
        """Clear details of some transactions; whether there may be more."""
        try:
            async with self._database.writing() as connection:
                cleared = await cleared_details.clear_details(
                    connection, self._caller, self._before * 1000, TRANSACTIONS_PER_STEP
                )
        except JournalTamperedError as error:
            self._log.error("details of the journal are not cleared, as they prove nothing", why=str(error))
            return False
        return cleared == TRANSACTIONS_PER_STEP

    async def _clear_invoices(self, after: str) -> str | None:
        """Clear invoices of the next erased customers; return the last one, or None where there are no more."""
        columns = customers.c
        next_ = sa.select(columns.id).where(columns.erased_at.is_not(None), columns.id > after)
        async with self._database.writing() as connection:
            ids = (await connection.execute(next_.order_by(columns.id).limit(CUSTOMERS_PER_STEP))).scalars().all()
            counts = await clear_invoices(connection, ids, self._before) if ids else {}
        if counts:
            self._log.info("invoices of erased customers cleared", **counts)
        return ids[-1] if ids else None
