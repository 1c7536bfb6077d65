"""Periodic work of price changes: customers are told once, in time, and again if it is withdrawn; Stripe has prices."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from edgeproxy.collector.billing.jobs.price_changes import PriceChangeJob
from edgeproxy.collector.billing.stripe.client import Stripe
from edgeproxy.collector.billing.subscriptions import price_changes
from edgeproxy.collector.billing.subscriptions.price_changes import PriceChangeRow
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.config.collector.load import load_plans_text
from tests.support.invoiced import FEBRUARY, JANUARY, MARCH
from tests.support.sold import CALLER, KEY, Sold, sold
from tests.support.stripe_sandbox import Sandbox

DAY = 86400
TEXT = 'plans: {standard@2: {name: Standard, fee: "109", meters: {llm_tokens: {included: 5, price: "0.02"}}}}'


async def schedule(shop: Sold, text: str, time: int) -> PriceChangeRow:
    async with shop.database.writing() as connection:
        plans = load_plans_text("plans", text).plans
        prepared = await price_changes.prepare_change(connection, text, plans, shop.known.plans, time)
        return await price_changes.schedule_change(connection, CALLER, prepared, "dearer")


async def fetch_notices(shop: Sold) -> list[tuple[str, str]]:
    async with shop.database.reading() as connection:
        statement = sa.select(alerts.c.customer, alerts.c.title).where(alerts.c.kind == "price_change")
        return [(row.customer, row.title) for row in await connection.execute(statement.order_by(alerts.c.id))]


@pytest.mark.both_databases
async def test_price_change_notice_is_sent_once_and_withdrawal_is_announced(tmp_path: Path, database: str) -> None:
    async with sold(tmp_path, database, "http://127.0.0.1:1", price_notice="10day") as (shop, _):
        job = PriceChangeJob(shop.database, lambda: shop.known, lambda: "https://shop.example/account/plan")
        await shop.customer("monthly", "standard", now=JANUARY)
        await shop.customer("yearly", "standard", now=JANUARY, is_yearly=True)
        await shop.customer("other", "free", now=JANUARY)
        row = await schedule(shop, TEXT, MARCH)
        assert await job.notify_customers(MARCH - 11 * DAY) == 0
        assert await job.notify_customers(MARCH - 10 * DAY) == 1
        assert await job.notify_customers(MARCH - 9 * DAY) == 0
        await shop.customer("between", "standard", now=MARCH - 9 * DAY)
        assert await job.notify_customers(MARCH - 8 * DAY) == 1
        async with shop.database.writing() as connection:
            await price_changes.withdraw_change(connection, CALLER, row.id, "not after all", MARCH - 7 * DAY)
        assert await job.notify_customers(MARCH - 7 * DAY) == 2
        assert await job.notify_customers(MARCH - 6 * DAY) == 0
        changes, stays = (
            ("The price of the plan Standard changes on 2027-03-01",),
            ("The change of your plan's price",),
        )
        assert [(name, title.startswith((*changes, *stays))) for name, title in await fetch_notices(shop)] == [
            *(("monthly", True), ("between", True), ("between", True), ("monthly", True)),
        ]


async def test_price_change_finishes_at_its_time(tmp_path: Path, sqlite_database: str) -> None:
    async with sold(tmp_path, sqlite_database, "http://127.0.0.1:1") as (shop, _):
        job = PriceChangeJob(shop.database, lambda: shop.known)
        row = await schedule(shop, TEXT, FEBRUARY)
        assert [await job.finish_due(now) for now in (FEBRUARY - 1, FEBRUARY, FEBRUARY + 1)] == [0, 1, 0]
        async with shop.database.reading() as connection:
            assert (await price_changes.get_change(connection, row.id)).state == "done"
            keys = (await connection.execute(sa.select(alerts.c.key).order_by(alerts.c.id))).scalars()
            assert list(keys) == [f"price-change-scheduled:{row.id}", f"price-change-done:{row.id}"]


def test_stripe_has_the_prices_of_a_version_that_is_scheduled(
    own_sandbox: Sandbox, tmp_path: Path, sqlite_database: str
) -> None:
    async def work() -> None:
        async with sold(tmp_path, sqlite_database, own_sandbox.url, collection="meters") as (shop, _):
            job = PriceChangeJob(shop.database, lambda: shop.known)
            assert shop.known.billing is not None
            stripe = Stripe(shop.known.billing.stripe, KEY)
            try:
                await job.sync_prices(stripe, JANUARY)
                assert own_sandbox.journal("price.created") == [], "nothing is scheduled"
                await schedule(shop, TEXT, MARCH)
                for _ in range(2):
                    await job.sync_prices(stripe, JANUARY)
            finally:
                await stripe.close()

    async def list_keys(client: Any) -> list[str]:
        return [price.lookup_key for price in (await client.v1.prices.list_async()).data]

    asyncio.run(work())
    assert own_sandbox.run(list_keys) == ["edgeproxy/standard@2/llm_tokens/month"]
