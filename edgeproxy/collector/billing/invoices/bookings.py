"""Invoices in the journal: what they come to is booked once they are open, then their payment, or that they are void.

Fees are deferred, and earned over the days that they pay for (accounting.py). Each is booked once, whoever runs this.
"""

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.billing.journal.journal import Journal, Posting, entries_of, journal
from edgeproxy.collector.billing.journal.postings import CENT, Entry, Kind, plain
from edgeproxy.collector.billing.rating.rater import Line
from edgeproxy.collector.database.billing_tables import credit_notes
from edgeproxy.collector.database.billing_tables import invoices as invoices_table
from edgeproxy.collector.database.credit_tables import credit_transactions
from edgeproxy.collector.database.database import Database

PAGE = 200
"""Invoices that are booked in a transaction."""
MADE = "made"
"""The state of a credit note that Stripe has made."""
BOOKED = (invoices.OPEN, invoices.PAID, invoices.UNCOLLECTIBLE)


async def step(database: Database) -> bool:
    """Book what has become of invoices; whether there may be more."""
    busy = False
    for kind, states, book in STEPS:
        async with database.reading() as connection:
            rows = await _unbooked(connection, kind, states)
        if rows:
            async with database.writing() as connection, journal(connection) as books:
                for row in rows:
                    if await books.posted(kind, row.id) is None:
                        await book(books, row)
        busy |= len(rows) == PAGE
    return busy | await _credit_notes(database)


async def _unbooked(connection: AsyncConnection, kind: Kind, states: Sequence[str]) -> list[Any]:
    """Invoices in these states of which no such transaction is booked."""
    transactions = credit_transactions.c
    booked = sa.exists().where(transactions.kind == kind, transactions.source == invoices_table.c.id)
    wanted = invoices.selected().where(invoices_table.c.state.in_(states), invoices_table.c.total != 0, ~booked)
    if kind == "invoice_void":  # Of one that was never open nothing is booked.
        opened = sa.exists().where(transactions.kind == "invoice", transactions.source == invoices_table.c.id)
        wanted = wanted.where(opened)
    return list((await connection.execute(wanted.order_by(invoices_table.c.id).limit(PAGE))).all())


async def _invoice(books: Journal, row: Any) -> None:
    lines = await invoices.lines(books.connection, row.id)
    fees = [line for line in lines if not line.meter]
    details = {"fees": [[line.amount, line.span.start, line.span.end] for line in fees]}
    until = max((line.span.end for line in fees), default=0)
    books.book(Posting(row.customer, "invoice", row.id, entries(row.total, lines), slice=until, details=details))


def entries(total: int, lines: Sequence[Line]) -> tuple[Entry, ...]:
    """What an invoice of these lines is: receivable with its tax, fees deferred, usage revenue. Cents in."""
    fees = sum(line.amount for line in lines if not line.meter)
    tax = total - sum(line.amount for line in lines)
    usage = [Entry("revenue", -CENT * line.amount, "", line.meter, line.value) for line in lines if line.meter]
    booked = (
        Entry("receivable", CENT * total),
        Entry("deferred_fees", -CENT * fees),
        *usage,
        Entry("tax", -CENT * tax),
    )
    return tuple(entry for entry in booked if entry.amount)


async def _paid(books: Journal, row: Any) -> None:
    """Book what is still owed as paid: what was noted while it was open is not."""
    if await books.posted("invoice", row.id) is not None:
        noted = await entries_of(books.connection, await _noted(books, row.id))
        owed = CENT * row.total + sum(entry.amount for entry in noted if entry.account == "receivable")
        books.book(Posting(row.customer, "invoice_paid", row.id, plain("invoice_paid", owed), row.id))


async def _noted(books: Journal, invoice: str) -> list[int]:
    """The transactions of credit notes of an invoice that were booked before now."""
    columns = credit_transactions.c
    noted = sa.select(columns.seq).where(columns.kind == "credit_note", columns.original == invoice)
    return list((await books.connection.execute(noted)).scalars())


async def _void(books: Journal, row: Any) -> None:
    """Take back what was booked of an invoice and noted of it, and what its fees have earned and will."""
    opened = await books.posted("invoice", row.id)
    before = await entries_of(books.connection, [opened.seq, *await _noted(books, row.id)])
    back = tuple(entry._replace(amount=-entry.amount) for entry in before)
    lines = await invoices.lines(books.connection, row.id)
    fees = [[-line.amount, line.span.start, line.span.end] for line in lines if not line.meter]
    books.book(Posting(row.customer, "invoice_void", row.id, back, row.id, slice=opened.slice, details={"fees": fees}))


STEPS: tuple[tuple[Kind, Sequence[str], Callable[[Journal, Any], Any]], ...] = (
    ("invoice", BOOKED, _invoice),
    ("invoice_paid", (invoices.PAID,), _paid),
    ("invoice_void", (invoices.VOID,), _void),
)


async def _credit_notes(database: Database) -> bool:
    """Book credit notes: of an invoice that is paid the money goes back, of another one less is owed."""
    transactions = credit_transactions.c
    booked = sa.exists().where(transactions.kind == "credit_note", transactions.source == credit_notes.c.id)
    wanted = (
        sa.select(credit_notes.c.id, credit_notes.c.amount, invoices_table.c.customer, invoices_table.c.id.label("of"))
        .join_from(credit_notes, invoices_table, invoices_table.c.id == credit_notes.c.invoice)
        .where(credit_notes.c.state == MADE, ~booked)
        .order_by(credit_notes.c.id)
        .limit(PAGE)
    )
    async with database.reading() as connection:
        rows = (await connection.execute(wanted)).all()
    if rows:
        async with database.writing() as connection, journal(connection) as books:
            for row in rows:
                if await books.posted("credit_note", row.id) is None:
                    was_paid = await books.posted("invoice_paid", row.of) is not None
                    other = Entry("cash" if was_paid else "receivable", -CENT * row.amount)
                    noted = (Entry("revenue", CENT * row.amount), other)
                    books.book(Posting(row.customer, "credit_note", row.id, noted, row.of))
    return len(rows) == PAGE
