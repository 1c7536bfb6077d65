"""The booking of invoices and credit notes in the journal.

An invoice is booked when it is open, and again when it is paid or void; each step is booked once. Fees are deferred,
and earned over the days that they pay for (accounting.py).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.invoices import invoices, line_rows
from edgeproxy.collector.billing.invoices.credit_notes import MADE, VOID
from edgeproxy.collector.billing.invoices.invoices import InvoiceRow
from edgeproxy.collector.billing.journal.journal import (
    TRANSACTION_FIELDS,
    Journal,
    Posting,
    TransactionRow,
    fetch_entries,
    open_journal,
)
from edgeproxy.collector.billing.journal.postings import (
    CENT,
    Account,
    JournalEntry,
    TransactionKind,
    plain_entries,
)
from edgeproxy.collector.billing.rating.rater import RatedLine
from edgeproxy.collector.database.billing_tables import credit_notes
from edgeproxy.collector.database.billing_tables import invoices as invoices_table
from edgeproxy.collector.database.credit_tables import credit_transactions
from edgeproxy.collector.database.database import Database

PAGE = 200
"""The most invoices or credit notes that one database transaction books."""
NOTE_KINDS: tuple[TransactionKind, ...] = ("credit_note", "credit_note_void")
OPENED = (invoices.OPEN, invoices.PAID, invoices.UNCOLLECTIBLE)
RowT = TypeVar("RowT")


class NoteRow(NamedTuple):
    """A credit note that is to be booked. Amounts are cents."""

    id: str
    amount: int
    to_balance: int
    off_stripe: int
    customer: str
    invoice: str


async def book_invoices(database: Database) -> bool:
    """Book the steps of invoices and credit notes that are not booked yet; return whether there may be more."""
    has_more = False
    for kind, states, book in STEPS:
        async with database.reading() as connection:
            rows = await _list_unbooked(connection, kind, states)
        has_more |= await _book_rows(database, kind, [(row.id, row) for row in rows], book)
    return has_more | await _book_credit_notes(database) | await _book_void_notes(database)


async def _book_rows(
    database: Database,
    kind: TransactionKind,
    rows: Sequence[tuple[str, RowT]],
    book: Callable[[Journal, RowT], Awaitable[None]],
) -> bool:
    """Book a page of rows as transactions of a kind, each by its source, unless another collector has booked it
    meanwhile; return whether there may be more."""
    if rows:
        async with database.writing() as connection, open_journal(connection) as books:
            for source, row in rows:
                if await books.find_transaction(kind, source) is None:
                    await book(books, row)
    return len(rows) == PAGE


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
    """Book the payment of an invoice: through Stripe, elsewhere, and by the customer's balance at Stripe."""
    if await books.find_transaction("invoice", row.id) is None:
        return
    was_written_off = await books.find_transaction("invoice_uncollectible", row.id) is not None
    booked = payment_entries(row.amount_paid, row.paid_off_stripe, row.balance_applied, was_written_off=was_written_off)
    books.book(Posting(row.customer, "invoice_paid", row.id, booked, row.id))


def payment_entries(paid: int, off_stripe: int, by_balance: int, *, was_written_off: bool) -> tuple[JournalEntry, ...]:
    """Return the entries of a payment, in cents: `paid`, of which `off_stripe` did not go through Stripe, and what the
    customer's balance at Stripe took over. It pays the receivable, or what was written off."""
    booked = (
        JournalEntry("clearing", CENT * (paid - off_stripe)),
        JournalEntry("bank", CENT * off_stripe),
        JournalEntry("customer_balance", CENT * by_balance),
        JournalEntry("bad_debt" if was_written_off else "receivable", -CENT * (paid + by_balance)),
    )
    return tuple(entry for entry in booked if entry.amount)


async def _book_write_off(books: Journal, row: InvoiceRow) -> None:
    """Book what is still owed of an invoice as lost."""
    if await books.find_transaction("invoice", row.id) is not None:
        owed = CENT * await _compute_owed(books, row)
        entries = plain_entries("invoice_uncollectible", owed)
        books.book(Posting(row.customer, "invoice_uncollectible", row.id, entries, row.id))


async def _is_owed(books: Journal, invoice: str, amount: int) -> bool:
    """Return whether these cents of an invoice are not paid, by what is booked of it."""
    opened = await books.find_transaction("invoice", invoice)
    if opened is None or await books.find_transaction("invoice_paid", invoice) is None:
        return True
    seqs = [opened.seq, *await _list_transactions(books, invoice, "invoice_paid", *NOTE_KINDS)]
    entries = await fetch_entries(books.connection, seqs)
    return sum(entry.amount for entry in entries if entry.account == "receivable") >= CENT * amount


async def _compute_owed(books: Journal, row: InvoiceRow) -> int:
    """Return the cents of an invoice that credit notes have not taken off."""
    note_entries = await fetch_entries(books.connection, await _list_transactions(books, row.id, *NOTE_KINDS))
    return row.total + sum(entry.amount for entry in note_entries if entry.account == "receivable") // CENT


async def _list_transactions(books: Journal, invoice: str, *kinds: TransactionKind) -> list[int]:
    """Return the transactions of these kinds that were booked about an invoice before now."""
    columns = credit_transactions.c
    statement = sa.select(columns.seq).where(columns.kind.in_(kinds), columns.original == invoice)
    return list((await books.connection.execute(statement)).scalars())


async def _book_void(books: Journal, row: InvoiceRow) -> None:
    """Reverse the entries of an invoice, its credit notes and its loss, and the revenue of its fees, past and
    future."""
    opened = await books.find_transaction("invoice", row.id)
    assert opened is not None
    later = await _list_transactions(books, row.id, *NOTE_KINDS, "invoice_uncollectible")
    reversed_entries = await _reverse_transactions(books, [opened.seq, *later])
    lines = await line_rows.fetch_lines(books.connection, row.id)
    fees = [[-line.amount, line.span.start, line.span.end] for line in lines if not line.meter]
    books.book(
        Posting(
            row.customer, "invoice_void", row.id, reversed_entries, row.id, slice=opened.slice, details={"fees": fees}
        )
    )


STEPS: tuple[tuple[TransactionKind, Sequence[str], Callable[[Journal, InvoiceRow], Awaitable[None]]], ...] = (
    ("invoice", OPENED, _book_invoice),
    ("invoice_uncollectible", (invoices.UNCOLLECTIBLE,), _book_write_off),
    ("invoice_paid", (invoices.PAID,), _book_payment),
    ("invoice_void", (invoices.VOID,), _book_void),
)


async def _book_credit_notes(database: Database) -> bool:
    """Book credit notes: as money given back where the invoice is paid, else as less receivable. Return whether there
    may be more."""
    transactions = credit_transactions.c
    booked = sa.exists().where(transactions.kind == "credit_note", transactions.source == credit_notes.c.id)
    statement = (
        sa.select(*(credit_notes.c[name] for name in ("id", "amount", "to_balance", "off_stripe")))
        .add_columns(invoices_table.c.customer, invoices_table.c.id.label("invoice"))
        .join_from(credit_notes, invoices_table, invoices_table.c.id == credit_notes.c.invoice)
        .where(credit_notes.c.state == MADE, ~booked)
        .order_by(credit_notes.c.id)
        .limit(PAGE)
    )
    async with database.reading() as connection:
        rows = (await connection.execute(statement)).all()
    return await _book_rows(database, "credit_note", [(row.id, NoteRow._make(row)) for row in rows], _book_note)


async def _book_note(books: Journal, row: NoteRow) -> None:
    """Book a credit note."""
    is_owed = await _is_owed(books, row.invoice, row.amount)
    given_back: dict[Account, int] = {
        "customer_balance": row.to_balance,
        "bank": row.off_stripe,
        "receivable" if is_owed else "clearing": row.amount - row.to_balance - row.off_stripe,
    }
    entries = (JournalEntry("revenue", CENT * row.amount), *_credit_entries(given_back))
    books.book(Posting(row.customer, "credit_note", row.id, entries, row.invoice))


async def _book_void_notes(database: Database) -> bool:
    """Reverse the credit notes that were voided at Stripe. Return whether there may be more."""
    columns, voids = credit_transactions.c, credit_transactions.alias()
    reversed_before = sa.exists().where(voids.c.kind == "credit_note_void", voids.c.source == columns.source)
    statement = (
        sa.select(*TRANSACTION_FIELDS)
        .join_from(credit_transactions, credit_notes, credit_notes.c.id == columns.source)
        .where(columns.kind == "credit_note", credit_notes.c.state == VOID, ~reversed_before)
        .limit(PAGE)
    )
    async with database.reading() as connection:
        rows = (await connection.execute(statement)).all()
    return await _book_rows(
        database, "credit_note_void", [(row.source, TransactionRow._make(row)) for row in rows], _book_void_note
    )


async def _book_void_note(books: Journal, row: TransactionRow) -> None:
    """Reverse the transaction of a credit note."""
    reversed_entries = await _reverse_transactions(books, [row.seq])
    books.book(Posting(row.customer, "credit_note_void", row.source, reversed_entries, row.original))


async def _reverse_transactions(books: Journal, seqs: Sequence[int]) -> tuple[JournalEntry, ...]:
    """Return the entries that reverse these transactions."""
    return tuple(entry._replace(amount=-entry.amount) for entry in await fetch_entries(books.connection, seqs))


def _credit_entries(cents: Mapping[Account, int]) -> tuple[JournalEntry, ...]:
    """Return the credits of these accounts."""
    return tuple(JournalEntry(account, -CENT * amount) for account, amount in cents.items() if amount)
