"""Subjects of Stripe's payments: our purchase or invoice behind a payment intent."""

from collections.abc import Collection, Mapping

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.credits.purchases import CUSTOMER, parse_id
from edgeproxy.collector.billing.invoices.invoices import IS_WRITTEN, VOID, VOIDING
from edgeproxy.collector.billing.stripe.client import Stripe, StripeObject
from edgeproxy.collector.billing.stripe_balance.entries import PaymentSubject
from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.book_text import match_book_text
from edgeproxy.collector.database.credit_tables import credit_grants
from edgeproxy.collector.database.database import Database

LOOKBACK_SECONDS = 86400
"""An invoice payment is usually at most this many seconds before its movement. Others are looked up one by one."""
LOOKED_UP_MAX = 1000
"""The most ids that one statement looks up."""


class PaymentSubjects:
    """Finds the subjects of payments. All methods raise StripeCallError."""

    def __init__(self, database: Database, stripe: Stripe) -> None:
        self._database = database
        self._stripe = stripe
        self._invoices: dict[str, str] = {}
        """Stripe's invoice ids, by the payment intents that paid them."""
        self._subjects: dict[str, PaymentSubject | None] = {}
        """Subjects by payment intent; None if the payment was not for us."""

    async def load_invoice_payments(self, since: int) -> None:
        """Read the invoices paid by the payments since a Unix second.

        One list replaces a call for each payment; most payments are on the 1st.
        """
        created = {"gte": since - LOOKBACK_SECONDS}
        for payment in await self._stripe.list_all("v1.invoice_payments.list", created=created):
            self._add_invoice_payment(payment)
        by_stripe_id = await self._find_invoices(set(self._invoices.values()))
        self._subjects |= {intent: by_stripe_id.get(invoice) for intent, invoice in self._invoices.items()}

    async def find_subject(self, source: StripeObject) -> PaymentSubject | None:
        """Return the subject of a charge, a refund or a dispute, or None if it is not ours."""
        intent = parse_id(source.get("payment_intent"))
        if intent is None:
            return None
        if intent not in self._subjects:
            self._subjects[intent] = await self._look_up_intent(intent, source)
        return self._subjects[intent]

    async def _look_up_intent(self, intent: str, source: StripeObject) -> PaymentSubject | None:
        async with self._database.reading() as connection:
            purchase = await find_purchase(connection, intent)
        if purchase is not None:
            return purchase
        metadata = source.get("metadata") or {}
        if source.get("object") != "charge":
            metadata = (await self._stripe.call("v1.payment_intents.retrieve", intent)).get("metadata") or {}
        if CUSTOMER in metadata:  # Its webhook has not arrived (yet).
            return PaymentSubject("purchase", intent, "")
        if intent not in self._invoices:
            payment = {"type": "payment_intent", "payment_intent": intent}
            for invoice_payment in await self._stripe.list_all("v1.invoice_payments.list", payment=payment):
                self._add_invoice_payment(invoice_payment)
        invoice = self._invoices.get(intent)
        return None if invoice is None else (await self._find_invoices({invoice})).get(invoice)

    def _add_invoice_payment(self, payment: StripeObject) -> None:
        intent, invoice = parse_id((payment.get("payment") or {}).get("payment_intent")), parse_id(payment["invoice"])
        if intent is not None and invoice is not None:
            self._invoices[intent] = invoice

    async def _find_invoices(self, stripe_ids: Collection[str]) -> Mapping[str, PaymentSubject]:
        """Return the invoices among these Stripe invoices that are ours.

        An invoice that a person finalized while ours has no lines is not ours.
        """
        ids, by_stripe_id = sorted(stripe_ids), dict[str, PaymentSubject]()
        async with self._database.reading() as connection:
            for at in range(0, len(ids), LOOKED_UP_MAX):
                columns = invoices.c
                is_void = columns.state.in_((VOIDING, VOID))
                statement = sa.select(columns.stripe_id, columns.id, columns.customer, is_void).where(IS_WRITTEN)
                known = match_book_text(connection, columns.stripe_id, *ids[at : at + LOOKED_UP_MAX])
                page = await connection.execute(statement.where(known))
                by_stripe_id |= {
                    stripe_id: PaymentSubject("invoice", id_, customer, bool(is_off))
                    for stripe_id, id_, customer, is_off in page
                }
        return by_stripe_id


async def find_purchase(connection: AsyncConnection, intent: str) -> PaymentSubject | None:
    """Return the purchase that this payment intent paid, or None if none is booked."""
    columns = credit_grants.c
    row = (await connection.execute(sa.select(columns.id, columns.customer).where(columns.payment == intent))).first()
    return None if row is None else PaymentSubject("purchase", row.id, row.customer)
