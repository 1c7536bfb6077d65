"""Subscription schedules with Stripe's own client: phases by a test clock, and what calls make of them."""

from typing import Any

import pytest
import stripe

from tests.support.stripe_sandbox import Api, advance_clock

DAY, HOUR = 86400, 3600
START = 1_893_456_000
"""The first of January 2030."""
FEBRUARY, MARCH = START + 31 * DAY, START + 59 * DAY


async def sold(client: stripe.StripeClient) -> tuple[str, str, dict[str, str]]:
    """A clock, a customer on it with a card, and prices by their names."""
    clock = await client.v1.test_helpers.test_clocks.create_async({"frozen_time": START})
    customer = await client.v1.customers.create_async(
        {
            "test_clock": clock.id,
            "email": "a@example.com",
            "payment_method": "pm_card_visa",
            "invoice_settings": {"default_payment_method": "pm_card_visa"},
        }
    )
    prices = {}
    for name, cents, interval in (("basic", 1000, "month"), ("pro", 3000, "month"), ("yearly", 20000, "year")):
        params: Any = {"currency": "usd", "unit_amount": cents, "recurring": {"interval": interval}}
        prices[name] = (await client.v1.prices.create_async({**params, "product_data": {"name": name}})).id
    return clock.id, customer.id, prices


async def totals(client: stripe.StripeClient, customer: str) -> list[int]:
    """The totals of a customer's invoices, the oldest first."""
    listed = await client.v1.invoices.list_async({"customer": customer})
    return [invoice.total for invoice in reversed(listed.data)]


@pytest.mark.difference(
    "a phase without `duration` and `end_date`",
    "lasts one interval of its first price",
)
@pytest.mark.difference(
    "a phase that begins with a period",
    "is charged by the renewal, without prorations",
)
@pytest.mark.difference(
    "a phase with another interval",
    "begins a new billing cycle; in the middle of a period it is charged at once",
)
def test_phases_advance_with_the_clock(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        clock, customer, prices = await sold(client)
        month: Any = {"interval": "month", "interval_count": 1}
        schedule = await client.v1.subscription_schedules.create_async(
            {
                "customer": customer,
                "start_date": START + DAY,
                "phases": [
                    {"items": [{"price": prices["basic"], "quantity": 2}], "duration": month},
                    {"items": [{"price": prices["pro"]}], "duration": month},
                    {"items": [{"price": prices["yearly"]}], "metadata": {"phase": "3"}},
                ],
            }
        )
        assert (schedule.status, schedule.subscription, schedule.current_phase) == ("not_started", None, None)
        scheduled = await client.v1.subscription_schedules.list_async({"customer": customer, "scheduled": True})
        assert [each.id for each in scheduled.data] == [schedule.id]
        await advance_clock(client, clock, START + DAY + 2 * HOUR)
        schedule = await client.v1.subscription_schedules.retrieve_async(schedule.id, {"expand": ["subscription"]})
        subscription: Any = schedule.subscription
        assert (schedule.status, subscription.status, subscription.schedule) == ("active", "active", schedule.id)
        assert await totals(client, customer) == [2000]
        await advance_clock(client, clock, FEBRUARY + DAY + 2 * HOUR)
        assert await totals(client, customer) == [2000, 3000], (
            "the renewal has the next phase's price, and no proration"
        )
        await advance_clock(client, clock, MARCH + DAY + 2 * HOUR)
        assert await totals(client, customer) == [2000, 3000, 20000]
        entered = await client.v1.subscriptions.retrieve_async(subscription.id)
        (item,) = entered["items"].data
        assert (item.price.id, item.current_period_start, entered.billing_cycle_anchor) == (
            prices["yearly"],
            MARCH + DAY,
            MARCH + DAY,
        )
        assert entered.metadata["phase"] == "3"
        await advance_clock(client, clock, MARCH + 367 * DAY)
        schedule = await client.v1.subscription_schedules.retrieve_async(schedule.id)
        assert (schedule.status, schedule.released_subscription) == ("released", subscription.id)
        entered = await client.v1.subscriptions.retrieve_async(subscription.id)
        assert (entered.status, entered.schedule) == ("active", None)
        assert await totals(client, customer) == [2000, 3000, 20000, 20000]
        with pytest.raises(stripe.InvalidRequestError, match="currently in the `released` status"):
            await client.v1.subscription_schedules.update_async(schedule.id, {"metadata": {"a": "b"}})

    stripe_api.run(flow)


@pytest.mark.difference(
    "the last phase of a schedule",
    "then it is `released`, or `completed` where its subscription ends with it",
)
def test_a_subscription_is_scheduled_to_be_downgraded_and_to_end(stripe_api: Api) -> None:
    """As Stripe's guide does: a schedule from a subscription, then its phases."""

    async def flow(client: stripe.StripeClient) -> None:
        clock, customer, prices = await sold(client)
        created = await client.v1.subscriptions.create_async(
            {"customer": customer, "items": [{"price": prices["pro"]}]}
        )
        schedule = await client.v1.subscription_schedules.create_async({"from_subscription": created.id})
        (phase,) = schedule.phases
        assert (phase.start_date, phase.end_date, phase.items[0].price) == (START, FEBRUARY, prices["pro"])  # type: ignore[index]
        with pytest.raises(stripe.InvalidRequestError, match="already attached to a schedule"):
            await client.v1.subscription_schedules.create_async({"from_subscription": created.id})
        with pytest.raises(stripe.InvalidRequestError, match="managed by the subscription schedule"):
            await client.v1.subscriptions.update_async(created.id, {"cancel_at_period_end": True})
        phases: Any = [
            {"items": [{"price": prices["pro"]}], "start_date": START, "end_date": FEBRUARY},
            {"items": [{"price": prices["basic"]}], "duration": {"interval": "month"}},
        ]
        await client.v1.subscription_schedules.update_async(schedule.id, {"phases": phases, "end_behavior": "cancel"})
        assert (await client.v1.subscriptions.retrieve_async(created.id)).cancel_at == MARCH
        await advance_clock(client, clock, FEBRUARY + 2 * HOUR)
        assert await totals(client, customer) == [3000, 1000]
        await advance_clock(client, clock, MARCH + 2 * HOUR)
        schedule = await client.v1.subscription_schedules.retrieve_async(schedule.id)
        assert (schedule.status, schedule.completed_at) == ("completed", MARCH)
        assert (await client.v1.subscriptions.retrieve_async(created.id)).status == "canceled"
        assert await totals(client, customer) == [3000, 1000]
        events = await client.v1.events.list_async({"type": "subscription_schedule.completed"})
        assert events.data[0].data.object["id"] == schedule.id

    stripe_api.run(flow)


def test_schedule_prorates_a_mid_period_phase_and_can_be_released_or_canceled(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        clock, customer, prices = await sold(client)
        half = START + 31 * DAY // 2
        phases: Any = [
            {"items": [{"price": prices["basic"]}], "end_date": half},
            {"items": [{"price": prices["pro"]}], "end_date": FEBRUARY, "proration_behavior": "always_invoice"},
        ]
        first = await client.v1.subscription_schedules.create_async(
            {"customer": customer, "start_date": "now", "phases": phases}
        )
        await advance_clock(client, clock, half + 2 * HOUR)
        assert await totals(client, customer) == [1000, 1000], "half of 30 less half of 10 dollars"
        released = await client.v1.subscription_schedules.release_async(first.id)
        assert (released.status, released.subscription, released.released_subscription) == (
            "released",
            None,
            first.subscription,
        )
        later = await client.v1.subscription_schedules.create_async(
            {"customer": customer, "start_date": MARCH, "phases": [{"items": phases[0]["items"]}]}
        )
        assert (await client.v1.subscription_schedules.cancel_async(later.id)).status == "canceled"
        second = await client.v1.subscription_schedules.create_async({"from_subscription": str(first.subscription)})
        canceled = await client.v1.subscription_schedules.cancel_async(second.id, {"prorate": False})
        assert (canceled.status, canceled.canceled_at) == ("canceled", half + 2 * HOUR)
        assert (await client.v1.subscriptions.retrieve_async(str(first.subscription))).status == "canceled"
        for wrong in (
            {"phases": [{"items": [{"price": prices["basic"]}], "end_date": START}]},
            {"phases": [{"items": [{"price": "price_none"}]}]},
            {"phases": [{"items": []}]},
            {"start_date": START - DAY, "phases": phases},
            {"start_date": 10**14, "phases": phases[1:]},
            {"phases": [{"items": phases[0]["items"], "duration": {"interval": "year", "interval_count": 10**9}}]},
            {},
        ):
            params: Any = {"customer": customer, **wrong}
            with pytest.raises(stripe.InvalidRequestError):
                await client.v1.subscription_schedules.create_async(params)

    stripe_api.run(flow)
