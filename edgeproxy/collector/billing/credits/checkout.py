"""The way to buy credits, and to change how one pays: pages of the payment service, to which a browser is sent.

No card is seen here. What was bought is booked when the payment service tells of it
(collector/billing/credits/purchases.py).
"""

from typing import Any

from edgeproxy.collector.billing.credits.purchases import CUSTOMER
from edgeproxy.collector.billing.journal.postings import CENT, CREDIT
from edgeproxy.collector.billing.stripe.client import Stripe
from edgeproxy.config.billing import Tax


async def begin(
    stripe: Stripe, payer: str, customer: str, amount: int, urls: tuple[str, str | None], tax: Tax, key: str
) -> dict[str, Any]:
    """Make a checkout session for so many millicredits, and return it.

    `payer` is the customer's id at Stripe, `customer` the one here, `urls` where the browser is sent afterwards: paid,
    and not. With the same `key` it is made once. Raises StripeFailure.
    """
    paid, canceled = urls
    credits_ = f"{amount // CREDIT:,} credits"
    product = {"name": "Prepaid credits", "description": credits_}
    price = {
        "currency": "usd",
        "unit_amount": amount // CENT,
        "tax_behavior": "exclusive",
        "product_data": product,
    }
    return await stripe.call(
        "v1.checkout.sessions.create",
        key=key,
        mode="payment",
        customer=payer,
        client_reference_id=customer,
        line_items=[{"quantity": 1, "price_data": price}],
        success_url=paid,
        metadata={CUSTOMER: customer},
        payment_intent_data={"metadata": {CUSTOMER: customer}, "description": credits_},
        **({} if canceled is None else {"cancel_url": canceled}),
        **taxed(tax),
    )


def taxed(tax: Tax) -> dict[str, Any]:
    """What a checkout session is told of taxes."""
    said: dict[str, Any] = {}
    if tax.stripe_tax:
        said["automatic_tax"] = {"enabled": True}
    if tax.vat:
        said["tax_id_collection"] = {"enabled": True}
    if said:  # Of a customer that is there already, what is entered is kept for the next time.
        said["customer_update"] = {"address": "auto", "name": "auto"}
    return said


async def portal(stripe: Stripe, payer: str, url: str) -> dict[str, Any]:
    """Make a session of the customer portal, and return it; raises StripeFailure."""
    return await stripe.call("v1.billing_portal.sessions.create", customer=payer, return_url=url)


async def has_tax_id(stripe: Stripe, payer: str) -> bool:
    """Whether a customer has a tax id that the tax office knows; raises StripeFailure."""
    found = await stripe.every("v1.customers.tax_ids.list", payer)
    return any((one.get("verification") or {}).get("status") == "verified" for one in found)
