"""Price changes: the charge equals the dry run, and subscribers move once, at their next payment."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.billing.reports import price_effect
from edgeproxy.collector.billing.subscriptions import plan_versions, price_changes, subscription_rows, subscriptions
from edgeproxy.collector.billing.subscriptions.plan_versions import PlanEditedError
from edgeproxy.collector.billing.subscriptions.price_changes import PreparedChange, PriceChangeRow
from edgeproxy.collector.database.billing_tables import plan_versions as version_rows
from edgeproxy.collector.database.billing_tables import segments
from edgeproxy.collector.database.unreadable_rows import UnreadableRowError
from edgeproxy.config.collector.load import load_plans_text
from tests.support.collector_fixtures import only_sqlite
from tests.support.invoiced import FEBRUARY, FREEZE, JANUARY, MARCH, at, fetch_invoices
from tests.support.sold import CALLER, Sold, sold

APRIL, MAY = at(2027, 4, 1), at(2027, 5, 1)
DAY = 86400
BEFORE = """
plans:
  team@1:
    fee: "50"
    annual: {discount: 10%}
    tier: standard
    meters:
      calls: {tiers: [{up_to: 100, price: "0.10"}, {up_to: none, price: "0.05"}]}
      boxes: {included: 10, price: "2", package: 5}
      files: {tiers_mode: volume, tiers: [{up_to: 50, price: "0.031"}, {up_to: none, price: "0.017"}]}
      seats: {included: 3, price: "5"}
  solo@1: {fee: "9", tier: free}
  crew@1: {fee: "2", tier: free, quantity: {max: 9}}
"""
AFTER = """
plans:
  team@2:
    fee: "59.90"
    annual: {discount: 5%}
    tier: standard
    meters:
      calls: {tiers: [{up_to: 250, price: "0.11"}, {up_to: none, price: "0.033"}]}
      boxes: {included: 4, price: "1.99", package: 7}
      files: {tiers_mode: volume, tiers: [{up_to: 90, price: "0.029"}, {up_to: none, price: "0.0183"}]}
      storage: {included: 0, price: "0.0777"}
"""
USED = [
    {"calls": 0, "boxes": 10, "files": 50, "seats": 3},
    {"calls": 333, "boxes": 11, "files": 91, "seats": 8, "storage": 13},
    {"calls": 251, "boxes": 32, "files": 90, "seats": 0, "storage": 1},
]


def fee_only(version: str, fee: str) -> str:
    return f'plans: {{{version}: {{fee: "{fee}", tier: standard}}}}'


async def prepare(shop: Sold, text: str, time: int, now: dict[str, Any] | None = None) -> PreparedChange:
    async with shop.database.reading(whole=True) as connection:
        plans = load_plans_text("plans", text).plans
        return await price_changes.prepare_change(connection, text, plans, now or shop.known.plans, time)


async def schedule(shop: Sold, text: str, time: int) -> PriceChangeRow:
    prepared = await prepare(shop, text, time)
    async with shop.database.writing() as connection:
        return await price_changes.schedule_change(connection, CALLER, prepared, "dearer")


async def withdraw(shop: Sold, row: PriceChangeRow, now: float) -> PriceChangeRow:
    async with shop.database.writing() as connection:
        return await price_changes.withdraw_change(connection, CALLER, row.id, "not after all", now)


async def list_versions(shop: Sold, name: str) -> list[str]:
    """The versions of a customer's segments, in the order of time."""
    async with shop.database.reading() as connection:
        loaded = await subscription_rows.get_by_customer(connection, name)
    return [segment.version for segment in loaded.current.segments]


async def find_sold(shop: Sold, now: float) -> set[str]:
    async with shop.database.reading() as connection:
        return set(await plan_versions.fetch_plans_on_sale(connection, shop.known.plans, now))


def run(folder: Path, url: str, work: Callable[[Sold, Any], Awaitable[None]], plans: str = BEFORE) -> None:
    """Do something with a database where these plans are sold, and with what closes its periods."""
    file = folder / "plans.yaml"
    file.write_text(plans)

    async def begin() -> None:
        async with sold(folder, url, "http://127.0.0.1:1", plans=str(file), mode="shadow") as (shop, closing):
            await work(shop, closing)

    asyncio.run(begin())


def test_dry_run_of_a_price_change_equals_later_charges_to_the_cent(tmp_path: Path, database: str) -> None:
    async def work(shop: Sold, closing: Any) -> None:
        names = [f"payer-{number}" for number in range(len(USED))]
        for name, used in zip(names, USED, strict=True):
            await shop.customer(name, "team", now=JANUARY, is_yearly=name == names[2])
            for month in (JANUARY, MARCH):
                await shop.use(name, used, at=month + DAY)
        for time in (FEBRUARY, FEBRUARY + FREEZE):
            await closing.step(time)
        prepared = await prepare(shop, AFTER, MARCH)
        assert [(move.before, move.after) for move in prepared.moves] == [("team@1", "team@2")]
        effect = await price_effect.compute_effect(shop.database, prepared.moves, prepared.plans, shop.known.meters)
        assert effect.subscribers == len(names)
        assert [subscriber.difference for subscriber in effect.effects] == sorted(
            (e.difference for e in effect.effects), reverse=True
        )
        assert await find_sold(shop, APRIL) == {"team@1", "solo@1", "crew@1"}, "nothing is written"
        await schedule(shop, AFTER, MARCH)
        for time in (MARCH, MARCH + FREEZE, APRIL, APRIL + FREEZE):
            await closing.step(time)
        rated = {subscriber.customer: subscriber for subscriber in effect.effects}
        for name in names[:2]:
            invoices = await fetch_invoices(shop, name)
            january, february, march = (invoices[f"2027-0{month}-01 period"]["lines"] for month in (1, 2, 3))
            assert rated[name].before == sum(line["amount"] for line in january), "the fee on it is February's"
            fee = sum(line["amount"] for line in february if line["kind"] == "fee")
            assert fee == 5990, "March's"
            assert rated[name].after == fee + sum(line["amount"] for line in march if line["kind"] == "usage")
            assert await list_versions(shop, name) == ["team@1", "team@1", "team@2", "team@2"]
        yearly = rated[names[2]]
        assert await list_versions(shop, names[2]) == ["team@1"] * 4, "a year that is paid for ends first"
        assert yearly.before == 4500 + sum(
            line["amount"] for line in (await fetch_invoices(shop, names[2]))["2027-01-01 period"]["lines"]
        )
        assert yearly.after is not None
        assert yearly.after - 5691 == 2750 + 3 + 4 * 199 + 261 + 8, "250 × 11 ¢, 3.3 ¢, 4 packages, 90 × 2.9 ¢, 7.77 ¢"

    run(tmp_path, database, work)


@only_sqlite("database")
def test_price_change_moves_subscribers_at_their_next_period(tmp_path: Path, database: str) -> None:
    async def work(shop: Sold, closing: Any) -> None:
        for name in ("stays", "leaves", "comes", "own"):
            await shop.customer(name, "solo" if name == "comes" else "team", now=JANUARY)
        await schedule(shop, fee_only("team@2", "60"), MARCH)
        assert await find_sold(shop, MARCH - 1) == {"team@1", "solo@1", "crew@1"}
        assert await find_sold(shop, MARCH) == {"team@1", "team@2", "solo@1", "crew@1"}
        await shop.customer("between", "team", now=FEBRUARY + DAY)
        await shop.change("comes", "team", now=FEBRUARY + DAY, when="period_end")
        await shop.change("leaves", "solo", now=FEBRUARY + DAY, when="period_end")
        for time in (FEBRUARY, MARCH):
            await closing.step(time)
        await shop.customer("late", "team", now=MARCH + DAY)
        assert {
            name: (await list_versions(shop, name))[-1] for name in ("stays", "leaves", "comes", "between", "late")
        } == {
            **dict.fromkeys(("stays", "comes", "between", "late"), "team@2"),
            "leaves": "solo@1",
        }
        again = await prepare(shop, fee_only("team@3", "70"), APRIL)
        assert [move.before for move in again.moves] == ["team@2"]

    run(tmp_path, database, work)


@pytest.mark.usefixtures("sqlite_with_threads")
def test_a_period_that_is_rolled_twice_at_once_moves_once(tmp_path: Path, database: str) -> None:
    async def work(shop: Sold, _: Any) -> None:
        await shop.customer("acme", "team", now=JANUARY)
        await schedule(shop, fee_only("team@2", "60"), FEBRUARY)
        async with shop.database.reading() as connection:
            loaded = await subscription_rows.get_by_customer(connection, "acme")

        async def roll() -> bool:
            async with shop.database.writing() as connection:
                return await subscriptions.roll_period(connection, loaded.row.id, settings=shop.known, now=FEBRUARY)

        assert sorted(await asyncio.gather(roll(), roll())) == [False, True]
        async with shop.database.reading() as connection:
            rows = (await connection.execute(sa.select(segments.c.plan_version).order_by(segments.c.start))).scalars()
            assert list(rows) == ["team@1", "team@2"]

    run(tmp_path, database, work)


def test_consecutive_price_changes_apply_in_order_without_withdrawn_ones(tmp_path: Path, sqlite_database: str) -> None:
    async def work(shop: Sold, closing: Any) -> None:
        await shop.customer("acme", "team", now=JANUARY)
        february, march, april = [
            await schedule(shop, fee_only(f"team@{number}", f"{number}0"), month)
            for number, month in ((2, FEBRUARY), (3, MARCH), (4, APRIL))
        ]
        with pytest.raises(ChangeRejectedError, match="409"):
            await withdraw(shop, february, FEBRUARY - 60)
        assert (await withdraw(shop, march, MARCH - 61)).state == "withdrawn"
        with pytest.raises(ChangeRejectedError, match="409"):
            await withdraw(shop, march, MARCH - 61)
        async with shop.database.reading() as connection:
            moves = await plan_versions.fetch_moves(connection)
        assert [(move.before, move.after) for move in moves] == [("team@1", "team@2"), ("team@2", "team@4")]
        for time in (FEBRUARY, MARCH, APRIL, MAY):
            await closing.step(time)
        assert await list_versions(shop, "acme") == ["team@1", "team@2", "team@2", "team@4", "team@4"]
        async with shop.database.writing() as connection:
            assert await price_changes.finish_due_changes(connection, CALLER, APRIL) == 2
            assert await price_changes.finish_due_changes(connection, CALLER, APRIL) == 0
        with pytest.raises(ChangeRejectedError, match="is done"):
            await withdraw(shop, april, MARCH)

    run(tmp_path, sqlite_database, work)


def test_a_reload_of_the_plans_does_not_undo_a_change(tmp_path: Path, sqlite_database: str) -> None:
    async def work(shop: Sold, _: Any) -> None:
        row = await schedule(shop, fee_only("team@2", "60"), FEBRUARY)
        dearer = load_plans_text("plans", fee_only("team@2", "61")).plans
        async with shop.database.writing() as connection:
            with pytest.raises(PlanEditedError, match="team@2 was edited"):
                await plan_versions.record_plans(connection, shop.known.plans | dearer)
        same = load_plans_text("plans", fee_only("team@2", "60")).plans
        shop.known.plans.update(same)
        async with shop.database.writing() as connection:
            await plan_versions.record_plans(connection, shop.known.plans)
        assert "team@2" not in await find_sold(shop, FEBRUARY - 1), "the file has it, and it is for later"
        del shop.known.plans["team@2"]
        assert "team@2" in await find_sold(shop, FEBRUARY)
        await withdraw(shop, row, JANUARY)
        async with shop.database.writing() as connection:
            await plan_versions.record_plans(connection, shop.known.plans | dearer)
        for version in [*shop.known.plans]:
            if version.startswith("team"):
                del shop.known.plans[version]
        assert await find_sold(shop, FEBRUARY) == {"solo@1", "crew@1"}

    run(tmp_path, sqlite_database, work)


def test_customer_price_changes_only_with_a_new_customer_price(tmp_path: Path, sqlite_database: str) -> None:
    own = BEFORE + '  team@1+acme: {fee: "40", tier: standard}\n'

    async def work(shop: Sold, closing: Any) -> None:
        for name in ("acme", "bolt", "plain"):
            await shop.customer(name, "team", now=JANUARY)
        text = """plans: {team@2: {fee: "60", tier: standard}, team@2+bolt: {fee: "55", tier: standard}}"""
        prepared = await prepare(shop, text, FEBRUARY)
        effect = await price_effect.compute_effect(shop.database, prepared.moves, prepared.plans, shop.known.meters)
        assert {(subscriber.customer, subscriber.after) for subscriber in effect.effects} == {
            ("plain", 6000),
            ("bolt", 5500),
        }
        await schedule(shop, text, FEBRUARY)
        await closing.step(FEBRUARY)
        assert {name: (await list_versions(shop, name))[-1] for name in ("acme", "bolt", "plain")} == {
            "acme": "team@1+acme",
            "bolt": "team@2+bolt",
            "plain": "team@2",
        }

    run(tmp_path, sqlite_database, work, own)


def test_dry_run_reads_usage_by_the_dimensions_of_the_new_version(tmp_path: Path, sqlite_database: str) -> None:
    text = """plans: {team@2: {fee: "50", tier: standard, meters: {
        calls: {included: 100, price: "0.02", by: {dimension: model, prices: {large: "1"}}}}}}"""

    async def work(shop: Sold, closing: Any) -> None:
        await shop.customer("acme", "team", now=JANUARY)
        await shop.use("acme", {"calls": 200, "seats": 4}, at=JANUARY + DAY)
        await closing.step(FEBRUARY)
        prepared = await prepare(shop, text, MARCH)
        effect = await price_effect.compute_effect(shop.database, prepared.moves, prepared.plans, shop.known.meters)
        assert [(subscriber.before, subscriber.after) for subscriber in effect.effects] == [
            (5000 + 1000 + 500 + 500, 5000 + 200)
        ]

    run(tmp_path, sqlite_database, work)


@pytest.mark.parametrize(
    ("text", "field", "why"),
    [
        (BEFORE, "plans", "changes nothing"),
        (BEFORE.replace('"50"', '"51"'), "plans.team@1", "was edited"),
        (fee_only("crew@2", "1"), "plans.crew@2", "a quantity of 1 at most, and subscribers may have 9"),
        (fee_only("gold@1", "1"), "plans.gold@1", "a plan that is not sold"),
        (fee_only("team@4", "1"), "plans.team@4", "come before team@3"),
        ('plans: {solo@2: {fee: "1"}, solo@3: {fee: "2"}}', "plans.solo@3", "the same time as solo@2"),
    ],
)
def test_price_change_with_incompatible_terms_is_refused(
    tmp_path: Path, sqlite_database: str, text: str, field: str, why: str
) -> None:
    async def work(shop: Sold, _: Any) -> None:
        await schedule(shop, fee_only("team@3", "60"), MARCH)
        with pytest.raises(ChangeRejectedError) as refused:
            await prepare(shop, text, FEBRUARY)
        assert [fault.field for fault in refused.value.faults if why in fault.detail] == [field], refused.value.faults

    run(tmp_path, sqlite_database, work)


def test_a_subscriber_is_shown_the_change_that_it_will_meet(tmp_path: Path, sqlite_database: str) -> None:
    async def work(shop: Sold, _: Any) -> None:
        for name in ("monthly", "yearly", "ending", "free"):
            await shop.customer(name, "solo" if name == "free" else "team", now=JANUARY, is_yearly=name == "yearly")
        await schedule(shop, fee_only("team@2", "60"), FEBRUARY + DAY)
        async with shop.database.writing() as connection:
            for name in ("ending", "yearly"):
                await subscriptions.cancel_subscription(
                    connection, CALLER, name, "period_end", settings=shop.known, now=JANUARY + DAY
                )
        await shop.change("yearly", "team@1", now=JANUARY + DAY)
        upcoming = {}
        async with shop.database.reading() as connection:
            for name in ("monthly", "yearly", "ending", "free"):
                upcoming[name] = (
                    await subscription_rows.get_by_customer(connection, name)
                ).current.find_upcoming_move()
        assert upcoming == {
            "monthly": (MARCH, "team@1", "team@2"),
            "yearly": (at(2028, 1, 1), "team@1", "team@2"),
            "ending": None,
            "free": None,
        }

    run(tmp_path, sqlite_database, work)


def test_unreadable_version_stops_only_the_sale_of_its_plan(tmp_path: Path, database: str) -> None:
    async def work(shop: Sold, closing: Any) -> None:
        await shop.customer("payer", "solo", now=JANUARY)
        own = 'plans: {team@2: {fee: "60", tier: standard}, team@2+acme: {fee: "55", tier: standard}}'
        await schedule(shop, own, FEBRUARY)
        async with shop.database.writing() as connection:
            damaged = sa.update(version_rows).where(version_rows.c.version.startswith("team@2"))
            await connection.execute(damaged.values(settings='{"fee": []}'))
        assert await find_sold(shop, MARCH) == {"solo@1", "crew@1"}
        async with shop.database.reading() as connection:
            assert await plan_versions.fetch_plans_on_sale(connection, shop.known.plans, MARCH, "bolt")
            with pytest.raises(UnreadableRowError):
                await plan_versions.fetch_plans_on_sale(connection, shop.known.plans, MARCH, "acme")
        with pytest.raises(ChangeRejectedError) as refused:
            await prepare(shop, fee_only("team@3", "70"), APRIL)
        assert "cannot be read" in str(refused.value.faults)
        await schedule(shop, fee_only("solo@2", "12"), MARCH)
        for time in (FEBRUARY, MARCH):
            await closing.step(time)
        assert (await list_versions(shop, "payer"))[-1] == "solo@2"

    run(tmp_path, database, work)
