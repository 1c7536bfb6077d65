"""Invoices at a threshold within a period, against the Stripe sandbox: usage is charged once, whatever is killed."""

import asyncio
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from edgeproxy.collector.billing.period_close import invoice_lines
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.subscriptions import subscription_rows
from edgeproxy.collector.database.billing_tables import segments
from tests.support.invoiced import FEBRUARY, FREEZE, JANUARY, MARCH, at_stripe, fetch_invoices
from tests.support.sold import CALLER, Killed, Mortal, Sold, sold
from tests.support.stripe_sandbox import Sandbox

DAY = 86400
PLANS = """
plans:
  team@1:
    fee: "31"
    threshold: "20"
    tier: standard
    meters:
      calls: {tiers: [{up_to: 10, price: "0"}, {up_to: 30, price: "1"}, {up_to: none, price: "0.50"}]}
      seats: {included: 0, price: "5"}
"""
METERS = {"calls": {"count": "events"}, "seats": {"count": "events", "aggregate": "max"}}


def settings(folder: Path) -> dict[str, Any]:
    file = folder / "plans.yaml"
    file.write_text(PLANS)
    return {"plans": str(file), "coupons": {"HALF": {"percent_off": "50%"}}}


async def charged(shop: Sold, name: str) -> dict[str, list[tuple[str, int, int]]]:
    """The kinds, tiers and amounts of the lines of each invoice that cost something."""
    return {
        period: [(line["kind"], line["tier"], line["amount"]) for line in invoice["lines"] if line["amount"]]
        for period, invoice in (await fetch_invoices(shop, name)).items()
    }


async def upcoming(shop: Sold, name: str) -> list[tuple[str, int]]:
    async with shop.database.reading(whole=True) as connection:
        loaded = await subscription_rows.get_by_customer(connection, name)
        lines = (await invoice_lines.compute_upcoming(connection, loaded, shop.known.meters)).lines
        return [(line.kind, line.amount) for line in lines if line.amount]


async def test_usage_is_invoiced_at_each_threshold_and_the_rest_with_the_period(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    name = f"bounded-{database.partition(':')[0]}"

    async with sold(tmp_path, database, stripe_sandbox.url, meters=METERS, **settings(tmp_path)) as (shop, closing):
        await shop.customer(name, "team", now=JANUARY)
        for day, calls, count in ((5, 25, 1), (6, 10, 2), (7, 39, 2), (8, 1, 3), (9, 3, 3)):
            await shop.use(name, {"calls": calls}, at=JANUARY + day * DAY)
            for seconds in (60, 120, 180):
                await closing.step(JANUARY + day * DAY + seconds)
            assert len(await fetch_invoices(shop, name)) == count, day
        assert await upcoming(shop, name) == [("fee", 3100), ("usage", 150)]
        for time in (FEBRUARY, FEBRUARY + FREEZE):
            await closing.step(time)
        await shop.use(name, {"calls": 2}, at=JANUARY + 9 * DAY)  # It comes late.
        for time in (MARCH, MARCH + FREEZE):
            await closing.step(time)
        assert await charged(shop, name) == {
            "2027-01-01 start": [("fee", 0, 3100)],
            "2027-01-01 threshold": [("usage", 2, 2000), ("usage", 3, 250)],
            "2027-01-01 threshold-2": [("usage", 3, 2000)],
            "2027-01-01 period": [("fee", 0, 3100), ("usage", 3, 150)],
            "2027-02-01 period": [("fee", 0, 3100), ("late", 3, 100)],
        }
    assert sorted(one["total"] for one in at_stripe(stripe_sandbox, name)) == [2000, 2250, 3100, 3200, 3250]


def test_a_threshold_invoice_is_made_once_though_each_call_is_the_last(
    stripe_sandbox: Sandbox, tmp_path: Path, sqlite_database: str
) -> None:
    async def work() -> int:
        kills = 0
        async with sold(tmp_path, sqlite_database, stripe_sandbox.url, Mortal, **settings(tmp_path)) as (shop, closing):
            await shop.customer("mortal", "team", now=JANUARY, coupon="HALF")
            await shop.use("mortal", {"calls": 50}, at=JANUARY + DAY)
            now, is_busy = JANUARY + DAY + 60, True
            while is_busy:
                is_busy = True
                try:
                    is_busy = await closing.step(now)
                except* Killed:
                    kills += 1
                now += 61
            assert await charged(shop, "mortal") == {
                "2027-01-01 start": [("fee", 0, 3100), ("discount", 0, -1550)],
                "2027-01-01 threshold": [("usage", 2, 2000), ("usage", 3, 1000), ("discount", 0, -1500)],
            }
        return kills

    assert asyncio.run(work()) >= 4
    assert sorted(one["total"] for one in at_stripe(stripe_sandbox, "mortal")) == [1500, 1550]


async def test_threshold_invoices_skip_uncharged_and_metered_customers(
    stripe_sandbox: Sandbox, tmp_path: Path, sqlite_database: str
) -> None:
    terms = {"rollout": {"percent": 0, "allow": ["metered", "stopped"]}, **settings(tmp_path)}
    async with sold(tmp_path, sqlite_database, stripe_sandbox.url, **terms) as (shop, closing):
        for name in ("metered", "stopped", "uncharged"):
            await shop.customer(name, "team", now=JANUARY)
        async with shop.database.writing() as connection:
            row = await subscription_rows.get_by_customer(connection, "metered")
            of_metered = segments.c.subscription == row.row.id
            await connection.execute(sa.update(segments).where(of_metered).values(collection="meters"))
            await charging.stop_charging(connection, CALLER, "free", "a fault")
        for name in ("metered", "stopped", "uncharged"):
            await shop.use(name, {"calls": 50}, at=JANUARY + DAY)
        await closing.step(JANUARY + DAY + 60)
        assert len(await fetch_invoices(shop, "stopped")) == 1
        async with shop.database.writing() as connection:
            await charging.resume_charging(connection, CALLER, "mended")
        await closing.step(JANUARY + DAY + 120)
        counts = [len(await fetch_invoices(shop, name)) for name in ("metered", "stopped", "uncharged")]
        assert counts == [1, 2, 1]
