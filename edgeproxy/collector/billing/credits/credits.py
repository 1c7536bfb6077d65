"""Bookings of prepaid credits. Each event is booked once, however often it is reported.

Each function books in the transaction of its caller, under the journal's lock. It returns the number of its journal
transaction, or None if that was booked before. Amounts are whole millicredits, times Unix milliseconds.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, ParamSpec

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError, reject_field
from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.invoices.invoice_notice import notify_of_purchase
from edgeproxy.collector.billing.journal import postings
from edgeproxy.collector.billing.journal.journal import (
    TRANSACTION_FIELDS,
    GrantRow,
    Journal,
    Posting,
    TransactionRow,
    fetch_entries,
    fetch_grants,
    open_journal,
)
from edgeproxy.collector.billing.journal.postings import (
    CENT,
    Grant,
    InsufficientCreditsError,
    JournalEntry,
    TransactionKind,
)
from edgeproxy.collector.billing.rating.money import format_amount
from edgeproxy.collector.database.credit_tables import credit_entries, credit_grants, credit_transactions
from edgeproxy.collector.database.residency_tables import customer_moves
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.problems import billing_codes
from edgeproxy.collector.problems.coded_error import FieldFault
from edgeproxy.config.collector.currency_units import get_payable_unit
from edgeproxy.config.field_codes import NOT_A_MULTIPLE, OUT_OF_RANGE

P = ParamSpec("P")


class Payment(NamedTuple):
    """A payment for credits, in millicredits."""

    session: str
    """The checkout session, which is the id of the grant."""
    intent: str | None
    """The payment intent."""
    paid: int
    """The amount without tax."""
    tax: int = 0


class HeldRefund(NamedTuple):
    """A refund with held money that has not been returned yet."""

    id: str
    customer: str
    grant: str
    intent: str | None
    """The payment intent to refund."""
    cents: int
    """The amount with its tax."""


async def book_purchase(connection: AsyncConnection, customer: str, payment: Payment) -> int | None:
    """Book a purchase of credits."""
    async with open_journal(connection) as books:
        # A purchase is reported several times, for example by events and by a later comparison with Stripe. The lock of
        # the journal makes this check and the booking one step.
        if await books.find_transaction("purchase", payment.session) is not None:
            return None
        balance = await books.fetch_credit_balance(customer)
        entries = postings.purchase_entries(balance, payment.session, payment.paid, payment.tax)
        books.create_grant(customer, Grant(payment.session, 0, None, payment.paid, payment.tax), payment.intent)
        details = {"payment_intent": payment.intent}
        number = books.book(Posting(customer, "purchase", payment.session, entries, payment.session, details=details))
        currency = books.get_currency(customer)
    name = await connection.scalar(sa.select(customers.c.name).where(customers.c.id == customer))
    total = (payment.paid + payment.tax) // CENT
    await notify_of_purchase(connection, str(name), payment.session, total, payment.paid, currency)
    return number


async def book_gift(
    connection: AsyncConnection,
    caller: Caller,
    customer: str,
    id_: str,
    amount: int,
    why: str,
    expires: int | None,
    currency: str | None = None,
) -> int | None:
    """Book gifted credits.

    `id_` is the id of the grant. `currency` is given for a customer who is charged in it from now on.
    """
    async with open_journal(connection) as books:
        if await books.find_transaction("gift", id_) is not None:
            return None
        entries = postings.gift_entries(await books.fetch_credit_balance(customer), id_, amount)
        if currency is not None:
            books.set_currency(customer, currency)
        books.create_grant(customer, Grant(id_, 0, expires))
        number = books.book(Posting(customer, "gift", id_, entries, id_, details=_format_details(caller, why)))
    await _record_audit(connection, caller, "credits.gift", customer, id_, amount, why)
    return number


async def book_withdrawal(
    connection: AsyncConnection, caller: Caller, customer: str, id_: str, amount: int, why: str, *, pending: int = 0
) -> int | None:
    """Book the withdrawal of the unspent part of gifts. Raises ChangeRejectedError.

    `pending` is the usage that is not booked yet.
    """
    async with open_journal(connection) as books:
        if await books.find_transaction("withdrawal", id_) is not None:
            return None
        balance = await books.fetch_credit_balance(customer)
        rests = postings.subtract_pending(balance.grants, pending)
        unspent = balance._replace(grants=tuple(grant._replace(rest=rests[grant.id]) for grant in balance.grants))
        entries = _build_entries(postings.withdrawal_entries, unspent, amount)
        number = books.book(Posting(customer, "withdrawal", id_, entries, details=_format_details(caller, why)))
    await _record_audit(connection, caller, "credits.withdrawal", customer, id_, amount, why)
    return number


async def book_usage_refund(
    connection: AsyncConnection, caller: Caller, consumption: str, id_: str, amount: int, why: str
) -> int | None:
    """Book a refund of usage: at most the rest of the consumption with this source. Raises ChangeRejectedError."""
    async with open_journal(connection) as books:
        if await books.find_transaction("usage_refund", id_) is not None:
            return None
        original = await books.find_transaction("consumption", consumption)
        if original is None:
            raise ChangeRejectedError(billing_codes.CONSUMPTION_NOT_FOUND, "there is no such consumption")
        number = await _refund_consumption(books, original, id_, amount, _format_details(caller, why))
    await _record_audit(connection, caller, "credits.usage_refund", original.customer, id_, amount, why)
    return number


async def _refund_consumption(
    books: Journal, original: TransactionRow, id_: str, amount: int, details: Mapping[str, str]
) -> int:
    """Book a refund of usage; `original` is the transaction of the usage. Raises ChangeRejectedError."""
    customer, connection = original.customer, books.connection
    moves = await books.list_followers("usage_moved", original.source)
    consumed = await fetch_entries(connection, [original.seq, *moves])
    refunded = await fetch_entries(connection, await books.list_followers("usage_refund", original.source))
    balance = await books.fetch_credit_balance(customer)
    entries = _build_entries(postings.usage_refund_entries, balance, id_, amount, consumed, refunded, books.at)
    # Credits that no valid grant can take back are a gift with the id of the refund.
    if any(entry.grant == id_ for entry in entries):
        books.create_grant(customer, Grant(id_, 0))
    return books.book(Posting(customer, "usage_refund", id_, entries, original.source, details=details))


async def get_buyer(connection: AsyncConnection, grant: str) -> str:
    """Return the id of the customer who bought a grant. Raises ChangeRejectedError."""
    return str((await _get_paid_grant(connection, grant)).customer)


async def hold_refund(
    connection: AsyncConnection,
    caller: Caller,
    grant: str,
    id_: str,
    amount: int | None,
    why: str,
    *,
    pending: int = 0,
) -> HeldRefund:
    """Hold money for a refund: at most the unspent rest of a purchase, or all of it if `amount` is None.

    `pending` is the usage that is not booked yet. Held credits cannot be spent. Raises ChangeRejectedError.
    """
    async with open_journal(connection) as books:
        before = await books.find_transaction("refund", id_)
        if before is not None:
            return await _load_refund(connection, before)
        row = await _get_paid_grant(connection, grant)
        balance = await books.fetch_credit_balance(row.customer)
        grant_state = balance.grant(grant)
        assert grant_state is not None
        # Usage that is not booked yet will take credits, also those of this purchase. They cannot be paid back.
        grant_state = grant_state._replace(rest=postings.subtract_pending(balance.grants, pending)[grant])
        payable_unit = get_payable_unit(books.get_currency(row.customer))
        unit = CENT * payable_unit
        # Stripe pays whole units only, for example cents. The rest below one stays as credits.
        refunded = grant_state.refundable - grant_state.refundable % unit if amount is None else amount
        if refunded == 0:
            raise ChangeRejectedError(billing_codes.PURCHASE_SPENT, "nothing is unspent of this purchase")
        if refunded % unit:
            raise reject_field(
                "millicredits", f"is not a multiple of {unit} millicredits, which can be paid", NOT_A_MULTIPLE
            )
        entries = _build_entries(postings.refund_entries, grant_state, refunded, payable_unit)
        books.record_return(row.customer, grant, refunded)
        books.book(Posting(row.customer, "refund", id_, entries, grant, details=_format_details(caller, why)))
    await _record_audit(connection, caller, "credits.refund", row.customer, id_, refunded, why)
    return HeldRefund(id_, row.customer, grant, row.payment, _refund_cents(entries))


async def settle_refund(connection: AsyncConnection, id_: str, *, paid: bool, refund: str) -> int | None:
    """Book the result of a held refund: it was paid or failed. `refund` is Stripe's id of the refund."""
    kind: TransactionKind = "refund_paid" if paid else "refund_failed"
    async with open_journal(connection) as books:
        refund_row = await books.find_transaction("refund", id_)
        # Stripe may report a state several times.
        if refund_row is None or await books.find_transaction(kind, id_) is not None:
            return None
        if not paid:
            await _report_failed_refund(books, refund_row, refund)
        # A bank may reject a refund after Stripe has reported it as paid.
        if not paid and await books.find_transaction("refund_paid", id_) is not None:
            return await _book_bounced_refund(books, refund_row, refund)
        if paid and await books.find_transaction("refund_failed", id_) is not None:
            raise ChangeRejectedError(
                billing_codes.REFUND_FAILED, f"the refund {id_} failed before, and cannot be paid"
            )
        entries = await fetch_entries(connection, [refund_row.seq])
        balance = await books.fetch_credit_balance(refund_row.customer)
        if paid:
            booked = postings.plain_entries("refund_paid", -entries[-1].amount)
        else:
            booked = postings.refund_failed_entries(balance, entries)
            books.record_return(refund_row.customer, refund_row.original, -_sum_net(entries))
        return books.book(
            Posting(refund_row.customer, kind, id_, booked, refund_row.original, details={"refund": refund})
        )


async def _report_failed_refund(books: Journal, refund_row: TransactionRow, refund: str) -> None:
    """Raise the alert that a refund did not reach its customer, who has the credits back."""
    await books.fetch_credit_balance(refund_row.customer)
    cents = _refund_cents(await fetch_entries(books.connection, [refund_row.seq]))
    amount = format_amount(cents, books.get_currency(refund_row.customer))
    statement = sa.select(customers.c.name).where(customers.c.id == refund_row.customer)
    name = (await books.connection.execute(statement)).scalar_one()
    alert = Alert(
        key=f"refund-failed:{refund_row.source}",
        kind=AlertKind.REFUND_FAILED,
        title=f"A refund of {amount} to {name} failed: the credits can be spent again",
        details={"refund": refund_row.source, "purchase": refund_row.original, "of": name, "amount": amount}
        | {"stripe_id": refund},
        at=now_ms() / 1000,
    )
    await raise_once(books.connection, alert)


async def _book_bounced_refund(books: Journal, refund_row: TransactionRow, refund: str) -> int:
    """Book the return of a paid refund: its money and the credits are back."""
    entries = await fetch_entries(books.connection, [refund_row.seq])
    balance = await books.fetch_credit_balance(refund_row.customer)
    books.record_return(refund_row.customer, refund_row.original, -_sum_net(entries))
    cash = postings.plain_entries("refund_paid", entries[-1].amount)
    booked = (*cash, *postings.refund_failed_entries(balance, entries))
    return books.book(
        Posting(
            refund_row.customer,
            "refund_failed",
            refund_row.source,
            booked,
            refund_row.original,
            details={"refund": refund},
        )
    )


async def book_chargeback(connection: AsyncConnection, intent: str, dispute: str, total: int) -> int | None:
    """Book money of a purchase that was returned without us, by a dispute or a refund made elsewhere."""
    return await _book_dispute(connection, "chargeback", intent, dispute, total)


async def book_chargeback_won(connection: AsyncConnection, intent: str, dispute: str, total: int) -> int | None:
    """Book the return of charged-back money."""
    return await _book_dispute(connection, "chargeback_won", intent, dispute, total)


async def _book_dispute(
    connection: AsyncConnection, kind: TransactionKind, intent: str, dispute: str, total: int
) -> int | None:
    async with open_journal(connection) as books:
        if await books.find_transaction(kind, dispute) is not None:
            return None
        row = await _get_grant_paid_by(books, intent)
        balance = await books.fetch_credit_balance(row.customer)
        paid_grant = balance.grant(row.id)
        assert paid_grant is not None
        unit = get_payable_unit(books.get_currency(row.customer))
        net = postings.compute_net(paid_grant, total, unit)
        if kind == "chargeback":
            entries = postings.chargeback_entries(balance, paid_grant, total, unit)
            books.record_return(row.customer, row.id, net)
        else:
            chargeback = await books.find_transaction("chargeback", dispute)
            taken = [] if chargeback is None else await fetch_entries(connection, [chargeback.seq])
            entries = postings.chargeback_won_entries(balance, paid_grant, total, unit, taken=taken, now=now_ms())
            books.record_return(row.customer, row.id, -net)
        return books.book(Posting(row.customer, kind, dispute, entries, row.id))


async def expire_grants(books: Journal, until: int) -> int:
    """Void the rest of grants that expire by this Unix millisecond, and return the number of grants."""
    columns = credit_grants.c
    due = sa.select(columns.customer).where(columns.expires_at <= until, columns.rest > 0).distinct()
    customers_due = sorted(await books.connection.scalars(due))
    return sum([await expire_grants_of(books, customer, until) for customer in customers_due])


async def expire_grants_of(books: Journal, customer: str, until: int) -> int:
    """Void the rest of a customer's grants that expire by this Unix millisecond, and return the number of grants.

    Credits promised to another residency expire there. Expired here, they would become an overdraft that the customer
    pays again.
    """
    expired = [
        grant
        for grant in postings.spending_order((await books.fetch_credit_balance(customer)).grants)
        if grant.expires is not None and grant.expires <= until and grant.rest
    ]
    moves = customer_moves.c
    promised = sa.select(moves.customer).where(moves.customer == customer, moves.promised.is_not(None))
    if not expired or (await books.connection.execute(promised)).first() is not None:
        return 0
    for grant in expired:
        # A grant can expire again after its expiry was reversed, so the source has a number.
        times = len(await books.list_followers("expiry", grant.id))
        books.book(Posting(customer, "expiry", f"{grant.id}/{times}", postings.expiry_entries(grant), grant.id))
    return len(expired)


async def reverse_expiry(books: Journal, customer: str, hour: int, amount: int, source: str) -> None:
    """Restore the expired credits that usage of this hour would have spent in time. Its consumption is booked next.

    Credits are valid for an hour that begins before they expire. `source` is the consumption's source.
    """
    balance = await books.fetch_credit_balance(customer)
    gone = [g.id for g in balance.grants if g.expires is not None and hour * 1000 < g.expires <= books.at]
    transactions, entries = credit_transactions.c, credit_entries.c
    statement = (
        sa.select(entries.grant_id, sa.cast(sa.func.sum(entries.amount), sa.BigInteger))
        .join_from(credit_transactions, credit_entries, entries.seq == transactions.seq)
        .where(entries.grant_id.in_(gone), transactions.kind.in_(("expiry", "expiry_reversed")))
        .group_by(entries.grant_id)
    )
    expired = {row.grant_id: row[1] for row in await books.connection.execute(statement)} if gone else {}
    for grant, part in postings.split_expired(balance, expired, amount):
        restored = postings.expiry_reversed_entries(grant, part)
        books.book(Posting(customer, "expiry_reversed", f"{source}/{grant}", restored, grant, slice=hour))


async def list_unsettled_refunds(connection: AsyncConnection, before: int) -> list[HeldRefund]:
    """Return the refunds that were held before this Unix millisecond and are not settled."""
    transactions = credit_transactions.c
    settlements = credit_transactions.alias()
    settled = sa.exists().where(
        settlements.c.source == transactions.source, settlements.c.kind.in_(("refund_paid", "refund_failed"))
    )
    statement = sa.select(*TRANSACTION_FIELDS).where(transactions.kind == "refund", transactions.at < before, ~settled)
    rows = (await connection.execute(statement.order_by(transactions.seq))).all()
    return [await _load_refund(connection, TransactionRow(*row)) for row in rows]


async def _load_refund(connection: AsyncConnection, row: TransactionRow) -> HeldRefund:
    """Return a held refund from its transaction."""
    grant = await _get_paid_grant(connection, row.original)
    entries = await fetch_entries(connection, [row.seq])
    return HeldRefund(row.source, row.customer, row.original, grant.payment, _refund_cents(entries))


async def _get_paid_grant(connection: AsyncConnection, id_: str) -> GrantRow:
    """Return the row of a purchased grant. Raises ChangeRejectedError."""
    # Gifts are grants, too, but nobody paid for them.
    rows = await fetch_grants(connection, credit_grants.c.id == id_, credit_grants.c.paid > 0)
    if not rows:
        raise ChangeRejectedError(billing_codes.PURCHASE_NOT_FOUND, "there is no such purchase")
    return rows[0]


async def _get_grant_paid_by(books: Journal, intent: str) -> GrantRow:
    """Return the row of the grant that this payment intent paid. Raises ChangeRejectedError."""
    rows = await fetch_grants(books.connection, credit_grants.c.payment == intent)
    if not rows:
        raise ChangeRejectedError(billing_codes.PURCHASE_NOT_FOUND, f"no purchase of credits was paid by {intent}")
    return rows[0]


def _build_entries(
    build: Callable[P, tuple[JournalEntry, ...]], *arguments: P.args, **options: P.kwargs
) -> tuple[JournalEntry, ...]:
    """Return the entries that `build` creates. Raises ChangeRejectedError(409) if they exceed the available amount."""
    try:
        return build(*arguments, **options)
    except InsufficientCreditsError as error:
        raise ChangeRejectedError(
            billing_codes.CREDITS_EXCEEDED,
            str(error),
            [FieldFault("millicredits", f"{error.most} at most", OUT_OF_RANGE, {"most": error.most})],
        ) from None


def _sum_net(entries: list[JournalEntry]) -> int:
    """Return the net amount of a refund, without its tax."""
    # Tax has an account of its own.
    return sum(entry.amount for entry in entries if entry.account == "deferred")


def _refund_cents(entries: list[JournalEntry] | tuple[JournalEntry, ...]) -> int:
    """Return the cents of a refund, including tax."""
    # `refund_entries` completes a refund with the money to pay, so this entry is the last.
    return -entries[-1].amount // CENT


def _format_details(caller: Caller, why: str) -> Mapping[str, str]:
    return {"by": caller.actor, "why": why}


async def _record_audit(
    connection: AsyncConnection, caller: Caller, action: str, customer: str, id_: str, amount: int, why: str
) -> None:
    """Append a change to the audit log."""
    after = {"id": id_, "millicredits": amount, "why": why}
    await audit.append_entry(connection, caller, audit.AuditEntry(action, customer, None, after, customer))


async def was_charged_back(connection: AsyncConnection, dispute: str) -> bool:
    """Return whether money was returned by this dispute, or by this refund made elsewhere."""
    columns = credit_transactions.c
    statement = sa.select(columns.seq).where(columns.kind == "chargeback", columns.source == dispute)
    return (await connection.execute(statement)).first() is not None
