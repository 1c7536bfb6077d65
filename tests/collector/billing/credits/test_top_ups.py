"""Automatic purchases: paid once whatever is lost, within the month's limit, and off after declined payments."""

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from edgeproxy.collector.accounts.ids import now_ms
from edgeproxy.collector.billing.credits import top_up_purchases, top_ups
from edgeproxy.collector.billing.credits.consumption import CreditMeters
from edgeproxy.collector.billing.credits.purchases import (
    CUSTOMER,
    TOP_UP,
    apply_charge,
    apply_dispute,
    apply_refund,
    find_results,
)
from edgeproxy.collector.billing.credits.top_up_decision import DECLINED, OFF, ON, RETRY_SECONDS, TopUp, get_month
from edgeproxy.collector.billing.credits.top_up_purchases import PROCESSING_SECONDS, TopUpPurchases
from edgeproxy.collector.billing.credits.top_ups import Terms
from edgeproxy.collector.billing.jobs.credits import CreditsJob
from edgeproxy.collector.billing.journal import journal
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.journal.verification import verify_journal
from edgeproxy.collector.billing.stripe.client import CallOutcome, Stripe, StripeCallError
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.billing_tables import billing_customers
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.periodic import run_exclusively
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.jobs.quotas import QuotaMonitor
from edgeproxy.collector.metrics import Metrics
from edgeproxy.config.collector.billing import Billing, Tax
from edgeproxy.config.collector.billing import Stripe as StripeSettings
from edgeproxy.config.collector.credits import Credits, ForeignCredits
from tests.support.credited import ALICE, count, opened, read, write
from tests.support.stripe_sandbox import KEY, Sandbox

ACME = "01890000-0000-7000-8000-000000000001"
YEN = ForeignCredits.model_validate({"currency": "jpy", "meter": "cost_jpy", "packages": ["1000", "5000"]})
BILLING = Billing(plans=Path("plans.yaml"), mode="live", credits=Credits(others=(YEN,)))
METERS = CreditMeters("cost", {}, {"jpy": CreditMeters("cost_jpy", {})})
TERMS = Terms(500 * CENT, 2000 * CENT, 6000 * CENT)
"""Below 5 dollars 20 are bought, at most 60 a month."""
DAY = 86400


class Faulty(Stripe):
    """A client with faults: the outcomes of the next payments, and whether Stripe makes each payment nevertheless."""

    def __init__(self, url: str) -> None:
        super().__init__(StripeSettings(base=url), {"STRIPE_SECRET_KEY": KEY})
        self.faults: list[tuple[CallOutcome, bool]] = []

    async def call(self, name: str, /, *ids: str, key: str | None = None, **params: Any) -> dict[str, Any]:
        if name == "v1.payment_intents.create" and self.faults:
            outcome, is_made = self.faults.pop(0)
            if is_made:
                await super().call(name, *ids, key=key, **params)
            raise StripeCallError(outcome, "a fault")
        return await super().call(name, *ids, key=key, **params)


class Shop:
    """A customer with a saved card whose credits are topped up, and the job that does it."""

    def __init__(self, database: Database, client: Faulty) -> None:
        self.database, self.client = database, client
        self.billing = BILLING
        self.payer = ""
        self.now = time.time()
        self.purchases = TopUpPurchases(database, client)

    async def open(self, card: str | None = "pm_card_visa", terms: Terms = TERMS, currency: str = "usd") -> None:
        """Save a card, and turn automatic top-up on."""
        payer = await self.client.call("v1.customers.create", name="acme")
        self.payer = payer["id"]
        async with self.database.writing() as connection:
            row = {"id": ACME, "name": "acme", "tier": "basic", "settings": "{}", "metadata": "{}", "created_at": 0}
            await connection.execute(sa.insert(customers), [row | {"version": 1, "currency": currency}])
            payer_row = {"customer": ACME, "stripe_id": self.payer, "livemode": 0}
            await connection.execute(sa.insert(billing_customers), [payer_row])
        if card is not None:
            await self.save(card)
        await self.turn_on(terms)

    async def save(self, card: str) -> None:
        """Save a payment method for payments without the customer."""
        method = await self.client.call("v1.payment_methods.attach", card, customer=self.payer)
        settings = {"default_payment_method": method["id"]}
        await self.client.call("v1.customers.update", self.payer, invoice_settings=settings)

    async def turn_on(self, terms: Terms = TERMS) -> None:
        owner: Any = SimpleNamespace(id=ACME, name="acme")
        await write(self.database, top_ups.turn_on, ALICE, owner, terms, round(self.now * 1000))

    async def step(self, seconds: float = 0) -> TopUp:
        """Let time pass, take the due steps, and return the row."""
        self.now += seconds
        await self.purchases.step(self.billing, METERS, self.now)
        return await self.row()

    async def row(self) -> TopUp:
        row: TopUp | None = await read(self.database, top_ups.find_top_up, ACME)
        assert row is not None
        return row

    async def balance(self) -> int:
        """Return the booked balance in cents. The journal is right."""
        await read(self.database, verify_journal)
        return int(await read(self.database, journal.fetch_balance, ACME)) // CENT

    async def payments(self) -> list[int]:
        """Return the amounts that Stripe has received."""
        intents = await self.client.list_all("v1.payment_intents.list", customer=self.payer)
        return [intent["amount"] for intent in intents if intent["status"] == "succeeded"]

    async def notices(self) -> list[dict[str, Any]]:
        """Return the details of the alerts of declined payments, oldest first."""
        statement = sa.select(alerts.c.details).where(alerts.c.kind == "payment_failed").order_by(alerts.c.id)
        async with self.database.reading() as connection:
            return [orjson.loads(details) for details in (await connection.execute(statement)).scalars()]

    async def spend(self, cents: int) -> None:
        """Use credits, not booked yet."""
        await count(self.database, int(time.time()) // 60 * 60, ("acme", "cost", cents * CENT, "m"))


def play(url: str, sandbox: Sandbox, work: Callable[[Shop], Awaitable[None]]) -> None:
    async def do() -> None:
        client = Faulty(sandbox.url)
        try:
            async with opened(url) as database:
                await work(Shop(database, client))
        finally:
            await client.close()

    asyncio.run(do())


@pytest.mark.both_databases
def test_low_balance_is_topped_up_until_the_limit_of_the_month(database: str, own_sandbox: Sandbox) -> None:
    async def work(shop: Shop) -> None:
        await shop.open()
        assert (await shop.step()).due_at is not None, "the balance is looked at again"
        assert await shop.balance() == 2000
        assert (await shop.step()).due_at is None
        for _ in range(4):
            await shop.spend(1600)
            await write(shop.database, top_ups.mark_due, [ACME], round(shop.now * 1000))
            await shop.step()
            await shop.step()
        row = await shop.row()
        assert (await shop.payments(), await shop.balance()) == ([2000] * 3, 6000)
        assert row.spent == 6000 * CENT
        assert row.due_at == get_month(round(shop.now * 1000)).end
        row = await shop.step(32 * DAY)
        assert (await shop.payments(), row.spent) == ([2000] * 4, 2000 * CENT), "another month"

    play(database, own_sandbox, work)


@pytest.mark.parametrize(
    "faults",
    [
        [],
        [(CallOutcome.LOST, True)],
        [(CallOutcome.LOST, False), (CallOutcome.FAILED, False), (CallOutcome.BUSY, False)],
        [(CallOutcome.FAILED, True)],
        [(CallOutcome.REUSED, True)],
        [(CallOutcome.DENIED, False)],
    ],
)
def test_purchase_is_paid_and_booked_once_despite_lost_answers(
    sqlite_database: str, own_sandbox: Sandbox, faults: list[tuple[CallOutcome, bool]]
) -> None:
    async def work(shop: Shop) -> None:
        await shop.open()
        shop.client.faults = list(faults)
        for _ in range(len(faults) + 2):
            await shop.step(61)
        assert (await shop.payments(), await shop.balance()) == ([2000], 2000)
        assert (await shop.row()).purchase is None

    play(sqlite_database, own_sandbox, work)


@pytest.mark.parametrize(
    ("card", "reason"),
    [("pm_card_chargeCustomerFail", "other"), ("pm_card_authenticationRequired", "confirmation")],
)
def test_declined_card_is_tried_three_times_and_then_waits_for_the_customer(
    sqlite_database: str, own_sandbox: Sandbox, card: str, reason: str
) -> None:
    async def work(shop: Shop) -> None:
        await shop.open(card)
        await shop.step()
        for seconds in RETRY_SECONDS:
            row = await shop.step(seconds - 1)
            assert (row.state, row.purchase, row.spent) == (ON, None, 0)
            await write(shop.database, top_ups.mark_due, [ACME], round(shop.now * 1000))
            assert (await shop.row()).due_at == row.due_at, "usage does not hasten the next try"
            await shop.step(1)
        row = await shop.row()
        assert (row.state, row.due_at, row.declines, row.decline_reason) == (DECLINED, None, 3, reason)
        notices = await shop.notices()
        assert [notice["declines"] for notice in notices] == [1, 2, 3]
        assert [notice["next_retry"] is None for notice in notices] == [False, False, True]
        assert {notice["amount"] for notice in notices} == {"20.00 USD"}
        assert "declined" in notices[0]["why"]
        assert {notice["decline_reason"] for notice in notices} == {reason}
        await write(shop.database, top_ups.mark_due, [ACME], round(shop.now * 1000))
        await shop.step(10 * DAY)
        intents = await shop.client.list_all("v1.payment_intents.list", customer=shop.payer)
        assert len(intents) == 3, "there is no fourth"
        await shop.save("pm_card_visa")
        await shop.turn_on()
        await shop.step()
        assert (await shop.row()).state == ON
        assert (await shop.payments(), await shop.balance()) == ([2000], 2000)

    play(sqlite_database, own_sandbox, work)


def test_purchase_without_a_saved_card_is_declined_without_a_call(sqlite_database: str, own_sandbox: Sandbox) -> None:
    async def work(shop: Shop) -> None:
        await shop.open(card=None)
        await shop.step()
        (notice,) = await shop.notices()
        assert (notice["why"], notice["decline_reason"]) == ("there is no saved payment method", "no_method")
        assert await shop.client.list_all("v1.payment_intents.list", customer=shop.payer) == []

    play(sqlite_database, own_sandbox, work)


def test_credits_in_a_currency_without_cents_are_topped_up(sqlite_database: str, own_sandbox: Sandbox) -> None:
    async def work(shop: Shop) -> None:
        await shop.open(terms=Terms(500 * CENT, 1500 * CENT, 3000 * CENT), currency="jpy")
        await shop.step()
        (intent,) = await shop.client.list_all("v1.payment_intents.list", customer=shop.payer)
        assert (intent["amount"], intent["currency"], await shop.balance()) == (1500, "jpy", 1500)

    play(sqlite_database, own_sandbox, work)


async def pause(shop: Shop) -> None:
    settings = orjson.dumps({"tier": "basic", "paused": {"status": 403}}).decode()
    await write(shop.database, lambda connection: connection.execute(sa.update(customers).values(settings=settings)))


async def begin_deletion(shop: Shop) -> None:
    deleting = sa.update(customers).values(deleting_since=1)
    await write(shop.database, lambda connection: connection.execute(deleting))


async def turn_off(shop: Shop) -> None:
    await write(shop.database, top_ups.turn_off, ALICE, ACME, round(shop.now * 1000))


async def end_sale(shop: Shop) -> None:
    shop.billing = BILLING.model_copy(update={"purchase": False})


async def add_tax(shop: Shop) -> None:
    shop.billing = BILLING.model_copy(update={"tax": Tax(stripe_tax=True)})


@pytest.mark.parametrize("stop", [pause, begin_deletion, turn_off, end_sale, add_tax])
def test_top_up_starts_no_purchase_for_a_blocked_customer(
    sqlite_database: str, own_sandbox: Sandbox, stop: Callable[[Shop], Awaitable[None]]
) -> None:
    async def work(shop: Shop) -> None:
        await shop.open()
        await stop(shop)
        assert (await shop.step()).due_at is None
        assert (await shop.payments(), await shop.row() is not None) == ([], True)

    play(sqlite_database, own_sandbox, work)


@pytest.mark.parametrize("is_made", [True, False])
@pytest.mark.parametrize("stop", [pause, begin_deletion, turn_off])
def test_blocked_customer_loses_its_pending_purchase_unless_paid(
    sqlite_database: str, own_sandbox: Sandbox, stop: Callable[[Shop], Awaitable[None]], is_made: bool
) -> None:
    async def work(shop: Shop) -> None:
        await shop.open()
        shop.client.faults = [(CallOutcome.LOST, is_made)]
        assert (await shop.step()).spent == 2000 * CENT
        await stop(shop)
        for _ in range(2):
            await shop.step(61)
        row = await shop.row()
        assert (row.purchase, row.due_at, row.spent) == (None, None, 2000 * CENT if is_made else 0)
        assert (await shop.payments(), await shop.balance()) == (([2000], 2000) if is_made else ([], 0))

    play(sqlite_database, own_sandbox, work)


def test_slow_debit_stays_pending_and_blocks_a_second_purchase(sqlite_database: str, new_sandbox: Sandbox) -> None:
    async def work(shop: Shop) -> None:
        await shop.open("pm_usBankAccount_success")
        for _ in range(3):
            row = await shop.step(PROCESSING_SECONDS)
            assert row.purchase is not None
        assert (await shop.payments(), await shop.balance()) == ([], 0)
        await asyncio.to_thread(new_sandbox.advance, 5 * DAY)
        await shop.step(PROCESSING_SECONDS)
        assert (await shop.payments(), await shop.balance()) == ([2000], 2000)

    play(sqlite_database, new_sandbox, work)


def test_charge_of_a_purchase_is_booked_once_by_its_event_and_by_the_job(
    sqlite_database: str, own_sandbox: Sandbox
) -> None:
    async def work(shop: Shop) -> None:
        await shop.open()
        shop.client.faults = [(CallOutcome.LOST, True)]
        await shop.step()
        (charge,) = await shop.client.list_all("v1.charges.list", customer=shop.payer)
        assert find_results(["charge.succeeded"], charge) == {"paid"}
        for _ in range(2):
            await write(shop.database, apply_charge, charge)
        assert ((await shop.row()).purchase, await shop.balance()) == (None, 2000)
        await shop.step(61)
        assert (await shop.payments(), await shop.balance()) == ([2000], 2000)
        foreign = {**charge, "metadata": {CUSTOMER: "nobody", TOP_UP: "topup_x"}}
        with pytest.raises(Exception, match="of nobody, which is no customer here"):
            await write(shop.database, apply_charge, foreign)

    play(sqlite_database, own_sandbox, work)


def test_counted_usage_has_a_low_balance_looked_at(sqlite_database: str, own_sandbox: Sandbox) -> None:
    async def work(shop: Shop) -> None:
        await shop.open()
        for _ in range(2):
            await shop.step()
        monitor = QuotaMonitor(shop.database, Metrics())
        known: Any = SimpleNamespace(
            meters={}, tiers={}, customers={}, alerts=SimpleNamespace(thresholds=()), billing=BILLING
        )
        monitor.use(known)
        await shop.spend(1500)
        assert not await monitor._failed_of({"acme": {"cost"}})
        assert (await shop.row()).due_at is None, "5 dollars are left"
        await shop.spend(1)
        assert not await monitor._failed_of({"acme": {"cost"}})
        assert ((await shop.row()).due_at or now_ms() + 1) <= now_ms()

    play(sqlite_database, own_sandbox, work)


async def dispute(shop: Shop, intent: dict[str, Any]) -> None:
    lost = {"id": "du_1", "amount": 2000, "currency": "usd", "balance_transactions": [{"amount": -2000}]}
    reported = {**lost, "payment_intent": intent["id"], "status": "needs_response", "reason": "fraudulent"}
    await write(shop.database, apply_dispute, {**reported, "created": 1, "evidence_details": {"due_by": 2}})


async def refund_at_stripe(shop: Shop, intent: dict[str, Any]) -> None:
    refund = {"id": "re_1", "amount": 2000, "currency": "usd", "status": "succeeded", "payment_intent": intent["id"]}
    await write(shop.database, apply_refund, refund)


@pytest.mark.parametrize("give_back", [dispute, refund_at_stripe])
def test_money_that_goes_back_turns_it_off_instead_of_buying_again(
    sqlite_database: str, own_sandbox: Sandbox, give_back: Callable[[Shop, dict[str, Any]], Awaitable[None]]
) -> None:
    async def work(shop: Shop) -> None:
        await shop.open()
        await shop.step()
        (intent,) = await shop.client.list_all("v1.payment_intents.list", customer=shop.payer)
        for _ in range(2):
            await give_back(shop, intent)
        for _ in range(2):
            row = await shop.step()
        assert (row.state, await shop.balance(), await shop.payments()) == (OFF, 0, [2000])
        await shop.turn_on()
        await give_back(shop, intent)
        assert (await shop.step()).state == ON, "a repeated event does not turn it off again"

    play(sqlite_database, own_sandbox, work)


def test_payment_that_waits_for_its_owner_is_canceled_before_it_counts_as_declined(
    sqlite_database: str, own_sandbox: Sandbox
) -> None:
    async def work(shop: Shop) -> None:
        await shop.open("pm_card_authenticationRequired")
        shop.client.faults = [(CallOutcome.LOST, False)]
        await shop.step()
        waiting: dict[str, Any] = {
            "amount": 2000,
            "currency": "usd",
            "customer": shop.payer,
            "confirm": True,
            "return_url": "https://x",
        }
        customer = await shop.client.call("v1.customers.retrieve", shop.payer)
        method = customer["invoice_settings"]["default_payment_method"]
        metadata = {CUSTOMER: ACME, TOP_UP: (await shop.row()).purchase}
        intent = await shop.client.call(
            "v1.payment_intents.create", **waiting, payment_method=method, metadata=metadata
        )
        assert intent["status"] == "requires_action"
        row = await shop.step(61)
        assert (row.declines, row.purchase) == (1, None)
        assert (await shop.client.call("v1.payment_intents.retrieve", intent["id"]))["status"] == "canceled"

    play(sqlite_database, own_sandbox, work)


def test_payment_that_succeeds_after_it_was_given_up_counts_in_the_month(
    sqlite_database: str, own_sandbox: Sandbox
) -> None:
    async def work(shop: Shop) -> None:
        await shop.open()
        shop.client.faults = [(CallOutcome.LOST, True)]
        begun = await shop.step()
        await write(shop.database, top_ups.drop, begun, round(shop.now * 1000))
        assert (await shop.row()).spent == 0
        (charge,) = await shop.client.list_all("v1.charges.list", customer=shop.payer)
        for _ in range(2):
            await write(shop.database, apply_charge, charge)
        assert ((await shop.row()).spent, await shop.balance()) == (2000 * CENT, 2000)

    play(sqlite_database, own_sandbox, work)


def test_top_up_turned_off_during_a_round_is_not_paid(sqlite_database: str, own_sandbox: Sandbox) -> None:
    async def work(shop: Shop) -> None:
        await shop.open()
        shop.client.faults = [(CallOutcome.LOST, False)]
        await shop.step()
        shop.now += 61
        listed = await read(shop.database, top_ups.list_due, round(shop.now * 1000), 9)
        await turn_off(shop)
        await shop.purchases._take_step(listed[0].customer, shop.billing, METERS, shop.now)
        assert ((await shop.row()).purchase, await shop.payments()) == (None, [])

    play(sqlite_database, own_sandbox, work)


@pytest.mark.parametrize("is_slow", [True, False])
def test_failed_or_slow_round_postpones_other_customers(
    sqlite_database: str, own_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, is_slow: bool
) -> None:
    async def work(shop: Shop) -> None:
        await shop.open()
        bolt: Any = SimpleNamespace(id=ACME.replace("1890000", "1890001"))
        row = {"id": bolt.id, "name": "bolt", "tier": "basic", "settings": "{}", "metadata": "{}", "created_at": 0}
        async with shop.database.writing() as connection:
            await connection.execute(sa.insert(customers), [row | {"version": 1}])
        await write(shop.database, top_ups.turn_on, ALICE, bolt, TERMS, round(shop.now * 1000) + 1)
        shop.now += 1
        if is_slow:
            monkeypatch.setattr(top_up_purchases, "ROUND_SECONDS", 0.0)
        else:
            shop.client.faults = [(CallOutcome.LOST, False)]
        for declines in (0, 1):
            await shop.step()
            waiting = await read(shop.database, top_ups.find_top_up, bolt.id)
            assert waiting.declines == declines, "the customer has no payment method"

    play(sqlite_database, own_sandbox, work)


# ---- two collectors, and kills


def buy(url: str, stripe: str, dies_at: str | None) -> None:
    """Take due steps as a collector does, one of several at a time. It dies before or after Stripe has paid."""

    async def work() -> None:
        client = Faulty(stripe)
        call = client.call

        async def call_and_die(name: str, /, *ids: str, key: str | None = None, **params: Any) -> dict[str, Any]:
            is_payment = name == "v1.payment_intents.create"
            if is_payment and dies_at == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            answer = await call(name, *ids, key=key, **params)
            if is_payment and dies_at == "after":
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        client.call = call_and_die  # type: ignore[method-assign]
        database = await Database.connect(url)
        job = CreditsJob(database, lambda: BILLING, None, TopUpPurchases(database, client))
        for _ in range(40):
            await run_exclusively(database, "billing-credits", partial(job.step, time.time() + 120))
        await client.close()
        await database.close()

    asyncio.run(work())


@pytest.mark.both_databases
def test_two_collectors_that_are_killed_between_charge_and_booking_charge_once(
    database: str, own_sandbox: Sandbox
) -> None:
    payer = ""

    async def begin(shop: Shop) -> None:
        nonlocal payer
        await shop.open(terms=TERMS._replace(month_max=2000 * CENT))
        payer = shop.payer

    play(database, own_sandbox, begin)
    fork = multiprocessing.get_context("fork")
    for dies_at in ("before", "after", None):
        both = [fork.Process(target=buy, args=(database, own_sandbox.url, dies_at)) for _ in range(2)]
        for process in both:
            process.start()
        for process in both:
            process.join(60)
        ends = {process.exitcode for process in both}
        assert ends <= {0, -signal.SIGKILL}, ends
        assert dies_at is None or -signal.SIGKILL in ends

    async def look() -> None:
        client, opened_database = Faulty(own_sandbox.url), await Database.connect(database)
        shop = Shop(opened_database, client)
        shop.payer = payer
        assert (await shop.payments(), await shop.balance()) == ([2000], 2000)
        row = await shop.row()
        assert (row.purchase, row.spent) == (None, 2000 * CENT)
        await client.close()
        await opened_database.close()

    asyncio.run(look())
