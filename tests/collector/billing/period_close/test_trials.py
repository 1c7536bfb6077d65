"""Trials against the Stripe sandbox: nothing is charged of them, and the first fee when they end."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.alerts.alert import raise_alerts
from edgeproxy.collector.billing.period_close import invoice_lines
from edgeproxy.collector.billing.subscriptions import subscription_rows, subscriptions, trial_alerts
from edgeproxy.collector.billing.subscriptions.subscription_rows import SubscriptionRow
from edgeproxy.collector.billing.webhooks.possible_payers import ALERTED_SECONDS_MAX, UNREPORTED_SECONDS_MAX
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.billing_tables import segments
from edgeproxy.collector.database.billing_tables import subscriptions as subscriptions_table
from tests.support.invoiced import FEBRUARY, FREEZE, JANUARY, MARCH, amounts, at, at_stripe, enter_card, fetch_invoices
from tests.support.sold import CALLER, Killed, Mortal, Sold, sold
from tests.support.stripe_sandbox import Sandbox

DAY = 86400
PLANS = """
plans:
  team@1:
    fee: "31"
    minimum: "62"
    tier: standard
    trial: {days: 14}
    meters: {calls: {included: 10, price: "1"}, seats: {included: 0, price: "5"}}
  sent@1: {fee: "31", tier: standard, trial: {days: 2, missing_payment_method: create_invoice}}
  free@1: {fee: "0"}
"""
METERS = {"calls": {"count": "events"}, "seats": {"count": "events", "aggregate": "max"}}
BEGUN = at(2027, 1, 3, 12)
ENDED = BEGUN + 14 * DAY
"""17 January, 12:00 UTC: 14.5 of 31 days are left."""


def settings(folder: Path) -> dict[str, Any]:
    file = folder / "plans.yaml"
    file.write_text(PLANS)
    return {"plans": str(file)}


async def row_of(shop: Sold, name: str) -> SubscriptionRow:
    """The subscription of a customer, the latest one."""
    async with shop.database.reading() as connection:
        customer = await subscription_rows.get_subscriber(connection, name)
        rows = await subscription_rows.fetch_subscriptions(connection, subscriptions_table.c.customer == customer.id)
    return max(rows, key=lambda row: row.id)


async def cancel(shop: Sold, name: str, *, now: float) -> None:
    async with shop.database.writing() as connection:
        await subscriptions.cancel_subscription(connection, CALLER, name, "now", settings=shop.known, now=now)


async def subscribe(shop: Sold, name: str, plan: str, *, now: float) -> None:
    async with shop.database.writing() as connection:
        await subscriptions.create_subscription(
            connection, CALLER, name, plan, is_yearly=False, settings=shop.known, now=now
        )


async def upcoming(shop: Sold, name: str) -> list[tuple[str, int]]:
    """The kinds and amounts of the next invoice's lines."""
    async with shop.database.reading(whole=True) as connection:
        loaded = await subscription_rows.get_by_customer(connection, name)
        spent = await invoice_lines.compute_running_cost(connection, loaded, shop.known.meters)
        assert spent == 0 or not loaded.current.last.is_trial
        lines = (await invoice_lines.compute_upcoming(connection, loaded, shop.known.meters)).lines
        return [(line.kind, line.amount) for line in lines]


async def test_trial_is_free_and_its_end_charges_the_first_fee(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    name = f"tried-{database.partition(':')[0]}"

    async with sold(tmp_path, database, stripe_sandbox.url, meters=METERS, **settings(tmp_path)) as (shop, closing):
        await shop.customer(name, "team", now=BEGUN + 17)
        row = await row_of(shop, name)
        assert (row.state, row.trial_ends_at, row.period_end) == ("trialing", ENDED, ENDED)
        await shop.use(name, {"calls": 1_000}, at=BEGUN + DAY)
        assert await upcoming(shop, name) == [("fee", 1450)]
        await enter_card(shop, name)
        await closing.step(ENDED - 1)
        assert await fetch_invoices(shop, name) == {}
        await closing.step(ENDED + 30)
        await closing.step(ENDED + 30)
        first = await fetch_invoices(shop, name)
        assert [(kind, invoice["state"], amounts(invoice)) for kind, invoice in first.items()] == [
            ("2027-01-01 start", "paid", [1450])
        ], "by the second up to the 1st, at once and once"
        assert (await row_of(shop, name)).state == "active"
        await shop.use(name, {"calls": 7_000}, at=ENDED - 60)  # It comes late, and is free.
        await shop.use(name, {"calls": 12}, at=ENDED)
        for time in (FEBRUARY, FEBRUARY + FREEZE, MARCH, MARCH + FREEZE):
            await closing.step(time)
        later = await fetch_invoices(shop, name)
        january, february = later["2027-01-01 period"], later["2027-02-01 period"]
        # 62 of a month are 29 of the 14.5 days; 14.50 of fees and 2 of usage are subtracted.
        assert [(line["kind"], line["quantity"], line["amount"]) for line in january["lines"] if line["amount"]] == [
            *(("fee", 1, 3100), ("usage", 2, 200), ("minimum", 1, 1250)),
        ]
        assert [(line["kind"], line["amount"]) for line in february["lines"] if line["amount"]] == [
            *(("fee", 3100), ("minimum", 3100))
        ], "nothing of the trial comes later"
    assert sorted(one["amount_paid"] for one in at_stripe(stripe_sandbox, name)) == [1450, 4550, 6200]


async def test_trial_without_a_payment_method_ends_the_plan_unless_invoiced(
    stripe_sandbox: Sandbox, tmp_path: Path, sqlite_database: str
) -> None:
    terms = {"rollout": {"percent": 0, "allow": ["lost", "found", "mailed", "moved"]}, **settings(tmp_path)}
    async with sold(tmp_path, sqlite_database, stripe_sandbox.url, **terms) as (shop, closing):
        for name in ("lost", "found", "moved", "uncharged"):
            await shop.customer(name, "team", now=BEGUN)
        await shop.customer("mailed", "sent", now=BEGUN)
        await shop.change("moved", "free", now=BEGUN)
        with pytest.raises(ChangeRejectedError, match="another plan can begin when it ends"):
            await shop.change("lost", "free", now=BEGUN, when="now")
        await enter_card(shop, "found")
        stripe_sandbox.faults({"kind": "error_before", "path": "/v1/customers"})
        await closing.step(ENDED)
        assert (await row_of(shop, "found")).state == "trialing", "Stripe says nothing now"
        stripe_sandbox.faults()
        await closing.step(ENDED + 3600)
        assert {
            name: (await row_of(shop, name)).state for name in ("lost", "found", "mailed", "moved", "uncharged")
        } == {
            "lost": "canceled",
            **dict.fromkeys(("found", "mailed", "moved", "uncharged"), "active"),
        }
        row = await row_of(shop, "lost")
        assert (row.cancel_at, await fetch_invoices(shop, "lost")) == (ENDED, {})
        async with shop.database.reading() as connection:
            assert (await subscription_rows.get_subscriber(connection, "lost")).tier == "basic"
        (mailed,) = (await fetch_invoices(shop, "mailed")).values()
        assert (mailed["state"], mailed["total"], mailed["amount_due"]) == ("open", 2650, 2650)
        (moved,) = (await fetch_invoices(shop, "moved")).values()
        assert (moved["state"], moved["total"]) == ("paid", 0)
        await subscribe(shop, "lost", "team", now=ENDED + 7200)
        assert (await row_of(shop, "lost")).state == "active", "there is one trial"


@pytest.mark.parametrize("stopped", [0, 5 * DAY])
async def test_trial_ends_long_after_the_alert_of_an_unreported_payment_method(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str, stopped: int
) -> None:
    """Also if no collector ran in the days after the end of the trial."""
    name = f"unreported-{database.partition(':')[0]}-{stopped}"
    alerted = max(stopped, UNREPORTED_SECONDS_MAX)

    async with sold(tmp_path, database, stripe_sandbox.url, **settings(tmp_path)) as (shop, closing):
        await shop.customer(name, "team", now=BEGUN)
        await enter_card(shop, name)

        async def end(after: int) -> tuple[str, int]:
            stripe_sandbox.faults({"kind": "error_before", "path": "/v1/customers"})
            await closing.step(ENDED + after)
            stripe_sandbox.faults()
            is_stuck = alerts.c.title.like("%does not report the payment method%")
            async with shop.database.reading() as connection:
                raised = (await connection.execute(sa.select(alerts.c.id).where(is_stuck))).all()
            return (await row_of(shop, name)).state, len(raised)

        assert await end(stopped) == ("trialing", 1 if stopped else 0)
        for after in (alerted, alerted + ALERTED_SECONDS_MAX - 1):
            assert await end(after) == ("trialing", 1), "one alert is raised"
        assert await end(alerted + ALERTED_SECONDS_MAX + 60) == ("active", 1)


async def test_customer_who_cancels_in_a_trial_gets_no_second_trial(
    stripe_sandbox: Sandbox, tmp_path: Path, sqlite_database: str
) -> None:
    terms = {"anchor": "signup", **settings(tmp_path)}
    async with sold(tmp_path, sqlite_database, stripe_sandbox.url, **terms) as (shop, closing):
        await shop.customer("left", "team", now=BEGUN)
        await shop.use("left", {"calls": 50}, at=BEGUN + 60)
        await cancel(shop, "left", now=BEGUN + DAY)
        await closing.step(ENDED)
        assert (await row_of(shop, "left")).state == "canceled"
        assert await fetch_invoices(shop, "left") == {}
        await subscribe(shop, "left", "team", now=BEGUN + 2 * DAY)
        row = await row_of(shop, "left")
        assert (row.state, row.trial_ends_at, row.period_start) == ("active", None, BEGUN + 2 * DAY)
        await shop.customer("stayed", "team", now=BEGUN)
        await enter_card(shop, "stayed")
        await closing.step(ENDED)
        row = await row_of(shop, "stayed")
        assert (row.anchor, row.period_start, row.period_end) == (ENDED, ENDED, at(2027, 2, 17, 12))
        assert [amounts(invoice) for invoice in (await fetch_invoices(shop, "stayed")).values()] == [[3100]]


async def test_by_meters_stripe_hears_of_a_trial_when_it_is_over(
    stripe_sandbox: Sandbox, tmp_path: Path, sqlite_database: str
) -> None:
    terms = {"collection": "meters", **settings(tmp_path)}
    async with sold(tmp_path, sqlite_database, stripe_sandbox.url, **terms) as (shop, closing):
        await shop.customer("metered", "team", now=JANUARY)
        await enter_card(shop, "metered")
        await closing.step(JANUARY + 14 * DAY)
        async with shop.database.reading() as connection:
            rows = await connection.execute(sa.select(segments.c.collection).order_by(segments.c.start))
            assert list(rows.scalars()) == ["invoice_items", "meters"]


def test_the_end_of_a_trial_survives_a_kill_after_each_call(
    stripe_sandbox: Sandbox, tmp_path: Path, sqlite_database: str
) -> None:
    async def work() -> int:
        kills = 0
        async with sold(tmp_path, sqlite_database, stripe_sandbox.url, Mortal, **settings(tmp_path)) as (shop, closing):
            await shop.customer("killed", "team", now=BEGUN)
            await enter_card(shop, "killed")
            is_busy = True
            while is_busy:
                try:
                    is_busy = await closing.step(ENDED)
                except* Killed:
                    kills += 1
            assert [amounts(invoice) for invoice in (await fetch_invoices(shop, "killed")).values()] == [[1450]]
        return kills

    assert asyncio.run(work()) >= 3
    assert [one["amount_paid"] for one in at_stripe(stripe_sandbox, "killed")] == [1450]


async def test_customers_hear_once_of_trials_that_end_within_three_days(
    stripe_sandbox: Sandbox, tmp_path: Path, sqlite_database: str
) -> None:
    async with sold(tmp_path, sqlite_database, stripe_sandbox.url, **settings(tmp_path)) as (shop, _):
        for name in ("staying", "leaving"):
            await shop.customer(name, "team", now=BEGUN)
        async with shop.database.writing() as connection:
            await subscriptions.cancel_subscription(
                connection, CALLER, "leaving", "period_end", settings=shop.known, now=BEGUN
            )
        for now, titles in (
            (ENDED - 3 * DAY - 1, []),
            (
                ENDED - 3 * DAY,
                ["The trial of staying ends at 2027-01-17 12:00 UTC: from then on the plan is paid"],
            ),
            (ENDED - DAY, []),
        ):
            async with shop.database.writing() as connection:
                raised = await raise_alerts(connection, await trial_alerts.list_trial_alerts(connection, now))
            assert [alert.title for alert in raised] == titles
        async with shop.database.reading() as connection:
            assert list((await connection.execute(sa.select(alerts.c.customer))).scalars()) == ["staying"]
