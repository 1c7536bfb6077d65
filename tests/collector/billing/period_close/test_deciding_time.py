"""The table in docs/billing/billing.md that says which time decides, and what late usage comes to, row by row."""

import re
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from edgeproxy.base.clock import EPOCH
from edgeproxy.collector.accounts import key_budgets
from edgeproxy.collector.accounts.key_budgets import KeyBudgetRequest
from edgeproxy.collector.billing.credits import consumption, credits
from edgeproxy.collector.billing.credits.consumption import CreditMeters
from edgeproxy.collector.billing.journal import journal
from edgeproxy.collector.billing.reports import key_spend
from edgeproxy.collector.billing.stripe.client import Stripe
from edgeproxy.collector.database.schema import EVENTS, EVENTS_REGION, EVENTS_ROUTE, events, ledger, series
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.collector.database.schema import keys as keys_table
from edgeproxy.wire.key_uses import format_usage_key
from loadtest.testbed.process import ROOT
from tests.support.credited import ALICE, write
from tests.support.invoiced import FEBRUARY, FREEZE, JANUARY, MARCH, ON_BOTH_IF_SOAKED, at, fetch_invoices
from tests.support.sold import KEY, Sold, sold
from tests.support.stripe_sandbox import Sandbox

PLANS = """
plans:
  small@1: {fee: "0", tier: standard, meters: {calls: {included: 10, price: "1"}}}
  small@2: {fee: "0", tier: standard, meters: {calls: {included: 10, price: "3"}}}
  large@1: {fee: "1", tier: enterprise, meters: {calls: {included: 10, price: "5"}}}
  tried@1:
    {fee: "0", tier: standard, trial: {days: 14, missing_payment_method: create_invoice}, meters: {calls: {price: "1"}}}
"""
METERS: dict[str, Any] = {"calls": {"count": "events", "dimensions": {"key": 10}}, "cost": {"count": "events"}}
APRIL = at(2027, 4, 1)
NOON = at(2027, 1, 16, 12)
LATE_DUE = "2027-02-01 period"
"""The invoice that has the late usage of January."""


LateUses = tuple[tuple[int, int], ...]
"""Numbers of calls that are reported late, each with its time."""


def write_settings(folder: Path) -> dict[str, Any]:
    """Write the plans, and return the settings of billing."""
    file = folder / "plans.yaml"
    file.write_text(PLANS)
    coupons = {"JANUARY": {"percent_off": "50%", "duration": "once"}}
    return {"plans": str(file), "meters": METERS, "coupons": coupons}


def read_table() -> dict[str, str]:
    """Return the deciding time of each term, as the page says it."""
    text = (ROOT / "docs/billing/billing.md").read_text().partition("## The time that decides")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| ([a-z ]+) \| (use|arrival|invoice) \|", text, re.MULTILINE))


async def charge_late(shop: Sold, closing: Any, name: str, calls: int, *, used_at: int) -> list[tuple[str, int]]:
    """Close January, have usage arrive late, close February; return the kinds and amounts of what that invoice has."""
    for time in (FEBRUARY, FEBRUARY + FREEZE):
        await closing.step(time)
    await shop.use(name, {"calls": calls}, at=used_at)
    for time in (MARCH, MARCH + FREEZE):
        await closing.step(time)
    lines = (await fetch_invoices(shop, name))[LATE_DUE]["lines"]
    return [(line["kind"], line["amount"]) for line in lines if line["amount"]]


async def find_time_of_credits(shop: Sold, _: Any, name: str) -> str:
    await shop.customer(name, now=JANUARY)
    async with shop.database.reading() as connection:
        id_ = (await connection.execute(sa.select(customers_table.c.id))).scalar_one()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "now_ms", lambda: NOON * 1000)
        await write(shop.database, credits.book_gift, ALICE, id_, "g", 100, "x", (NOON + 3600) * 1000)
        meters = CreditMeters("cost")
        while await consumption.book_next_hour(shop.database, meters, NOON + 9000):
            pass
        patch.setattr(journal, "now_ms", lambda: (NOON + 9000) * 1000)
        await shop.use(name, {"cost": 40}, at=NOON + 1800)
        assert await consumption.revise_days(shop.database, meters, [NOON - NOON % 86400]) == 1
    async with shop.database.reading() as connection:
        return {0: "use", -40: "arrival"}[await journal.fetch_balance(connection, id_)]


async def find_time_of_corrections(shop: Sold, _: Any, name: str) -> str:
    """The usage of the first hour is taken back after the end of the gift that paid it."""
    await shop.customer(name, now=JANUARY)
    async with shop.database.reading() as connection:
        id_ = (await connection.execute(sa.select(customers_table.c.id))).scalar_one()
    meters = CreditMeters("cost")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "now_ms", lambda: NOON * 1000)
        await write(shop.database, credits.book_gift, ALICE, id_, "g", 50, "x", (NOON + 7200) * 1000)
        await write(shop.database, credits.book_gift, ALICE, id_, "h", 100, "x", None)
        for time, cost in ((NOON, 50), (NOON + 3600, 40)):
            await shop.use(name, {"cost": cost}, at=time)
        while await consumption.book_next_hour(shop.database, meters, NOON + 3 * 3600):
            pass
        await shop.use(name, {"cost": -50}, at=NOON)
        replaced = {"source": "s", "id": "1", "customer": name, "meter": "cost", "is_dated": 1, "is_summed": 2}
        async with shop.database.writing() as connection:
            await connection.execute(sa.insert(events), [{**replaced, "value": 50, "time": NOON}])
        assert await consumption.revise_days(shop.database, meters, [NOON - NOON % 86400]) == 1
    async with shop.database.reading() as connection:
        return {100: "use", 60: "arrival"}[await journal.fetch_balance(connection, id_)]


async def find_time_of_coupons(shop: Sold, closing: Any, name: str) -> str:
    await shop.customer(name, "small@1", now=JANUARY, coupon="JANUARY")
    lines = await charge_late(shop, closing, name, 12, used_at=NOON)
    return {True: "use", False: "arrival"}[("discount", -100) in lines]


async def find_time_of_trials(shop: Sold, closing: Any, name: str) -> str:
    await shop.customer(name, "tried", now=JANUARY)
    await closing.step(JANUARY + 15 * 86400)
    lines = await charge_late(shop, closing, name, 7, used_at=JANUARY + 3600)
    return "arrival" if lines else "use"


async def find_time_of_plans(shop: Sold, closing: Any, name: str) -> str:
    await shop.customer(name, "small@1", now=JANUARY)
    await shop.change(name, "large", now=NOON)
    lines = await charge_late(shop, closing, name, 12, used_at=NOON - 3600)
    return {200: "use", 1000: "arrival"}[dict(lines)["late"]]


async def find_time_of_price_versions(shop: Sold, closing: Any, name: str) -> str:
    await shop.customer(name, "small@1", now=JANUARY)
    await shop.change(name, "small@2", now=NOON, when="period_end")
    lines = await charge_late(shop, closing, name, 12, used_at=NOON)
    return {200: "use", 600: "arrival"}[dict(lines)["late"]]


async def find_time_of_budgets(shop: Sold, _: Any, name: str) -> str:
    await shop.customer(name, "small", now=JANUARY)
    digest = "ab" * 32
    stored = key_budgets.dump_budget(KeyBudgetRequest.model_validate({"amount": 100, "per": "month", "meter": "calls"}))
    async with shop.database.writing() as connection:
        id_ = (await connection.execute(sa.select(customers_table.c.id))).scalar_one()
        row = {"id": "k", "customer": id_, "sha256": digest, "start": "sk", "budget": stored, "created_at": 0}
        await connection.execute(sa.insert(keys_table), [{**row, "version": 1}])
        split = '{"key":"' + format_usage_key(bytes.fromhex(digest)).decode() + '"}'
        await shop.database.ledger.insert_series(
            connection, [[EVENTS, EVENTS_REGION, name, "calls", EVENTS_ROUTE, split]]
        )
        number = (await connection.execute(sa.select(series.c.id))).scalar_one()
        used = split.split('"')[3]
        await shop.database.ledger.insert_series_dimensions(
            connection, [{"series": number, "name": "key", "value": used}]
        )
        await shop.database.ledger.add(connection, ledger, {NOON: {number: 60}, FEBRUARY + 3600: {number: 5}})
    async with shop.database.reading(whole=True) as connection:
        (use,) = await key_spend.fetch_uses(connection, [name], shop.known.meters, FEBRUARY + 7200 - EPOCH)
    return {5: "use", 65: "arrival"}[use.used or 0]


async def find_time_of_allowances(shop: Sold, closing: Any, name: str) -> str:
    await shop.customer(name, "small@1", now=JANUARY)
    await shop.use(name, {"calls": 10}, at=NOON - 60)
    lines = await charge_late(shop, closing, name, 4, used_at=NOON)
    return "use" if lines == [("late", 400)] else "arrival"


async def find_time_of_taxes(shop: Sold, closing: Any, name: str) -> str:
    """Stripe can compute the tax of no invoice at the time of the usage, as the customer has no address yet."""
    await shop.customer(name, "small@1", now=JANUARY)
    await shop.use(name, {"calls": 11}, at=NOON)
    for time in (FEBRUARY, FEBRUARY + FREEZE):
        await closing.step(time)
    held = (await fetch_invoices(shop, name))["2027-01-01 period"]
    assert held["state"] == "held", "without an address there is no tax"
    assert shop.known.billing is not None
    stripe = Stripe(shop.known.billing.stripe, KEY)
    customers = await stripe.list_all("v1.customers.list")
    there = next(customer["id"] for customer in customers if customer.get("name") == name)
    await stripe.call("v1.customers.update", there, address={"country": "US", "postal_code": "94107"})
    await stripe.close()
    await shop.use(name, {"calls": 2}, at=NOON)
    for time in (MARCH, MARCH + FREEZE):
        await closing.step(time)
    invoice = (await fetch_invoices(shop, name))[LATE_DUE]
    assert [(line["kind"], line["amount"]) for line in invoice["lines"] if line["amount"]] == [("late", 200)]
    return "invoice" if invoice["state"] == "open" else "use"


FIND_TIME: dict[str, Callable[[Sold, Any, str], Awaitable[str]]] = {
    "credits": find_time_of_credits,
    "corrections": find_time_of_corrections,
    "coupons": find_time_of_coupons,
    "trials": find_time_of_trials,
    "plans": find_time_of_plans,
    "price versions": find_time_of_price_versions,
    "budgets": find_time_of_budgets,
    "allowances": find_time_of_allowances,
    "taxes": find_time_of_taxes,
}


def test_table_has_a_row_for_each_term() -> None:
    assert list(read_table()) == list(FIND_TIME)


@ON_BOTH_IF_SOAKED
@pytest.mark.parametrize("term", FIND_TIME)
async def test_late_usage_is_charged_by_the_time_in_the_table(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str, term: str
) -> None:
    name = f"{database.partition(':')[0]}-late-{term.replace(' ', '-')}"
    settings = write_settings(tmp_path) | ({"tax": {"stripe_tax": True}} if term == "taxes" else {})
    async with sold(tmp_path, database, stripe_sandbox.url, **settings) as (shop, closing):
        assert await FIND_TIME[term](shop, closing, name) == read_table()[term]


async def begin_around_the_end_of_a_trial(shop: Sold, closing: Any, name: str) -> LateUses:
    await shop.customer(name, "tried", now=JANUARY)
    end = JANUARY + 14 * 86400
    await closing.step(end + 60)
    return (7, end - 1), (3, end), (5, JANUARY)


async def begin_around_a_change(shop: Sold, _: Any, name: str) -> LateUses:
    await shop.customer(name, "small@1", now=JANUARY)
    await shop.change(name, "large", now=NOON)
    return (12, NOON - 1), (13, NOON)


async def begin_two_price_versions(shop: Sold, _: Any, name: str) -> LateUses:
    await shop.customer(name, "small@1", now=JANUARY)
    await shop.change(name, "small@2", now=NOON, when="period_end")
    return (12, FEBRUARY - 1), (12, FEBRUARY)


async def begin_two_periods_of_which_one_has_a_coupon(shop: Sold, _: Any, name: str) -> LateUses:
    await shop.customer(name, "small@1", now=JANUARY, coupon="JANUARY")
    return (14, NOON), (14, FEBRUARY + 3600)


async def begin_corrected_usage(shop: Sold, _: Any, name: str) -> LateUses:
    """Usage that arrives late is taken back as late, and neither month pays for the other."""
    await shop.customer(name, "small@1", now=JANUARY)
    return (30, NOON), (-25, NOON), (11, FEBRUARY + 60), (-1, FEBRUARY + 120)


async def begin_before_a_change_of_the_month_after(shop: Sold, closing: Any, name: str) -> LateUses:
    await shop.customer(name, "small@1", now=JANUARY)
    await closing.step(FEBRUARY)
    await shop.change(name, "large", now=FEBRUARY + 86400)
    return (11, NOON), (11, FEBRUARY + 3600), (11, FEBRUARY + 90000)


LATE_CHARGES: dict[Callable[[Sold, Any, str], Awaitable[LateUses]], dict[str, int]] = {
    begin_around_the_end_of_a_trial: {"late tried@1": 300},
    begin_around_a_change: {"late small@1": 200, "late large@1": 1500},
    begin_two_price_versions: {"late small@1": 200, "late small@2": 600},
    begin_two_periods_of_which_one_has_a_coupon: {"late small@1": 800, "discount small@1": -200},
    begin_corrected_usage: {},
    begin_before_a_change_of_the_month_after: {"late small@1": 200, "late large@1": 500},
}
"""Customers, in the order of their steps, and the amounts of their late lines by plan version."""


@ON_BOTH_IF_SOAKED
async def test_late_usage_of_several_times_is_charged_by_each(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    """January and February are closed, usage of both arrives late, and March is closed."""
    names = {begin: f"{database.partition(':')[0]}-{begin.__name__.replace('_', '-')}" for begin in LATE_CHARGES}

    async with sold(tmp_path, database, stripe_sandbox.url, **write_settings(tmp_path)) as (shop, closing):
        uses = {name: await begin(shop, closing, name) for begin, name in names.items()}
        for month in (FEBRUARY, MARCH):
            await closing.step(month)
            await closing.step(month + FREEZE)
        for name, late in uses.items():
            for calls, when in late:
                await shop.use(name, {"calls": calls}, at=when)
        for time in (APRIL, APRIL + FREEZE):
            await closing.step(time)
        for begin, name in names.items():
            amounts: Counter[str] = Counter()
            for line in (await fetch_invoices(shop, name))["2027-03-01 period"]["lines"]:
                if line["kind"] in ("late", "discount"):
                    amounts[f"{line['kind']} {line['plan']}"] += line["amount"]
            assert {what: amount for what, amount in amounts.items() if amount} == LATE_CHARGES[begin], name
