"""With `collection: meters`, subscriptions at Stripe follow ours, whatever fails or is killed on the way."""

import asyncio
from calendar import timegm
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.billing.jobs.price_changes import PriceChangeJob
from edgeproxy.collector.billing.meter_export import outbox_rows
from edgeproxy.collector.billing.meter_export.outbox import Answer
from edgeproxy.collector.billing.meter_export.outbox_rows import CHAIN_ROWS_MAX, new_row
from edgeproxy.collector.billing.rating.periods import period_at
from edgeproxy.collector.billing.reports import status
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.subscriptions import (
    price_changes,
    subscription_response,
    subscription_rows,
    subscriptions,
)
from edgeproxy.collector.billing.subscriptions.cancellations import Feedback
from edgeproxy.collector.database.billing_tables import segments
from edgeproxy.collector.database.billing_tables import subscriptions as table
from edgeproxy.collector.database.delivery_tables import billing_outbox
from edgeproxy.config.collector.load import load_plans_text
from loadtest.testbed.tables_ready import put_tables
from tests.support.era import Era, era
from tests.support.invoiced import ON_BOTH_IF_SOAKED, amounts, fetch_invoices
from tests.support.sold import CALLER
from tests.support.stripe_sandbox import Sandbox

HOUR, DAY = 3600, 86400
JANUARY, FEBRUARY, MARCH = (timegm((2027, month, 1, 0, 0, 0)) for month in (1, 2, 3))
FREEZE = 2 * DAY


async def through(of: Era, period_end: int) -> None:
    """Move to the end of a period, and to the end of its freeze."""
    await of.to(period_end + 5)
    await of.turns(3)
    await of.to(period_end + FREEZE)
    await of.turns(5, 301)


async def cancel(of: Era, name: str, when: Any, feedback: Feedback | None = None) -> None:
    said: Any = {"settings": of.of.known, "now": of.now(), "feedback": feedback}
    async with of.of.database.writing() as connection:
        await subscriptions.cancel_subscription(connection, CALLER, name, when, **said)


async def state(of: Era, name: str) -> str:
    async with of.of.database.reading() as connection:
        loaded = await subscription_rows.get_by_customer(connection, name)
        return subscription_response.to_response(loaded.row, name, "usd")["state"]


async def unheld(of: Era) -> float:
    """Return the seconds that Stripe's draft stays without a hold."""
    async with of.of.database.reading() as connection:
        return (await status.fetch_status(connection, of.of.known.billing, of.now())).unheld


async def at_stripe(of: Era, status: str = "all") -> list[dict[str, Any]]:
    stripe: Any = of.closing._delivery._collection._stripe  # type: ignore[attr-defined]
    listed: list[dict[str, Any]] = await stripe.list_all("v1.subscriptions.list", status=status)
    return listed


@pytest.fixture
def new_sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """A sandbox with an unchanged clock: Stripe creates the draft of a month when the month ends."""
    with closing(Sandbox(tmp_path / "stripe")) as made:
        yield made.start()


@ON_BOTH_IF_SOAKED
async def test_subscriptions_are_begun_changed_and_ended(new_sandbox: Sandbox, tmp_path: Path, database: str) -> None:
    async with era(tmp_path, database, new_sandbox, JANUARY) as of:
        for name, plan in (
            ("falls", "enterprise"),
            ("leaves", "standard"),
            ("stays", "standard"),
            ("none", "free"),
        ):
            await of.of.customer(name, plan, now=JANUARY)
        await of.turns(2)
        assert len(await at_stripe(of)) == 3, "a free plan has no subscription at Stripe"
        await of.of.use("falls", {"llm_tokens": 10_100_000}, at=JANUARY + DAY)
        await of.of.use("leaves", {"llm_tokens": 1_100_000}, at=JANUARY + DAY)
        await of.of.use("stays", {"llm_tokens": 1_200_000}, at=JANUARY + DAY)
        await of.to(JANUARY + 3 * DAY)
        await of.turns(2)
        # A downgrade takes effect at the end of the month; upgrades and ends take effect at once.
        await of.of.change("falls", "standard", now=of.now())
        await of.of.change("stays", "enterprise", now=of.now())
        assert await state(of, "stays") == "changing"
        await cancel(of, "leaves", "now", Feedback("too_expensive", "We said so."))
        await of.turns(4)
        assert await state(of, "stays") == "active"
        (canceled,) = [one for one in await at_stripe(of) if one["status"] == "canceled"]
        assert canceled["cancellation_details"]["feedback"] == "too_expensive"
        assert canceled["cancellation_details"]["comment"] == "We said so."
        await of.to(JANUARY + 6 * DAY)
        await of.turns(4, 301)
        left = (await fetch_invoices(of.of, "leaves"))["2027-01-01 period"]
        assert (left["total"], left["state"]) == (100, "open"), "the usage is on the last invoice"
        await through(of, FEBRUARY)
        fell = (await fetch_invoices(of.of, "falls"))["2027-01-01 period"]
        assert (amounts(fell), fell["state"]) == ([9900, 0, 50], "open"), fell
        stayed = (await fetch_invoices(of.of, "stays"))["2027-01-01 period"]
        assert (stayed["total"], stayed["state"]) == (49900 + 200, "open")
        await of.of.use("falls", {"llm_tokens": 1_500_000, "seats": 30}, at=FEBRUARY + 5 * DAY)
        await of.of.use("stays", {"llm_tokens": 11_000_000}, at=FEBRUARY + 5 * DAY)
        await of.of.use("stays", {"llm_tokens": 500_000}, at=JANUARY + DAY)  # Late usage.
        await of.exports.compare_outbox()
        await cancel(of, "falls", "period_end")
        await through(of, MARCH)
        fell = (await fetch_invoices(of.of, "falls"))["2027-02-01 period"]
        assert (fell["total"], fell["state"]) == (500 + 2500, "open"), fell
        stayed = (await fetch_invoices(of.of, "stays"))["2027-02-01 period"]
        late = [line["amount"] for line in stayed["lines"] if line["kind"] == "late"]
        assert (stayed["total"], late, stayed["state"]) == (49900 + 500 + 500, [500], "open")
        await of.turns(2)
        assert [one["status"] for one in await at_stripe(of)].count("canceled") == 2
        async with of.of.database.reading() as connection:
            names = (await connection.execute(sa.select(billing_outbox.c.state).distinct())).scalars()
            assert set(names) == {"accepted", "confirmed", "late"}, "those of who has left, others, the late one"
            rows = (await connection.execute(sa.select(table.c.state, table.c.told_version))).all()
        assert sorted(row.told_version is None for row in rows) == [False, True, True, True]
        assert all(row.told_version is None for row in rows if row.state == "canceled")


async def test_stripe_charges_a_price_change_from_its_first_period(
    new_sandbox: Sandbox, tmp_path: Path, sqlite_database: str
) -> None:
    text = 'plans: {standard@2: {fee: "109", meters: {llm_tokens: {included: 100, price: "0.02"}}}}'

    async with era(tmp_path, sqlite_database, new_sandbox, JANUARY) as of:
        database, known = of.of.database, of.of.known
        await of.of.customer("acme", "standard", now=JANUARY)
        await of.turns(2)
        async with database.writing() as connection:
            written = load_plans_text("plans", text).plans
            prepared = await price_changes.prepare_change(connection, text, written, known.plans, FEBRUARY)
            await price_changes.schedule_change(connection, CALLER, prepared, "dearer")
        stripe: Any = of.closing._delivery._collection._stripe  # type: ignore[attr-defined]
        await PriceChangeJob(database, lambda: known).sync_prices(stripe, of.now())
        await of.of.use("acme", {"llm_tokens": 1_100_000}, at=JANUARY + DAY)
        await through(of, FEBRUARY)
        await of.of.use("acme", {"llm_tokens": 600}, at=FEBRUARY + 5 * DAY)
        await through(of, MARCH)
        charged = await fetch_invoices(of.of, "acme")
        totals = {period: (one["total"], one["state"]) for period, one in charged.items() if "period" in period}
        assert totals["2027-01-01 period"] == (10900 + 100, "open"), "usage by the old price, and the next fee"
        assert totals["2027-02-01 period"] == (10900 + 1000, "open")


@ON_BOTH_IF_SOAKED
async def test_subscription_ended_in_the_dashboard_is_billed_by_items_and_recreated(
    new_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    async with era(tmp_path, database, new_sandbox, JANUARY) as of:
        await of.of.customer("acme", "standard", now=JANUARY)
        await of.turns(2)
        await of.of.use("acme", {"llm_tokens": 1_200_000}, at=JANUARY + DAY)
        await of.to(JANUARY + 3 * DAY)
        await of.turns(2)
        (subscription,) = await at_stripe(of)
        await asyncio.to_thread(
            new_sandbox.run, lambda client: client.v1.subscriptions.cancel_async(subscription["id"])
        )
        await through(of, FEBRUARY)
        held = (await fetch_invoices(of.of, "acme"))["2027-01-01 period"]
        assert held["state"] == "held"
        assert "ended at Stripe by hand" in str(held["held_why"])
        assert [one["status"] for one in await at_stripe(of)] == ["canceled"], "not before that is decided"
        async with of.of.database.writing() as connection:
            accepted = {"accepted_why": "nothing was invoiced there", "try_at": 0, "tries": 1}
            await invoices.transition(connection, held["id"], invoices.HELD, invoices.CLOSING, **accepted)
        await of.turns(6, 301)
        settled = (await fetch_invoices(of.of, "acme"))["2027-01-01 period"]
        assert (amounts(settled), settled["state"]) == ([9900, 0, 200], "open"), settled
        assert sorted(one["status"] for one in await at_stripe(of)) == ["active", "canceled"]
        await of.of.use("acme", {"llm_tokens": 1_300_000}, at=FEBRUARY + 5 * DAY)
        await through(of, MARCH)
        later = (await fetch_invoices(of.of, "acme"))["2027-02-01 period"]
        assert (later["total"], later["state"]) == (9900 + 300, "open"), later


async def test_failing_subscription_does_not_delay_others(own_sandbox: Sandbox, tmp_path: Path) -> None:
    async with era(tmp_path, put_tables(f"sqlite:///{tmp_path}/ledger.db"), own_sandbox, JANUARY) as of:
        for name in ("odd", "even"):
            await of.of.customer(name, "standard", now=JANUARY)
        begin, failed = of.exports.subscriptions._create_subscription, []

        async def fails(loaded: Any, *more: Any) -> None:
            if loaded.customer.name == "odd":
                failed.append(1)
                raise KeyError("a fault of ours")
            await begin(loaded, *more)

        of.exports.subscriptions._create_subscription = fails  # type: ignore[method-assign]
        before = len(await at_stripe(of))
        assert await of.exports.subscriptions.step() == 2
        assert len(await at_stripe(of)) == before + 1
        assert await of.exports.subscriptions.step() == 0, "the subscription is retried later"
        assert failed == [1]


async def test_charging_stop_ends_the_sending_of_usage(own_sandbox: Sandbox, tmp_path: Path) -> None:
    async with era(tmp_path, put_tables(f"sqlite:///{tmp_path}/ledger.db"), own_sandbox, JANUARY) as of:
        days = [JANUARY - day * DAY for day in range(1, 1 + 2 * CHAIN_ROWS_MAX)]
        async with of.of.database.writing() as connection:
            rows = [new_row("test", ("many", "llm_tokens", at, 0), at + DAY, at, 1) for at in days]
            await outbox_rows.insert_rows(connection, rows, JANUARY * 1000)

        async def last(row: outbox_rows.OutboxRow) -> Answer:
            async with of.of.database.writing() as connection:
                if (await charging.fetch_charging(connection, of.of.known.billing)).is_on:
                    await charging.stop_charging(connection, CALLER, "free", "a fault")
            return Answer(200)

        of.exports.events.send = last  # type: ignore[method-assign]
        assert await of.exports.send_rows() == CHAIN_ROWS_MAX, "what was under way"


@ON_BOTH_IF_SOAKED
async def test_a_draft_of_stripes_stays_one_while_charging_is_off(
    new_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    """Stripe finalizes a draft an hour after it creates it, and charges its lines, unless the draft is held."""

    async with era(tmp_path, database, new_sandbox, JANUARY) as of:
        await of.of.customer("stopped", "standard", now=JANUARY)
        await of.turns(2)
        await of.of.use("stopped", {"llm_tokens": 1_100_000}, at=JANUARY + DAY)
        await of.to(FEBRUARY - HOUR)
        await of.turns(2)
        async with of.of.database.writing() as connection:
            await charging.stop_charging(connection, CALLER, "free", "a fault")
        await of.to(FEBRUARY + 5)
        assert of.of.known.billing is not None
        await of.closing._roll.step(of.now(), of.of.known.billing)
        assert await unheld(of) > 0
        await of.turns(3)
        assert await unheld(of) == 0
        await of.to(FEBRUARY + 3 * HOUR)
        draft = (await fetch_invoices(of.of, "stopped"))["2027-01-01 period"]
        there = (await asyncio.to_thread(new_sandbox.call, "GET", f"/v1/invoices/{draft['stripe_id']}")).json()
        assert (draft["state"], there["status"], there["auto_advance"]) == ("draft", "draft", False)
        async with of.of.database.writing() as connection:
            await charging.resume_charging(connection, CALLER, "mended")
        await of.to(FEBRUARY + FREEZE)
        await of.turns(5, 301)
        closed = (await fetch_invoices(of.of, "stopped"))["2027-01-01 period"]
        assert (closed["total"], closed["state"]) == (9900 + 100, "open"), closed


async def test_coupons_are_items_and_trials_are_not_reported(
    new_sandbox: Sandbox, tmp_path: Path, sqlite_database: str
) -> None:
    file = tmp_path / "plans.yaml"
    calls = '{calls: {included: 10, price: "1"}}'
    trial = "trial: {days: 14, missing_payment_method: create_invoice}"
    file.write_text(
        f'plans:\n  paid@1: {{fee: "31", tier: standard, meters: {calls}}}\n'
        f'  tried@1: {{fee: "31", tier: standard, meters: {calls}, {trial}}}\n'
    )
    terms = {"plans": str(file), "coupons": {"HALF": {"percent_off": "50%", "duration": "repeating", "periods": 2}}}

    async with era(tmp_path, sqlite_database, new_sandbox, JANUARY, **terms) as of:
        for name, plan in (("half", "paid"), ("tried", "tried")):
            await of.of.customer(name, plan, now=JANUARY, coupon="HALF")
        await of.turns(2)
        assert len(await at_stripe(of)) == 1, "there is no subscription of a trial"
        for name in ("half", "tried"):
            await of.of.use(name, {"calls": 15}, at=JANUARY + DAY)
        await of.to(JANUARY + 14 * DAY + 60)
        await of.turns(3)
        assert len(await at_stripe(of)) == 2
        for name in ("half", "tried"):
            await of.of.use(name, {"calls": 17}, at=JANUARY + 20 * DAY)
        await through(of, FEBRUARY)
        fee, half, used, tried = 3100, 1550, 2200, 700
        for name, calls_amount in (("half", used), ("tried", tried)):
            invoice = (await fetch_invoices(of.of, name))["2027-01-01 period"]
            lines = [(line["kind"], line["amount"]) for line in invoice["lines"] if line["amount"]]
            assert lines == [
                *(("fee", fee), ("usage", calls_amount), ("discount", -calls_amount // 2), ("discount", -half))
            ]
            assert (invoice["total"], invoice["state"]) == (half + calls_amount // 2, "open"), invoice
        async with of.of.database.reading() as connection:
            columns = billing_outbox.c
            sums = sa.select(columns.customer, sa.func.sum(columns.value)).group_by(columns.customer)
            assert dict(tuple(row) for row in await connection.execute(sums)) == {"half": 32, "tried": 17}


@ON_BOTH_IF_SOAKED
def test_usage_without_a_stripe_price_is_billed_by_items(new_sandbox: Sandbox, tmp_path: Path, database: str) -> None:
    file = tmp_path / "plans.yaml"
    file.write_text(
        """
plans:
  plain@1: {fee: {usd: "31", jpy: "4600"}, tier: standard,
    meters: {calls: {included: 10, price: {usd: "1", jpy: "150"}}}}
  boxed@1: {fee: "31", tier: standard, meters: {calls: {included: 10, price: "1", package: 5}}}
  models@1: {fee: "31", tier: standard,
    meters: {calls: {included: 10, price: "1", by: {dimension: model, prices: {m: "2"}}}}}
  larger@1: {fee: "62", tier: enterprise,
    meters: {calls: {included: 10, price: "2", by: {dimension: model, prices: {m: "3"}}}}}
  bounded@1: {fee: "62", tier: enterprise, threshold: "20", meters: {calls: {included: 10, price: "2"}}}
"""
    )
    terms = {"plans": str(file), "breaker": {"least": {"usd": "5", "jpy": "700"}}}
    noon = JANUARY + 15 * DAY + DAY // 2
    expected = {
        "plain": {"start": 3100, "period": 3100 + 700},
        "yen": {"start": 4600, "period": 4600 + 1050},
        "boxed": {"start": 3100, "period": 3100 + 200},  # 7 calls are two packages.
        "models": {"start": 3100, "period": 3100 + 700},
        # 7 calls of m too many of the one plan, 13 others of the larger one.
        "grows": {"start": 3100, "change": -1550 + 3100, "period": 6200 + 1400 + 2600},
        "bounded": {"start": 6200, "threshold": 2600, "period": 6200 + 200},
        # 7 calls too many of the one plan, 13 of the other one; half of both fees.
        "moves": {"start": 3100, "change": -1550 + 3100, "threshold": 700 + 2600, "period": 6200 + 200},
    }

    async def work() -> None:
        async with era(tmp_path, database, new_sandbox, JANUARY, **terms) as of:
            for name in expected:
                plan = {"yen": "plain", "moves": "plain", "grows": "models"}.get(name, name)
                await of.of.customer(name, plan, now=JANUARY, **({"currency": "jpy"} if name == "yen" else {}))
            await of.turns(2)
            assert len(await at_stripe(of)) == 4, "of plain, models, grows and moves"
            for name in ("plain", "yen", "boxed", "models", "moves"):
                await of.of.use(name, {"calls": 17}, at=JANUARY + DAY)
            await of.of.use("grows", {"calls": 17}, at=JANUARY + DAY, split={"model": "m"})
            await of.of.use("bounded", {"calls": 23}, at=JANUARY + DAY)
            await of.to(noon)
            await of.turns(2)
            await of.of.change("moves", "bounded", now=of.now())
            await of.of.change("grows", "larger", now=of.now())
            await of.turns(2)
            for name in ("moves", "grows"):
                await of.of.use(name, {"calls": 23}, at=noon + HOUR)
            await of.to(noon + 2 * HOUR)
            await of.turns(4)
            assert len([one for one in await at_stripe(of) if one["status"] == "active"]) == 3
            for name in ("bounded", "moves"):  # Of a threshold's plan, and below it.
                await of.of.use(name, {"calls": 1}, at=noon + DAY)
            await through(of, FEBRUARY)
            for name, totals in expected.items():
                made = await fetch_invoices(of.of, name)
                assert {one["kind"]: one["total"] for one in made.values() if one["total"]} == totals, name
                assert {one["state"] for one in made.values()} <= {"open", "paid"}, name
            async with of.of.database.reading() as connection:
                columns = billing_outbox.c
                keys = (columns.customer, columns.meter)
                sums = sa.select(*keys, sa.func.sum(columns.value)).group_by(*keys)
                assert {row[:2]: row[2] for row in await connection.execute(sums)} == {
                    ("plain", "calls"): 17,
                    ("moves", "calls"): 17,
                    ("models", "calls"): 17,
                    ("grows", "calls:m"): 17,
                    ("grows", "calls"): 23,
                }

    asyncio.run(work())
    assert len(new_sandbox.journal("price.created")) == 5, "of plain in US dollars, and two of both plans by model"


@ON_BOTH_IF_SOAKED
async def test_the_mode_changes_at_the_end_of_a_period(own_sandbox: Sandbox, tmp_path: Path, database: str) -> None:
    async with era(tmp_path, database, own_sandbox, JANUARY) as of:
        by_items = of.of.known.model_copy(
            update={"billing": of.of.known.billing.model_copy(update={"collection": "invoice_items"})}
        )
        by_meters, of.of.known = of.of.known, by_items
        begin = int(of.now()) // 60 * 60
        await of.of.customer("switches", "standard", now=begin)
        of.of.known = by_meters
        await of.to(begin + HOUR)
        await of.turns(2)
        await of.of.change("switches", "enterprise", now=of.now())
        await of.turns(2)
        async with of.of.database.reading() as connection:
            rows = (await connection.execute(sa.select(segments.c.collection, segments.c.told_from))).all()
        assert rows == [("invoice_items", None)] * 2


async def test_empty_draft_is_closed_without_a_freeze(own_sandbox: Sandbox, tmp_path: Path) -> None:
    url = put_tables(f"sqlite:///{tmp_path}/ledger.db")
    async with era(tmp_path, url, own_sandbox, 0.0, freeze="0s") as of:
        of.follow()
        await of.to(period_at(of.now()).end + 5)
        period = period_at(of.now())
        await of.of.customer("nothing", "standard", now=of.now())
        await of.turns(2)
        await cancel(of, "nothing", "period_end")
        await of.to(period.end + 5)
        await of.turns(8, 601)
        (last,) = [
            invoice for name, invoice in (await fetch_invoices(of.of, "nothing")).items() if name.endswith(" period")
        ]
        assert (last["total"], last["state"]) == (0, "paid")
        assert last["stripe_id"] is not None, "Stripe's own draft"
        there = await asyncio.to_thread(own_sandbox.call, "GET", f"/v1/invoices/{last['stripe_id']}")
        assert there.json()["status"] == "paid"
