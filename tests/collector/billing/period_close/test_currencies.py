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
from tests.support.sold import CALLER, Sold, sold
from tests.support.stripe_sandbox import Sandbox

pytestmark = pytest.mark.usefixtures("secret_key")

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


async def test_customer_is_charged_in_its_currency_from_plan_to_payment(
    stripe_sandbox: Sandbox, tmp_path: Path, sqlite_database: str
) -> None:
    async with sold(tmp_path, sqlite_database, stripe_sandbox.url, **settings(tmp_path)) as (shop, closing):
        for worked in WORKED:
            await shop.customer(worked.currency, "team", now=JANUARY, currency=worked.currency, coupon="OFF")
            await shop.use(worked.currency, {"calls": 113}, at=JANUARY + 60)
        await closing.step(JANUARY + 120)
        for worked in WORKED:
            await shop.change(worked.currency, "large", now=NOON)
            await shop.use(worked.currency, {"calls": 10}, at=NOON + 60)
        for time in (NOON + 120, FEBRUARY + 60, FEBRUARY + FREEZE, FEBRUARY + FREEZE + 60):
            await closing.step(time)
        all_sums = []
        for name, *lines in WORKED:
            made = (await fetch_invoices(shop, name)).values()
            expected = dict(zip(("start", "change", "period"), lines, strict=True))
            assert {invoice["kind"]: [amount for amount in amounts(invoice) if amount] for invoice in made} == expected
            assert {(invoice["currency"], invoice["state"]) for invoice in made} == {(name, "open")}
            all_sums.append(sorted(map(sum, lines)))
            there = sorted((invoice["total"], invoice["currency"]) for invoice in at_stripe(stripe_sandbox, name))
            assert there == [(total, name) for total in all_sums[-1]]
            await asyncio.to_thread(pay_all, stripe_sandbox, name)
        await apply_stripe_events(shop)
        while await bookings.book_invoices(shop.database):
            pass
        async with shop.database.reading() as connection:
            assert await accounting.fetch_balances_before(connection, 1 << 50) == {}, "nothing is in dollars"
            for (name, *_), sums in zip(WORKED, all_sums, strict=True):
                assert {invoice["state"] for invoice in (await fetch_invoices(shop, name)).values()} == {"paid"}
                balances = await accounting.fetch_balances_before(connection, 1 << 50, name)
                paid = balances.get("cash", 0) + balances.get("clearing", 0)
                assert (paid, balances.get("receivable", 0)) == (10_000 * sum(sums), 0)


LEAST_CHARGES = {"usd": 50, "eur": 50, "gbp": 30, "jpy": 50}
"""Stripe's minimum card charge in the smallest unit. Dinars have no minimum."""
SMALL = {currency: least - 1 for currency, least in LEAST_CHARGES.items()}
UNITS = {"kwd": 10}
"""The price of a call in the smallest unit, where it is not 1."""


@pytest.mark.parametrize(("used", "is_charged"), [(SMALL, False), (LEAST_CHARGES | UNITS, True)])
async def test_invoice_below_the_minimum_charge_is_paid_with_the_next_one(
    stripe_sandbox: Sandbox, tmp_path: Path, sqlite_database: str, used: dict[str, int], is_charged: bool
) -> None:
    names = {currency: f"least-{currency}-{is_charged}" for currency in used}

    async with sold(tmp_path, sqlite_database, stripe_sandbox.url, **settings(tmp_path)) as (shop, closing):

        async def close(amounts: dict[str, int], begin: int, end: int) -> dict[str, dict[str, int]]:
            """Use, invoice and book these amounts in a month, and return the balances of the accounts, by currency."""
            for currency, amount in amounts.items():
                await shop.use(names[currency], {"calls": amount // UNITS.get(currency, 1)}, at=begin + 60)
            await closing.step(end + 60)
            for name in names.values():
                set_card(stripe_sandbox, name)
            for time in (end + FREEZE, end + FREEZE + 60):
                await closing.step(time)
            await apply_stripe_events(shop)
            while await bookings.book_invoices(shop.database):
                pass
            balances = {}
            async with shop.database.reading() as connection:
                for currency in names:
                    accounts = await accounting.fetch_balances_before(connection, 1 << 50, currency)
                    balances[currency] = {account: total // CENT for account, total in accounts.items() if total}
            return balances

        for currency, name in names.items():
            await shop.customer(name, "calls", now=JANUARY, currency=currency)
        first, last = ({currency: count * UNITS.get(currency, 1) for currency in names} for count in (100, 70))
        sent = await close(first, JANUARY, FEBRUARY)
        small = await close(used, FEBRUARY, MARCH)  # The mailed invoice is due by then.
        paid = await close(last, MARCH, APRIL)
        for currency, name in names.items():
            begun, total = first[currency], used[currency] + last[currency]
            charged = used[currency] if is_charged else 0
            assert sent[currency] == {"receivable": begun, "revenue": -begun}, "there was no card yet"
            owed = {} if is_charged else {"customer_balance": used[currency]}
            assert small[currency] == {**owed, "clearing": begun + charged, "revenue": -begun - used[currency]}
            assert paid[currency] == {"clearing": begun + total, "revenue": -begun - total}
            expected = [("paid", amount) for amount in (begun, charged, total - charged)]
            there = reversed(at_stripe(stripe_sandbox, name))
            assert [(invoice["status"], invoice["amount_paid"]) for invoice in there] == expected
            made = [invoice for invoice in (await fetch_invoices(shop, name)).values() if invoice["total"]]
            assert [(invoice["state"], invoice["amount_paid"]) for invoice in made] == expected
            assert {invoice["amount_due"] for invoice in made} == {0}


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
