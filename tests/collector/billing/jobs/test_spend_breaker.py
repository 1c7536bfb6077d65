"""The spend breaker: a leaked key raises an alert within two checks, and pauses its customer only if configured."""

from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa

from edgeproxy.collector.billing.jobs.spend_breaker import WEEK, SpendBreaker
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.schema import HOUR, customers
from tests.support.collector_fixtures import only_sqlite
from tests.support.invoiced import FEBRUARY, JANUARY
from tests.support.sold import Sold, sold

NOON = FEBRUARY + 14 * 86400 + 12 * HOUR
NOWHERE = "http://127.0.0.1:9"


async def fetch_kinds(shop: Sold) -> list[tuple[str, str | None]]:
    async with shop.database.reading() as connection:
        rows = await connection.execute(sa.select(alerts.c.kind, alerts.c.customer).order_by(alerts.c.id))
        return [(row.kind, row.customer) for row in rows]


async def fetch_pause(shop: Sold, name: str) -> Any:
    async with shop.database.reading() as connection:
        settings = (await connection.execute(sa.select(customers.c.settings).where(customers.c.name == name))).scalar()
    return orjson.loads(settings or "{}").get("paused")


async def fill(shop: Sold) -> None:
    """Customers that run some agents in each hour, at 10 cents each above the included ones."""
    for name in ("steady", "leaked", "new", "small", "free"):
        await shop.customer(name, "free" if name == "free" else "standard", now=JANUARY)
    async with shop.database.writing() as connection:
        for name, created in (("steady", JANUARY), ("leaked", JANUARY), ("small", JANUARY), ("new", NOON - HOUR)):
            statement = sa.update(customers).where(customers.c.name == name)
            await connection.execute(statement.values(created_at=created * 1000))
    for week in range(1, 5):
        for name, executions in (("steady", 100), ("leaked", 10), ("small", 1)):
            await shop.use(name, {"agent_executions": executions}, at=NOON - week * WEEK + 120)


async def spend(shop: Sold, *, at: int) -> None:
    for name, executions in (("steady", 400), ("leaked", 60), ("new", 80), ("small", 40), ("free", 90_000)):
        await shop.use(name, {"agent_executions": executions}, at=at)


async def test_spend_breaker_raises_an_alert_when_a_spike_lasts_two_checks(tmp_path: Path, database: str) -> None:
    async with sold(tmp_path, database, NOWHERE) as (shop, _):
        await fill(shop)
        breaker = SpendBreaker(shop.database, lambda: shop.known)
        await spend(shop, at=NOON + 60)
        assert await breaker.step(NOON + 300) == [], "one check may see a burst of half an hour"
        # $6 against a usual $1. For the new customer $8 against $1.07, the amount included in an hour of its plan.
        assert sorted(await breaker.step(NOON + 600)) == ["leaked", "new"]
        assert await breaker.step(NOON + 900) == []
        assert sorted(await fetch_kinds(shop)) == [("spend_spike", "leaked"), ("spend_spike", "new")]
        assert await fetch_pause(shop, "leaked") is None, "an alert first"


@only_sqlite("database")
async def test_an_operator_waits_for_no_second_look(tmp_path: Path, database: str) -> None:
    async with sold(tmp_path, database, NOWHERE) as (shop, _):
        await fill(shop)
        breaker = SpendBreaker(shop.database, lambda: shop.known)
        await spend(shop, at=NOON + 60)
        assert sorted(await breaker.step(NOON + 300, needs_second_look=False)) == ["leaked", "new"]
        assert await breaker.step(NOON + 600) == [], "an alert is raised once a day"


@only_sqlite("database")
async def test_spend_breaker_pauses_customers_only_if_configured(tmp_path: Path, database: str) -> None:
    async with sold(tmp_path, database, NOWHERE, breaker={"pause": "on"}) as (shop, _):
        await fill(shop)
        breaker = SpendBreaker(shop.database, lambda: shop.known)
        await spend(shop, at=NOON + 60)
        await breaker.step(NOON + 300)
        await breaker.step(NOON + 600)
        for name in ("leaked", "new"):
            pause = await fetch_pause(shop, name)
            assert pause is not None
            assert "unusual usage" in pause["why"]
        assert await fetch_pause(shop, "steady") is None
        assert ("customer_paused", "leaked") in await fetch_kinds(shop)
