"""Plans of customers who are refused for unpaid invoices, against the Stripe sandbox."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import orjson
import pytest
import sqlalchemy as sa

from edgeproxy.collector.billing.invoices import dunning, invoices
from edgeproxy.collector.billing.jobs.period_close import PeriodCloseJob
from edgeproxy.collector.billing.period_close import invoice_lines
from edgeproxy.collector.billing.rating.rater import sum_amounts
from edgeproxy.collector.billing.reconciliation.payments import complete_nothing
from edgeproxy.collector.billing.reports.response_counts import ResponseCounts
from edgeproxy.collector.billing.stripe.client import Stripe
from edgeproxy.collector.billing.subscriptions import (
    resumed_fees,
    subscription_rows,
    subscriptions,
    unpaid_plans,
)
from edgeproxy.collector.billing.subscriptions.unpaid_plans import UnpaidInvoices, decide_step
from edgeproxy.collector.billing.webhooks import possible_payers
from edgeproxy.collector.billing.webhooks.processor import StripeUnavailableError
from edgeproxy.collector.billing.webhooks.receiver import EventState
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.billing_tables import subscriptions as subscriptions_table
from edgeproxy.collector.database.delivery_tables import webhook_events
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.collector.jobs import billing as billing_jobs
from edgeproxy.collector.jobs.billing import BillingJobs
from edgeproxy.config.collector.billing import Unpaid
from tests.support.invoiced import (
    FEBRUARY,
    FREEZE,
    JANUARY,
    MARCH,
    amounts,
    apply_stripe_events,
    at,
    enter_card,
    fetch_invoices,
)
from tests.support.sold import CALLER, KEY, Sold, sold
from tests.support.stripe_sandbox import Sandbox

pytestmark = pytest.mark.usefixtures("secret_key")

DAY = 86400
APRIL = at(2027, 4, 1)
PLANS = 'plans:\n  small@1: {fee: "100", tier: standard, meters: {calls: {included: 0, price: "1"}}}\n'
DECLINED, GOOD = "pm_card_chargeCustomerFail", "pm_card_visa"
NOON = at(2027, 3, 16, 12)
"""Half of March."""


@pytest.fixture
def plans(tmp_path: Path) -> str:
    file = tmp_path / "plans.yaml"
    file.write_text(PLANS)
    return str(file)


async def pause_and_release(of: Sold, now: int, *names: str) -> tuple[list[str], list[str]]:
    async with of.database.writing() as connection:
        return await dunning.pause_and_release(connection, of.known, now, names)


async def stay_unpaid(of: Sold, closing: PeriodCloseJob, *names: str, until: int) -> None:
    """Have cards declined for good, the customers paused, and months pass."""
    for name in names:
        await of.customer(name, "small", now=JANUARY)
        await enter_card(of, name, DECLINED)
    for days in (0, 1, 3, 5, 7):
        await closing.step(JANUARY + 5 + days * DAY)
    paused, released = await pause_and_release(of, JANUARY + 22 * DAY, *names)
    assert (sorted(paused), released) == (sorted(names), [])
    for month in (FEBRUARY, MARCH, APRIL):
        if month <= until:
            await closing.step(month)
            await closing.step(month + FREEZE)


async def fetch_stopped(of: Sold) -> list[str]:
    async with of.database.reading() as connection:
        rows = await connection.execute(sa.select(alerts.c.details).where(alerts.c.kind == "plan_stopped"))
        return [orjson.loads(details)["after"] for details in rows.scalars()]


async def test_fees_rest_after_two_unpaid_periods_and_begin_again_with_a_new_card(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str, plans: str
) -> None:
    name = f"{database.partition(':')[0]}-rests"

    async with sold(tmp_path, database, stripe_sandbox.url, plans=plans) as (of, closing):
        await stay_unpaid(of, closing, name, until=MARCH)
        of_customer = await fetch_invoices(of, name)
        totals = {period: one["total"] for period, one in of_customer.items()}
        assert totals == {"2027-01-01 start": 10000, "2027-01-01 period": 10000, "2027-02-01 period": 0}
        assert await fetch_stopped(of) == ["pause"]
        await of.use(name, {"calls": 3}, at=MARCH + DAY)  # Reported by a service that did not refuse it.
        async with of.database.reading() as connection:
            assert await resumed_fees.list_paid(connection, NOON, 10) == [], "two invoices are open"
        async with of.database.reading(whole=True) as connection:
            loaded = await subscription_rows.get_by_customer(connection, name)
            upcoming = await invoice_lines.compute_upcoming(connection, loaded, of.known.meters)
            assert sum_amounts(upcoming.lines) == 300, "the next fee rests too"

        await enter_card(of, name, GOOD)
        await apply_stripe_events(of)
        await closing.step(NOON)
        assert {invoice["state"] for invoice in (await fetch_invoices(of, name)).values()} == {"paid"}
        assert await pause_and_release(of, NOON, name) == ([], [name])
        async with of.database.writing() as connection:
            (customer,) = await resumed_fees.list_paid(connection, NOON, 10)
            for _ in range(2):
                await resumed_fees.resume_fees(connection, customer, NOON)
        assert amounts((await fetch_invoices(of, name))["2027-03-01 change"])[-1] == 5000, "the rest of March"
        for time in (APRIL, APRIL + FREEZE):
            await closing.step(time)
        march = (await fetch_invoices(of, name))["2027-03-01 period"]
        assert (march["total"], sum(amounts(march))) == (10300, 10300), "April's fee, and the usage of March"


async def test_fee_rests_at_the_next_period_until_the_last_invoice_is_paid(
    stripe_sandbox: Sandbox, tmp_path: Path, sqlite_database: str, plans: str
) -> None:
    async with sold(tmp_path, sqlite_database, stripe_sandbox.url, plans=plans) as (of, closing):
        await stay_unpaid(of, closing, "part", until=MARCH)
        first = (await fetch_invoices(of, "part"))["2027-01-01 start"]
        async with of.database.writing() as connection:
            await invoices.transition(connection, first["id"], invoices.OPEN, invoices.PAID)
        for time in (APRIL, APRIL + FREEZE):
            await closing.step(time)
        of_customer = await fetch_invoices(of, "part")
        assert of_customer["2027-01-01 period"]["state"] == invoices.OPEN
        assert of_customer["2027-03-01 period"]["total"] == 0, "April's fee rests too"


@pytest.mark.parametrize("after", ["cancel", "uncollectible", "keep"])
async def test_unpaid_plan_follows_the_unpaid_setting(
    stripe_sandbox: Sandbox, tmp_path: Path, sqlite_database: str, plans: str, after: str
) -> None:
    more: dict[str, Any] = {"plans": plans, "unpaid": {"after": after, "periods": 2}}
    async with sold(tmp_path, sqlite_database, stripe_sandbox.url, **more) as (of, closing):
        await stay_unpaid(of, closing, after, until=APRIL)
        async with of.database.writing() as connection:
            state = (await connection.execute(sa.select(subscriptions_table.c.state))).scalar_one()
            if after == "uncollectible":
                await unpaid_plans.write_off_ended(connection, 10)
        await closing.step(APRIL + FREEZE + 5)
        of_customer = await fetch_invoices(of, after)
        charged = [one for one in of_customer.values() if one["total"]]
        assert (state, len(charged)) == (("active", 4) if after == "keep" else ("canceled", 2))
        expected = invoices.UNCOLLECTIBLE if after == "uncollectible" else invoices.OPEN
        # The retries of the second invoice are not over: it is written off once they are.
        assert of_customer["2027-01-01 start"]["state"] == expected
        assert await fetch_stopped(of) == ([] if after == "keep" else [after])


async def set_states(of: Sold, name: str, *states: str) -> None:
    """Give the open invoices of a customer, the oldest first, the states that Stripe reports."""
    unpaid = [
        invoice
        for invoice in (await fetch_invoices(of, name)).values()
        if invoice["state"] == invoices.OPEN and invoice["total"]
    ]
    async with of.database.writing() as connection:
        for one, state in zip(unpaid, states, strict=False):
            await invoices.transition(connection, one["id"], invoices.OPEN, state)


async def end_and_begin_again(of: Sold, name: str) -> None:
    async with of.database.writing() as connection:
        ended = subscriptions.cancel_subscription(
            connection, CALLER, name, "now", settings=of.known, now=MARCH + 9 * DAY
        )
        await ended
    await of.subscribe(name, "small", now=NOON)


async def change_interval(of: Sold, name: str) -> None:
    async with of.database.writing() as connection:
        await subscriptions.change_subscription(
            *(connection, CALLER, name, "small", None), settings=of.known, now=NOON, is_yearly=True
        )


RESTING_ACTS: dict[str, tuple[Callable[[Sold, str], Awaitable[None]], list[int], int]] = {
    "void": (lambda of, name: set_states(of, name, invoices.VOID, invoices.VOID), [5000], 10000),
    "written off": (
        lambda of, name: set_states(of, name, invoices.UNCOLLECTIBLE, invoices.UNCOLLECTIBLE),
        [5000],
        10000,
    ),
    "paid and void": (lambda of, name: set_states(of, name, invoices.PAID, invoices.VOID), [5000], 10000),
    "a dearer plan": (lambda of, name: of.change(name, "large", now=NOON), [25000], 50000),
    "a year": (change_interval, [round(108000 * 350.5 / 366)], 0),
    "ended and begun": (end_and_begin_again, [5000], 10000),
}
"""Acts while a fee of $100 rests, with the lines of March and the fee of April."""


async def test_resting_fee_is_charged_once_after_each_ending_action(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    file = tmp_path / "resting.yaml"
    file.write_text(
        'plans:\n  small@1: {fee: "100", tier: standard, annual: {discount: 10%}}\n'
        '  large@1: {fee: "500", tier: enterprise}\n'
    )
    acts = {f"{database.partition(':')[0]}-rests-{act.replace(' ', '-')}": act for act in RESTING_ACTS}

    async with sold(tmp_path, database, stripe_sandbox.url, plans=str(file)) as (of, closing):
        await stay_unpaid(of, closing, *acts, until=MARCH)
        for name, act in acts.items():
            await RESTING_ACTS[act][0](of, name)
        for time in (NOON, NOON + DAY):
            async with of.database.writing() as connection:
                for customer in await resumed_fees.list_paid(connection, time, 10):
                    await resumed_fees.resume_fees(connection, customer, time)
            for name in acts:
                await set_states(of, name, *[invoices.PAID] * 9)
        for name, act in acts.items():
            months = await fetch_invoices(of, name)
            assert [period for period in months if "03-01 change" in period] == ["2027-03-01 change"], act
            assert [amount for amount in amounts(months["2027-03-01 change"]) if amount] == RESTING_ACTS[act][1], act
        for time in (APRIL, APRIL + FREEZE):
            await closing.step(time)
        for name, act in acts.items():
            months = await fetch_invoices(of, name)
            fees = [invoice["total"] for period, invoice in months.items() if "03-01 period" in period]
            assert sum(fees) == RESTING_ACTS[act][2], act


async def pay_at_stripe(of: Sold, name: str) -> None:
    """Have a customer pay all its invoices at Stripe while no collector runs."""
    assert of.known.billing is not None
    stripe = Stripe(of.known.billing.stripe, KEY)
    try:
        for invoice in (await fetch_invoices(of, name)).values():
            if invoice["state"] == invoices.OPEN and invoice["total"]:
                await stripe.call("v1.invoices.pay", str(invoice["stripe_id"]), payment_method=GOOD)
    finally:
        await stripe.close()


async def list_stripe_ids(of: Sold, name: str) -> list[str]:
    return [str(invoice["stripe_id"]) for invoice in (await fetch_invoices(of, name)).values()]


@pytest.mark.parametrize(
    ("database", "after"),
    [("sqlite", "pause"), ("postgresql", "cancel"), ("sqlite", "uncollectible")],
    indirect=["database"],
)
async def test_a_plan_that_was_paid_while_no_collector_ran_goes_on(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str, plans: str, after: str
) -> None:
    name = f"{database.partition(':')[0]}-paid-meanwhile-{after}"

    async def fail() -> None:
        raise StripeUnavailableError("Stripe is away")

    more: dict[str, Any] = {"plans": plans, "unpaid": {"after": after, "periods": 2}}
    async with sold(tmp_path, database, stripe_sandbox.url, **more) as (of, closing):
        await apply_stripe_events(of)
        await stay_unpaid(of, closing, name, until=FEBRUARY)
        await pay_at_stripe(of, name)
        closing._roll._complete_events = fail
        await closing.step(MARCH + 4 * DAY)
        async with of.database.reading() as connection:
            ends = sa.select(subscriptions_table.c.period_end)
            assert (await connection.execute(ends)).scalar_one() == MARCH, "the payment state is unknown"
        closing._roll._complete_events = partial(
            apply_stripe_events, of, await list_stripe_ids(of, name), MARCH + 4 * DAY
        )
        await closing.step(MARCH + 4 * DAY + 61)
        assert await fetch_stopped(of) == []
        async with of.database.reading() as connection:
            assert (await connection.execute(ends)).scalar_one() == MARCH, "its events still wait"
        closing._roll._complete_events = partial(apply_stripe_events, of)
        for minutes in (3, 4, 3000):
            await closing.step(MARCH + 4 * DAY + 60 * minutes)
        assert await fetch_stopped(of) == []
        february = (await fetch_invoices(of, name))["2027-02-01 period"]
        assert (february["total"], sum(amounts(february))) == (10000, 10000), "the fee of March"


@pytest.mark.parametrize(("database", "is_dead"), [("postgresql", False), ("sqlite", True)], indirect=["database"])
async def test_payment_during_a_collector_outage_prevents_the_pause(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str, plans: str, monkeypatch: pytest.MonkeyPatch, is_dead: bool
) -> None:
    names = [f"{database.partition(':')[0]}-{what}-meanwhile-{is_dead}".lower() for what in ("paid", "unpaid")]

    async def fail() -> None:
        raise StripeUnavailableError("Stripe is away")

    async def fetch_paused(of: Sold) -> list[str]:
        columns = customers_table.c
        is_paused = columns.settings.like(f"%{dunning.WHY}%")
        async with of.database.reading() as connection:
            return list((await connection.execute(sa.select(columns.name).where(is_paused))).scalars())

    async with sold(tmp_path, database, stripe_sandbox.url, plans=plans) as (of, closing):
        await apply_stripe_events(of)
        for name in names:
            await of.customer(name, "small", now=JANUARY)
            await enter_card(of, name, DECLINED)
        await closing.step(JANUARY + 5)
        await pay_at_stripe(of, names[0])
        clock = SimpleNamespace(now=float(JANUARY + 30 * DAY))
        monkeypatch.setattr(billing_jobs, "time", SimpleNamespace(time=lambda: clock.now))
        jobs = BillingJobs(of.database, lambda: of.known, lambda now: None, ResponseCounts(), lambda revenue: None)
        jobs._complete_events = fail
        with pytest.raises(StripeUnavailableError):
            await jobs._pause_unpaid()
        assert await fetch_paused(of) == [], "the payment state is unknown"
        unfetched = await list_stripe_ids(of, names[0])
        jobs._complete_events = partial(apply_stripe_events, of, unfetched, clock.now)
        await jobs._pause_unpaid()
        assert await fetch_paused(of) == names[1:], "events about invoices of the other one wait"
        jobs._complete_events = fail
        await jobs._pause_unpaid()  # It reads no list of events: the customer is not looked at for ten minutes.
        clock.now += billing_jobs.PAUSE_RESTS_SECONDS
        if is_dead:
            async with of.database.writing() as connection:
                is_waiting = webhook_events.c.state == EventState.WAITING
                dead = sa.update(webhook_events).where(is_waiting).values(state=EventState.DEAD)
                await connection.execute(dead)
        jobs._complete_events = complete_nothing if is_dead else partial(apply_stripe_events, of)
        await jobs._pause_unpaid()
        assert sorted(await fetch_paused(of)) == (names if is_dead else names[1:]), "dead letters delay nothing"


@pytest.mark.parametrize("stopped", [60, 5 * DAY])
async def test_invoice_missing_at_stripe_delays_a_pause_until_after_the_alert(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str, plans: str, monkeypatch: pytest.MonkeyPatch, stopped: int
) -> None:
    """Also if no collector ran in the days after its event came."""
    name = f"{database.partition(':')[0]}-never-returned-{stopped}"
    alerted = max(stopped, possible_payers.UNREPORTED_SECONDS_MAX)
    decided = alerted + possible_payers.ALERTED_SECONDS_MAX

    async with sold(tmp_path, database, stripe_sandbox.url, plans=plans) as (of, closing):
        await apply_stripe_events(of)
        await of.customer(name, "small", now=JANUARY)
        await enter_card(of, name, DECLINED)
        await closing.step(JANUARY + 5)
        began = float(JANUARY + 30 * DAY)
        clock = SimpleNamespace(now=began)
        monkeypatch.setattr(billing_jobs, "time", SimpleNamespace(time=lambda: clock.now))
        jobs = BillingJobs(of.database, lambda: of.known, lambda now: None, ResponseCounts(), lambda revenue: None)
        unfetched = await list_stripe_ids(of, name)
        jobs._complete_events = partial(apply_stripe_events, of, unfetched, began)

        async def look(after: float) -> tuple[bool, int]:
            clock.now = began + after
            await jobs._pause_unpaid()
            is_paused = customers_table.c.settings.like(f"%{dunning.WHY}%")
            is_about_it = alerts.c.title.like("%the payment is unknown%")
            async with of.database.reading() as connection:
                paused = (await connection.execute(sa.select(customers_table.c.name).where(is_paused))).all()
                raised = (await connection.execute(sa.select(alerts.c.details).where(is_about_it))).all()
            return len(paused) == 1, len(raised)

        assert await look(stopped) == (False, int(stopped == alerted))
        for after in (alerted, decided - 1):
            assert await look(after) == (False, 1), "one alert is raised and the customer is served"
        assert await look(decided + billing_jobs.PAUSE_RESTS_SECONDS) == (True, 1)


@pytest.mark.parametrize(
    ("unpaid", "settings", "step"),
    [
        (UnpaidInvoices(2, True, True), Unpaid(), "pause"),
        (UnpaidInvoices(1, True, True), Unpaid(), None),
        (UnpaidInvoices(2, False, True), Unpaid(), None),
        (UnpaidInvoices(2, True, False), Unpaid(), None),
        (UnpaidInvoices(1, True, True), Unpaid(after="cancel", periods=1), "cancel"),
        (UnpaidInvoices(9, True, True), Unpaid(after="keep"), None),
    ],
)
def test_unpaid_plan_ends_only_after_the_last_retry_and_a_pause(
    unpaid: UnpaidInvoices, settings: Unpaid, step: str | None
) -> None:
    assert decide_step(unpaid, settings) == step


@pytest.mark.parametrize(
    ("number", "after", "step"), [(1, "pause", "pause"), (0, "pause", None), (1, "keep", None), (1, "cancel", None)]
)
def test_fee_that_rests_does_so_until_all_is_paid(
    number: int, after: Literal["pause", "cancel", "keep"], step: str | None
) -> None:
    assert decide_step(UnpaidInvoices(number, False, False), Unpaid(after=after), is_resting=True) == step
