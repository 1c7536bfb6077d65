"""A complete read of an existing Stripe account."""

from typing import NamedTuple

from edgeproxy.collector.billing.invoices.invoices import INVOICE_METADATA
from edgeproxy.collector.billing.stripe.client import StripeObject
from edgeproxy.collector.billing.stripe_sync.catalog import StripeApi
from edgeproxy.collector.billing.stripe_sync.subscriptions import SUBSCRIPTION_METADATA


class StripeAccount(NamedTuple):
    """The objects of an account, in Stripe's order."""

    customers: list[StripeObject]
    prices: dict[str, StripeObject]
    """Recurring prices by id, with their tiers and products."""
    subscriptions: list[StripeObject]
    """Subscriptions that are not over, without ours."""
    open_invoices: list[StripeObject]
    """Open invoices, without ours."""
    pending_items: list[StripeObject]
    """Items that wait for an invoice."""


async def read_account(stripe: StripeApi) -> StripeAccount:
    """Read an account page by page. Raises StripeCallError."""
    prices = await stripe.list_all("v1.prices.list", type="recurring", expand=["data.product", "data.tiers"])
    subscriptions = await stripe.list_all("v1.subscriptions.list")
    invoices = await stripe.list_all("v1.invoices.list", status="open")
    return StripeAccount(
        await stripe.list_all("v1.customers.list"),
        {price["id"]: price for price in prices},
        [
            subscription
            for subscription in subscriptions
            if SUBSCRIPTION_METADATA not in (subscription.get("metadata") or {})
        ],
        [invoice for invoice in invoices if INVOICE_METADATA not in (invoice.get("metadata") or {})],
        await stripe.list_all("v1.invoice_items.list", pending=True),
    )
