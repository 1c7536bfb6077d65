"""Checkout sessions and customer portal sessions: pages of Stripe that a browser is sent to.

No card data passes through here. A purchase is booked when Stripe reports it (collector/billing/credits/purchases.py).
"""

from edgeproxy.collector.billing.credits.purchases import CUSTOMER
from edgeproxy.collector.billing.journal.postings import CENT, CREDIT
from edgeproxy.collector.billing.stripe.client import Stripe, StripeObject, try_keys
from edgeproxy.config.collector.billing import Tax
from edgeproxy.config.collector.currency_units import USD


async def create_checkout_session(
    stripe: Stripe,
    payer: str,
    customer: str,
    amount: int,
    urls: tuple[str, str | None],
    tax: Tax,
    key: str,
    currency: str = USD,
) -> StripeObject:
    """Create a checkout session for an amount in millicredits, in the currency of the customer's credits.

    `payer` is the customer's id at Stripe, `customer` our id. `urls` are the browser's targets after a payment and
    after a cancellation. All calls with one `key` create one session, except that a failure of Stripe may
    leave an unused one. Raises StripeCallError.
    """
    paid, canceled = urls
    description = f"{amount // CREDIT:,} credits"
    product = {"name": "Prepaid credits", "description": description}
    price = {"currency": currency, "unit_amount": amount // CENT, "tax_behavior": "exclusive", "product_data": product}
    parameters: StripeObject = {
        "mode": "payment",
        "customer": payer,
        "client_reference_id": customer,
        "line_items": [{"quantity": 1, "price_data": price}],
        "success_url": paid,
        "metadata": {CUSTOMER: customer},
        "payment_intent_data": {"metadata": {CUSTOMER: customer}, "description": description},
        **({} if canceled is None else {"cancel_url": canceled}),
        **build_tax_parameters(tax),
    }
    return await try_keys(lambda tries: stripe.call("v1.checkout.sessions.create", key=f"{key}_{tries}", **parameters))


def build_tax_parameters(tax: Tax) -> StripeObject:
    """Return the tax parameters of a checkout session."""
    parameters: StripeObject = {}
    if tax.stripe_tax:
        parameters["automatic_tax"] = {"enabled": True}
    if tax.vat:
        parameters["tax_id_collection"] = {"enabled": True}
    if parameters:  # Stripe stores the details that an existing customer enters for the next time.
        parameters["customer_update"] = {"address": "auto", "name": "auto"}
    return parameters


async def create_portal_session(stripe: Stripe, payer: str, url: str) -> StripeObject:
    """Create a customer portal session, and return it. Raises StripeCallError."""
    return await stripe.call("v1.billing_portal.sessions.create", customer=payer, return_url=url)


async def has_tax_id(stripe: Stripe, payer: str) -> bool:
    """Return whether a customer has a tax id that the tax office has verified. Raises StripeCallError."""
    tax_ids = await stripe.list_all("v1.customers.tax_ids.list", payer)
    return any((tax_id.get("verification") or {}).get("status") == "verified" for tax_id in tax_ids)
