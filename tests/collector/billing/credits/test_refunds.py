"""A refund is paid once, whatever fails on the way. The credits job resumes refunds whose outcome is unknown."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
import stripe

from edgeproxy.collector.accounts import idempotency
from edgeproxy.collector.api.changes import find_idempotent_request
from edgeproxy.collector.api.credits.handlers import CreditHandlers
from edgeproxy.collector.api.credits.models import CreateRefundRequest
from edgeproxy.collector.billing.credits import checkout, credits
from edgeproxy.collector.billing.credits.consumption import CreditMeters
from edgeproxy.collector.billing.credits.credits import HeldRefund, Payment
from edgeproxy.collector.billing.credits.purchases import CUSTOMER, REFUND
from edgeproxy.collector.billing.credits.refunds import RefundSender
from edgeproxy.collector.billing.jobs.credits import CreditsJob
from edgeproxy.collector.billing.journal import journal
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.journal.verification import verify_journal
from edgeproxy.collector.billing.stripe import customers
from edgeproxy.collector.billing.stripe.client import CallOutcome, Stripe, StripeCallError
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.config.collector.billing import Billing, Tax
from edgeproxy.config.collector.billing import Stripe as StripeSettings
from edgeproxy.config.collector.credits import Credits
from loadtest.testbed.postgresql import Postgresql
from tests.support.credited import ALICE, opened, read, write
from tests.support.idempotent_calls import build_call
from tests.support.stripe_sandbox import KEY, Sandbox

ACME = "id-acme"


def later() -> float:
    """Return a Unix time after the retry delay of refunds that are held now.

    It is not a constant, because a test may run minutes after its module was imported.
    """
    return time.time() + 300


class Faulty(Stripe):
    """A client whose next refund calls fail. `faults` says how."""

    def __init__(self, settings: StripeSettings) -> None:
        super().__init__(settings, {"STRIPE_SECRET_KEY": KEY})
        self.faults: list[tuple[CallOutcome, bool]] = []
        """For each of the next refunds: the outcome of the call, and whether Stripe creates the refund nevertheless."""

    async def call(self, name: str, /, *ids: str, key: str | None = None, **params: Any) -> dict[str, Any]:
        if name == "v1.refunds.create" and self.faults:
            outcome, is_made = self.faults.pop(0)
            if is_made:
                await super().call(name, *ids, key=key, **params)
            raise StripeCallError(outcome, "a fault")
        return await super().call(name, *ids, key=key, **params)


async def pay(client: stripe.StripeClient) -> str:
    """Pay 10.00 USD and return the payment intent."""
    parameters: Any = {"amount": 1000, "currency": "usd", "payment_method": "pm_card_visa", "confirm": True}
    parameters["return_url"] = "https://shop.example"
    created = await client.v1.payment_intents.create_async(parameters)
    assert created.status == "succeeded"
    return created.id


def play(url: str, sandbox: Sandbox, work: Callable[[Database, Faulty, str], Awaitable[None]]) -> None:
    """Run `work` with a customer that has bought credits."""
    intent = sandbox.run(pay)

    async def do() -> None:
        client = Faulty(StripeSettings(base=sandbox.url))
        try:
            async with opened(url, "acme") as database:
                await write(database, credits.book_purchase, ACME, Payment(f"cs_{intent}", intent, 1000 * CENT))
                await work(database, client, intent)
        finally:
            await client.close()

    asyncio.run(do())


@pytest.mark.parametrize(
    ("faults", "ends"),
    [
        ([], "paid"),
        ([(CallOutcome.LOST, True)], "paid"),
        ([(CallOutcome.LOST, False), (CallOutcome.FAILED, False), (CallOutcome.BUSY, False)], "paid"),
        ([(CallOutcome.FAILED, True)], "paid"),
        ([(CallOutcome.REFUSED, False)], "failed"),
    ],
)
def test_a_refund_is_created_once_although_calls_fail(
    sqlite_database: str, own_sandbox: Sandbox, faults: list[tuple[CallOutcome, bool]], ends: str
) -> None:
    async def work(database: Database, client: Faulty, intent: str) -> None:
        held = await write(database, credits.hold_refund, ALICE, f"cs_{intent}", f"r-{intent}", 400 * CENT, "asked")
        client.faults = list(faults)
        refunds = RefundSender(database, client)
        run = CreditsJob(database, lambda: Billing(plans=Path("plans.yaml"), credits=Credits()), refunds)
        try:
            assert await refunds.send_refund(held) == ends
        except StripeCallError:
            assert faults[0][0] is not CallOutcome.REFUSED
            assert [one.id for one in await read(database, credits.list_unsettled_refunds, 1 << 62)] == [held.id], (
                "the refund is held"
            )
        for _ in range(len(faults) + 1):
            await run.step(later())
        assert await read(database, credits.list_unsettled_refunds, 1 << 62) == []
        assert await read(database, journal.fetch_balance, ACME) == (600 if ends == "paid" else 1000) * CENT
        there = await client.list_all("v1.refunds.list", payment_intent=intent)
        assert [one["amount"] for one in there] == ([400] if ends == "paid" else [])
        await read(database, verify_journal)

    play(sqlite_database, own_sandbox, work)


def test_database_outage_after_a_refund_does_not_mark_it_failed(
    sqlite_database: str, own_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def fail() -> AsyncIterator[None]:
        raise OSError("nobody answers")
        yield

    async def work(database: Database, client: Faulty, intent: str) -> None:
        held = await write(database, credits.hold_refund, ALICE, f"cs_{intent}", f"r-{intent}", 400 * CENT, "asked")
        with monkeypatch.context() as patch:
            patch.setattr(database, "writing", fail)
            await RefundSender(database, client).try_refund(held)
        refunds = RefundSender(database, client)
        await CreditsJob(database, lambda: Billing(plans=Path("plans.yaml"), credits=Credits()), refunds).step(later())
        assert await read(database, credits.list_unsettled_refunds, 1 << 62) == []
        there = await client.list_all("v1.refunds.list", payment_intent=intent)
        assert [one["amount"] for one in there] == [400]

    play(sqlite_database, own_sandbox, work)


@pytest.mark.parametrize("is_answered", [False, True])
def test_rolled_back_refund_is_not_sent(
    postgresql: Postgresql, own_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, is_answered: bool
) -> None:
    """The key of the request may get an answer from another collector while this one holds the refund."""
    url = postgresql.database()

    async def work(database: Database, client: Faulty, intent: str) -> None:
        resources: Any = SimpleNamespace(database=database, metrics=None, settings=None, stripe=client)
        async with database.writing() as connection:  # Its id is no UUID, so the API finds it by name alone.
            await connection.execute(sa.update(customers_table).values(name=ACME))
        handlers, hold = CreditHandlers(resources), credits.hold_refund
        monkeypatch.setattr(handlers, "_get_credit_meters", lambda: CreditMeters("cost"))
        call = build_call(intent, CreateRefundRequest(purchase=f"cs_{intent}", why="asked", millicredits=400 * CENT))
        request = find_idempotent_request(call)

        async def hold_meanwhile(*arguments: Any, **options: Any) -> HeldRefund:
            held = await hold(*arguments, **options)
            if is_answered:
                other = await Database.connect(url)
                await write(other, idempotency.store_answer, request, orjson.dumps([202, {"id": "other"}, None]))
                await other.close()
            return held

        monkeypatch.setattr(credits, "hold_refund", hold_meanwhile)
        answer = await handlers.create_refund(call)
        assert (answer.body["id"] == "other") == is_answered
        there = await client.list_all("v1.refunds.list", payment_intent=intent)
        assert [one["metadata"][REFUND] for one in there] == ([] if is_answered else [answer.body["id"]])
        assert await read(database, journal.fetch_balance, ACME) == (1000 if is_answered else 600) * CENT

    play(url, own_sandbox, work)


async def test_credits_job_does_nothing_without_credits_for_sale(sqlite_database: str) -> None:
    async with opened(sqlite_database, "acme") as database:
        for billing in (None, Billing(plans=Path("plans.yaml"))):
            await CreditsJob(database, lambda billing=billing: billing, None).step(later())  # type: ignore[misc]
        assert await read(database, verify_journal) == 0


def test_checkout_names_the_product_and_collects_taxes_and_tax_ids(sqlite_database: str, own_sandbox: Sandbox) -> None:
    async def work(database: Database, client: Faulty, intent: str) -> None:
        payer = await customers.StripeCustomers(database, client).get_or_create(ACME, "acme")
        assert await customers.StripeCustomers(database, client).get_or_create(ACME, "acme") == payer
        urls = ("https://shop.example/paid", "https://shop.example/back")
        for tax in (Tax(), Tax(stripe_tax=True, vat=True)):
            key = f"{intent}-{tax.vat}"
            created = await checkout.create_checkout_session(client, payer, ACME, 1234 * CENT, urls, tax, key)
            again = await checkout.create_checkout_session(client, payer, ACME, 1234 * CENT, urls, tax, key)
            assert again["id"] == created["id"]
            assert (created["amount_total"], created["currency"], created["metadata"]) == (
                1234,
                "usd",
                {CUSTOMER: ACME},
            )
            assert created["automatic_tax"]["enabled"] is tax.stripe_tax
            assert (created.get("tax_id_collection") or {}).get("enabled", False) is tax.vat
        assert not await checkout.has_tax_id(client, payer)
        await client.call("v1.customers.tax_ids.create", payer, type="eu_vat", value="DE123456789")
        assert not await checkout.has_tax_id(client, payer), "the tax number is pending"
        (there,) = await client.list_all("v1.customers.tax_ids.list", payer)
        verified = {**there, "verification": {"status": "verified"}}

        async def list_all(name: str, /, *ids: str, **params: Any) -> list[dict[str, Any]]:
            return [{**there, "verification": None}, verified]

        client.list_all = list_all  # type: ignore[method-assign]
        assert await checkout.has_tax_id(client, payer)

    play(sqlite_database, own_sandbox, work)
