"""The booking of invoices and credit notes in the journal.

An invoice is booked when it is open, and again when it is paid or void; each step is booked once. Fees are deferred,
and earned over the days that they pay for (accounting.py).
"""

from collections.abc import Awaitable, Callable, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.invoices import invoices, line_rows
from edgeproxy.collector.billing.invoices.credit_notes import MADE
from edgeproxy.collector.billing.invoices.invoices import InvoiceRow
from edgeproxy.collector.billing.journal.journal import Journal, Posting, fetch_entries, open_journal
from edgeproxy.collector.billing.journal.postings import CENT, JournalEntry, TransactionKind, plain_entries
from edgeproxy.collector.billing.rating.rater import RatedLine
from edgeproxy.collector.database.billing_tables import credit_notes
from edgeproxy.collector.database.billing_tables import invoices as invoices_table
from edgeproxy.collector.database.credit_tables import credit_transactions
from edgeproxy.collector.database.database import Database

PAGE = 200
"""The most invoices or credit notes that one database transaction books."""
OPENED = (invoices.OPEN, invoices.PAID, invoices.UNCOLLECTIBLE)


async def book_invoices(database: Database) -> bool:
    """Book the steps of invoices and credit notes that are not booked yet; return whether there may be more."""
    has_more = False
    for kind, states, book in STEPS:
        async with database.reading() as connection:
            rows = await _list_unbooked(connection, kind, states)
        if rows:
            async with database.writing() as connection, open_journal(connection) as books:
                for row in rows:
                    if await books.find_transaction(kind, row.id) is None:
                        await book(books, row)
        has_more |= len(rows) == PAGE
    return has_more | await _book_credit_notes(database)


async def _list_unbooked(connection: AsyncConnection, kind: TransactionKind, states: Sequence[str]) -> list[InvoiceRow]:
    """Return the invoices in these states that have no transaction of this kind."""
    transactions = credit_transactions.c
    booked = sa.exists().where(transactions.kind == kind, transactions.source == invoices_table.c.id)
    conditions = [invoices_table.c.state.in_(states), invoices_table.c.total != 0, ~booked]
    if kind == "invoice_void":  # An invoice that was never open has nothing to reverse.
        opened = sa.exists().where(transactions.kind == "invoice", transactions.source == invoices_table.c.id)
        conditions.append(opened)
    return await invoices.fetch_invoices(connection, *conditions, limit=PAGE)


async def _book_invoice(books: Journal, row: InvoiceRow) -> None:
    """Book the total of an invoice, with the spans of its fees."""
    lines = await line_rows.fetch_lines(books.connection, row.id)
    fees = [line for line in lines if not line.meter]
    details = {"fees": [[line.amount, line.span.start, line.span.end] for line in fees]}
    until = max((line.span.end for line in fees), default=0)
    books.book(
        Posting(row.customer, "invoice", row.id, invoice_entries(row.total, lines), slice=until, details=details)
    )


def invoice_entries(total: int, lines: Sequence[RatedLine]) -> tuple[JournalEntry, ...]:
    """Return the entries of an invoice: receivable with tax, deferred fees, revenue of usage. `total` is in cents."""
    fees = sum(line.amount for line in lines if not line.meter)
    tax = total - sum(line.amount for line in lines)
    usage = [JournalEntry("revenue", -CENT * line.amount, "", line.meter, line.value) for line in lines if line.meter]
    booked = (
        JournalEntry("receivable", CENT * total),
        JournalEntry("deferred_fees", -CENT * fees),
        *usage,
        JournalEntry("tax", -CENT * tax),
    )
    return tuple(entry for entry in booked if entry.amount)


async def _book_payment(books: Journal, row: InvoiceRow) -> None:
    """Book the amount that is still owed as paid, less what credit notes took off while it was open."""
    if await books.find_transaction("invoice", row.id) is not None:
        note_entries = await fetch_entries(books.connection, await _list_credit_note_transactions(books, row.id))
        owed = CENT * row.total + sum(entry.amount for entry in note_entries if entry.account == "receivable")
        books.book(Posting(row.customer, "invoice_paid", row.id, plain_entries("invoice_paid", owed), row.id))


async def _list_credit_note_transactions(books: Journal, invoice: str) -> list[int]:
    """Return the transactions of credit notes of an invoice that were booked before now."""
    columns = credit_transactions.c
    statement = sa.select(columns.seq).where(columns.kind == "credit_note", columns.original == invoice)
    return list((await books.connection.execute(statement)).scalars())


async def _book_void(books: Journal, row: InvoiceRow) -> None:
    """Reverse the entries of an invoice and its credit notes, and the revenue of its fees, past and future."""
    opened = await books.find_transaction("invoice", row.id)
    assert opened is not None
    before = await fetch_entries(books.connection, [opened.seq, *await _list_credit_note_transactions(books, row.id)])
    reversed_entries = tuple(entry._replace(amount=-entry.amount) for entry in before)
    lines = await line_rows.fetch_lines(books.connection, row.id)
    fees = [[-line.amount, line.span.start, line.span.end] for line in lines if not line.meter]
    books.book(
        Posting(
            row.customer, "invoice_void", row.id, reversed_entries, row.id, slice=opened.slice, details={"fees": fees}
        )
    )


STEPS: tuple[tuple[TransactionKind, Sequence[str], Callable[[Journal, InvoiceRow], Awaitable[None]]], ...] = (
    ("invoice", OPENED, _book_invoice),
    ("invoice_paid", (invoices.PAID,), _book_payment),
    ("invoice_void", (invoices.VOID,), _book_void),
)


async def _book_credit_notes(database: Database) -> bool:
    """Book credit notes: as cash paid back where the invoice is paid, else as less receivable. Return whether there may
    be more."""
    transactions = credit_transactions.c
    booked = sa.exists().where(transactions.kind == "credit_note", transactions.source == credit_notes.c.id)
    statement = (
        sa.select(
            credit_notes.c.id, credit_notes.c.amount, invoices_table.c.customer, invoices_table.c.id.label("invoice")
        )
        .join_from(credit_notes, invoices_table, invoices_table.c.id == credit_notes.c.invoice)
        .where(credit_notes.c.state == MADE, ~booked)
        .order_by(credit_notes.c.id)
        .limit(PAGE)
    )
    async with database.reading() as connection:
        rows = (await connection.execute(statement)).all()
    if rows:
        async with database.writing() as connection, open_journal(connection) as books:
            for row in rows:
                if await books.find_transaction("credit_note", row.id) is None:
                    was_paid = await books.find_transaction("invoice_paid", row.invoice) is not None
                    other = JournalEntry("cash" if was_paid else "receivable", -CENT * row.amount)
                    note_entries = (JournalEntry("revenue", CENT * row.amount), other)
                    books.book(Posting(row.customer, "credit_note", row.id, note_entries, row.invoice))
    return len(rows) == PAGE
