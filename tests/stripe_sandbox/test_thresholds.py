"""Billing thresholds with Stripe's own client: usage is charged once it is worth an amount, and nothing twice."""

import time
from typing import Any

import pytest
import stripe

from tests.support.stripe_sandbox import Sandbox

DAY = 86400


@pytest.mark.difference(
    "`billing_thresholds` of a subscription",
    "charge usage once it is worth `amount_gte`, but on the last day of a period; tiers count anew from there",
)
@pytest.mark.parametrize("reset", [False, True])
def test_usage_is_charged_once_it_is_worth_enough(own_sandbox: Sandbox, reset: bool) -> None:
    name = f"thresholds_{reset}"

    async def use(client: stripe.StripeClient, customer: str, value: int, many: int) -> list[stripe.Invoice]:
        """Use something, and return the drafts once there are so many."""
        payload = {"stripe_customer_id": customer, "value": str(value)}
        await client.v1.billing.meter_events.create_async({"event_name": name, "payload": payload})
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            drafts = (await client.v1.invoices.list_async({"customer": customer, "status": "draft"})).data
            if len(drafts) == many:
                return drafts
        raise AssertionError("the invoice is not there")

    async def flow(client: stripe.StripeClient) -> None:
        customer = (
            await client.v1.customers.create_async(
                {
                    "email": "a@example.com",
                    "payment_method": "pm_card_visa",
                    "invoice_settings": {"default_payment_method": "pm_card_visa"},
                }
            )
        ).id
        meter = await client.v1.billing.meters.create_async(
            {"display_name": "Calls", "event_name": name, "default_aggregation": {"formula": "sum"}}
        )
        recurring: Any = {"interval": "month", "usage_type": "metered", "meter": meter.id}
        price = await client.v1.prices.create_async(
            {"currency": "usd", "unit_amount": 10, "recurring": recurring, "product_data": {"name": "Calls"}}
        )
        fee = await client.v1.prices.create_async(
            {"currency": "usd", "unit_amount": 500, "recurring": {"interval": "month"}, "product": str(price.product)}
        )
        params: Any = {"customer": customer, "items": [{"price": price.id}, {"price": fee.id}]}
        with pytest.raises(stripe.InvalidRequestError):
            await client.v1.subscriptions.create_async({**params, "billing_thresholds": {"amount_gte": 49}})
        created = await client.v1.subscriptions.create_async(
            {**params, "billing_thresholds": {"amount_gte": 1000, "reset_billing_cycle_anchor": reset}}
        )
        assert await use(client, customer, 99, 0) == []
        (draft,) = await use(client, customer, 3, 1)
        assert (draft.billing_reason, draft.total) == ("subscription_threshold", 1520 if reset else 1020)
        assert draft.threshold_reason is not None
        assert draft.threshold_reason.amount_gte == 1000
        now = await client.v1.subscriptions.retrieve_async(created.id)
        assert (now.billing_cycle_anchor == created.billing_cycle_anchor) is not reset
        final = await client.v1.invoices.finalize_invoice_async(str(draft.id), {"auto_advance": False})
        assert final.total == draft.total
        own_sandbox.advance(2)
        (again,) = await use(client, customer, 100, 1)
        assert again.total == (1500 if reset else 1000), "usage charged before is not charged again"

    own_sandbox.run(flow)
