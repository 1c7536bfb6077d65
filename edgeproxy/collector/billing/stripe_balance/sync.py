"""The booking of Stripe's balance transactions: each once, in the order of their creation."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.billing.credits.purchases import parse_id
from edgeproxy.collector.billing.invoices import credit_notes
from edgeproxy.collector.billing.journal.journal import Posting, open_journal
from edgeproxy.collector.billing.journal.postings import Account
from edgeproxy.collector.billing.stripe.client import Stripe, StripeObject
from edgeproxy.collector.billing.stripe_balance.entries import (
    REFUND,
    BalanceTransaction,
    PaymentSubject,
    balance_entries,
    choose_account,
)
from edgeproxy.collector.billing.stripe_balance.subjects import LOOKED_UP_MAX, PaymentSubjects
from edgeproxy.collector.billing.webhooks import receiver
from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.credit_tables import credit_transactions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY, HOUR
from edgeproxy.config.collector.currency_units import DECIMALS

LIST, FIRST = "balance", "balance-start"
"""The names of the two recorded times: the end of the balance transactions read so far, and their start."""
OVERLAP_SECONDS = HOUR
"""The next list begins this many seconds before the latest known balance transaction."""
PAGE = 200
"""The most balance transactions that one database transaction books."""


class ClassifiedTransaction(NamedTuple):
    """A balance transaction, its subject, and its contra account."""

    moved: BalanceTransaction
    subject: PaymentSubject | None
    account: Account


class StripeBalance:
    """Books the balance transactions of one Stripe account."""

    def __init__(self, database: Database, stripe: Stripe) -> None:
        self._database = database
        self._stripe = stripe
        self._limited_log = log.RateLimitedLog(3600.0)

    async def sync(self, now: float) -> int:
        """Book the balance transactions since the last sync, and return the number of new ones.

        Raises StripeCallError.
        """
        async with self._database.reading() as connection:
            read_until = await receiver.find_read_until(connection, LIST)
        since = await self.find_start(0 if read_until is None else read_until - OVERLAP_SECONDS, now)
        listed = await self.list_transactions(since, None)
        booked = await self.book(listed)
        # The read is recorded after the bookings: a crash in between repeats them, and each is booked once.
        until = max([read_until or since, *(int(transaction["created"]) for transaction in listed)])
        async with self._database.writing() as connection:
            await receiver.record_read(connection, LIST, until)
        return booked

    async def find_start(self, since: int, now: float) -> int:
        """Return the first Unix second whose balance transactions are booked, not before `since`.

        The first time, that is a day ago.
        """
        async with self._database.reading() as connection:
            first = await receiver.find_read_until(connection, FIRST)
        if first is None:
            async with self._database.writing() as connection:
                first = int(now) - DAY
                await receiver.record_read(connection, FIRST, first)
        return max(since, first)

    async def list_transactions(self, since: int, until: int | None) -> list[StripeObject]:
        """Return Stripe's balance transactions between two Unix seconds, oldest first, with their source.

        Raises StripeCallError.
        """
        created = {"gte": since} if until is None else {"gte": since, "lt": until}
        listed = await self._stripe.list_all("v1.balance_transactions.list", created=created, expand=["data.source"])
        ours = [one for one in reversed(listed) if one["currency"] in DECIMALS and one.get("exchange_rate") is None]
        if len(ours) != len(listed):
            message = "movements at Stripe that were converted from another currency are not booked"
            self._limited_log.error(message, "", count=len(listed) - len(ours))
        return ours

    async def book(self, listed: Sequence[StripeObject]) -> int:
        """Book the unbooked ones of these balance transactions, and return their number. Raises StripeCallError."""
        async with self._database.reading() as connection:
            known = await _find_booked(connection, [str(stripe_object["id"]) for stripe_object in listed])
        unknown = [stripe_object for stripe_object in listed if stripe_object["id"] not in known]
        if not unknown:
            return 0
        subjects = PaymentSubjects(self._database, self._stripe)
        await subjects.load_invoice_payments(int(unknown[0]["created"]))
        for at in range(0, len(unknown), PAGE):
            classified = [await self._classify(subjects, stripe_object) for stripe_object in unknown[at : at + PAGE]]
            async with self._database.writing() as connection, open_journal(connection) as books:
                for one in classified:
                    # Another collector may have booked it since the list of known ones was read.
                    if await books.find_transaction("balance_transaction", one.moved.id) is None:
                        books.book(_build_posting(one))
        return len(unknown)

    async def _classify(self, subjects: PaymentSubjects, listed: StripeObject) -> ClassifiedTransaction:
        """Return a balance transaction with its subject and account."""
        source = listed.get("source")
        details: StripeObject = dict(source) if isinstance(source, Mapping) else {}
        moved = BalanceTransaction(
            str(listed["id"]),
            str(listed["type"]),
            parse_id(source) or "",
            str(details.get("object", "")),
            int(listed["created"]),
            int(listed["amount"]),
            int(listed["fee"]),
            str(listed["currency"]),
        )
        subject = await subjects.find_subject(details)
        is_noted = subject is not None and subject.kind == "invoice" and await self._is_credit_noted(subject, moved)
        return ClassifiedTransaction(moved, subject, choose_account(moved, subject, is_credit_noted=is_noted))

    async def _is_credit_noted(self, subject: PaymentSubject, moved: BalanceTransaction) -> bool:
        """Return whether a refund of an invoice is part of a credit note, which is then in our books."""
        if moved.source_type != REFUND:
            return False
        async with self._database.reading() as connection:
            statement = sa.select(invoices.c.stripe_id).where(invoices.c.id == subject.id)
            stripe_id = (await connection.execute(statement)).scalar_one()
        for note in await self._stripe.list_all("v1.credit_notes.list", invoice=stripe_id):
            if any(parse_id(part.get("refund")) == moved.source for part in note.get("refunds") or ()):
                async with self._database.writing() as connection:
                    await credit_notes.apply_stripe_note(connection, note)
                return True
        return False


def _build_posting(one: ClassifiedTransaction) -> Posting:
    moved, subject = one.moved, one.subject
    return Posting(
        "" if subject is None else subject.customer,
        "balance_transaction",
        moved.id,
        balance_entries(moved, one.account),
        "" if subject is None else subject.id,
        moved.created,
        {"type": moved.type, "source": moved.source},
        moved.currency,
    )


async def _find_booked(connection: AsyncConnection, ids: Sequence[str]) -> set[str]:
    """Return the ids of the booked ones among these balance transactions."""
    columns, booked = credit_transactions.c, set[str]()
    for at in range(0, len(ids), LOOKED_UP_MAX):
        is_listed = columns.source.in_(ids[at : at + LOOKED_UP_MAX])
        statement = sa.select(columns.source).where(columns.kind == "balance_transaction", is_listed)
        booked.update(await connection.scalars(statement))
    return booked
