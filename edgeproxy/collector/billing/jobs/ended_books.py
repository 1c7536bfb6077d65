"""The end of the retention that book-keeping laws require for personal data (`retention.invoices`).

Retention starts at the end of the books' calendar year. After it, two kinds of data are cleared: on the invoices of
erased customers the personal data that the map of personal data names, and in the journal the details of all customers.
Sums stay. With `encryption`, the key of the year is destroyed last. Each step is one transaction, so a pass that was
killed starts again and finds the remaining rows.
"""

import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.accounts.audit import AuditEntry, Caller, append_entry
from edgeproxy.collector.billing.invoices.credit_notes import REQUESTED
from edgeproxy.collector.billing.invoices.invoices import PAID, UNCOLLECTIBLE, VOID, WAIVED
from edgeproxy.collector.billing.journal import cleared_details
from edgeproxy.collector.billing.journal.verification import JournalTamperedError
from edgeproxy.collector.billing.rating.periods import day_start
from edgeproxy.collector.database.billing_tables import (
    UNBOOKED_INVOICES,
    credit_notes,
    disputes,
    dunning,
    invoice_lines,
    invoices,
)
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.encryption_tables import book_keys
from edgeproxy.collector.database.personal_data import TABLES
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.encryption.book_rows import is_any_sealed_by, reseal_rows
from edgeproxy.collector.encryption.keyring import find_keyring, refresh_keyring

COLLECTOR = Caller("collector")
CUSTOMERS_PER_STEP = 20
TRANSACTIONS_PER_STEP = 500
PASS_SECONDS = 86400.0
"""Seconds between passes over the erased customers."""
ENDED = (PAID, VOID, UNCOLLECTIBLE, WAIVED)
"""The states of invoices that no further step follows."""


class DueBooks(NamedTuple):
    """Counts of ended books that still contain personal data, or no longer do."""

    invoices: int
    """Invoices of erased customers to clear."""
    cleared: int
    """Journal transactions with cleared details."""
    transactions: int
    """Journal transactions with details to clear."""


def find_end(seconds: float, now: float) -> int:
    """Return the Unix second of the start of the first year that is still retained. Pure.

    `seconds` is the length of the retention.
    """
    return day_start(datetime.fromtimestamp(now - seconds, UTC).year, 1)


async def clear_invoices(
    connection: AsyncConnection,
    erased: Sequence[str] | sa.Select[tuple[str]],
    before: int,
    tables: Sequence[sa.Table] = (invoices, invoice_lines, credit_notes, disputes, dunning),
) -> Counter[str]:
    """Clear personal data of these customers, by id, on ended invoices from before this Unix second.

    Returns the number of cleared rows by table.
    """
    ended = _select_ended(before).where(invoices.c.customer.in_(erased))
    counts = Counter[str]()
    for table in tables:
        rest = {name: None if table.c[name].nullable else "" for name in TABLES[table.name].ended}
        which = [(table.c.id if table is invoices else table.c.invoice).in_(ended), _has_some(table)]
        if table is disputes:  # Disputes about credit purchases have no invoice.
            is_of_purchase = disputes.c.invoice.is_(None) & disputes.c.customer.in_(erased)
            which[0] = (which[0] | is_of_purchase) & (disputes.c.created_at < before * 1000)
        if table is credit_notes:
            which += [table.c.state != REQUESTED, table.c.created_at < before * 1000]
        counts[table.name] = (await connection.execute(sa.update(table).where(*which).values(rest))).rowcount
    return +counts


async def count_due(connection: AsyncConnection, before: int) -> DueBooks:
    """Count the invoices and transactions from before this Unix second."""
    ended = _select_ended(before).join(customers, customers.c.id == invoices.c.customer)
    ended = ended.where(customers.c.erased_at.is_not(None), _has_some(invoices))
    count = sa.select(sa.func.count()).select_from(ended.subquery())
    due = int((await connection.execute(count)).scalar_one())
    return DueBooks(due, *await cleared_details.count_due(connection, before * 1000))


def _select_ended(before: int) -> sa.Select[tuple[str]]:
    """Return the query for ids of invoices from before this Unix second that no further step follows."""
    columns = invoices.c
    is_old = (columns.created_at < before * 1000) & (sa.func.coalesce(columns.issued_at, 0) < before)
    return sa.select(columns.id).where(is_old, columns.state.in_(ENDED), sa.text(f"NOT ({UNBOOKED_INVOICES})"))


def _has_some(table: sa.Table) -> sa.ColumnElement[bool]:
    """Return the condition that a row has a value in a column to clear."""
    return sa.or_(*(table.c[name] != "" for name in TABLES[table.name].ended))


async def destroy_ended_keys(
    database: Database, seconds: float | None, now: float, caller: Caller = COLLECTOR
) -> list[int]:
    """Destroy the keys of years whose retention ended at this Unix second. Return the years.

    Before that, invoices of erased customers are cleared, and other retained values under these keys, for example of
    present customers, are sealed again with this year's key. Without `encryption` there are no keys. Raises
    KeysUnavailableError.
    """
    if seconds is None:
        return []
    before = find_end(seconds, now)
    is_over = book_keys.c.year < datetime.fromtimestamp(before, UTC).year
    async with database.reading() as connection:
        if (keyring := find_keyring(connection)) is None:
            return []
        over = sa.select(book_keys.c.year).where(is_over).order_by(book_keys.c.year)
        years = list(await connection.scalars(over))
    if not years:
        return []
    async with database.writing() as connection:
        erased = sa.select(customers.c.id).where(customers.c.erased_at.is_not(None))
        await clear_invoices(connection, erased, before, (invoices, credit_notes, disputes, dunning))
    await reseal_rows(database, years)
    async with database.writing() as connection:
        await connection.execute(over.with_for_update())
        # A transaction that began earlier used an old key. The next pass seals its rows again.
        if await is_any_sealed_by(connection, years):
            return []
        # If nothing is deleted, another collector was faster.
        if (await connection.execute(sa.delete(book_keys).where(is_over))).rowcount:
            await append_entry(connection, caller, AuditEntry("encryption.destroy_book_keys", "", {"years": years}))
    await refresh_keyring(database, keyring)
    await database.purge_deleted()
    log.get_logger().info("keys of the books destroyed", years=years)
    return years


class EndedBooks:
    """A pass over the journal and the erased customers, once a day and at once when a year ends."""

    def __init__(self, database: Database, seconds: float | None, caller: Caller) -> None:
        self._database, self._seconds, self._caller = database, seconds, caller
        self.may_clear = database.ownership is None or database.ownership.has_ownership
        """True if the database lets this user change books. If tables have a separate owner, only that owner may."""
        self._before = 0
        """Books from before this Unix second are cleared."""
        self._after: str | None = None
        """The last customer of this pass; None if the pass is over."""
        self._next = 0.0
        """Monotonic time of the next pass, unless a year ends before."""
        self._log = log.get_logger()

    async def clear_next(self, now: float) -> bool:
        """Clear the next few rows. Return False if nothing is left for now."""
        if self._seconds is None:
            return False
        before = find_end(self._seconds, now)
        if before != self._before or (self._after is None and time.monotonic() >= self._next):
            self._before, self._after, self._next = before, "", time.monotonic() + PASS_SECONDS
        if self._after is None:
            return False
        if self.may_clear:
            if not self._after and await self._clear_details():
                return True
            self._after = await self._clear_invoices(self._after)
        else:
            self._after = None
        if self._after is None:
            await destroy_ended_keys(self._database, self._seconds, now, self._caller)
        return self._after is not None

    async def _clear_details(self) -> bool:
        """Clear the details of some transactions. Return whether there may be more."""
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
        """Clear invoices of the next erased customers. Return the last customer, or None if there are no more."""
        columns = customers.c
        next_ = sa.select(columns.id).where(columns.erased_at.is_not(None), columns.id > after)
        async with self._database.writing() as connection:
            ids = (await connection.scalars(next_.order_by(columns.id).limit(CUSTOMERS_PER_STEP))).all()
            counts = await clear_invoices(connection, ids, self._before) if ids else {}
        if counts:
            self._log.info("invoices of erased customers cleared", **counts)
        return ids[-1] if ids else None
