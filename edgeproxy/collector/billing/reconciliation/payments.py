"""What Stripe has moved is held against the journal (reconciliation D), a day at a time, to the cent.

Which invoice a charge pays is read from the list of payments of invoices, and whose invoice that is from our rows: so
Stripe is not asked of each charge, of which there are most on the 1st. One of which it does not say what it is for is a
difference by itself, under its own id, and keeps nothing else from being compared.

Both are asked by what it is: a purchase, a payment or a refund of an invoice, a refund, a dispute. So it does not
matter when a webhook came: what Stripe moved in the day is looked for in the journal, and what the journal booked in
the day is looked for at Stripe.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.billing import discrepancies
from edgeproxy.collector.billing.credits.purchases import CUSTOMER, REFUND, id_of
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.mismatch import Drift, Level, Row
from edgeproxy.collector.billing.period_close.collection.invoice_items import OURS
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.stripe.client import Outcome, Stripe, StripeFailure
from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.credit_tables import credit_entries, credit_grants, credit_transactions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY, HOUR, customers

SETTLED_SECONDS = 2 * HOUR
"""Seconds after the end of a day at which it is compared: events that were lost have come by then."""
DAYS_MAX = 35
"""Days that are made up for at most."""
ASKED_SECONDS = DAY
"""Seconds before a charge in which its invoice asked for it, mostly; others are looked up one by one."""

What = Literal["purchase", "refund", "invoice", "invoice refund", "unclear"]


class Subject(NamedTuple):
    """What money was moved for."""

    what: What
    id: str
    """Of a purchase the payment intent; of a refund our id, or that of a refund or dispute which began at Stripe; of an
    invoice Stripe's id; of what is unclear that of the charge, refund or dispute.
    """


class Booked(NamedTuple):
    """What the journal has of a subject."""

    customer: str
    """By name."""
    cents: int
    """Paid above zero, given back below."""
    intent: str | None
    """The payment intent of the purchase that it is about."""


UNBOOKED = Booked("", 0, None)
LOOKED_UP_MAX = 1000
"""Subjects that one statement looks up."""
MISSING = "resource_missing"
DISPUTES = ("dp_", "du_")
"""How Stripe's ids of disputes begin."""
KINDS: Mapping[str, What] = {
    "purchase": "purchase",
    "refund_paid": "refund",
    "refund_failed": "refund",
    "chargeback": "refund",
    "chargeback_won": "refund",
    "invoice_paid": "invoice",
    "credit_note": "invoice refund",
}
"""What is booked on cash, and what it is for."""
KNOWN_BY: Mapping[What, sa.Column[str]] = {
    "purchase": credit_grants.c.payment,
    "refund": credit_transactions.c.source,
    "invoice": invoices.c.stripe_id,
    "invoice refund": invoices.c.stripe_id,
}


async def days(database: Database, stripe: Stripe, now: float) -> int:
    """Compare each day that is over and was not yet; return how many. Raises StripeFailure: what was done is kept."""
    end = int(now - SETTLED_SECONDS) // DAY * DAY
    async with database.reading() as connection:
        done = await discrepancies.reached(connection, "D")
    first = end - DAY if done is None else max(done, end - DAYS_MAX * DAY)
    for start in range(first, end, DAY):
        await with_journal(database, stripe, Span(start, start + DAY), now)
    return max(0, end - first) // DAY


async def with_journal(database: Database, stripe: Stripe, span: Span, now: float) -> tuple[Drift, Level]:
    """Hold a time of Stripe's payments against the journal; raises StripeFailure, and nothing is kept then."""
    at_stripe = AtStripe(stripe, database)
    moved = await at_stripe.within(span)
    async with database.reading(whole=True) as connection:
        booked = await _booked_within(connection, span)
        cents = {subject: one.cents for subject, one in booked.items()}
        doubtful = {one for one in moved.keys() | cents.keys() if moved.get(one, 0) != cents.get(one, 0)}
        # One of the two was late, or there is a difference: all that was ever moved for it must be the same.
        ever = await _booked_ever(connection, doubtful)
    rows = [Row(one.customer, of.what, one.cents, one.cents) for of, one in booked.items() if of not in doubtful]
    for of in sorted(doubtful):
        ours = ever.get(of) or booked.get(of, UNBOOKED)
        rows.append(Row(ours.customer or of.id, of.what, ours.cents, await at_stripe.ever(of, ours.intent)))
    async with database.writing() as connection:
        return await discrepancies.keep(connection, "D", span, rows, now)


class AtStripe:
    """What Stripe has moved. All raise StripeFailure."""

    def __init__(self, stripe: Stripe, database: Database) -> None:
        self._stripe = stripe
        self._database = database
        self._invoices: dict[str, str] = {}
        """Of payment intents the invoices that they pay, as far as is known."""
        self._ours: set[str] = set()
        """Those of these invoices that are ours by our rows."""
        self._moved: dict[Subject, int] = {}
        self._paid: dict[str, Subject | None] = {}
        """By payment intent what it pays; None: nothing of ours."""
        self._intents: dict[Subject, str] = {}
        """Of refunds the payment intents that they are of."""

    async def within(self, span: Span) -> dict[Subject, int]:
        """Return what was moved in a time."""
        await self._learn(Span(span.start - ASKED_SECONDS, span.end))
        created = {"gte": span.start, "lt": span.end}
        for charge in await self._stripe.every("v1.charges.list", created=created):
            if is_paid(charge):
                await self._add(self._pays, charge, charge["amount_captured"])
        for refund in await self._stripe.every("v1.refunds.list", created=created):
            if refund["status"] == "succeeded":
                await self._add(self._takes_back, refund, -refund["amount"])
        adjusted: Any = {"created": created, "type": "adjustment", "expand": ["data.source"]}
        for moved in await self._stripe.every("v1.balance_transactions.list", **adjusted):
            source = moved.get("source")
            if isinstance(source, Mapping) and source.get("object") == "dispute":
                await self._add(self._takes_back, source, moved["amount"])
        return self._moved

    async def _learn(self, asked: Span) -> None:
        """Know which invoices are paid by what was asked for in a time, and which of them are ours."""
        created = {"gte": asked.start, "lt": asked.end}
        for one in await self._stripe.every("v1.invoice_payments.list", created=created):
            intent, invoice = id_of((one.get("payment") or {}).get("payment_intent")), id_of(one["invoice"])
            if intent is not None and invoice is not None:
                self._invoices[intent] = invoice
        ids = sorted(set(self._invoices.values()))
        async with self._database.reading() as connection:
            for at in range(0, len(ids), LOOKED_UP_MAX):
                known = sa.select(invoices.c.stripe_id).where(invoices.c.stripe_id.in_(ids[at : at + LOOKED_UP_MAX]))
                self._ours.update((await connection.execute(known)).scalars())

    async def _add(
        self, whose: Callable[[Mapping[str, Any]], Awaitable[Subject | None]], moved: Mapping[str, Any], cents: int
    ) -> None:
        """Count what was moved for what it is for; what Stripe refuses to tell of is unclear, each by itself."""
        try:
            subject = await whose(moved)
        except StripeFailure as failure:
            if failure.outcome is not Outcome.REFUSED:
                raise
            log.get().error("it is not known what a payment is for", payment=moved["id"], why=str(failure))
            subject = Subject("unclear", moved["id"])
        if subject is not None:
            self._moved[subject] = self._moved.get(subject, 0) + cents

    async def ever(self, subject: Subject, intent: str | None) -> int:
        """Return all that was moved for a subject; `intent`: what a refund of ours goes back from."""
        if subject.what == "unclear":
            return self._moved[subject]
        try:
            return await self._ever(subject, self._intents.get(subject, intent))
        except StripeFailure as failure:
            if failure.code == MISSING:
                return 0
            if failure.outcome is Outcome.REFUSED:  # As far as it tells.
                return self._moved.get(subject, 0)
            raise

    async def _ever(self, subject: Subject, intent: str | None) -> int:
        match subject.what:
            case "purchase":
                charges = await self._stripe.every("v1.charges.list", payment_intent=subject.id)
                return sum(int(one["amount_captured"]) for one in charges if is_paid(one))
            case "invoice":
                return int((await self._stripe.call("v1.invoices.retrieve", subject.id))["amount_paid"])
            case "invoice refund":
                payments = await self._stripe.every("v1.invoice_payments.list", invoice=subject.id)
                intents = [id_of((one.get("payment") or {}).get("payment_intent")) for one in payments]
                return sum([await self._given_back(one, None) for one in intents if one is not None])
        if subject.id.startswith(DISPUTES):
            dispute = await self._stripe.call("v1.disputes.retrieve", subject.id)
            return sum(int(one["amount"]) for one in dispute.get("balance_transactions") or ())
        return 0 if intent is None else await self._given_back(intent, subject.id)

    async def _given_back(self, intent: str, only: str | None) -> int:
        """What has gone back of a payment; by the refund alone that has this id here, or at Stripe."""
        refunds = await self._stripe.every("v1.refunds.list", payment_intent=intent)
        return -sum(
            int(one["amount"])
            for one in refunds
            if one["status"] == "succeeded" and only in (None, one["id"], (one.get("metadata") or {}).get(REFUND))
        )

    async def _pays(self, charge: Mapping[str, Any]) -> Subject | None:
        """What a charge pays; None: nothing of ours."""
        intent = id_of(charge.get("payment_intent"))
        if intent is None:
            return None
        if CUSTOMER in (charge.get("metadata") or {}):
            self._paid[intent] = Subject("purchase", intent)
        return await self._paid_by(intent)

    async def _takes_back(self, said: Mapping[str, Any]) -> Subject | None:
        """What a refund or a dispute is of; None: nothing of ours."""
        intent = id_of(said.get("payment_intent"))
        paid = None if intent is None else await self._paid_by(intent)
        if paid is None:
            return None
        if paid.what == "invoice":
            return Subject("invoice refund", paid.id)
        subject = Subject("refund", (said.get("metadata") or {}).get(REFUND) or said["id"])
        self._intents[subject] = paid.id
        return subject

    async def _paid_by(self, intent: str) -> Subject | None:
        if intent not in self._paid:
            self._paid[intent] = await self._look_up(intent)
        return self._paid[intent]

    async def _look_up(self, intent: str) -> Subject | None:
        if intent in self._invoices:
            return await self._of_invoice(self._invoices[intent])
        there = await self._stripe.call("v1.payment_intents.retrieve", intent)
        if CUSTOMER in (there.get("metadata") or {}):
            return Subject("purchase", intent)
        payment: Any = {"type": "payment_intent", "payment_intent": intent}
        for one in await self._stripe.every("v1.invoice_payments.list", payment=payment):
            if subject := await self._of_invoice(id_of(one["invoice"]) or ""):
                return subject
        return None

    async def _of_invoice(self, invoice: str) -> Subject | None:
        if invoice not in self._ours:
            there = await self._stripe.call("v1.invoices.retrieve", invoice)
            if OURS not in (there.get("metadata") or {}):
                return None
        return Subject("invoice", invoice)


def is_paid(charge: Mapping[str, Any]) -> bool:
    """Whether the money of a charge has come."""
    return bool(charge["status"] == "succeeded" and charge["captured"])


# ---- the journal


def _booked(*where: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Ask for what was booked on cash."""
    columns, entries = credit_transactions.c, credit_entries.c
    fields = (columns.kind, columns.source, credit_grants.c.payment, invoices.c.stripe_id, customers.c.name)
    return (
        sa.select(*fields, entries.amount)
        .join_from(credit_transactions, credit_entries, entries.seq == columns.seq)
        .join(customers, customers.c.id == columns.customer)
        .outerjoin(credit_grants, credit_grants.c.id == columns.original)
        .outerjoin(invoices, invoices.c.id == columns.original)
        .where(entries.account == "cash", columns.kind.in_(list(KINDS)), *where)
        .order_by(columns.seq)
    )


async def _read(connection: AsyncConnection, asked: sa.Select[Any]) -> dict[Subject, Booked]:
    book: dict[Subject, Booked] = {}
    for kind, source, intent, invoice, name, amount in await connection.execute(asked):
        what = KINDS[kind]
        by = {"purchase": intent, "refund": source}.get(what, invoice)
        subject = Subject(what, by or source)
        before = book[subject].cents if subject in book else 0
        book[subject] = Booked(name, before + amount // CENT, intent)
    return book


async def _booked_within(connection: AsyncConnection, span: Span) -> dict[Subject, Booked]:
    """Return what was booked in a time."""
    columns = credit_transactions.c
    return await _read(connection, _booked(columns.at >= span.start * 1000, columns.at < span.end * 1000))


async def _booked_ever(connection: AsyncConnection, some: Collection[Subject]) -> dict[Subject, Booked]:
    """Return all that was booked of these."""
    book: dict[Subject, Booked] = {}
    for what, column in KNOWN_BY.items():
        ids = sorted(one.id for one in some if one.what == what)
        kinds = [kind for kind, of in KINDS.items() if of == what]
        for at in range(0, len(ids), LOOKED_UP_MAX):
            asked = _booked(column.in_(ids[at : at + LOOKED_UP_MAX]), credit_transactions.c.kind.in_(kinds))
            book |= await _read(connection, asked)
    return book
