"""A month of a subscription on a test clock: fees in advance, usage in arrears by tiers, changes by the second."""

import calendar
import time
import uuid
from typing import Any

import pytest
import stripe

from tests.support.stripe_sandbox import Api, Sandbox, advance_clock

JANUARY = calendar.timegm((2027, 1, 1, 0, 0, 0))
FEBRUARY = calendar.timegm((2027, 2, 1, 0, 0, 0))
CHANGE = calendar.timegm((2027, 1, 16, 12, 0, 0))
HOUR = 3600


class Shop:
    """A plan with a fee and a meter, and a customer on a test clock."""

    def __init__(self, client: stripe.StripeClient) -> None:
        self.client = client
        self.prices: dict[str, str] = {}

    async def open(self, name: str, at: int = JANUARY) -> "Shop":
        """Create the plan and the customer under a unique name."""
        v1, name = self.client.v1, f"{name}-{uuid.uuid4().hex[:8]}"
        self.clock = (await v1.test_helpers.test_clocks.create_async({"frozen_time": at})).id
        card = "pm_card_visa"
        self.customer = (
            await v1.customers.create_async(
                {
                    "test_clock": self.clock,
                    "payment_method": card,
                    "invoice_settings": {"default_payment_method": card},
                }
            )
        ).id
        self.event = f"{name}-tokens"
        self.meter = (
            await v1.billing.meters.create_async(
                {"display_name": name, "event_name": self.event, "default_aggregation": {"formula": "sum"}}
            )
        ).id
        product = (await v1.products.create_async({"name": name})).id
        for plan, fee, included, unit in (
            ("standard", 9900, 1_000_000, "0.001"),
            ("enterprise", 49900, 10_000_000, "0.0005"),
        ):
            price = await v1.prices.create_async(
                {
                    "product": product,
                    "currency": "usd",
                    "unit_amount": fee,
                    "recurring": {"interval": "month"},
                    "lookup_key": f"{name}/{plan}/fee",
                }
            )
            self.prices[plan] = price.id
            metered = await v1.prices.create_async(
                {
                    "product": product,
                    "currency": "usd",
                    "billing_scheme": "tiered",
                    "tiers_mode": "graduated",
                    "tiers": [
                        {"up_to": included, "unit_amount": 0},
                        {"up_to": "inf", "unit_amount_decimal": unit},
                    ],
                    "recurring": {"interval": "month", "usage_type": "metered", "meter": self.meter},
                }
            )
            self.prices[f"{plan} tokens"] = metered.id
        return self

    async def subscribe(self, **more: Any) -> stripe.Subscription:
        """Subscribe to Standard."""
        items = [{"price": self.prices["standard"]}, {"price": self.prices["standard tokens"]}]
        params: Any = {
            "customer": self.customer,
            "items": items,
            "billing_mode": {"type": "flexible"},
            "billing_cycle_anchor_config": {"day_of_month": 1, "hour": 0, "minute": 0, "second": 0},
            **more,
        }
        return await self.client.v1.subscriptions.create_async(params)

    async def use(self, many: int, at: int) -> None:
        """Report tokens, and wait until they are counted."""
        await self.client.v1.billing.meter_events.create_async(
            {
                "event_name": self.event,
                "payload": {"stripe_customer_id": self.customer, "value": str(many)},
                "timestamp": at,
            }
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            start = at // 60 * 60
            sums = await self.client.v1.billing.meters.event_summaries.list_async(
                self.meter, {"customer": self.customer, "start_time": start, "end_time": start + 60}
            )
            if sums.data:
                return
        raise AssertionError("the event is not counted")

    async def advance(self, to: int) -> None:
        """Advance the test clock and wait until all due work is done."""
        await advance_clock(self.client, self.clock, to)

    async def invoices(self) -> list[stripe.Invoice]:
        """Return the customer's invoices, newest first."""
        return (await self.client.v1.invoices.list_async({"customer": self.customer})).data


def amounts(invoice: stripe.Invoice) -> list[tuple[int, int | None]]:
    """Return the amounts and quantities of the lines, sorted by amount."""
    return sorted((line.amount, line.quantity) for line in invoice.lines.data)


@pytest.mark.difference(
    "a graduated price",
    "a line for each tier that is reached, and for the first one in any case",
)
def test_month_is_billed_by_tiers_one_hour_after_its_end(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        shop = await Shop(client).open("month")
        created = await shop.subscribe()
        assert created.status == "active"
        (first,) = await shop.invoices()
        assert (first.status, first.total, first.billing_reason) == ("paid", 9900, "subscription_create")
        await shop.use(1_234_000, JANUARY + 60)
        upcoming = await client.v1.invoices.create_preview_async({"subscription": created.id})
        assert upcoming.total == 9900 + 234
        assert len(await shop.invoices()) == 1
        await shop.advance(FEBRUARY + 1)
        draft, _ = await shop.invoices()
        assert (draft.status, draft.billing_reason, draft.auto_advance) == ("draft", "subscription_cycle", True)
        assert draft.automatically_finalizes_at == FEBRUARY + HOUR
        # Usage reported while the invoice is a draft counts: the quantity is fixed at finalization.
        await shop.use(567, FEBRUARY - 60)
        await shop.advance(FEBRUARY + HOUR)
        final, _ = await shop.invoices()
        assert (final.status, final.amount_paid) == ("paid", 10135)
        assert amounts(final) == [(0, 1_000_000), (235, 234_567), (9900, 1)]
        await shop.use(5_000_000, FEBRUARY - 30)
        await shop.advance(calendar.timegm((2027, 3, 1, 2, 0, 0)))
        march = (await shop.invoices())[0]
        assert amounts(march) == [(0, 0), (9900, 1)]

    stripe_api.run(flow)


def test_draft_without_auto_advance_stays_a_draft(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        shop = await Shop(client).open("held")
        await shop.subscribe()
        await shop.advance(FEBRUARY + 1)
        draft = (await shop.invoices())[0]
        await client.v1.invoices.update_async(draft.id, {"auto_advance": False})
        await client.v1.invoice_items.create_async(
            {"customer": shop.customer, "invoice": draft.id, "amount": 7, "currency": "usd", "description": "late"}
        )
        await shop.advance(FEBRUARY + 48 * HOUR)
        held = await client.v1.invoices.retrieve_async(draft.id)
        assert (held.status, held.automatically_finalizes_at) == ("draft", None)
        final = await client.v1.invoices.finalize_invoice_async(draft.id, {"auto_advance": False})
        assert (final.status, final.total) == ("open", 9907)
        assert (await client.v1.invoices.pay_async(draft.id)).status == "paid"

    stripe_api.run(flow)


@pytest.mark.difference(
    "a price's included amount in a part of a period",
    "whole: tiers are not cut",
)
@pytest.mark.difference(
    "usage of a metered price that is changed or removed",
    "pending items, one for each tier, of what is counted by then",
)
def test_upgrade_prorates_by_the_second_and_bills_usage_of_each_part(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        shop = await Shop(client).open("upgrade")
        created = await shop.subscribe()
        await shop.advance(CHANGE)
        await shop.use(1_500_000, CHANGE - 60)
        fee, tokens = created["items"].data
        change: Any = {
            "items": [
                {"id": fee.id, "price": shop.prices["enterprise"]},
                {"id": tokens.id, "deleted": True},
                {"price": shop.prices["enterprise tokens"]},
            ],
            "proration_behavior": "create_prorations",
        }
        preview = await client.v1.invoices.create_preview_async(
            {"subscription": created.id, "subscription_details": change}
        )
        changed = await client.v1.subscriptions.update_async(created.id, change)
        assert {item.price.id for item in changed["items"].data} == {
            shop.prices["enterprise"],
            shop.prices["enterprise tokens"],
        }
        pending = await client.v1.invoice_items.list_async({"customer": shop.customer, "pending": True})
        assert sorted((one.amount, one.proration) for one in pending.data) == [
            (-4950, True),
            (0, False),
            (500, False),
            (24950, True),
        ]
        await shop.use(10_002_000, CHANGE + 60)
        await shop.advance(FEBRUARY + HOUR)
        final = (await shop.invoices())[0]
        assert final.status == "paid"
        assert amounts(final) == [
            (-4950, 1),
            (0, 1_000_000),
            (0, 10_000_000),
            (1, 2_000),
            (500, 500_000),
            (24950, 1),
            (49900, 1),
        ]
        assert preview.total == final.total - 1

    stripe_api.run(flow)


@pytest.mark.difference(
    "the last invoice, `invoice_now`",
    "finalized and charged at once, as of `subscription_update`",
)
@pytest.mark.difference(
    "canceling without `invoice_now`",
    "usage of the period is never charged",
)
@pytest.mark.parametrize(
    ("cancel", "last"),
    [
        ({"invoice_now": True}, [(0, 1_000_000), (1, 1_000)]),
        ({"invoice_now": True, "prorate": True}, [(-4950, 1), (0, 1_000_000), (1, 1_000)]),
        ({}, [(9900, 1)]),
    ],
)
def test_immediate_cancel_invoices_open_usage_if_requested(
    stripe_api: Api, cancel: Any, last: list[tuple[int, int]]
) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        shop = await Shop(client).open(f"cancel-{len(last)}")
        created = await shop.subscribe()
        await shop.advance(CHANGE)
        await shop.use(1_001_000, CHANGE - 60)
        ended = await client.v1.subscriptions.cancel_async(created.id, cancel)
        assert (ended.status, ended.ended_at) == ("canceled", CHANGE)
        latest = (await shop.invoices())[0]
        assert amounts(latest) == last
        if cancel:
            assert (latest.status, latest.billing_reason) == ("paid", "subscription_update")
        await shop.advance(FEBRUARY + HOUR)
        assert len(await shop.invoices()) == (2 if cancel else 1)

    stripe_api.run(flow)


def test_cancel_at_period_end_bills_usage_without_a_new_fee(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        shop = await Shop(client).open("leaving")
        created = await shop.subscribe()
        leaving = await client.v1.subscriptions.update_async(created.id, {"cancel_at_period_end": True})
        assert (leaving.status, leaving.cancel_at) == ("active", FEBRUARY)
        await shop.use(1_010_000, JANUARY + 60)
        await shop.advance(FEBRUARY + HOUR)
        assert (await client.v1.subscriptions.retrieve_async(created.id)).status == "canceled"
        assert amounts((await shop.invoices())[0]) == [(0, 1_000_000), (10, 10_000)]

    stripe_api.run(flow)


def test_mid_month_start_charges_the_rest_of_the_month(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        shop = await Shop(client).open("stub", CHANGE)
        await shop.subscribe()
        (first,) = await shop.invoices()
        assert (first.total, first.lines.data[0].period.end) == (4950, FEBRUARY)

    stripe_api.run(flow)


def test_unpaid_fee_makes_a_subscription_past_due_until_paid(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        shop = await Shop(client).open("unpaid")
        created = await shop.subscribe()
        await client.v1.customers.update_async(
            shop.customer, {"invoice_settings": {"default_payment_method": "pm_card_chargeCustomerFail"}}
        )
        await shop.advance(FEBRUARY + HOUR)
        assert (await client.v1.subscriptions.retrieve_async(created.id)).status == "past_due"
        invoice = (await shop.invoices())[0]
        assert (invoice.status, invoice.attempt_count) == ("open", 1)
        assert invoice.next_payment_attempt is not None
        await client.v1.invoices.pay_async(invoice.id, {"payment_method": "pm_card_visa"})
        assert (await client.v1.subscriptions.retrieve_async(created.id)).status == "active"

    stripe_api.run(flow)


def test_subscription_without_a_payment_method_is_refused(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        shop = await Shop(client).open("poor")
        # In the last hours of a real month the fee is below the least charge, and needs no payment method.
        shop.customer = (await client.v1.customers.create_async({"name": "poor", "test_clock": shop.clock})).id
        with pytest.raises(stripe.InvalidRequestError) as raised:
            await shop.subscribe()
        assert raised.value.code == "resource_missing"
        assert not await shop.invoices()
        subscribed = await shop.subscribe(payment_behavior="default_incomplete")
        assert subscribed.status == "incomplete"

    stripe_api.run(flow)


@pytest.mark.difference(
    "billing credits",
    "pay for usage on invoices of subscriptions, before tax, when these are finalized",
)
def test_credits_pay_a_finalized_invoice_and_return_when_void(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        shop = await Shop(client).open("credits")
        await shop.subscribe(collection_method="send_invoice", days_until_due=7)
        for value, priority in ((100, 1), (1_000, 2)):
            await client.v1.billing.credit_grants.create_async(
                {
                    "customer": shop.customer,
                    "amount": {"type": "monetary", "monetary": {"currency": "usd", "value": value}},
                    "applicability_config": {"scope": {"price_type": "metered"}},
                    "priority": priority,
                }
            )
        await shop.use(1_234_567, JANUARY + 60)
        await shop.advance(FEBRUARY + 2 * HOUR)
        final = (await shop.invoices())[0]
        assert (final.status, final.subtotal, final.total) == ("open", 10135, 9900)
        assert [
            total_pretax_credit_amount.amount for total_pretax_credit_amount in final.total_pretax_credit_amounts or ()
        ] == [100, 135]

        async def left() -> int | None:
            summary = await client.v1.billing.credit_balance_summary.retrieve_async(
                {
                    "customer": shop.customer,
                    "filter": {"type": "applicability_scope", "applicability_scope": {"price_type": "metered"}},
                }
            )
            money = summary.balances[0].available_balance.monetary
            return None if money is None else money.value

        assert await left() == 865
        await client.v1.invoices.void_invoice_async(final.id)
        assert await left() == 1_100

    stripe_api.run(flow)


def test_usage_alert_triggers_once_at_its_threshold(stripe_sandbox: Sandbox) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        shop = await Shop(client).open("alert")
        shop.customer = (await client.v1.customers.create_async({})).id
        alert = await client.v1.billing.alerts.create_async(
            {
                "alert_type": "usage_threshold",
                "title": "much",
                "usage_threshold": {"gte": 100, "meter": shop.meter, "recurrence": "one_time"},
            }
        )
        now = int(stripe_sandbox.control("clock")["now"])
        for n, (many, told) in enumerate(((99, 0), (1, 1), (500, 1))):
            await shop.use(many, now + 60 * n)
            events = await client.v1.events.list_async({"type": "billing.alert.triggered"})
            assert len([one for one in events.data if one.data.object["alert"]["id"] == alert.id]) == told

    stripe_sandbox.run(flow)


def test_paused_subscription_charges_nothing_until_resumed(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        shop = await Shop(client).open("pause")
        created = await shop.subscribe()
        await shop.advance(CHANGE)
        await shop.use(1_002_000, CHANGE - 60)
        now: Any = {"type": "now"}
        paused = await client.v1.subscriptions.pause_async(
            created.id,
            {
                "type": "subscription",
                "bill_for": {"outstanding_usage_through": now, "unused_time_from": now},
                "invoicing_behavior": "pending_invoice_item",
            },
        )
        assert paused.status == "paused"
        await shop.advance(calendar.timegm((2027, 2, 15, 0, 0, 0)))
        assert len(await shop.invoices()) == 1
        resumed = await client.v1.subscriptions.resume_async(created.id, {"proration_behavior": "create_prorations"})
        assert resumed.status == "active"
        pending = await client.v1.invoice_items.list_async({"customer": shop.customer, "pending": True})
        assert sorted(one.amount for one in pending.data) == [-4950, 0, 2, 4950]

    stripe_api.run(flow)
