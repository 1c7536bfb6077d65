"""Prepaid credits: what happens to them, each once, whoever tells of it again.

Each function books in the transaction of its caller, under the journal's lock. It returns the number of its transaction
in the journal; None where that was booked before. Amounts are whole millicredits, times Unix milliseconds.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.change import Refused
from edgeproxy.collector.billing.journal import postings
from edgeproxy.collector.billing.journal.journal import Journal, Posting, entries_of, journal
from edgeproxy.collector.billing.journal.postings import CENT, Entry, Exceeds, Grant, Kind
from edgeproxy.collector.database.credit_tables import credit_grants, credit_transactions


class Payment(NamedTuple):
    """What was paid for credits."""

    session: str
    """The checkout session, which is the id of the grant."""
    intent: str | None
    """The payment intent."""
    paid: int
    """Without tax."""
    tax: int = 0


class Held(NamedTuple):
    """Money that is to go back."""

    id: str
    customer: str
    grant: str
    intent: str | None
    """The payment intent that it goes back from."""
    cents: int
    """With its tax."""


async def purchase(connection: AsyncConnection, customer: str, payment: Payment) -> int | None:
    """Credits were paid for."""
    async with journal(connection) as books:
        if await books.posted("purchase", payment.session) is not None:
            return None
        purse = await books.purse(customer)
        entries = postings.purchase(purse, payment.session, payment.paid, payment.tax)
        books.begin(customer, Grant(payment.session, 0, None, payment.paid, payment.tax), payment.intent)
        details = {"payment_intent": payment.intent}
        return books.book(Posting(customer, "purchase", payment.session, entries, payment.session, details=details))


async def fee(connection: AsyncConnection, intent: str, balance_transaction: str, amount: int) -> int | None:
    """The payment service kept a fee of a purchase, or took one for a dispute about it."""
    async with journal(connection) as books:
        if amount == 0 or await books.posted("fee", balance_transaction) is not None:
            return None
        row = await _bought_by(books, intent)
        return books.book(Posting(row.customer, "fee", balance_transaction, postings.plain("fee", amount), row.id))


async def gift(
    connection: AsyncConnection, caller: Caller, customer: str, id_: str, amount: int, why: str, expires: int | None
) -> int | None:
    """Credits are given away; the id is that of the grant."""
    async with journal(connection) as books:
        if await books.posted("gift", id_) is not None:
            return None
        entries = postings.gift(await books.purse(customer), id_, amount)
        books.begin(customer, Grant(id_, 0, expires))
        number = books.book(Posting(customer, "gift", id_, entries, id_, details=_by(caller, why)))
    await _record(connection, caller, "credits.gift", customer, id_, amount, why)
    return number


async def withdrawal(
    connection: AsyncConnection, caller: Caller, customer: str, id_: str, amount: int, why: str
) -> int | None:
    """Gifts are taken back, as far as they are unspent; raises Refused."""
    async with journal(connection) as books:
        if await books.posted("withdrawal", id_) is not None:
            return None
        entries = _within(postings.withdrawal, await books.purse(customer), amount)
        number = books.book(Posting(customer, "withdrawal", id_, entries, details=_by(caller, why)))
    await _record(connection, caller, "credits.withdrawal", customer, id_, amount, why)
    return number


async def usage_refund(
    connection: AsyncConnection, caller: Caller, consumption: str, id_: str, amount: int, why: str
) -> int | None:
    """Usage is taken back: of the consumption with this source, at most what is left of it. Raises Refused."""
    async with journal(connection) as books:
        if await books.posted("usage_refund", id_) is not None:
            return None
        original = await books.posted("consumption", consumption)
        if original is None:
            raise Refused(404, "there is no such consumption")
        number = await take_back(books, original, id_, amount, _by(caller, why))
    await _record(connection, caller, "credits.usage_refund", original.customer, id_, amount, why)
    return number


async def take_back(books: Journal, original: Any, id_: str, amount: int, details: Mapping[str, Any]) -> int:
    """Book a refund of usage, whose transaction is `original`; raises Refused."""
    customer, connection = original.customer, books.connection
    transactions = credit_transactions.c
    before = sa.select(transactions.seq).where(
        transactions.kind == "usage_refund", transactions.original == original.source
    )
    refunds = list((await connection.execute(before)).scalars())
    consumed = await entries_of(connection, [original.seq])
    refunded = await entries_of(connection, refunds)
    purse = await books.purse(customer)
    entries = _within(postings.usage_refund, purse, id_, amount, consumed, refunded, books.at)
    if any(entry.grant == id_ for entry in entries):
        books.begin(customer, Grant(id_, 0))
    return books.book(Posting(customer, "usage_refund", id_, entries, original.source, details=details))


async def buyer(connection: AsyncConnection, grant: str) -> str:
    """Who bought credits, by id; raises Refused."""
    return str((await _grant(connection, grant)).customer)


async def hold(
    connection: AsyncConnection,
    caller: Caller,
    grant: str,
    id_: str,
    amount: int | None,
    why: str,
    *,
    pending: int = 0,
) -> Held:
    """Money is to go back: at most what is unspent of a purchase, all of that where `amount` is None.

    `pending`: what was used and is not booked yet. From here on nobody can spend it. Raises Refused.
    """
    async with journal(connection) as books:
        before = await books.posted("refund", id_)
        if before is not None:
            return await _held(connection, before)
        row = await _grant(connection, grant)
        purse = await books.purse(row.customer)
        found = purse.grant(grant)
        assert found is not None
        found = found._replace(rest=min(found.rest, purse.balance - pending))
        wanted = found.refundable - found.refundable % CENT if amount is None else amount
        if wanted == 0:
            raise Refused(409, "nothing is unspent of this purchase")
        entries = _within(postings.refund, found, wanted)
        books.returned(row.customer, grant, wanted)
        books.book(Posting(row.customer, "refund", id_, entries, grant, details=_by(caller, why)))
    await _record(connection, caller, "credits.refund", row.customer, id_, wanted, why)
    return Held(id_, row.customer, grant, row.payment, _cents(entries))


async def settle(connection: AsyncConnection, id_: str, *, paid: bool, refund: str) -> int | None:
    """The money of a refund that was held has gone back, or it has not: `refund` is the payment service's id of it."""
    kind: Kind = "refund_paid" if paid else "refund_failed"
    async with journal(connection) as books:
        held = await books.posted("refund", id_)
        if held is None or await books.posted(kind, id_) is not None:
            return None
        if not paid and await books.posted("refund_paid", id_) is not None:
            return await _bounced(books, held, refund)
        if paid and await books.posted("refund_failed", id_) is not None:
            raise Refused(409, f"the refund {id_} failed before, and cannot be paid")
        entries = await entries_of(connection, [held.seq])
        purse = await books.purse(held.customer)
        if paid:
            booked = postings.plain("refund_paid", -entries[-1].amount)
        else:
            booked = postings.refund_failed(purse, entries)
            books.returned(held.customer, held.original, -_net(entries))
        return books.book(Posting(held.customer, kind, id_, booked, held.original, details={"refund": refund}))


async def _bounced(books: Journal, held: Any, refund: str) -> int:
    """A refund that was paid has come back: its money is there again, and so are the credits."""
    entries = await entries_of(books.connection, [held.seq])
    purse = await books.purse(held.customer)
    books.returned(held.customer, held.original, -_net(entries))
    cash = postings.plain("refund_paid", entries[-1].amount)
    booked = (*cash, *postings.refund_failed(purse, entries))
    return books.book(
        Posting(held.customer, "refund_failed", held.source, booked, held.original, details={"refund": refund})
    )


async def chargeback(connection: AsyncConnection, intent: str, dispute: str, total: int) -> int | None:
    """Money of a purchase has gone back without us: by a dispute, or a refund that was made elsewhere."""
    return await _dispute(connection, "chargeback", intent, dispute, total)


async def chargeback_won(connection: AsyncConnection, intent: str, dispute: str, total: int) -> int | None:
    """This money has come again."""
    return await _dispute(connection, "chargeback_won", intent, dispute, total)


async def _dispute(connection: AsyncConnection, kind: Kind, intent: str, dispute: str, total: int) -> int | None:
    async with journal(connection) as books:
        if await books.posted(kind, dispute) is not None:
            return None
        row = await _bought_by(books, intent)
        purse = await books.purse(row.customer)
        grant = purse.grant(row.id)
        assert grant is not None
        net = postings.net_of(grant, total)
        if kind == "chargeback":
            entries = postings.chargeback(purse, grant, total)
            books.returned(row.customer, row.id, net)
        else:
            entries = postings.chargeback_won(purse, grant, total)
            books.returned(row.customer, row.id, -net)
        return books.book(Posting(row.customer, kind, dispute, entries, row.id))


async def expire(books: Journal, until: int) -> int:
    """Book what is left of grants as void that expire by this Unix millisecond; how many."""
    columns = credit_grants.c
    due = sa.select(columns.id, columns.customer).where(columns.expires_at <= until, columns.rest > 0)
    rows = (await books.connection.execute(due.order_by(columns.expires_at, columns.id))).all()
    for id_, customer in rows:
        grant = (await books.purse(customer)).grant(id_)
        if grant is not None and grant.rest:
            again = sa.select(sa.func.count()).where(
                credit_transactions.c.kind == "expiry", credit_transactions.c.original == id_
            )
            times = (await books.connection.execute(again)).scalar_one()
            books.book(Posting(customer, "expiry", f"{id_}/{times}", postings.expiry(grant), id_))
    return len(rows)


async def unsettled(connection: AsyncConnection, before: int) -> list[Held]:
    """Refunds that were held before this Unix millisecond, and of which nobody knows what became."""
    transactions = credit_transactions.c
    done = credit_transactions.alias()
    settled = sa.exists().where(done.c.source == transactions.source, done.c.kind.in_(("refund_paid", "refund_failed")))
    wanted = sa.select(credit_transactions).where(transactions.kind == "refund", transactions.at < before, ~settled)
    rows = (await connection.execute(wanted.order_by(transactions.seq))).all()
    return [await _held(connection, row) for row in rows]


async def _held(connection: AsyncConnection, row: Any) -> Held:
    """A refund as it was held, of its transaction."""
    grant = await _grant(connection, row.original)
    entries = await entries_of(connection, [row.seq])
    return Held(row.source, row.customer, row.original, grant.payment, _cents(entries))


async def _grant(connection: AsyncConnection, id_: str) -> Any:
    """The row of a grant that was paid for; raises Refused."""
    wanted = sa.select(credit_grants).where(credit_grants.c.id == id_, credit_grants.c.paid > 0)
    row = (await connection.execute(wanted)).one_or_none()
    if row is None:
        raise Refused(404, "there is no such purchase")
    return row


async def _bought_by(books: Journal, intent: str) -> Any:
    """The row of the grant that this payment intent has paid; raises Refused."""
    wanted = sa.select(credit_grants).where(credit_grants.c.payment == intent)
    row = (await books.connection.execute(wanted)).one_or_none()
    if row is None:
        raise Refused(404, f"no purchase of credits was paid by {intent}")
    return row


def _within(book: Any, *arguments: Any) -> tuple[Entry, ...]:
    """Have something booked; raises Refused(409) where it is more than there is."""
    try:
        booked: tuple[Entry, ...] = book(*arguments)
    except Exceeds as no:
        raise Refused(409, str(no), [("millicredits", f"{no.most} at most")]) from None
    return booked


def _net(entries: list[Entry]) -> int:
    """How much of a refund is without tax."""
    return sum(entry.amount for entry in entries if entry.account == "deferred")


def _cents(entries: list[Entry] | tuple[Entry, ...]) -> int:
    """The cents that go back with a refund, tax too."""
    return -entries[-1].amount // CENT


def _by(caller: Caller, why: str) -> dict[str, Any]:
    return {"by": caller.actor, "why": why}


async def _record(
    connection: AsyncConnection, caller: Caller, action: str, customer: str, id_: str, amount: int, why: str
) -> None:
    """Put a change on record."""
    after = {"id": id_, "millicredits": amount, "why": why}
    await audit.append(connection, caller, audit.Entry(action, customer, None, after))


async def was_charged_back(connection: AsyncConnection, dispute: str) -> bool:
    """Whether money has gone back by this dispute, or this refund that was made elsewhere."""
    columns = credit_transactions.c
    wanted = sa.select(columns.seq).where(columns.kind == "chargeback", columns.source == dispute)
    return (await connection.execute(wanted)).first() is not None
