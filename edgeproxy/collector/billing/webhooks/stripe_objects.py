"""Objects and events of Stripe for the processor."""

from collections.abc import Mapping
from datetime import UTC, datetime

from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.billing.credits.purchases import parse_id
from edgeproxy.collector.billing.invoices import stripe_payments
from edgeproxy.collector.billing.invoices.disputes import PAID_INVOICE
from edgeproxy.collector.billing.invoices.foreign_balance import TRANSACTIONS
from edgeproxy.collector.billing.stripe import billing_details
from edgeproxy.collector.billing.stripe.client import CallOutcome, Stripe, StripeCallError, StripeObject
from edgeproxy.collector.billing.stripe.customers import CUSTOMER
from edgeproxy.collector.billing.stripe.webhook_event import REPORT, REPORTS
from edgeproxy.collector.billing.webhooks.processor import StripeDeniedError, StripeUnavailableError

EXPANDED: Mapping[str, list[str]] = {
    "invoice": list(stripe_payments.EXPANDED),
    "refund": ["payment_intent"],
    "dispute": ["payment_intent"],
    "customer": list(billing_details.EXPANDED),
}
"""The fields to expand with an object, by type. A payment shows whether it buys credits."""
NEWEST = 100
"""The number of balance transactions fetched with a customer: one page."""
PAYMENT_PARTS = frozenset({"dispute", "refund"})
"""The types of objects about a payment, which are fetched with the invoice that it paid."""
TRANSIENT_OUTCOMES = frozenset({CallOutcome.BUSY, CallOutcome.FAILED, CallOutcome.LOST, CallOutcome.DENIED})
"""Outcomes that prove nothing about the object."""
NOT_THERE = 404


class StripeObjects:
    """Objects and events of one account."""

    def __init__(self, stripe: Stripe) -> None:
        self._stripe = stripe

    async def fetch(self, object_type: str, id: str) -> StripeObject:
        """Return the current state of an object; `{id, object, deleted: true}` if it was deleted.

        Customers also have REQUESTED_AT, and ours the newest transactions of their balance; disputes and refunds have
        PAID_INVOICE. Raises StripeUnavailableError.
        """
        # Before the call: a change here after this moment is newer than the fetched state.
        requested_at = now_ms()
        expanded = {"expand": EXPANDED[object_type]} if object_type in EXPANDED else {}
        stripe_object = await self._fetch(find_method(object_type), id, **expanded)
        if stripe_object is None:
            return {"id": id, "object": object_type, "deleted": True}
        if object_type in PAYMENT_PARTS:
            return {**stripe_object, PAID_INVOICE: await self._find_paid_invoice(stripe_object)}
        if object_type != "customer":
            return stripe_object
        stripe_object = {**stripe_object, billing_details.REQUESTED_AT: requested_at}
        if CUSTOMER in (stripe_object.get("metadata") or {}):
            page = await self._fetch("v1.customers.balance_transactions.list", id, limit=NEWEST)
            stripe_object[TRANSACTIONS] = (page or {}).get("data")
        return stripe_object

    async def list_events(self, since: int) -> list[StripeObject]:
        """List the snapshot events since a Unix second. Raises StripeUnavailableError."""
        return await self._list_all("v1.events.list", created={"gte": since})

    async def list_thin_events(self, since: int) -> list[StripeObject]:
        """List the thin events of the applied types since a Unix second. Raises StripeUnavailableError."""
        moment = datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return await self._list_all("v2.core.events.list", created={"gte": moment}, types=sorted(REPORTS))

    async def fetch_event(self, id: str) -> StripeObject | None:
        """Return an event, or None if Stripe no longer has it. Raises StripeUnavailableError."""
        # The event may be a snapshot or a thin one.
        return await self._fetch("v1.events.retrieve", id) or await self._fetch("v2.core.events.retrieve", id)

    async def _find_paid_invoice(self, payment_part: StripeObject) -> StripeObject | None:
        """Return the Stripe invoice behind a dispute or a refund, or None if no invoice was paid."""
        try:
            return await find_paid_invoice(self._stripe, payment_part)
        except StripeCallError as error:
            raise _build_unavailable(error) from error

    async def _list_all(self, name: str, **params: object) -> list[StripeObject]:
        try:
            return [*await self._stripe.list_all(name, **params)]
        except StripeCallError as error:
            raise _build_unavailable(error) from error

    async def _fetch(self, name: str, id: str, **params: object) -> StripeObject | None:
        try:
            return await self._stripe.call(name, id, key=None, **params)
        except StripeCallError as error:
            if error.status == NOT_THERE:
                return None
            if error.outcome in TRANSIENT_OUTCOMES:
                raise _build_unavailable(error) from error
            raise


def find_method(object_type: str) -> str:
    """Return the method of Stripe's package that fetches an object of this type."""
    return "v2.core.events.retrieve" if object_type == REPORT else f"v1.{object_type}s.retrieve"


def _build_unavailable(error: StripeCallError) -> StripeUnavailableError:
    """Return the error of the processor for a failed call."""
    denied = error.outcome is CallOutcome.DENIED
    return StripeDeniedError(str(error)) if denied else StripeUnavailableError(str(error))


async def find_paid_invoice(stripe: Stripe, payment_part: StripeObject) -> StripeObject | None:
    """Return the Stripe invoice behind a dispute or a refund, or None if no invoice was paid.

    Raises StripeCallError.
    """
    intent = parse_id(payment_part.get("payment_intent"))
    if intent is None:
        return None
    payment = {"type": "payment_intent", "payment_intent": intent}
    payments = await stripe.list_all("v1.invoice_payments.list", payment=payment, expand=["data.invoice"])
    return next((payment["invoice"] for payment in payments), None)
