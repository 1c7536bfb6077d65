"""Coupons and promotion codes: their amounts, their number of uses, and the customers that may redeem them."""

import calendar
import uuid
from typing import Any

import pytest
import stripe

from tests.support.stripe_sandbox import Api, Sandbox, advance_clock

START = calendar.timegm((2027, 1, 1, 0, 0, 0))
MONTHS = [calendar.timegm((2027, month, 1, 1, 0, 0)) for month in range(1, 8)]
"""An hour after each renewal, when its invoice is paid."""


async def payer(client: stripe.StripeClient, clock: str | None = None) -> str:
    """A customer with a card."""
    card = "pm_card_visa"
    with_card: Any = {"payment_method": card, "invoice_settings": {"default_payment_method": card}}
    return (await client.v1.customers.create_async({**with_card, **({"test_clock": clock} if clock else {})})).id


async def product(client: stripe.StripeClient, cents: int, **recurring: str) -> tuple[str, str]:
    """A product and its price."""
    data: Any = {"currency": "usd", "unit_amount": cents, **({"recurring": recurring} if recurring else {})}
    created = await client.v1.products.create_async({"name": uuid.uuid4().hex[:8], "default_price_data": data})
    return created.id, str(created.default_price)


async def coupon(client: stripe.StripeClient, **params: Any) -> str:
    """A coupon."""
    if "amount_off" in params:
        params["currency"] = "usd"
    return (await client.v1.coupons.create_async(params)).id


async def code(client: stripe.StripeClient, coupon: str, **params: Any) -> stripe.PromotionCode:
    """A promotion code of a coupon."""
    promotion: Any = {"type": "coupon", "coupon": coupon}
    return await client.v1.promotion_codes.create_async({"promotion": promotion, **params})


@pytest.mark.parametrize(
    ("terms", "totals"),
    [
        ({"percent_off": 25, "duration": "once"}, [750, 1000, 1000, 1000]),
        ({"amount_off": 300, "duration": "forever"}, [700, 700, 700, 700]),
        ({"percent_off": 50, "duration": "repeating", "duration_in_months": 2}, [500, 500, 1000, 1000]),
    ],
)
def test_a_coupon_discounts_as_many_invoices_as_its_duration_says(
    stripe_api: Api, terms: dict[str, Any], totals: list[int]
) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        clock = (await client.v1.test_helpers.test_clocks.create_async({"frozen_time": START})).id
        customer, (_, price) = await payer(client, clock), await product(client, 1000, interval="month")
        created = await client.v1.subscriptions.create_async(
            {
                "customer": customer,
                "items": [{"price": price}],
                "discounts": [{"coupon": await coupon(client, **terms)}],
                "expand": ["discounts.source.coupon", "latest_invoice"],
            }
        )
        assert isinstance(created.latest_invoice, stripe.Invoice)
        (taken,) = created.latest_invoice.total_discount_amounts or ()
        assert (created.latest_invoice.subtotal, taken.amount) == (1000, 1000 - totals[0])
        for moment in MONTHS[1:4]:
            await advance_clock(client, clock, moment)
        invoices = (await client.v1.invoices.list_async({"customer": customer})).data[::-1]
        assert [invoice.amount_paid for invoice in invoices] == totals
        left = (await client.v1.subscriptions.retrieve_async(created.id)).discounts
        assert len(left) == (terms["duration"] == "forever")

    stripe_api.run(flow)


@pytest.mark.difference(
    "a discount of several lines",
    "is computed of their sum; the lines share it by amount, the largest remainders first",
)
@pytest.mark.parametrize(
    ("first", "second", "total"),
    [({"percent_off": 20}, {"amount_off": 500}, 1100), ({"amount_off": 500}, {"percent_off": 20}, 1200)],
)
def test_discounts_are_taken_in_their_order_and_split_over_the_lines(
    stripe_api: Api, first: Any, second: Any, total: int
) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        customer = await payer(client)
        invoice = await client.v1.invoices.create_async({"customer": customer, "currency": "usd"})
        for amount, discountable in ((1333, True), (667, True), (5000, False), (-100, True)):
            item: Any = {"amount": amount, "currency": "usd", "discountable": discountable}
            await client.v1.invoice_items.create_async({"customer": customer, "invoice": invoice.id, **item})
        created = await client.v1.invoices.update_async(
            invoice.id,
            {"discounts": [{"coupon": await coupon(client, **first)}, {"coupon": await coupon(client, **second)}]},
        )
        assert created.total == total + 5000 - 100
        lines = {line.amount: line for line in created.lines.data}
        off = {amount: sum(part.amount for part in line.discount_amounts or ()) for amount, line in lines.items()}
        assert sum(off.values()) == 2000 - total
        assert off[5000] == off[-100] == 0
        assert abs(off[1333] - (2000 - total) * 1333 / 2000) < 1.01

    stripe_api.run(flow)


def test_item_discount_applies_to_its_lines_and_coupon_to_its_products(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        customer = await payer(client)
        (_, seats), (extra, extras) = (
            await product(client, 1000, interval="month"),
            await product(client, 400, interval="month"),
        )
        limited = await coupon(client, percent_off=50, applies_to={"products": [extra]})
        shown = await client.v1.coupons.retrieve_async(limited, {"expand": ["applies_to"]})
        assert shown.applies_to is not None
        assert shown.applies_to.products == [extra]
        created = await client.v1.subscriptions.create_async(
            {
                "customer": customer,
                "items": [
                    {"price": seats, "discounts": [{"coupon": await coupon(client, amount_off=100)}]},
                    {"price": extras},
                ],
                "discounts": [{"coupon": limited}],
                "expand": ["latest_invoice"],
            }
        )
        assert isinstance(created.latest_invoice, stripe.Invoice)
        lines = created.latest_invoice.lines.data
        assert {line.amount: [part.amount for part in line.discount_amounts or ()] for line in lines} == {
            1000: [100],
            400: [200],
        }
        assert created.latest_invoice.total == 1100

    stripe_api.run(flow)


def test_an_upgrade_is_prorated_less_the_discount_and_a_preview_tells_it(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        clock = (await client.v1.test_helpers.test_clocks.create_async({"frozen_time": START})).id
        customer = await payer(client, clock)
        (_, small), (_, large) = (
            await product(client, 1000, interval="month"),
            await product(client, 3000, interval="month"),
        )
        half = await coupon(client, percent_off=50, duration="forever")
        created = await client.v1.subscriptions.create_async(
            {"customer": customer, "items": [{"price": small}], "discounts": [{"coupon": half}]}
        )
        await advance_clock(client, clock, calendar.timegm((2027, 1, 16, 12, 0, 0)))
        change: Any = {
            "items": [{"id": created["items"].data[0].id, "price": large}],
            "proration_behavior": "always_invoice",
        }
        preview = await client.v1.invoices.create_preview_async(
            {"subscription": created.id, "subscription_details": change}
        )
        changed = await client.v1.subscriptions.update_async(created.id, {**change, "expand": ["latest_invoice"]})
        assert isinstance(changed.latest_invoice, stripe.Invoice)
        assert sorted(line.amount for line in changed.latest_invoice.lines.data) == [-250, 750]
        assert preview.total == changed.latest_invoice.amount_paid == 500
        next = await client.v1.invoices.create_preview_async({"subscription": created.id, "discounts": ""})
        assert next.total == 3000

    stripe_api.run(flow)


def test_a_discount_is_removed_with_an_event_and_a_deleted_coupon_goes_on(stripe_api: Api) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        clock = (await client.v1.test_helpers.test_clocks.create_async({"frozen_time": START})).id
        customer, (_, price) = await payer(client, clock), await product(client, 1000, interval="month")
        ten = await coupon(client, percent_off=10, duration="forever")
        created = await client.v1.subscriptions.create_async(
            {"customer": customer, "items": [{"price": price}], "discounts": [{"coupon": ten}]}
        )
        (discount,) = created.discounts
        await client.v1.coupons.delete_async(ten)
        await advance_clock(client, clock, MONTHS[1])
        assert (await client.v1.invoices.list_async({"customer": customer})).data[0].amount_paid == 900
        kept = await client.v1.subscriptions.update_async(created.id, {"discounts": [{"discount": str(discount)}]})
        assert kept.discounts == [discount]
        removed = await client.v1.subscriptions.delete_discount_async(created.id)
        assert (removed.id, removed.deleted) == (discount, True)
        types = {event.type for event in (await client.v1.events.list_async({"type": "customer.discount.*"})).data}
        assert types >= {"customer.discount.created", "customer.discount.deleted"}
        for none in (
            client.v1.subscriptions.delete_discount_async(created.id),
            client.v1.customers.delete_discount_async(customer),
        ):
            with pytest.raises(stripe.InvalidRequestError) as missing:
                await none
            assert (missing.value.http_status, missing.value.code) == (404, "resource_missing")

    stripe_api.run(flow)


@pytest.mark.difference(
    "messages of promotion codes",
    "are its own words, but for prior transactions",
)
def test_promotion_code_limits_redemptions_and_customers(stripe_sandbox: Sandbox) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        (customer, other), (_, price) = (
            [await payer(client) for _ in range(2)],
            await product(client, 1000, interval="month"),
        )
        once = await coupon(client, percent_off=10, max_redemptions=4)

        async def redeem(code: stripe.PromotionCode, customer: str) -> str:
            """Subscribe with a code; the error, or an empty text."""
            params: Any = {"customer": customer, "items": [{"price": price}]}
            try:
                await client.v1.subscriptions.create_async({**params, "discounts": [{"promotion_code": code.id}]})
            except stripe.InvalidRequestError as error:
                return f"{error.code}: {error.param}: {error}"
            return ""

        personal = await code(client, once, code="Personal", customer=customer)
        assert "another customer" in await redeem(personal, other)
        assert await redeem(personal, customer) == ""
        dear = await code(client, once, restrictions={"minimum_amount": 1001, "minimum_amount_currency": "usd"})
        assert "minimum amount" in await redeem(dear, other)
        first = await code(client, once, restrictions={"first_time_transaction": True}, max_redemptions=1)
        assert "prior transactions" in await redeem(first, customer)
        assert await redeem(first, other) == ""
        assert (await client.v1.promotion_codes.retrieve_async(first.id)).active is False
        with pytest.raises(stripe.InvalidRequestError, match="cannot be activated"):
            await client.v1.promotion_codes.update_async(first.id, {"active": True})
        late = await code(client, once, expires_at=int(stripe_sandbox.control("clock")["now"]) + 60)
        many = await code(client, once, code="FALL20")
        with pytest.raises(stripe.InvalidRequestError, match="`code: fall20` already exists"):
            await code(client, once, code="fall20")
        assert [one.id for one in (await client.v1.promotion_codes.list_async({"code": "fall20"})).data] == [many.id]
        stripe_sandbox.advance(61)
        assert "expired or inactive" in await redeem(late, customer)
        assert [await redeem(many, customer) for _ in range(2)] == ["", ""]
        assert "coupon_expired" in await redeem(many, customer), "the coupon is used up"
        assert (await client.v1.coupons.retrieve_async(once)).times_redeemed == 4

    stripe_sandbox.run(flow)


@pytest.mark.parametrize(
    ("path", "body", "param", "code"),
    [
        ("coupons", "percent_off=0", "percent_off", None),
        ("coupons", "amount_off=0&currency=usd", "amount_off", "parameter_invalid_integer"),
        ("coupons", "percent_off=10&redeem_by=1", "redeem_by", None),
        ("coupons", "percent_off=10&applies_to[products][]=prod_none", "applies_to[products][0]", "resource_missing"),
        ("promotion_codes", "promotion[type]=coupon&promotion[coupon]=none", "promotion[coupon]", "resource_missing"),
        ("promotion_codes", "promotion[type]=coupon", "promotion[coupon]", "parameter_missing"),
        ("promotion_codes", "code=A", "promotion", "parameter_missing"),
        ("promotion_codes", "promotion[type]=coupon&coupon=x", "coupon", "parameter_unknown"),
    ],
)
def test_a_coupon_or_code_that_cannot_be_is_refused(
    stripe_api: Api, path: str, body: str, param: str, code: str | None
) -> None:
    answer = stripe_api.call("POST", f"/v1/{path}", body)
    error = answer.json()["error"]
    assert (answer.status, error.get("param"), error.get("code")) == (400, param, code), error


def test_checkout_takes_a_coupon_or_the_code_that_a_customer_enters(stripe_sandbox: Sandbox) -> None:
    async def flow(client: stripe.StripeClient) -> None:
        _, price = await product(client, 1000)
        tenth = await coupon(client, percent_off=10)
        fixed: Any = {
            "mode": "payment",
            "success_url": "https://shop.example/ok",
            "line_items": [{"price": price, "quantity": 3}],
        }
        with pytest.raises(stripe.InvalidRequestError):
            await client.v1.checkout.sessions.create_async(
                {**fixed, "discounts": [{"coupon": tenth}], "allow_promotion_codes": True}
            )
        session = await client.v1.checkout.sessions.create_async({**fixed, "discounts": [{"coupon": tenth}]})
        assert session.total_details is not None
        assert (session.amount_subtotal, session.amount_total) == (3000, 2700)
        assert session.total_details.amount_discount == 300
        await code(client, await coupon(client, amount_off=500), code="LAUNCH")
        opened = await client.v1.checkout.sessions.create_async({**fixed, "allow_promotion_codes": True})
        for one, entered in ((session, {}), (opened, {"promotion_code": "launch"})):
            stripe_sandbox.control(f"checkout/{one.id}/pay", {"card": "pm_card_visa", **entered})
        paid = await client.v1.checkout.sessions.retrieve_async(opened.id, {"expand": ["payment_intent"]})
        assert isinstance(paid.payment_intent, stripe.PaymentIntent)
        assert (paid.amount_total, paid.payment_intent.amount_received) == (2500, 2500)
        assert (await client.v1.coupons.retrieve_async(tenth)).times_redeemed == 1

    stripe_sandbox.run(flow)
