"""The expected total of the next invoice, projected from the finished days of its period."""

from pathlib import Path

import sqlalchemy as sa

from edgeproxy.collector.billing.period_close import invoice_lines
from edgeproxy.collector.billing.period_close.invoice_lines import ProjectedLines
from edgeproxy.collector.billing.rating.rater import RatedLine
from edgeproxy.collector.billing.subscriptions import subscription_rows
from edgeproxy.collector.database.schema import customers
from tests.support.invoiced import JANUARY
from tests.support.sold import Sold, sold

DAY = 86400
PLANS = """
plans:
  team@1:
    fee: "31"
    tier: standard
    meters:
      calls: {included: 0, price: "1"}
      seats: {included: 0, price: "5"}
"""
METERS = {"calls": {"count": "events"}, "seats": {"count": "events", "aggregate": "max"}}


async def project(shop: Sold, now: float) -> ProjectedLines:
    async with shop.database.reading(whole=True) as connection:
        loaded = await subscription_rows.get_by_customer(connection, "early")
        upcoming = await invoice_lines.compute_upcoming(connection, loaded, shop.known.meters, now)
    assert upcoming.projected is not None
    return upcoming.projected


def used(lines: list[RatedLine] | None, meter: str) -> int:
    return sum(line.quantity for line in lines or () if line.meter == meter and line.kind == "usage")


async def test_a_period_ends_between_the_low_and_the_high_day_once_three_are_over(
    tmp_path: Path, sqlite_database: str
) -> None:
    file = tmp_path / "plans.yaml"
    file.write_text(PLANS)

    async with sold(tmp_path, sqlite_database, "http://127.0.0.1:1", meters=METERS, plans=str(file)) as (shop, _):
        await shop.customer("early", "team", now=JANUARY)
        async with shop.database.writing() as connection:
            await connection.execute(sa.update(customers).values(created_at=JANUARY * 1000))
        for day, calls in enumerate((10, 30, 20, 5)):
            await shop.use("early", {"calls": calls}, at=JANUARY + day * DAY + 3600)
        assert await project(shop, JANUARY + 3 * DAY - 61) == (2, None, None)
        days, low, high = await project(shop, JANUARY + 4 * DAY - 60)
        assert days == 4
        assert (used(low, "calls"), used(high, "calls")) == (65 + 27 * 5, 65 + 27 * 30)
        assert (used(low, "seats"), used(high, "seats")) == (0, 0), "a level is held, and not added up"


async def test_projected_usage_counts_towards_the_minimum_fee(tmp_path: Path, sqlite_database: str) -> None:
    file = tmp_path / "plans.yaml"
    file.write_text(PLANS.replace("tier:", 'minimum: "101"\n    tier:'))

    async with sold(tmp_path, sqlite_database, "http://127.0.0.1:1", meters=METERS, plans=str(file)) as (shop, _):
        await shop.customer("early", "team", now=JANUARY)
        async with shop.database.writing() as connection:
            await connection.execute(sa.update(customers).values(created_at=JANUARY * 1000))
        for day, calls in enumerate((1, 2, 3, 4)):
            await shop.use("early", {"calls": calls}, at=JANUARY + day * DAY + 3600)
        _, low, high = await project(shop, JANUARY + 4 * DAY - 60)
        assert (used(low, "calls"), used(high, "calls")) == (10 + 27, 10 + 27 * 4)
        assert [line.amount for line in low or () if line.kind == "minimum"] == [10100 - 3100 - 3700]
        assert [line.amount for line in high or () if line.kind == "minimum"] == []


async def test_projection_after_a_plan_change_is_the_invoice_of_the_projected_usage(
    tmp_path: Path, sqlite_database: str
) -> None:
    """Usage of both plans counts towards their minimum fees."""
    file = tmp_path / "plans.yaml"
    team = PLANS.replace("tier:", 'minimum: "101"\n    tier:')
    file.write_text(team + team.partition("plans:\n")[2].replace("team@1", "group@1").replace('fee: "31"', 'fee: "62"'))

    async with sold(tmp_path, sqlite_database, "http://127.0.0.1:1", meters=METERS, plans=str(file)) as (shop, _):
        await shop.customer("early", "team", now=JANUARY)
        async with shop.database.writing() as connection:
            await connection.execute(sa.update(customers).values(created_at=JANUARY * 1000))
        await shop.change("early", "group", now=JANUARY + 2 * DAY, when="now")
        for day, calls in enumerate((1, 2, 3, 4)):
            await shop.use("early", {"calls": calls}, at=JANUARY + day * DAY + 3600)
        _, low, _ = await project(shop, JANUARY + 4 * DAY - 60)
        await shop.use("early", {"calls": 27}, at=JANUARY + 20 * DAY)
        async with shop.database.reading(whole=True) as connection:
            loaded = await subscription_rows.get_by_customer(connection, "early")
            upcoming = await invoice_lines.compute_upcoming(connection, loaded, shop.known.meters)
        assert {line.kind for line in upcoming.lines} >= {"usage", "minimum"}
        assert low is not None
        assert sorted(low, key=repr) == sorted(upcoming.lines, key=repr)
