"""The booking of invoices and credit notes in the journal.

An invoice is booked when it opens, and again when it is paid or void; each step is booked once. Fees are deferred, and
earned over the days that they pay for (accounting.py). A credit note or a lost dispute takes a share off each line
(reductions.py).
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.invoices import invoices, line_rows
from edgeproxy.collector.billing.invoices.credit_notes import MADE, VOID
from edgeproxy.collector.billing.invoices.foreign_balance import UNDONE
from edgeproxy.collector.billing.invoices.invoice_row import InvoiceRow
from edgeproxy.collector.billing.invoices.reductions import (
    FeeSpan,
    ReducedInvoice,
    Reduction,
    compute_reduction,
    is_fee,
)
from edgeproxy.collector.billing.journal.journal import (
    Journal,
    Posting,
    fetch_entries,
    open_journal,
)
from edgeproxy.collector.billing.journal.postings import (
    CENT,
    JournalEntry,
    TransactionKind,
    plain_entries,
)
from edgeproxy.collector.billing.rating.rater import DISCOUNT, RatedLine
from edgeproxy.collector.database.billing_tables import (
    UNBOOKED_CREDIT_NOTES,
    UNBOOKED_DISPUTES,
    UNBOOKED_INVOICES,
    credit_notes,
    disputes,
)
from edgeproxy.collector.database.billing_tables import invoices as invoices_table
from edgeproxy.collector.database.credit_tables import credit_transactions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.statements import AnyRow, lock_rows
from edgeproxy.collector.database.unreadable_rows import UNREADABLE, set_aside
from edgeproxy.config.collector.currency_units import get_payable_unit

PAGE = 20
"""The most invoices or credit notes that one transaction books, because concurrent changes wait for its end."""
RETRY_SECONDS = 3600.0
"""The seconds until an object that cannot be read is tried again."""
NOTE_KINDS: tuple[TransactionKind, ...] = ("credit_note", "credit_note_void")
REDUCTION_KINDS: tuple[TransactionKind, ...] = (*NOTE_KINDS, "dispute_lost", "dispute_won")
OPENED = (invoices.OPEN, invoices.PAID, invoices.UNCOLLECTIBLE)


class NoteRow(NamedTuple):
    """A credit note to book or reverse. Amounts are in the currency's smallest unit, for example cents."""

    id: str
    state: str
    amount: int
    refunded: int
    to_balance: int
    off_stripe: int
    customer: str
    invoice: str
    currency: str


Unbooked = TypeVar("Unbooked", InvoiceRow, NoteRow, AnyRow)
"""A row, with an id, that has movements to book."""


class UnreadableObjectError(Exception):
    """An object cannot be read, so it cannot be booked."""

    def __init__(self, id_: str, error: Exception) -> None:
        super().__init__(id_)
        self.id = id_
        self.error = error


class UnreadableObjects:
    """Objects that could not be read. Each is tried again after RETRY_SECONDS, because it may be repaired."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._retry_at: dict[tuple[str, str], float] = {}

    def add(self, table: sa.Table, id_: str) -> None:
        """Remember an object of a table."""
        now = self._clock()
        self._retry_at = {key: retry_at for key, retry_at in self._retry_at.items() if retry_at > now}
        self._retry_at[table.name, id_] = now + RETRY_SECONDS

    def is_resting(self, table: sa.Table, id_: str) -> bool:
        """Return whether an object is not tried now."""
        return self._retry_at.get((table.name, id_), 0.0) > self._clock()


async def book_invoices(database: Database, unreadable: UnreadableObjects | None = None) -> bool:
    """Book the steps of invoices, credit notes and disputes that are not booked yet. Return whether there may be more.

    A step that another collector has booked meanwhile is not booked again. `unreadable` keeps the objects that cannot
    be read between rounds, so that each costs a transaction once in RETRY_SECONDS.
    """
    if unreadable is None:
        unreadable = UnreadableObjects()
    steps = (
        (invoices_table, _list_unbooked_invoices, _book_invoice_state),
        (credit_notes, _list_unbooked_notes, _book_note_state),
        (disputes, _list_unbooked_disputes, _book_dispute),
    )
    # A list, not a generator: `any` would stop at the first kind with more rows, and the other kinds would wait.
    return any([await _book_page(database, unreadable, *step) for step in steps])


async def _book_page(
    database: Database,
    unreadable: UnreadableObjects,
    table: sa.Table,
    fetch: Callable[[AsyncConnection, str | None], Awaitable[Sequence[Unbooked]]],
    book: Callable[[Journal, Unbooked], Awaitable[None]],
) -> bool:
    """Book the first page with a row that can be read; return whether there may be more. The others are set aside."""
    after = None
    while True:
        async with database.reading() as connection:
            rows = await fetch(connection, after)
        readable = [row for row in rows if not unreadable.is_resting(table, row.id)]
        while readable:
            try:
                await _book_rows(database, readable, book)
                return len(rows) == PAGE
            except UnreadableObjectError as error:
                # The error has rolled back the whole page, so the page is tried again without this row.
                set_aside(table.name, error.id, error.error)
                unreadable.add(table, error.id)
                readable = [row for row in readable if row.id != error.id]
        if len(rows) < PAGE:
            return False
        # No row of this page can be read now. Later rows must not wait for them.
        after = rows[-1].id


async def _book_rows(
    database: Database, rows: Sequence[Unbooked], book: Callable[[Journal, Unbooked], Awaitable[None]]
) -> None:
    """Book rows in one transaction. Raises UnreadableObjectError for the first one that cannot be read."""
    async with database.writing() as connection, open_journal(connection) as books:
        for row in rows:
            try:
                await book(books, row)
            except UNREADABLE as error:
                raise UnreadableObjectError(row.id, error) from error


async def _list_unbooked_invoices(connection: AsyncConnection, after: str | None) -> list[InvoiceRow]:
    """Return invoices whose present state is not booked, after the invoice with this id; oldest first."""
    return await invoices.fetch_invoices(connection, sa.text(UNBOOKED_INVOICES), limit=PAGE, after=after)


async def _book_invoice_state(books: Journal, row: InvoiceRow) -> None:
    await _book_state(books, row)
    await _record_booked(books.connection, invoices_table, row.id, row.state)


async def _book_note_state(books: Journal, row: NoteRow) -> None:
    await _book_note(books, row)
    await _record_booked(books.connection, credit_notes, row.id, row.state)


async def _list_unbooked_disputes(connection: AsyncConnection, after: str | None) -> Sequence[AnyRow]:
    """Return the ids of disputes with parts that are not booked, after one."""
    columns = disputes.c
    unbooked = (
        sa.select(columns.id)
        .join_from(disputes, invoices_table, invoices_table.c.id == columns.invoice)
        .where(sa.text(UNBOOKED_DISPUTES), invoices_table.c.booked != "", columns.id > (after or ""))
        .order_by(columns.id)
        .limit(PAGE)
    )
    return (await connection.execute(unbooked)).all()


async def _book_dispute(books: Journal, unbooked: AnyRow) -> None:
    """Book the amount that a dispute has taken off an invoice or put back since the last time."""
    columns, connection = disputes.c, books.connection
    statement = sa.select(disputes).where(columns.id == unbooked.id, sa.text(UNBOOKED_DISPUTES))
    for row in (await connection.execute(lock_rows(statement))).all():
        change = row.taken_off - row.booked
        update = sa.update(disputes).where(columns.id == row.id).values(booked=row.taken_off)
        if await books.find_transaction("invoice_void", row.invoice) is not None:
            await connection.execute(update)  # A void invoice has no lines that could be lost.
            continue
        kind: TransactionKind = "dispute_lost" if change > 0 else "dispute_won"
        times = sa.select(sa.func.count()).where(
            credit_transactions.c.kind == kind, credit_transactions.c.source.startswith(f"{row.id}/")
        )
        source = f"{row.id}/{(await connection.execute(times)).scalar_one()}"  # A bank may decide several times.
        reduction = await _reduce_invoice(books, row.invoice, change, has_tax=False)
        entries = (*reduction.entries, JournalEntry("chargebacks", -CENT * change))
        books.book(await _build_reduction(books, kind, source, row, entries, reduction.fees))
        await connection.execute(update)


async def _reduce_invoice(books: Journal, number: str, amount: int, *, has_tax: bool) -> Reduction:
    """Return the booking that takes an amount off an invoice, after the reductions booked before."""
    columns = invoices_table.c
    sums = sa.select(columns.subtotal, columns.total, columns.currency).where(columns.id == number)
    subtotal, total, currency = (await books.connection.execute(sums)).one()
    notes = sa.select(sa.func.coalesce(sa.func.sum(credit_notes.c.amount), 0))
    notes = notes.where(credit_notes.c.invoice == number, credit_notes.c.booked == MADE)
    lost = sa.select(sa.func.coalesce(sa.func.sum(disputes.c.booked), 0)).where(disputes.c.invoice == number)
    reduced = int((await books.connection.execute(notes)).scalar_one())
    reduced += int((await books.connection.execute(lost)).scalar_one())
    lines = await line_rows.fetch_lines(books.connection, number)
    invoice = ReducedInvoice(lines, subtotal, total, reduced, get_payable_unit(currency))
    return compute_reduction(invoice, amount, has_tax=has_tax)


async def _build_reduction(
    books: Journal,
    kind: TransactionKind,
    source: str,
    row: NoteRow | sa.Row[tuple[object, ...]],
    entries: tuple[JournalEntry, ...],
    fees: Sequence[FeeSpan],
) -> Posting:
    """Build the transaction of a credit note or a dispute, with the change of its earned fees."""
    opened = await books.find_transaction("invoice", row.invoice)
    until = {} if opened is None else {"slice": opened.slice}
    details = {"fees": fees} if fees else {}
    return Posting(row.customer, kind, source, entries, row.invoice, details=details, currency=row.currency, **until)


async def _record_booked(connection: AsyncConnection, table: sa.Table, number: str, state: str) -> None:
    """Record the last booked state of an invoice or a credit note."""
    await connection.execute(sa.update(table).where(table.c.id == number).values(booked=state))


async def _book_state(books: Journal, row: InvoiceRow) -> None:
    """Book the opening of an invoice, and its current state."""
    if row.state in OPENED and await books.find_transaction("invoice", row.id) is None:
        await _book_invoice(books, row)
        await _reverse_foreign(books, row)
    # An invoice of zero has nothing to pay or to write off. Its lines may sum to zero, so its void is booked.
    step = STEPS.get(row.state) if row.total or row.state == invoices.VOID else None
    if step is not None and await books.find_transaction(step.kind, row.id) is None:
        await step.book(books, row)


async def _book_invoice(books: Journal, row: InvoiceRow) -> None:
    """Book the total of an invoice, with the spans of its fees.

    Lines that sum to zero are booked, too: a coupon may cover all of a fee, or a new fee may offset refunded usage.
    """
    lines = await line_rows.fetch_lines(books.connection, row.id)
    entries = invoice_entries(row.total, lines, row.balance_applied, row.subtotal)
    if not entries:
        return
    fees = [line for line in lines if is_fee(line)]
    details = {"fees": [[line.amount, line.span.start, line.span.end] for line in fees]}
    until = max((line.span.end for line in fees), default=0)
    books.book(
        Posting(
            *(row.customer, "invoice", row.id, entries),
            slice=until,
            details=details,
            currency=row.currency,
        )
    )


async def _reverse_foreign(books: Journal, row: InvoiceRow) -> None:
    """Reverse the entries of an invoice from the time when it was foreign.

    A person finalized it at Stripe and accepted it here later.
    """
    foreign = await books.find_transaction("foreign_balance", row.stripe_id or "")
    if foreign is not None and await books.find_transaction("foreign_balance", foreign.source + UNDONE) is None:
        entries = await _reverse_transactions(books, [foreign.seq])
        source = foreign.source + UNDONE
        books.book(Posting(row.customer, "foreign_balance", source, entries, foreign.source, currency=row.currency))


def invoice_entries(
    total: int, lines: Sequence[RatedLine], by_balance: int = 0, subtotal: int | None = None
) -> tuple[JournalEntry, ...]:
    """Return the entries of an invoice: receivable with tax, deferred fees, usage revenue, discounts.

    `total` and `by_balance`, the part already covered by the customer's balance at Stripe, are in cents. `subtotal` is
    the total without tax, by default the sum of the lines. An invoice that was accepted with Stripe's amounts may have
    another one; the difference is revenue.
    """
    fees = sum(line.amount for line in lines if is_fee(line))
    discounts = sum(line.amount for line in lines if line.kind == DISCOUNT)
    rated = sum(line.amount for line in lines)
    charged = rated if subtotal is None else subtotal
    usage = [JournalEntry("revenue", -CENT * line.amount, "", line.meter, line.value) for line in lines if line.meter]
    booked = (
        JournalEntry("receivable", CENT * (total - by_balance)),
        JournalEntry("customer_balance", CENT * by_balance),
        JournalEntry("deferred_fees", -CENT * fees),
        *usage,
        JournalEntry("revenue", -CENT * (charged - rated)),
        JournalEntry("discounts", -CENT * discounts),
        JournalEntry("tax", -CENT * (total - charged)),
    )
    return tuple(entry for entry in booked if entry.amount)


async def _book_payment(books: Journal, row: InvoiceRow) -> None:
    """Book the payment of an invoice: through Stripe, elsewhere, and by the customer's balance at Stripe.

    The balance is booked here only if an older version booked the invoice without it.
    """
    was_written_off = await books.find_transaction("invoice_uncollectible", row.id) is not None
    by_balance = row.balance_applied - await _find_applied(books, row)
    booked = payment_entries(row.amount_paid, row.paid_off_stripe, by_balance, was_written_off=was_written_off)
    books.book(Posting(row.customer, "invoice_paid", row.id, booked, row.id, currency=row.currency))


def payment_entries(paid: int, off_stripe: int, by_balance: int, *, was_written_off: bool) -> tuple[JournalEntry, ...]:
    """Return the entries of a payment, with amounts in cents.

    `off_stripe` is the part of `paid` that did not go through Stripe; `by_balance` is the part that the customer's
    balance at Stripe covered. The payment settles the receivable, or the bad debt after a write-off.
    """
    booked = (
        JournalEntry("clearing", CENT * (paid - off_stripe)),
        JournalEntry("bank", CENT * off_stripe),
        JournalEntry("customer_balance", CENT * by_balance),
        JournalEntry("bad_debt" if was_written_off else "receivable", -CENT * (paid + by_balance)),
    )
    return tuple(entry for entry in booked if entry.amount)


async def _book_write_off(books: Journal, row: InvoiceRow) -> None:
    """Book the amount still owed on an invoice as lost."""
    entries = plain_entries("invoice_uncollectible", CENT * await _compute_owed(books, row))
    books.book(Posting(row.customer, "invoice_uncollectible", row.id, entries, row.id, currency=row.currency))


async def _compute_owed(books: Journal, row: InvoiceRow) -> int:
    """Return the cents of an invoice that neither the customer's balance nor credit notes have covered."""
    entries = await fetch_entries(books.connection, await _list_transactions(books, row.id, *NOTE_KINDS))
    # The entries of credit notes are negative on this account, and those of their reversals positive.
    noted = sum(entry.amount for entry in entries if entry.account == "receivable") // CENT
    return row.total - await _find_applied(books, row) + noted


async def _find_applied(books: Journal, row: InvoiceRow) -> int:
    """Return the cents that the customer's balance had covered when the invoice was booked."""
    opened = await books.find_transaction("invoice", row.id)
    if opened is None:
        return row.balance_applied  # This transaction is booking the invoice right now.
    entries = await fetch_entries(books.connection, [opened.seq])
    return sum(entry.amount for entry in entries if entry.account == "customer_balance") // CENT


async def _list_transactions(books: Journal, invoice: str, *kinds: TransactionKind) -> list[int]:
    """Return the transactions of these kinds booked for an invoice so far."""
    columns = credit_transactions.c
    statement = sa.select(columns.seq).where(columns.kind.in_(kinds), columns.original == invoice)
    return list(await books.connection.scalars(statement))


async def _book_void(books: Journal, row: InvoiceRow) -> None:
    """Reverse the entries of an invoice, its credit notes, lost disputes and write-off, and its fee revenue.

    Past and future fee revenue is reversed. An invoice that was never open has nothing to reverse.
    """
    opened = await books.find_transaction("invoice", row.id)
    if opened is None:
        return
    later = await _list_transactions(books, row.id, *REDUCTION_KINDS, "invoice_uncollectible")
    reversed_entries = await _reverse_transactions(books, [opened.seq, *later])
    fees = await _reverse_fees(books, [opened.seq, *later])
    books.book(
        Posting(
            *(row.customer, "invoice_void", row.id, reversed_entries, row.id),
            slice=opened.slice,
            details={"fees": fees},
            currency=row.currency,
        )
    )


class BookingStep(NamedTuple):
    """The transaction for a state of an invoice."""

    kind: TransactionKind
    book: Callable[[Journal, InvoiceRow], Awaitable[None]]


STEPS: Mapping[str, BookingStep] = {
    invoices.UNCOLLECTIBLE: BookingStep("invoice_uncollectible", _book_write_off),
    invoices.PAID: BookingStep("invoice_paid", _book_payment),
    invoices.VOID: BookingStep("invoice_void", _book_void),
}


async def _list_unbooked_notes(connection: AsyncConnection, after: str | None) -> list[NoteRow]:
    """Return credit notes with a state that is not booked, of booked invoices, after one; oldest first."""
    own = [credit_notes.c[name] for name in NoteRow._fields if name in credit_notes.c and name != "invoice"]
    statement = (
        sa.select(*own, invoices_table.c.customer, credit_notes.c.invoice, invoices_table.c.currency)
        .join_from(credit_notes, invoices_table, invoices_table.c.id == credit_notes.c.invoice)
        .where(sa.text(UNBOOKED_CREDIT_NOTES), invoices_table.c.booked != "", credit_notes.c.id > (after or ""))
        .order_by(credit_notes.c.id)
        .limit(PAGE)
    )
    return [NoteRow._make(row) for row in await connection.execute(statement)]


async def _book_note(books: Journal, row: NoteRow) -> None:
    """Book a credit note, or reverse it if it is void.

    A credit note of a void invoice was reversed with the invoice, or never booked.
    """
    if await books.find_transaction("invoice", row.invoice) is None:
        return
    if await books.find_transaction("invoice_void", row.invoice) is not None:
        return
    booked = await books.find_transaction("credit_note", row.id)
    if row.state == MADE and booked is None:
        was_written_off = await books.find_transaction("invoice_uncollectible", row.invoice) is not None
        reduction = await _reduce_invoice(books, row.invoice, row.amount, has_tax=True)
        entries = (*reduction.entries, *note_entries(row, was_written_off=was_written_off))
        books.book(await _build_reduction(books, "credit_note", row.id, row, entries, reduction.fees))
    if row.state == VOID and booked is not None and await books.find_transaction("credit_note_void", row.id) is None:
        reversed_entries = await _reverse_transactions(books, [booked.seq])
        fees = await _reverse_fees(books, [booked.seq])
        books.book(await _build_reduction(books, "credit_note_void", row.id, row, reversed_entries, fees))


def note_entries(row: NoteRow, *, was_written_off: bool) -> tuple[JournalEntry, ...]:
    """Return the money entries of a credit note: the refund by a paid invoice, and the reduction of the debt."""
    given_back = row.refunded + row.to_balance + row.off_stripe
    booked = (
        JournalEntry("clearing", -CENT * row.refunded),
        JournalEntry("customer_balance", -CENT * row.to_balance),
        JournalEntry("bank", -CENT * row.off_stripe),
        JournalEntry("bad_debt" if was_written_off else "receivable", -CENT * (row.amount - given_back)),
    )
    return tuple(entry for entry in booked if entry.amount)


async def _reverse_transactions(books: Journal, seqs: Sequence[int]) -> tuple[JournalEntry, ...]:
    """Return the entries that reverse these transactions."""
    return tuple(entry._replace(amount=-entry.amount) for entry in await fetch_entries(books.connection, seqs))


async def _reverse_fees(books: Journal, seqs: Sequence[int]) -> list[FeeSpan]:
    """Return the fee spans that reverse the ones in these transactions."""
    columns = credit_transactions.c
    statement = sa.select(columns.details).where(columns.seq.in_(seqs)).order_by(columns.seq)
    return [
        (-amount, start, end)
        for details in await books.connection.scalars(statement)
        for amount, start, end in orjson.loads(details).get("fees", ())
    ]
