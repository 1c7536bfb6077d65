"""Requests for credit notes: each is decided (credit_decision.py) before it is stored, and again before it is made."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.ids import generate_id, now_ms
from edgeproxy.collector.billing.invoices.credit_decision import CreditableInvoice, NoteParts, decide_note
from edgeproxy.collector.billing.invoices.credit_notes import REQUESTED, sum_parts
from edgeproxy.collector.billing.invoices.invoice_row import InvoiceRow
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.database.billing_tables import credit_notes
from edgeproxy.collector.database.credit_tables import credit_entries, credit_transactions
from edgeproxy.collector.database.schema import INTEGER
from edgeproxy.config.collector.currency_units import get_least_charge, get_payable_unit


async def request_note(connection: AsyncConnection, row: InvoiceRow, amount: int, why: str) -> dict[str, object]:
    """Store the request for a credit note over an amount, and return it. Raises NoteRefusedError.

    The caller has locked the invoice.
    """
    await decide_request(connection, row, amount)
    note = {"id": generate_id(), "invoice": row.id, "amount": amount, "why": why, "state": REQUESTED}
    await connection.execute(sa.insert(credit_notes), [{**note, "tries": 0, "created_at": now_ms()}])
    return note


async def decide_request(
    connection: AsyncConnection, row: InvoiceRow, amount: int, note: str | None = None
) -> NoteParts | None:
    """Return the ways to return an amount of an invoice, or None if it only reduces the debt. Raises NoteRefusedError.

    `note` is the id of the credit note itself if it is stored; later requests then do not count.
    """
    columns = credit_notes.c
    requested = sa.select(sa.cast(sa.func.coalesce(sa.func.sum(columns.amount), 0), INTEGER))
    requested = requested.where(columns.invoice == row.id, columns.state == REQUESTED)
    if note is not None:
        requested = requested.where(columns.id < note)
    invoice = CreditableInvoice(
        row.state,
        row.stripe_id is not None,
        row.total,
        row.amount_due,
        row.amount_paid - row.paid_off_stripe,
        row.paid_off_stripe,
        row.credited,
        (await connection.execute(requested)).scalar_one(),
        row.lost,
        await _sum_refunds_without_note(connection, row.id),
        row.disputed > 0,
        await sum_parts(connection, row.id),
        get_payable_unit(row.currency),
        get_least_charge(row.currency),
    )
    return decide_note(invoice, amount)


async def _sum_refunds_without_note(connection: AsyncConnection, invoice: str) -> int:
    """Return the smallest units of an invoice that a person refunded at Stripe without a credit note.

    The journal has them from their balance transactions, within five minutes, as reduced revenue
    (stripe_balance/entries.py).
    """
    columns, entries = credit_transactions.c, credit_entries.c
    statement = (
        sa.select(sa.cast(sa.func.coalesce(sa.func.sum(entries.amount), 0), INTEGER))
        .join_from(credit_transactions, credit_entries, entries.seq == columns.seq)
        .where(columns.kind == "balance_transaction", columns.original == invoice)
        .where(entries.account == "revenue")
    )
    return int((await connection.execute(statement)).scalar_one()) // CENT
