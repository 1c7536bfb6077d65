"""Changes within a period with the sandbox: a second upgrade, years and months, and a return after an end."""

from pathlib import Path
from typing import Any

import pytest

from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.billing.period_close import invoice_lines
from edgeproxy.collector.billing.subscriptions import subscription_rows, subscriptions
from edgeproxy.collector.billing.subscriptions.subscription_rows import SubscriptionRow
from edgeproxy.collector.database.billing_tables import subscriptions as subscriptions_table
from edgeproxy.collector.events.event import UsageEvent
from edgeproxy.collector.events.event_rows import insert_events
from tests.support.collector_fixtures import only_sqlite
from tests.support.invoiced import FEBRUARY, FREEZE, JANUARY, at, at_stripe, fetch_invoices
from tests.support.sold import CALLER, Sold, sold
from tests.support.stripe_sandbox import Sandbox

DAY = 86400
PLANS = """
plans:
  small@1:
    fee: "31"
    tier: standard
    annual: {discount: 20%}
    meters: {calls: {included: 100, price: "1"}, seats: {included: 0, price: "5"}}
  middle@1: {fee: "62", tier: standard, meters: {calls: {included: 100, price: "1"}}}
  large@1: {fee: "310", tier: enterprise, meters: {calls: {included: 100, price: "1"}}}
"""
METERS = {"calls": {"count": "events"}, "seats": {"count": "events", "aggregate": "max"}}


def settings(folder: Path) -> dict[str, Any]:
    file = folder / "plans.yaml"
    file.write_text(PLANS)
    return {"plans": str(file), "meters": METERS}


async def end(shop: Sold, name: str, *, now: float) -> None:
    async with shop.database.writing() as connection:
        await subscriptions.cancel_subscription(connection, CALLER, name, "now", settings=shop.known, now=now)


async def fetch_totals(shop: Sold, name: str) -> dict[str, int]:
    return {period: invoice["subtotal"] for period, invoice in (await fetch_invoices(shop, name)).items()}


async def fetch_row(shop: Sold, name: str) -> SubscriptionRow:
    async with shop.database.reading() as connection:
        customer = await subscription_rows.get_subscriber(connection, name)
        rows = await subscription_rows.fetch_subscriptions(connection, subscriptions_table.c.customer == customer.id)
    (row,) = rows
    return row


@pytest.mark.parametrize("days", [1, 5])
async def test_a_return_within_the_period_pays_no_fee_twice_and_shares_included_amounts(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str, days: int
) -> None:
    """The invoice of the usage before the end is closed two days after it: before or after the return."""
    name = f"return-{days}-{database.partition(':')[0]}"
    begun, ended = JANUARY + 3600, JANUARY + 10 * DAY

    async with sold(tmp_path, database, stripe_sandbox.url, **settings(tmp_path)) as (shop, closing):
        await shop.customer(name, "small", now=JANUARY)
        await shop.use(name, {"calls": 80}, at=begun)
        async with shop.database.writing() as connection:
            reading = UsageEvent("test", name, name, "seats", 3, begun, is_summed=False)
            await insert_events(connection, [reading])
        await closing.step(JANUARY + 5)
        await end(shop, name, now=ended)
        back = ended + days * DAY
        await closing.step(back)
        await shop.subscribe(name, "small", now=back)
        row = await fetch_row(shop, name)
        assert (row.state, row.cancel_at, row.period_end) == ("active", None, FEBRUARY)
        await shop.use(name, {"calls": 40}, at=back + 60)
        await closing.step(ended + FREEZE)
        async with shop.database.reading(whole=True) as connection:
            loaded = await subscription_rows.get_by_customer(connection, name)
            upcoming = (await invoice_lines.compute_upcoming(connection, loaded, shop.known.meters)).lines
        for time in (FEBRUARY, FEBRUARY + FREEZE):
            await closing.step(time)
        totals = await fetch_totals(shop, name)
        assert list(totals) == ["2027-01-01 start", "2027-01-01 period", "2027-01-01 period-2"]
        assert totals["2027-01-01 start"] == 3100
        assert totals["2027-01-01 period"] + totals["2027-01-01 period-2"] == 3100 + 2000 + 3 * 500, totals
        assert totals["2027-01-01 period-2"] == sum(line.amount for line in upcoming)
        there = at_stripe(stripe_sandbox, name)
        assert sorted(one["total"] for one in there if one["total"]) == sorted(filter(None, totals.values()))


async def test_resuming_a_dearer_plan_costs_the_difference_and_a_cheaper_one_nothing(
    stripe_sandbox: Sandbox, tmp_path: Path, sqlite_database: str
) -> None:
    noon = at(2027, 1, 16, 12)

    async with sold(tmp_path, sqlite_database, stripe_sandbox.url, **settings(tmp_path)) as (shop, closing):
        for name in ("dearer", "cheaper", "again"):
            await shop.customer(f"back-{name}", "middle", now=JANUARY)
            await end(shop, f"back-{name}", now=noon - 60)
        await shop.subscribe("back-dearer", "large", now=noon)
        await shop.subscribe("back-cheaper", "small", now=noon)
        await shop.subscribe("back-again", "middle", now=noon)
        await end(shop, "back-again", now=noon + DAY)
        await closing.step(noon + 2 * DAY)
        assert (await fetch_totals(shop, "back-dearer"))["2027-01-01 change"] == (31000 - 6200) // 2
        assert (await fetch_totals(shop, "back-cheaper"))["2027-01-01 change"] == 0
        kinds = [kind for kind in await fetch_invoices(shop, "back-again") if "change" in kind]
        assert kinds == [], "the time was paid"
        with pytest.raises(ChangeRejectedError, match="ended in this minute"):
            await shop.subscribe("back-again", "small", now=noon + DAY)


async def test_second_upgrade_is_invoiced_at_once(stripe_sandbox: Sandbox, tmp_path: Path, database: str) -> None:
    name = f"twice-{database.partition(':')[0]}"
    noon = at(2027, 1, 16, 12)

    async with sold(tmp_path, database, stripe_sandbox.url, **settings(tmp_path)) as (shop, closing):
        await shop.customer(name, "small", now=JANUARY)
        await closing.step(JANUARY + 5)
        await shop.change(name, "middle", now=noon)
        await shop.change(name, "large", now=noon)
        for time in (FEBRUARY, FEBRUARY + FREEZE):
            await closing.step(time)
        totals = await fetch_totals(shop, name)
        assert totals == {
            "2027-01-01 start": 3100,
            "2027-01-01 change": 1550,
            "2027-01-01 change-2": 15499 - 3100,
            "2027-01-01 period": 31000,
        }
        there = at_stripe(stripe_sandbox, name)
        assert sorted(one["total"] for one in there) == sorted(totals.values())


@only_sqlite("database")
async def test_month_becomes_a_year_now_and_a_month_again_when_it_ends(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    name = f"yearly-{database.partition(':')[0]}"
    noon, year_end = at(2027, 1, 16, 12), at(2028, 1, 1)

    async def set_interval(shop: Sold, now: float, *, is_yearly: bool) -> None:
        async with shop.database.writing() as connection:
            await subscriptions.change_subscription(
                connection, CALLER, name, "small", None, settings=shop.known, now=now, is_yearly=is_yearly
            )

    async with sold(tmp_path, database, stripe_sandbox.url, **settings(tmp_path)) as (shop, closing):
        await shop.customer(name, "small", now=JANUARY)
        await set_interval(shop, noon, is_yearly=True)
        assert (await fetch_row(shop, name)).is_yearly
        share = (year_end - noon) / (year_end - JANUARY)
        assert (await fetch_totals(shop, name))["2027-01-01 change"] == round(29760 * share) - 1550
        for is_yearly in (False, True, False):
            await set_interval(shop, noon + 60, is_yearly=is_yearly)
            row = await fetch_row(shop, name)
            assert (row.next_version, row.next_is_yearly) == (("small@1", 0) if not is_yearly else (None, None))
        for month in range(2, 13):
            await closing.step(at(2027, month, 1))
        await closing.step(year_end)
        row = await fetch_row(shop, name)
        assert (row.is_yearly, row.next_is_yearly, row.next_version) == (0, None, None)
        await closing.step(year_end + FREEZE)
        totals = await fetch_totals(shop, name)
        assert {totals[f"2027-{month:02}-01 period"] for month in range(1, 12)} == {0}
        assert totals["2027-12-01 period"] == 3100
