"""Trials: the first charge comes at their end, and an event announces the end three days before."""

import calendar
import uuid
from typing import Any

import pytest
import stripe

from tests.support.stripe_sandbox import Api, Sandbox, advance_clock

START = calendar.timegm((2027, 1, 1, 0, 0, 0))
DAY, HOUR = 86400, 3600


class Subscriber:
    """A customer on a test clock, and a price of 20 dollars a month."""

    def __init__(self, client: stripe.StripeClient) -> None:
        self.client = client

    async def open(self, card: str | None = "pm_card_visa") -> "Subscriber":
        """Create both."""
        v1 = self.client.v1
        self.clock = (await v1.test_helpers.test_clocks.create_async({"frozen_time": START})).id
        with_card: Any = {"payment_method": card, "invoice_settings": {"default_payment_method": card}} if card else {}
        self.customer = (await v1.customers.create_async({"test_clock": self.clock, **with_card})).id
        product = await v1.products.create_async(
            {
                "name": f"Pro {uuid.uuid4().hex[:8]}",
                "default_price_data": {"currency": "usd", "unit_amount": 2000, "recurring": {"interval": "month"}},
            }
        )
        assert isinstance(product.default_price, str)
        self.product, self.price = product.id, product.default_price
        return self

    async def subscribe(self, **more: Any) -> stripe.Subscription:
        """Subscribe."""
        params: Any = {"customer": self.customer, "items": [{"price": self.price}], **more}
        return await self.client.v1.subscriptions.create_async(params)

    async def advance(self, to: int) -> None:
        """Advance the clock."""
        await advance_clock(self.client, self.clock, to)

    async def invoices(self) -> list[stripe.Invoice]:
        """The invoices, oldest first."""
        return (await self.client.v1.invoices.list_async({"customer": self.customer})).data[::-1]

    async def events(self, of: str, since: str = "") -> list[str]:
        """Types of the events of an object that have this beginning, oldest first."""
        events = (await self.client.v1.events.list_async({"limit": 100, "type": f"{since}*"})).data
        return [event.type for event in events if getattr(event.data.object, "id", None) == of][::-1]


async def period(subscriber: Subscriber, id: str) -> tuple[int, int]:
    """The current period of the only item."""
    (item,) = (await subscriber.client.v1.subscriptions.retrieve_async(id))["items"].data
    return item.current_period_start, item.current_period_end


def test_trial_is_free_and_charged_one_hour_after_its_end(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        subscriber = await Subscriber(client).open()
        created = await subscriber.subscribe(trial_period_days=14)
        end = START + 14 * DAY
        assert (created.status, created.trial_start, created.trial_end) == ("trialing", START, end)
        assert created.billing_cycle_anchor == end
        assert await period(subscriber, created.id) == (START, end)
        (first,) = await subscriber.invoices()
        assert (first.status, first.total, first.billing_reason) == ("paid", 0, "subscription_create")
        assert (first.lines.data[0].description or "").startswith("Trial period for Pro ")
        name = "customer.subscription"
        await subscriber.advance(end - 3 * DAY - 1)
        assert await subscriber.events(created.id, name) == [f"{name}.created"]
        await subscriber.advance(end - 3 * DAY)
        assert await subscriber.events(created.id, name) == [f"{name}.created", f"{name}.trial_will_end"]
        await subscriber.advance(end)
        assert (await client.v1.subscriptions.retrieve_async(created.id)).status == "active"
        assert await period(subscriber, created.id) == (end, calendar.timegm((2027, 2, 15, 0, 0, 0)))
        await subscriber.advance(end + HOUR)
        _, charged = await subscriber.invoices()
        assert (charged.status, charged.total, charged.billing_reason) == ("paid", 2000, "subscription_cycle")

    stripe_api.run(flow)


@pytest.mark.parametrize(
    ("behavior", "status", "invoices"),
    [("cancel", "canceled", 1), ("pause", "paused", 1), ("create_invoice", "past_due", 2)],
)
def test_a_trial_without_a_payment_method_ends_as_its_settings_say(
    stripe_api: Api, behavior: str, status: str, invoices: int
) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        subscriber = await Subscriber(client).open(None)
        settings = {"end_behavior": {"missing_payment_method": behavior}}
        created = await subscriber.subscribe(trial_end=START + 5 * DAY, trial_settings=settings)
        await subscriber.advance(START + 5 * DAY + HOUR)
        ended = await client.v1.subscriptions.retrieve_async(created.id)
        assert (ended.status, len(await subscriber.invoices())) == (status, invoices)
        if behavior != "pause":
            return
        resumed = await client.v1.subscriptions.resume_async(created.id, {})
        assert resumed.status == "paused", "nothing pays its invoice yet"
        await client.v1.invoices.pay_async(str(resumed.latest_invoice), {"payment_method": "pm_card_visa"})
        resumed = await client.v1.subscriptions.retrieve_async(created.id)
        assert (resumed.status, resumed.billing_cycle_anchor) == ("active", START + 5 * DAY + HOUR)
        assert [invoice.total for invoice in await subscriber.invoices()] == [0, 2000]

    stripe_api.run(flow)


def test_a_trial_is_extended_ended_at_once_and_given_to_a_subscription_that_is_paid(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        subscriber = await Subscriber(client).open()
        created = await subscriber.subscribe(trial_period_days=2)
        assert "customer.subscription.trial_will_end" in await subscriber.events(created.id), (
            "the trial has less than three days left"
        )
        longer = await client.v1.subscriptions.update_async(created.id, {"trial_end": START + 10 * DAY})
        assert (longer.trial_end, longer.billing_cycle_anchor) == (START + 10 * DAY, START + 10 * DAY)
        await subscriber.advance(START + 4 * DAY)
        ended = await client.v1.subscriptions.update_async(created.id, {"trial_end": "now"})
        assert (ended.status, ended.trial_end) == ("active", START + 4 * DAY)
        assert await period(subscriber, created.id) == (START + 4 * DAY, calendar.timegm((2027, 2, 5, 0, 0, 0)))
        assert [(invoice.status, invoice.total) for invoice in await subscriber.invoices()] == [
            ("paid", 0),
            ("paid", 2000),
        ]
        half = START + 4 * DAY + 31 * DAY // 2
        await subscriber.advance(half)
        again = await client.v1.subscriptions.update_async(created.id, {"trial_end": half + DAY})
        assert again.status == "trialing"
        pending = await client.v1.invoice_items.list_async({"customer": subscriber.customer, "pending": True})
        assert [item.amount for item in pending.data] == [-1000]
        await subscriber.advance(half + DAY + HOUR)
        assert (await subscriber.invoices())[-1].total == 1000
        assert (await client.v1.subscriptions.retrieve_async(created.id)).status == "active"

    stripe_api.run(flow)


def test_a_subscription_that_is_canceled_in_its_trial_never_charges(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        subscriber = await Subscriber(client).open()
        leaving = await subscriber.subscribe(trial_period_days=5, cancel_at_period_end=True)
        preview = client.v1.invoices.create_preview_async({"subscription": leaving.id})
        with pytest.raises(stripe.InvalidRequestError) as none:
            await preview
        assert none.value.code == "invoice_upcoming_none"
        staying = await client.v1.subscriptions.update_async(leaving.id, {"cancel_at_period_end": False})
        assert (staying.cancel_at, staying.canceled_at) == (None, None)
        assert (await client.v1.invoices.create_preview_async({"subscription": leaving.id})).total == 2000
        await client.v1.subscriptions.update_async(leaving.id, {"cancel_at_period_end": True})
        await subscriber.advance(START + 6 * DAY)
        assert (await client.v1.subscriptions.retrieve_async(leaving.id)).status == "canceled"
        assert [invoice.total for invoice in await subscriber.invoices()] == [0]
        with pytest.raises(stripe.InvalidRequestError) as gone:
            await client.v1.subscriptions.cancel_async(leaving.id)
        assert (gone.value.http_status, gone.value.code) == (404, "resource_missing")

    stripe_api.run(flow)


@pytest.mark.parametrize(
    ("trial", "param"),
    [
        ({"trial_period_days": 731}, "trial_period_days"),
        ({"trial_period_days": -1}, "trial_period_days"),
        ({"trial_end": START}, "trial_end"),
        ({"trial_end": START + 731 * DAY}, "trial_end"),
        ({"trial_end": START + DAY, "trial_period_days": 1}, "trial_period_days"),
    ],
)
def test_a_trial_that_cannot_be_is_refused(stripe_api: Api, trial: Any, param: str) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        subscriber = await Subscriber(client).open()
        with pytest.raises(stripe.InvalidRequestError) as raised:
            await subscriber.subscribe(**trial)
        assert raised.value.param == param

    stripe_api.run(flow)


def test_checkout_begins_a_trial(stripe_sandbox: Sandbox) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        subscriber = await Subscriber(client).open()
        session = await client.v1.checkout.sessions.create_async(
            {
                "mode": "subscription",
                "success_url": "https://shop.example/ok",
                "line_items": [{"price": subscriber.price, "quantity": 1}],
                "subscription_data": {"trial_period_days": 7},
            }
        )
        assert session.amount_total == 0
        stripe_sandbox.control(f"checkout/{session.id}/pay", {"card": "4242 4242 4242 4242"})
        paid = await client.v1.checkout.sessions.retrieve_async(session.id, {"expand": ["subscription"]})
        assert paid.payment_status == "no_payment_required"
        assert isinstance(paid.subscription, stripe.Subscription)
        assert paid.subscription.status == "trialing"

    stripe_sandbox.run(flow)
