"""Coupons against the Stripe sandbox: what invoices, payments and the journal come to with them."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from edgeproxy.collector.billing.invoices import bookings, invoices
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.period_close import explanation, invoice_lines
from edgeproxy.collector.billing.subscriptions import coupons, subscription_rows, subscriptions
from edgeproxy.collector.billing.subscriptions.coupons import CouponRejectedError
from edgeproxy.collector.database.billing_tables import coupons as coupons_table
from edgeproxy.collector.database.credit_tables import credit_entries
from edgeproxy.collector.database.schema import customers
from tests.support.invoiced import FEBRUARY, FREEZE, JANUARY, MARCH, at, at_stripe, fetch_invoices
from tests.support.sold import CALLER, Sold, sold
from tests.support.stripe_sandbox import Sandbox

PLANS = """
plans:
  team@1: {fee: "31", tier: standard, trial: {days: 14, missing_payment_method: create_invoice}}
  paid@1: {fee: "31", tier: standard, meters: {calls: {included: 10, price: "1"}}}
  large@1: {fee: "62", tier: standard, meters: {calls: {included: 10, price: "1"}}}
"""
COUPONS = {
    "HALF": {"percent_off": "50%", "duration": "repeating", "periods": 2},
    "TEN": {"amount_off": "10", "duration": "forever", "max_redemptions": 1},
    "PAID": {"percent_off": "10%", "plans": ["paid"]},
    "PAST": {"percent_off": "10%", "redeem_by": "2027-01-01"},
}
APRIL = at(2027, 4, 1)


def settings(folder: Path, plans: str = PLANS) -> dict[str, Any]:
    file = folder / "plans.yaml"
    file.write_text(plans)
    return {"plans": str(file), "coupons": COUPONS}


async def charged(shop: Sold, name: str) -> dict[str, list[tuple[str, int, int]]]:
    """The kinds, quantities and amounts of the lines of each invoice that cost something."""
    return {
        period: [(line["kind"], line["quantity"], line["amount"]) for line in invoice["lines"] if line["amount"]]
        for period, invoice in (await fetch_invoices(shop, name)).items()
    }


async def upcoming(shop: Sold, name: str) -> list[tuple[str, int, int]]:
    async with shop.database.reading(whole=True) as connection:
        loaded = await subscription_rows.get_by_customer(connection, name)
        lines = (await invoice_lines.compute_upcoming(connection, loaded, shop.known.meters)).lines
        return [(line.kind, line.quantity, line.amount) for line in lines if line.amount]


async def spent(shop: Sold, name: str) -> int:
    async with shop.database.reading(whole=True) as connection:
        loaded = await subscription_rows.get_by_customer(connection, name)
        return await invoice_lines.compute_running_cost(connection, loaded, shop.known.meters)


async def add(shop: Sold, name: str, code: str, *, now: float) -> None:
    async with shop.database.writing() as connection:
        await coupons.add_coupon(connection, CALLER, name, code, shop.known, now)


async def test_coupon_discounts_whole_periods_with_usage_and_plan_changes(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    name = f"half-{database.partition(':')[0]}"

    async with sold(tmp_path, database, stripe_sandbox.url, **settings(tmp_path)) as (shop, closing):
        await shop.customer(name, "paid", now=JANUARY, coupon="HALF")
        await shop.use(name, {"calls": 15}, at=JANUARY + 60)
        assert await spent(shop, name) == 1550 + 250
        assert await upcoming(shop, name) == [
            *(("fee", 1, 3100), ("usage", 5, 500)),
            *(("discount", 500, -250), ("discount", 3100, -1550)),
        ]
        for time in (JANUARY, FEBRUARY):
            await closing.step(time)
        await shop.change(name, "large", now=FEBRUARY + 14 * 86400)  # The invoice of the fee waits.
        for time in (FEBRUARY + FREEZE, FEBRUARY + 15 * 86400):
            await closing.step(time)
        await shop.use(name, {"calls": 4}, at=JANUARY + 120)  # It comes late.
        for time in (MARCH, MARCH + FREEZE, APRIL, APRIL + FREEZE):
            await closing.step(time)
        assert await charged(shop, name) == {
            "2027-01-01 start": [("fee", 1, 3100), ("discount", 3100, -1550)],
            "2027-02-01 change": [
                *(("fee", 1, 3100), ("proration", -1, -1550), ("proration", 1, 3100)),
                ("discount", 4650, -2325),
            ],
            "2027-01-01 period": [("usage", 5, 500), ("discount", 500, -250)],
            "2027-02-01 period": [("fee", 1, 6200), ("late", 4, 400), ("discount", 400, -200)],
            "2027-03-01 period": [("fee", 1, 6200)],
        }
        await _check_books(shop)
        await _check_explained(shop, name)
    assert sorted(one["total"] for one in at_stripe(stripe_sandbox, name)) == [250, 1550, 2325, 6200, 6400]


async def _check_books(shop: Sold) -> None:
    """Hold the journal to the invoices: discounts are no fees, and take off revenue."""
    while await bookings.book_invoices(shop.database):
        pass
    totals: Counter[str] = Counter()
    async with shop.database.reading() as connection:
        for row in await connection.execute(sa.select(credit_entries.c.account, credit_entries.c.amount)):
            totals[row.account] += row.amount
    assert {account: amount // CENT for account, amount in totals.items() if amount} == {
        "receivable": 250 + 1550 + 2325 + 6400 + 6200,
        "deferred_fees": -(3100 + 4650 + 6200 + 6200),
        "revenue": -900,
        "discounts": 1550 + 2325 + 250 + 200,
    }


async def _check_explained(shop: Sold, name: str) -> None:
    """Check the explanation of the discount on late usage."""
    invoice = (await fetch_invoices(shop, name))["2027-02-01 period"]
    position = next(number for number, line in enumerate(invoice["lines"]) if line["kind"] == "discount")
    assert invoice["lines"][position]["text"] == "Coupon HALF, 50 % off, 2027-01-01 to 2027-02-01"
    async with shop.database.reading() as connection:
        row = await invoices.get_invoice(connection, invoice["id"])
        explained = await explanation.explain_line(connection, row, position, shop.known.meters)
    assert (explained.rated, explained.quantity) == (-2000, 4000)
    assert explained.formula == "discount of HALF on 4000: -2000; less -1800 on earlier lines"


async def test_cost_of_the_period_has_no_discount_of_an_invoiced_minimum_fee(
    stripe_sandbox: Sandbox, tmp_path: Path, sqlite_database: str
) -> None:
    """The plan ends in its period, so the minimum fee is invoiced, and begins again in that period."""
    name, noon = "again", JANUARY + 15 * 86400 + 43200
    committed = settings(tmp_path, PLANS.replace("standard, meters:", 'standard, minimum: "93", meters:'))

    async with sold(tmp_path, sqlite_database, stripe_sandbox.url, **committed) as (shop, closing):
        await shop.customer(name, "paid", now=JANUARY, coupon="HALF")
        async with shop.database.writing() as connection:
            await connection.execute(sa.update(customers).values(created_at=JANUARY * 1000))
            await subscriptions.cancel_subscription(connection, CALLER, name, "now", settings=shop.known, now=noon - 60)
        for time in (JANUARY, noon, noon + FREEZE, noon + FREEZE + 3600):
            await closing.step(time)
        period = (await charged(shop, name))["2027-01-01 period"]
        assert period == [("minimum", 1, 3100), ("discount", 3100, -1550)]
        await shop.subscribe(name, "paid", now=noon + 2 * FREEZE)
        async with shop.database.reading(whole=True) as connection:
            loaded = await subscription_rows.get_by_customer(connection, name)
            now = noon + 3 * FREEZE
            costs = await invoice_lines.compute_period_costs(connection, loaded, shop.known.meters, now)
        assert {day.amount for day in costs.days} | {costs.low, costs.high} == {1550}, "half of the fee"


async def test_fixed_coupon_amount_is_spent_across_invoices_of_each_period(
    stripe_sandbox: Sandbox, tmp_path: Path, sqlite_database: str
) -> None:
    async with sold(tmp_path, sqlite_database, stripe_sandbox.url, **settings(tmp_path)) as (shop, closing):
        for name in ("first", "second", "tried"):
            await shop.customer(name, "team" if name == "tried" else "paid", now=at(2027, 1, 31))
        await add(shop, "first", "TEN", now=at(2027, 1, 31, 12))
        assert await upcoming(shop, "first") == [("fee", 1, 3100), ("discount", 100, -100), ("discount", 3100, -1000)]
        await add(shop, "tried", "HALF", now=at(2027, 2, 1))
        assert await upcoming(shop, "tried") == [("fee", 1, 1661), ("discount", 1661, -831)]
        with pytest.raises(CouponRejectedError, match="as often as it can be"):
            await add(shop, "second", "TEN", now=JANUARY)
        for time in (FEBRUARY, FEBRUARY + FREEZE):
            await closing.step(time)
        assert (await charged(shop, "first"))["2027-01-01 period"] == [
            *(("fee", 1, 3100), ("discount", 100, -100), ("discount", 3100, -1000))
        ], "the running period counts as a whole"
        async with shop.database.writing() as connection:
            ended = await coupons.remove_coupon(connection, CALLER, "first")
            assert ended.until == MARCH
        for time in (MARCH, MARCH + FREEZE):
            await closing.step(time)
        assert (await charged(shop, "first"))["2027-02-01 period"] == [("fee", 1, 3100)]
        async with shop.database.reading() as connection:
            assert (await connection.execute(sa.select(coupons_table))).mappings().all() == [
                *({"code": "TEN", "redemptions": 1}, {"code": "HALF", "redemptions": 1})
            ]


async def test_a_code_that_cannot_be_redeemed_changes_nothing(
    stripe_sandbox: Sandbox, tmp_path: Path, sqlite_database: str
) -> None:
    async with sold(tmp_path, sqlite_database, stripe_sandbox.url, **settings(tmp_path)) as (shop, _):
        await shop.customer("acme", "paid", now=JANUARY, coupon="HALF")
        await shop.customer("other", "large", now=JANUARY)
        for name, code, why in (
            ("acme", "NONE", "there is no such coupon"),
            ("acme", "PAST", "no more"),
            ("acme", "PAID", "another coupon, which goes on"),
            ("acme", "HALF", "has redeemed it before"),
            ("other", "PAID", "for other plans"),
        ):
            with pytest.raises(CouponRejectedError, match=why):
                await add(shop, name, code, now=JANUARY)
        with pytest.raises(CouponRejectedError):
            await shop.customer("third", "large", now=JANUARY, coupon="PAID")
        async with shop.database.writing() as connection:
            await coupons.remove_coupon(connection, CALLER, "acme")
        await add(shop, "acme", "PAID", now=JANUARY)
        async with shop.database.reading() as connection:
            discount = await coupons.get_coupon(connection, "acme")
        assert (discount.code, discount.starts, discount.until) == ("PAID", FEBRUARY, MARCH)
