"""Customers are charged in euros, yen and Kuwaiti dinars, from the plan to the payment, at the Stripe sandbox.

The amounts are computed by hand, without conversion of currencies.
"""

import asyncio
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa

from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.billing.credits import credits
from edgeproxy.collector.billing.invoices import bookings
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.reports import accounting, spend_alerts
from edgeproxy.collector.billing.subscriptions import coupons, subscription_rows
from edgeproxy.collector.billing.subscriptions.coupons import CouponRejectedError
from edgeproxy.collector.billing.subscriptions.customer_currency import choose_credit_currency
from edgeproxy.collector.database.alert_tables import alerts
from tests.support.collector_fixtures import only_sqlite
from tests.support.invoiced import (
    FEBRUARY,
    FREEZE,
    JANUARY,
    MARCH,
    amounts,
    apply_stripe_events,
    at,
    at_stripe,
    fetch_invoices,
    set_card,
)
from tests.support.sold import CALLER, KEY, Sold, sold
from tests.support.stripe_sandbox import Sandbox

PLANS = """
plans:
  free@1: {fee: "0", tier: free}
  team@1:
    fee: {usd: "31", eur: "28.21", jpy: "4650", kwd: "9.300"}
    tier: standard
    threshold: {usd: "1000", eur: "900", jpy: "150000", kwd: "300"}
    meters: {calls: {included: 10, price: {usd: "0.10", eur: "0.095", jpy: "15.5", kwd: "0.031"}}}
  large@1:
    fee: {usd: "62", eur: "56.42", jpy: "9300", kwd: "18.600"}
    tier: enterprise
    meters: {calls: {included: 10, price: {usd: "0.05", eur: "0.045", jpy: "7.5", kwd: "0.015"}}}
  dollars@1: {fee: "10", tier: basic}
  calls@1:
    fee: {usd: "0", eur: "0", gbp: "0", jpy: "0", kwd: "0"}
    tier: basic
    meters: {calls: {included: 0, price: {usd: "0.01", eur: "0.01", gbp: "0.01", jpy: "1", kwd: "0.010"}}}
"""
LEAST = {"usd": "5", "eur": "5", "gbp": "5", "jpy": "700", "kwd": "2"}
COUPONS = {"OFF": {"amount_off": {"usd": "10", "eur": "9.10", "jpy": "1500", "kwd": "3"}}, "OURS": {"amount_off": "10"}}
NOON = at(2027, 1, 16, 12)
APRIL = at(2027, 4, 1)


class Worked(NamedTuple):
    """The charges of a customer that begins `team` on the 1st, uses 113 calls, and changes to `large` in mid-month."""

    currency: str
    first: list[int]
    """The fee of January and the coupon's discount."""
    change: list[int]
    """The remaining halves of both fees in mid-month: the credit for `team` and the charge for `large`."""
    period: list[int]
    """The fee of February and 103 calls under `team`. The calls under `large` are included in the plan."""


WORKED = [
    Worked("eur", [2821, -910], [-1411, 2821], [5642, 979]),  # 978.5; half of 28.21 is 14.105.
    Worked("jpy", [4650, -1500], [-2325, 4650], [9300, 1597]),  # 1596.5
    Worked("kwd", [9300, -3000], [-4650, 9300], [18600, 3190]),  # 3193, and the last digit of fils is 0.
]


def settings(folder: Path) -> dict[str, Any]:
    file = folder / "plans.yaml"
    file.write_text(PLANS)
    return {"plans": str(file), "coupons": COUPONS, "breaker": {"least": LEAST}}


async def add_coupon(shop: Sold, name: str, code: str, *, now: float) -> None:
    async with shop.database.writing() as connection:
        await coupons.add_coupon(connection, CALLER, name, code, shop.known, now)


def pay_all(sandbox: Sandbox, name: str) -> None:
    """Pay all open invoices of a customer at Stripe."""
    for invoice in at_stripe(sandbox, name):
        if invoice["status"] == "open":
            path = f"/v1/invoices/{invoice['id']}/pay"
            assert sandbox.call("POST", path, "payment_method=pm_card_visa").status == 200


@only_sqlite("database")
@pytest.mark.parametrize("worked", WORKED, ids=[worked.currency for worked in WORKED])
async def test_customer_is_charged_in_its_currency_from_plan_to_payment(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str, worked: Worked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRIPE_SECRET_KEY", KEY["STRIPE_SECRET_KEY"])
    name, currency = f"{worked.currency}-{database.partition(':')[0]}", worked.currency

    async with sold(tmp_path, database, stripe_sandbox.url, **settings(tmp_path)) as (shop, closing):
        await shop.customer(name, "team", now=JANUARY, currency=currency, coupon="OFF")
        await shop.use(name, {"calls": 113}, at=JANUARY + 60)
        await closing.step(JANUARY + 120)
        await shop.change(name, "large", now=NOON)
        await shop.use(name, {"calls": 10}, at=NOON + 60)
        for time in (NOON + 120, FEBRUARY + 60, FEBRUARY + FREEZE, FEBRUARY + FREEZE + 60):
            await closing.step(time)
        made = await fetch_invoices(shop, name)
        expected = {"start": worked.first, "change": worked.change, "period": worked.period}
        assert {
            invoice["kind"]: [amount for amount in amounts(invoice) if amount] for invoice in made.values()
        } == expected
        assert {(invoice["currency"], invoice["state"]) for invoice in made.values()} == {(currency, "open")}
        stripe_invoices = at_stripe(stripe_sandbox, name)
        assert {stripe_invoice["currency"] for stripe_invoice in stripe_invoices} == {currency}
        sums = sorted(sum(lines) for lines in expected.values())
        assert sorted(stripe_invoice["total"] for stripe_invoice in stripe_invoices) == sums
        await asyncio.to_thread(pay_all, stripe_sandbox, name)
        await apply_stripe_events(shop)
        assert {invoice["state"] for invoice in (await fetch_invoices(shop, name)).values()} == {"paid"}
        while await bookings.book_invoices(shop.database):
            pass
        async with shop.database.reading() as connection:
            balances = await accounting.fetch_balances_before(connection, 1 << 50, currency)
            dollars = await accounting.fetch_balances_before(connection, 1 << 50)
        paid = balances.get("cash", 0) + balances.get("clearing", 0)
        assert (paid, balances.get("receivable", 0), dollars) == (10_000 * sum(sums), 0, {})


LEAST_CHARGES = {"usd": 50, "eur": 50, "gbp": 30, "jpy": 50}
"""Stripe's minimum card charge in the smallest unit. Dinars have no minimum."""
SMALL = [(currency, least - 1, 0) for currency, least in LEAST_CHARGES.items()]
ENOUGH = [(currency, least, least) for currency, least in LEAST_CHARGES.items()]


@pytest.mark.parametrize(("currency", "used", "charged"), [*SMALL, *ENOUGH, ("kwd", 10, 10)])
async def test_invoice_below_the_minimum_charge_is_paid_with_the_next_one(
    stripe_sandbox: Sandbox,
    tmp_path: Path,
    sqlite_database: str,
    monkeypatch: pytest.MonkeyPatch,
    currency: str,
    used: int,
    charged: int,
) -> None:
    monkeypatch.setenv("STRIPE_SECRET_KEY", KEY["STRIPE_SECRET_KEY"])
    name, unit = f"least-{currency}-{used}", 10 if currency == "kwd" else 1

    async with sold(tmp_path, sqlite_database, stripe_sandbox.url, **settings(tmp_path)) as (shop, closing):

        async def close(amount: int, begin: int, end: int) -> dict[str, int]:
            """Use, invoice and book the given amount in a month, and return the balances of the accounts."""
            await shop.use(name, {"calls": amount // unit}, at=begin + 60)
            await closing.step(end + 60)
            set_card(stripe_sandbox, name)
            for time in (end + FREEZE, end + FREEZE + 60):
                await closing.step(time)
            await apply_stripe_events(shop)
            while await bookings.book_invoices(shop.database):
                pass
            async with shop.database.reading() as connection:
                accounts = await accounting.fetch_balances_before(connection, 1 << 50, currency)
            return {account: total // CENT for account, total in accounts.items() if total}

        await shop.customer(name, "calls", now=JANUARY, currency=currency)
        sent = await close(100 * unit, JANUARY, FEBRUARY)
        assert sent == {"receivable": 100 * unit, "revenue": -100 * unit}, "there was no card yet"
        small = await close(used, FEBRUARY, MARCH)  # The mailed invoice is due by then.
        owed = {"customer_balance": used} if used != charged else {}
        assert small == {**owed, "clearing": 100 * unit + charged, "revenue": -100 * unit - used}
        paid = await close(70 * unit, MARCH, APRIL)
        total = used + 70 * unit
        assert paid == {"clearing": 100 * unit + total, "revenue": -100 * unit - total}
        stripe_invoices = at_stripe(stripe_sandbox, name)
        of_stripe = [
            (stripe_invoice["status"], stripe_invoice["amount_paid"]) for stripe_invoice in reversed(stripe_invoices)
        ]
        assert of_stripe == [("paid", 100 * unit), ("paid", charged), ("paid", total - charged)]
        made = [invoice for invoice in (await fetch_invoices(shop, name)).values() if invoice["total"]]
        assert [(invoice["state"], invoice["amount_paid"], invoice["amount_due"]) for invoice in made] == [
            ("paid", 100 * unit, 0),
            ("paid", charged, 0),
            ("paid", total - charged, 0),
        ]


async def test_currency_of_a_customer_is_chosen_once(stripe_sandbox: Sandbox, tmp_path: Path, database: str) -> None:
    kind = database.partition(":")[0]
    free, euros, payer = (f"{name}-{kind}" for name in ("free", "euros", "payer"))

    async def refuse(change: Any, why: str) -> None:
        with pytest.raises(ChangeRejectedError) as refused:
            await change
        assert why in f"{refused.value.why} {refused.value.faults}"

    async def currency(shop: Sold, name: str) -> str | None:
        async with shop.database.reading() as connection:
            return (await subscription_rows.get_subscriber(connection, name)).currency

    async with sold(tmp_path, database, stripe_sandbox.url, **settings(tmp_path)) as (shop, _):
        await shop.customer(free, "free", now=JANUARY)
        async with shop.database.writing() as connection:
            await spend_alerts.put_amounts(connection, CALLER, free, [5000])
        assert await currency(shop, free) is None, "what costs nothing chooses none"
        in_euros = shop.change(free, "dollars", now=NOON, currency="eur")
        await refuse(in_euros, "dollars@1 has no price in eur, only in usd")
        assert await currency(shop, free) is None
        await shop.change(free, "team", now=NOON, currency="jpy")
        assert await currency(shop, free) == "jpy"
        async with shop.database.reading(whole=True) as connection:
            loaded = await subscription_rows.get_by_customer(connection, free)
            assert await spend_alerts.fetch_amounts(connection, loaded.customer.id) == [], "they were of dollars"
        assert [(segment.plan.currency, segment.plan.fee) for segment in loaded.current.segments] == [
            ("jpy", 0),
            ("jpy", 4650),
        ]
        await refuse(shop.change(free, "large", now=FEBRUARY, currency="usd"), "is charged in jpy, and that cannot")
        await shop.customer(euros, "team", now=JANUARY, currency="eur")
        await refuse(shop.change(euros, "dollars", now=JANUARY + 600), "dollars@1 has no price in eur")
        with pytest.raises(CouponRejectedError, match="takes off nothing in eur"):
            await add_coupon(shop, euros, "OURS", now=JANUARY + 600)
        # Credits have the customer's currency, if they are sold in it.
        async with shop.database.reading() as connection:
            subscriber = await subscription_rows.get_subscriber(connection, euros)
            assert await choose_credit_currency(connection, subscriber, ("usd", "eur"), "usd") == "eur"
            with pytest.raises(ChangeRejectedError, match="is charged in eur: credits are sold in usd, jpy"):
                await choose_credit_currency(connection, subscriber, ("usd", "jpy"), "usd")
            with pytest.raises(ChangeRejectedError, match="is charged in eur, and that cannot change"):
                await choose_credit_currency(connection, subscriber, ("usd", "eur"), "usd", "usd")
        await shop.customer(payer, now=JANUARY)
        async with shop.database.writing() as connection:
            row = await subscription_rows.get_subscriber(connection, payer)
            await credits.book_gift(connection, CALLER, row.id, f"gift-{kind}", 1_000_000, "welcome", None)
        await refuse(shop.subscribe(payer, "team", now=JANUARY, currency="eur"), "cannot be charged in eur")
        await shop.subscribe(payer, "team", now=JANUARY)
        assert await currency(shop, payer) == "usd"


async def test_spend_alerts_state_the_customers_currency(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    yen = f"yen-spends-{database.partition(':')[0]}"

    async with sold(tmp_path, database, stripe_sandbox.url, **settings(tmp_path)) as (shop, _):
        await shop.customer(yen, "team", now=JANUARY, currency="jpy")
        await shop.use(yen, {"calls": 20}, at=JANUARY + 60)
        async with shop.database.writing() as connection:
            await spend_alerts.put_amounts(connection, CALLER, yen, [4700, 5000])
        async with shop.database.writing() as connection:
            subscriber = await subscription_rows.get_subscriber(connection, yen)
            await spend_alerts.raise_reached(connection, subscriber.id, shop.known.meters, JANUARY + 120)
        async with shop.database.reading() as connection:
            titles = list(
                (await connection.execute(sa.select(alerts.c.title).where(alerts.c.customer == yen))).scalars()
            )
        assert titles == [f"{yen} has spent ¥4,805 since 2027-01-01, and ¥4,700 is reached"]
