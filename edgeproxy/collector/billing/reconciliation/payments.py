"""Reconciliation D: Stripe's payments against the journal, a day at a time, to the cent.

The list of invoice payments names the invoice that a charge pays, and our rows name its customer: Stripe is not
called for each charge, of which there are most on the 1st. A charge that Stripe does not explain is a difference by
itself, under its own id, and does not keep others from being compared.

Both books are read by subject: a purchase, a payment or a refund of an invoice, a refund, a dispute. The time of a
webhook does not matter: what Stripe moved in the day is looked up in the journal, and what the journal booked in the
day is looked up at Stripe.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.billing import discrepancies
from edgeproxy.collector.billing.credits.purchases import CUSTOMER, REFUND, parse_id
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.mismatch import Comparison, Drift, Level
from edgeproxy.collector.billing.period_close.collection.invoice_items import INVOICE_METADATA
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.stripe.client import CallOutcome, Stripe, StripeCallError, StripeObject
from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.credit_tables import credit_entries, credit_grants, credit_transactions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY, HOUR, customers

SETTLED_SECONDS = 2 * HOUR
"""Seconds after the end of a day at which it is compared: events that were lost have come by then."""
DAYS_MAX = 35
"""The most days that are made up for."""
LOOKBACK_SECONDS = DAY
"""Seconds before a charge in which its invoice payment was made, mostly; others are looked up one by one."""

SubjectKind = Literal["purchase", "refund", "invoice", "invoice refund", "unclear"]


class PaymentSubject(NamedTuple):
    """The subject of a movement of money."""

    what: SubjectKind
    id: str
    """The payment intent of a purchase; our id of a refund, or Stripe's of a refund or dispute that began there;
    Stripe's id of an invoice; the id of the charge, refund or dispute that is unclear."""


class BookedAmount(NamedTuple):
    """The amount that the journal has of a subject."""

    customer: str
    """The customer, by name."""
    cents: int
    """The amount in cents: paid above zero, returned below."""
    intent: str | None
    """The payment intent of the purchase that it is about."""


UNBOOKED = BookedAmount("", 0, None)
LOOKED_UP_MAX = 1000
"""Subjects that one statement looks up."""
MISSING = "resource_missing"
DISPUTES = ("dp_", "du_")
"""The prefixes of Stripe's ids of disputes."""
KINDS: Mapping[str, SubjectKind] = {
    "purchase": "purchase",
    "refund_paid": "refund",
    "refund_failed": "refund",
    "chargeback": "refund",
    "chargeback_won": "refund",
    "invoice_paid": "invoice",
    "credit_note": "invoice refund",
}
"""The kinds of transactions that book cash, and their subject."""
ID_COLUMNS: Mapping[SubjectKind, sa.Column[str]] = {
    "purchase": credit_grants.c.payment,
    "refund": credit_transactions.c.source,
    "invoice": invoices.c.stripe_id,
    "invoice refund": invoices.c.stripe_id,
}


async def reconcile_days(database: Database, stripe: Stripe, now: float) -> int:
    """Compare each day that is over and was not compared yet; return how many. Raises StripeCallError; what was done
    until then is recorded."""
    end = int(now - SETTLED_SECONDS) // DAY * DAY
    async with database.reading() as connection:
        reconciled_until = await discrepancies.find_reconciled_until(connection, "D")
    first = end - DAY if reconciled_until is None else max(reconciled_until, end - DAYS_MAX * DAY)
    for start in range(first, end, DAY):
        await reconcile_span(database, stripe, Span(start, start + DAY), now)
    return max(0, end - first) // DAY


async def reconcile_span(database: Database, stripe: Stripe, span: Span, now: float) -> tuple[Drift, Level]:
    """Compare a time of Stripe's payments with the journal. Raises StripeCallError, and then nothing is recorded."""
    at_stripe = StripePayments(stripe, database)
    moved = await at_stripe.fetch_moved(span)
    async with database.reading(whole=True) as connection:
        booked = await _fetch_booked_within(connection, span)
        cents = {subject: entry.cents for subject, entry in booked.items()}
        doubtful = {entry for entry in moved.keys() | cents.keys() if moved.get(entry, 0) != cents.get(entry, 0)}
        # One of the two was late, or there is a difference: all that was ever moved for it must be the same.
        booked_total = await _fetch_booked_total(connection, doubtful)
    rows = [
        Comparison(entry.customer, subject.what, entry.cents, entry.cents)
        for subject, entry in booked.items()
        if subject not in doubtful
    ]
    for subject in sorted(doubtful):
        ours = booked_total.get(subject) or booked.get(subject, UNBOOKED)
        rows.append(
            Comparison(
                ours.customer or subject.id, subject.what, ours.cents, await at_stripe.fetch_total(subject, ours.intent)
            )
        )
    async with database.writing() as connection:
        return await discrepancies.record_reconciliation(connection, "D", span, rows, now)


class StripePayments:
    """Money that Stripe has moved. All methods raise StripeCallError."""

    def __init__(self, stripe: Stripe, database: Database) -> None:
        self._stripe = stripe
        self._database = database
        self._invoices: dict[str, str] = {}
        """Stripe's ids of invoices, by the payment intents that pay them."""
        self._ours: set[str] = set()
        """Ids of these invoices that have a row here."""
        self._moved: dict[PaymentSubject, int] = {}
        self._paid: dict[str, PaymentSubject | None] = {}
        """Subjects by payment intent; None where it pays nothing of ours."""
        self._intents: dict[PaymentSubject, str] = {}
        """Payment intents by refund."""

    async def fetch_moved(self, span: Span) -> dict[PaymentSubject, int]:
        """Return the cents that were moved in a time, by subject."""
        await self._learn_invoices(Span(span.start - LOOKBACK_SECONDS, span.end))
        created = {"gte": span.start, "lt": span.end}
        for charge in await self._stripe.list_all("v1.charges.list", created=created):
            if is_paid(charge):
                await self._add_amount(self._find_charge_subject, charge, charge["amount_captured"])
        for refund in await self._stripe.list_all("v1.refunds.list", created=created):
            if refund["status"] == "succeeded":
                await self._add_amount(self._find_refund_subject, refund, -refund["amount"])
        adjusted: StripeObject = {"created": created, "type": "adjustment", "expand": ["data.source"]}
        for moved in await self._stripe.list_all("v1.balance_transactions.list", **adjusted):
            source = moved.get("source")
            if isinstance(source, dict) and source.get("object") == "dispute":
                await self._add_amount(self._find_refund_subject, source, moved["amount"])
        return self._moved

    async def _learn_invoices(self, span: Span) -> None:
        """Read which invoices the payments of a time pay, and which of them are ours."""
        created = {"gte": span.start, "lt": span.end}
        for payment in await self._stripe.list_all("v1.invoice_payments.list", created=created):
            intent, invoice = (
                parse_id((payment.get("payment") or {}).get("payment_intent")),
                parse_id(payment["invoice"]),
            )
            if intent is not None and invoice is not None:
                self._invoices[intent] = invoice
        ids = sorted(set(self._invoices.values()))
        async with self._database.reading() as connection:
            for at in range(0, len(ids), LOOKED_UP_MAX):
                statement = sa.select(invoices.c.stripe_id).where(
                    invoices.c.stripe_id.in_(ids[at : at + LOOKED_UP_MAX])
                )
                self._ours.update((await connection.execute(statement)).scalars())

    async def _add_amount(
        self,
        find_subject: Callable[[StripeObject], Awaitable[PaymentSubject | None]],
        stripe_object: StripeObject,
        cents: int,
    ) -> None:
        """Add an amount to its subject; a movement that Stripe refuses to explain is unclear, each by itself."""
        try:
            subject = await find_subject(stripe_object)
        except StripeCallError as error:
            if error.outcome is not CallOutcome.REFUSED:
                raise
            log.get_logger().error("it is not known what a payment is for", payment=stripe_object["id"], why=str(error))
            subject = PaymentSubject("unclear", stripe_object["id"])
        if subject is not None:
            self._moved[subject] = self._moved.get(subject, 0) + cents

    async def fetch_total(self, subject: PaymentSubject, intent: str | None) -> int:
        """Return all cents that were moved for a subject; `intent` is what a refund of ours goes back from."""
        if subject.what == "unclear":
            return self._moved[subject]
        try:
            return await self._fetch_total(subject, self._intents.get(subject, intent))
        except StripeCallError as error:
            if error.code == MISSING:
                return 0
            if error.outcome is CallOutcome.REFUSED:  # The part that is known.
                return self._moved.get(subject, 0)
            raise

    async def _fetch_total(self, subject: PaymentSubject, intent: str | None) -> int:
        match subject.what:
            case "purchase":
                charges = await self._stripe.list_all("v1.charges.list", payment_intent=subject.id)
                return sum(int(item["amount_captured"]) for item in charges if is_paid(item))
            case "invoice":
                return int((await self._stripe.call("v1.invoices.retrieve", subject.id))["amount_paid"])
            case "invoice refund":
                payments = await self._stripe.list_all("v1.invoice_payments.list", invoice=subject.id)
                intents = [parse_id((item.get("payment") or {}).get("payment_intent")) for item in payments]
                return sum([await self._fetch_refunded(item, None) for item in intents if item is not None])
        if subject.id.startswith(DISPUTES):
            dispute = await self._stripe.call("v1.disputes.retrieve", subject.id)
            return sum(int(item["amount"]) for item in dispute.get("balance_transactions") or ())
        return 0 if intent is None else await self._fetch_refunded(intent, subject.id)

    async def _fetch_refunded(self, intent: str, only: str | None) -> int:
        """Return the cents that have gone back of a payment: all, or by the refund with this id here, or at Stripe."""
        refunds = await self._stripe.list_all("v1.refunds.list", payment_intent=intent)
        return -sum(
            int(refund["amount"])
            for refund in refunds
            if refund["status"] == "succeeded"
            and only in (None, refund["id"], (refund.get("metadata") or {}).get(REFUND))
        )

    async def _find_charge_subject(self, charge: StripeObject) -> PaymentSubject | None:
        """Return the subject that a charge pays; None where it is nothing of ours."""
        intent = parse_id(charge.get("payment_intent"))
        if intent is None:
            return None
        if CUSTOMER in (charge.get("metadata") or {}):
            self._paid[intent] = PaymentSubject("purchase", intent)
        return await self._find_paid_subject(intent)

    async def _find_refund_subject(self, stripe_object: StripeObject) -> PaymentSubject | None:
        """Return the subject of a refund or a dispute; None where it is nothing of ours."""
        intent = parse_id(stripe_object.get("payment_intent"))
        paid = None if intent is None else await self._find_paid_subject(intent)
        if paid is None:
            return None
        if paid.what == "invoice":
            return PaymentSubject("invoice refund", paid.id)
        subject = PaymentSubject("refund", (stripe_object.get("metadata") or {}).get(REFUND) or stripe_object["id"])
        self._intents[subject] = paid.id
        return subject

    async def _find_paid_subject(self, intent: str) -> PaymentSubject | None:
        if intent not in self._paid:
            self._paid[intent] = await self._look_up_intent(intent)
        return self._paid[intent]

    async def _look_up_intent(self, intent: str) -> PaymentSubject | None:
        if intent in self._invoices:
            return await self._find_invoice_subject(self._invoices[intent])
        intent_object = await self._stripe.call("v1.payment_intents.retrieve", intent)
        if CUSTOMER in (intent_object.get("metadata") or {}):
            return PaymentSubject("purchase", intent)
        payment = {"type": "payment_intent", "payment_intent": intent}
        for invoice_payment in await self._stripe.list_all("v1.invoice_payments.list", payment=payment):
            if subject := await self._find_invoice_subject(parse_id(invoice_payment["invoice"]) or ""):
                return subject
        return None

    async def _find_invoice_subject(self, invoice: str) -> PaymentSubject | None:
        if invoice not in self._ours:
            stripe_invoice = await self._stripe.call("v1.invoices.retrieve", invoice)
            if INVOICE_METADATA not in (stripe_invoice.get("metadata") or {}):
                return None
        return PaymentSubject("invoice", invoice)


def is_paid(charge: StripeObject) -> bool:
    """Return whether a charge is paid."""
    return bool(charge["status"] == "succeeded" and charge["captured"])


# ---- the journal


async def _fetch_booked(
    connection: AsyncConnection, *conditions: sa.ColumnElement[bool]
) -> dict[PaymentSubject, BookedAmount]:
    """Return the sums on the cash account, by subject, of the transactions that meet these conditions."""
    columns, entries = credit_transactions.c, credit_entries.c
    fields = (columns.kind, columns.source, credit_grants.c.payment, invoices.c.stripe_id, customers.c.name)
    statement = (
        sa.select(*fields, entries.amount)
        .join_from(credit_transactions, credit_entries, entries.seq == columns.seq)
        .join(customers, customers.c.id == columns.customer)
        .outerjoin(credit_grants, credit_grants.c.id == columns.original)
        .outerjoin(invoices, invoices.c.id == columns.original)
        .where(entries.account == "cash", columns.kind.in_(list(KINDS)), *conditions)
        .order_by(columns.seq)
    )
    booked: dict[PaymentSubject, BookedAmount] = {}
    for kind, source, intent, invoice, name, amount in await connection.execute(statement):
        what = KINDS[kind]
        by = {"purchase": intent, "refund": source}.get(what, invoice)
        subject = PaymentSubject(what, by or source)
        cents = booked[subject].cents if subject in booked else 0
        booked[subject] = BookedAmount(name, cents + amount // CENT, intent)
    return booked


async def _fetch_booked_within(connection: AsyncConnection, span: Span) -> dict[PaymentSubject, BookedAmount]:
    """Return the amounts that were booked in a span, by subject."""
    columns = credit_transactions.c
    return await _fetch_booked(connection, columns.at >= span.start * 1000, columns.at < span.end * 1000)


async def _fetch_booked_total(
    connection: AsyncConnection, subjects: Collection[PaymentSubject]
) -> dict[PaymentSubject, BookedAmount]:
    """Return all amounts that were booked of these subjects."""
    booked: dict[PaymentSubject, BookedAmount] = {}
    for subject_kind, column in ID_COLUMNS.items():
        ids = sorted(subject.id for subject in subjects if subject.what == subject_kind)
        kinds = [kind for kind, booked_kind in KINDS.items() if booked_kind == subject_kind]
        for at in range(0, len(ids), LOOKED_UP_MAX):
            of_page = column.in_(ids[at : at + LOOKED_UP_MAX])
            booked |= await _fetch_booked(connection, of_page, credit_transactions.c.kind.in_(kinds))
    return booked
