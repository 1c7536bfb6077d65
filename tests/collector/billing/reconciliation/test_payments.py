"""The journal has every movement at Stripe, to the cent, and reconciliation finds each missing one on either side."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing import discrepancies
from edgeproxy.collector.billing.credits import credits
from edgeproxy.collector.billing.credits.credits import Payment
from edgeproxy.collector.billing.credits.purchases import CUSTOMER, apply_dispute, apply_refund
from edgeproxy.collector.billing.credits.refunds import RefundSender
from edgeproxy.collector.billing.invoices import credit_notes, foreign_balance, invoices, note_requests, stripe_reports
from edgeproxy.collector.billing.invoices.bookings import book_invoices
from edgeproxy.collector.billing.invoices.credit_decision import NoteParts, NoteRefusedError
from edgeproxy.collector.billing.invoices.invoices import INVOICE_METADATA
from edgeproxy.collector.billing.invoices.unexpected_objects import UnexpectedObjectError
from edgeproxy.collector.billing.journal import journal
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.journal.verification import list_differences, verify_journal
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.reconciliation import payments
from edgeproxy.collector.billing.stripe.client import Stripe
from edgeproxy.collector.billing.stripe.customers import CUSTOMER as ID
from edgeproxy.collector.billing.stripe_balance.customer_balances import CustomerBalances
from edgeproxy.collector.billing.stripe_balance.sync import FIRST, StripeBalance
from edgeproxy.collector.billing.webhooks import receiver
from edgeproxy.collector.billing.webhooks.stripe_objects import StripeObjects
from edgeproxy.collector.database.billing_tables import billing_customers
from edgeproxy.collector.database.billing_tables import invoices as invoices_table
from edgeproxy.collector.database.book_text import match_book_text
from edgeproxy.collector.database.credit_tables import credit_entries
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY, HOUR
from edgeproxy.collector.jobs.billing import build_processor
from edgeproxy.config.collector.billing import Stripe as Settings
from tests.support.collector_fixtures import only_sqlite
from tests.support.credited import ALICE, opened, read, write
from tests.support.sold import settings
from tests.support.stripe_sandbox import KEY, Sandbox

ACME = "id-acme"
OURS = {CUSTOMER: ACME}


class Company:
    """A company that sells through Stripe, with our books."""

    def __init__(self, database: Database, stripe: Stripe, began: int) -> None:
        self.database = database
        self.began = began
        """The start of the company in Unix seconds of Stripe's clock. Other companies use this sandbox too."""
        self.stripe = stripe
        self._calls = 0
        self._customer = ""

    async def call(self, name: str, /, *ids: str, **parameters: Any) -> Any:
        """Call Stripe with a new idempotency key."""
        self._calls += 1
        return await self.stripe.call(name, *ids, key=f"{time.time_ns()}-{self._calls}", **parameters)

    async def pay(self, cents: int, metadata: dict[str, str], card: str = "pm_card_visa") -> str:
        """Create a payment and return its payment intent."""
        parameters = {"currency": "usd", "payment_method": card, "confirm": True, "metadata": metadata}
        parameters["return_url"] = "https://shop.example"
        return str((await self.call("v1.payment_intents.create", amount=cents, **parameters))["id"])

    async def buy(self, cents: int) -> str:
        """Buy credits and book them. Return the payment intent."""
        intent = await self.pay(cents, OURS)
        await self.book_purchase(intent, cents)
        return intent

    async def book_purchase(self, intent: str, cents: int) -> None:
        """Book the purchase of credits paid with this payment intent."""
        await write(self.database, credits.book_purchase, ACME, Payment(f"cs_{intent}", intent, cents * CENT))

    async def invoice(self, cents: int, card: str = "pm_card_visa", state: str = "open", **pay: Any) -> str:
        """Create and finalize an invoice, and pay any amount due. Return Stripe's id.

        The invoice stays unpaid with `by="nobody"`.
        """
        if not self._customer:
            self._customer = (await self.call("v1.customers.create", name="acme"))["id"]
        number = f"invoice-{self.began}-{self._calls}"
        draft = {"currency": "usd", "auto_advance": False, "metadata": {INVOICE_METADATA: number}}
        invoice = (await self.call("v1.invoices.create", customer=self._customer, **draft))["id"]
        item = {"customer": self._customer, "invoice": invoice, "currency": "usd", "amount": cents}
        await self.call("v1.invoice_items.create", **item)
        final = await self.call("v1.invoices.finalize_invoice", invoice, auto_advance=False)
        row = {"id": number, "customer": ACME, "period": number, "kind": "period", "state": state}
        amounts = {"subtotal": cents, "total": cents, "currency": "usd", "stripe_id": invoice}
        zero = ("period_start", "period_end", "closes_at", "tries", "failures", "try_at", "created_at")
        async with self.database.writing() as connection:
            await connection.execute(sa.insert(invoices_table), [{**row, **amounts, **dict.fromkeys(zero, 0)}])
        if final["amount_due"] and pay.get("by") != "nobody":
            await self.call("v1.invoices.pay", invoice, **(pay or {"payment_method": card}))
        await self.refresh(invoice)
        return str(invoice)

    async def refresh(self, invoice: str) -> None:
        """Apply the webhook of an invoice, and book it."""
        fetched = await self.stripe.call("v1.invoices.retrieve", invoice)
        await write(self.database, stripe_reports.apply_stripe_invoice, fetched)
        await book_invoices(self.database)

    async def find_intent(self, invoice: str) -> str:
        """Return the payment intent that paid an invoice."""
        (payment,) = await self.stripe.list_all("v1.invoice_payments.list", invoice=invoice)
        return str(payment["payment"]["payment_intent"])

    async def compare(self) -> list[tuple[str, str, int, int]]:
        """Reconcile the days around now. Return the rows with a difference."""
        now = time.time()
        span = Span(int(now) - DAY, int(now) + 20 * DAY)
        await payments.reconcile_span(self.database, self.stripe, span, now)
        async with self.database.reading() as connection:
            latest = (await discrepancies.list_reconciliations(connection, "D", 1))[0]
        return [(row["customer"], row["meter"], row["ours"], row["theirs"]) for row in latest["rows"]]

    async def fetch_accounts(self) -> dict[str, int]:
        """Return the balance of each account, in cents."""
        await read(self.database, verify_journal)
        assert await read(self.database, list_differences) == []
        total = sa.cast(sa.func.sum(credit_entries.c.amount), sa.BigInteger)
        statement = sa.select(credit_entries.c.account, total).group_by(credit_entries.c.account)
        async with self.database.reading() as connection:
            return {name: amount // CENT for name, amount in await connection.execute(statement) if amount}


def play(url: str, sandbox: Sandbox, work: Callable[[Company], Awaitable[None]]) -> None:
    """Run `work` with a company."""

    async def do() -> None:
        client = Stripe(Settings(base=sandbox.url), {"STRIPE_SECRET_KEY": KEY})
        client.pace.whole = client.pace.endpoint = 1e6
        try:
            sandbox.advance(2)
            began = int(sandbox.control("clock")["now"])
            async with opened(url, "acme") as database:
                await write(database, receiver.record_read, FIRST, began)
                await work(Company(database, client, began))
        finally:
            await client.close()

    asyncio.run(do())


@only_sqlite("database")
def test_customer_balance_matches_stripe_after_dashboard_credits(database: str, own_sandbox: Sandbox) -> None:
    """A person bills our customer in Stripe's dashboard and credits a part, and that balance also pays our invoices."""

    async def work(company: Company) -> None:
        stripe = company.stripe
        await company.invoice(100)
        customer = company._customer
        row = {"customer": ACME, "stripe_id": customer, "livemode": 0}
        async with company.database.writing() as connection:
            await connection.execute(sa.insert(billing_customers), [row])

        async def bill(cents: int) -> str:
            draft = await company.call("v1.invoices.create", customer=customer, currency="usd", auto_advance=False)
            item = {"customer": customer, "invoice": draft["id"], "currency": "usd", "amount": cents}
            await company.call("v1.invoice_items.create", **item)
            await company.call("v1.invoices.finalize_invoice", draft["id"], auto_advance=False)
            return str(draft["id"])

        async def is_stripes(cents: int) -> None:
            for _ in range(2):  # Webhooks are delivered twice.
                for invoice in await stripe.list_all("v1.invoices.list", customer=customer):
                    await company.refresh(invoice["id"])
                for note in await stripe.list_all("v1.credit_notes.list", customer=customer):
                    await write(company.database, credit_notes.apply_stripe_note, note)
            theirs = (await stripe.call("v1.customers.retrieve", customer))["balance"]
            assert (await company.fetch_accounts()).get("customer_balance", 0) == theirs == cents

        theirs = await bill(500)
        await company.call("v1.invoices.pay", theirs, payment_method="pm_card_visa")
        parts = {"refund_amount": 181, "out_of_band_amount": 66, "credit_amount": 61}
        note = await company.call("v1.credit_notes.create", invoice=theirs, amount=308, **parts)
        await is_stripes(-61)
        await bill(40)
        await is_stripes(-21)
        voided = await bill(1000)
        await is_stripes(0)
        await company.call("v1.invoices.void_invoice", voided)
        await is_stripes(-21)
        await company.invoice(300)
        await is_stripes(0)
        assert note["customer"] == customer
        assert await company.compare() == []

    play(database, own_sandbox, work)


@pytest.mark.both_databases
def test_a_balance_that_somebody_has_set_at_stripe_is_in_the_books(database: str, own_sandbox: Sandbox) -> None:
    """The customer has a credit of a former system. A person adds to it, makes it a debt, and finalizes our draft."""

    async def work(company: Company) -> None:
        of, stripe = company.database, company.stripe
        created = await company.call("v1.customers.create", name="acme", balance=-700, metadata={ID: ACME})
        customer = company._customer = str(created["id"])
        async with of.writing() as connection:
            row = {"customer": ACME, "stripe_id": customer, "livemode": 0}
            await connection.execute(sa.insert(billing_customers), [row])

        async def adjust(cents: int) -> None:
            await company.call("v1.customers.balance_transactions.create", customer, amount=cents, currency="usd")

        async def is_stripes(cents: int) -> None:
            theirs = (await stripe.call("v1.customers.retrieve", customer))["balance"]
            assert (await company.fetch_accounts()).get("customer_balance", 0) == theirs == cents

        for _ in range(2):  # An import may be repeated.
            await CustomerBalances(of, stripe).book_customer(customer)
        await is_stripes(-700)
        await company.invoice(500)
        await is_stripes(-200)
        await adjust(-1000)
        for _ in range(2):  # Webhooks are delivered twice.
            fetched = await StripeObjects(stripe).fetch("customer", customer)
            await write(of, foreign_balance.apply_stripe_customer, fetched)
        await is_stripes(-1200)
        await adjust(1500)  # This change has no webhook.
        now = time.time()
        span = Span(int(now) - DAY, int(now) + 20 * DAY)
        balances = CustomerBalances(of, stripe)
        assert await balances.compare(now, is_booking=False) == [], "the balance changed too recently to compare"
        assert await balances.compare(now + DAY, is_booking=False) == [("acme", "customer balance", -1200, 300)]
        rows = await payments.compare_span(of, stripe, span, now + DAY, is_booking=True)
        assert [row for row in rows if row.difference] == []
        assert ("acme", "customer balance", 300, 300) in rows
        await company.invoice(900, by="nobody")
        await is_stripes(0)
        accounts = await company.fetch_accounts()
        assert (accounts["receivable"], accounts["other"]) == (1200, -300 + 500)

        await adjust(-80)
        by_hand = await company.invoice(50, state="draft")
        rows = await balances.compare(now + DAY, is_booking=True)
        assert rows == [("acme", "customer balance", -30, -30)]
        await is_stripes(-30)
        assert (await company.fetch_accounts())["receivable"] == 1200
        async with of.writing() as connection:  # A person accepts the invoice unchanged.
            accepted = sa.update(invoices_table).where(match_book_text(connection, invoices_table.c.stripe_id, by_hand))
            await connection.execute(accepted.values(state="open", held_why=None, accepted_why="it is right"))
        await company.refresh(by_hand)
        await is_stripes(-30)

    play(database, own_sandbox, work)


@only_sqlite("database")
def test_balance_part_of_an_invoice_is_never_receivable(database: str, own_sandbox: Sandbox) -> None:
    """The balance's part stays settled even if the customer never pays the rest."""

    async def work(company: Company) -> None:
        await company.invoice(-500)
        fates = {900: "pay", 800: "mark_uncollectible", 700: "void_invoice"}
        for cents, fate in fates.items():
            invoice = await company.invoice(cents, by="nobody")
            for act in ("finalize_invoice", fate):
                if act == fate:
                    parameters = {"payment_method": "pm_card_visa"} if fate == "pay" else {}
                    await company.call(f"v1.invoices.{fate}", invoice, **parameters)
                await company.refresh(invoice)
                stripes = await company.stripe.call("v1.invoices.retrieve", invoice)
                customer = await company.stripe.call("v1.customers.retrieve", company._customer)
                accounts = await company.fetch_accounts()
                is_open, is_lost = (stripes["status"] == state for state in ("open", "uncollectible"))
                booked = [accounts.get(name, 0) for name in ("receivable", "bad_debt", "customer_balance")]
                remaining = stripes["amount_remaining"]
                assert booked == [remaining * is_open, remaining * is_lost, customer["balance"]], (fate, act)
            if fate == "mark_uncollectible":
                await company.call("v1.invoices.pay", invoice, payment_method="pm_card_visa")
                await company.refresh(invoice)
            if fate != "void_invoice":
                await company.invoice(-500)
        assert await company.compare() == []

    play(database, own_sandbox, work)


def test_journal_cash_equals_the_stripe_balance_after_any_movement(database: str, own_sandbox: Sandbox) -> None:
    async def work(company: Company) -> None:
        balance = StripeBalance(company.database, company.stripe)
        await balance.sync(time.time())
        bought = await company.buy(10_000)
        await company.pay(777, {})  # It belongs to another business of this Stripe account.
        held = await write(company.database, credits.hold_refund, ALICE, f"cs_{bought}", "r1", 500 * CENT, "asked")
        await RefundSender(company.database, company.stripe).send_refund(held)
        created = await company.call("v1.refunds.create", payment_intent=bought, amount=250)
        await write(company.database, apply_refund, created)
        disputed = await company.pay(4_000, OURS, "pm_card_createDispute")
        (dispute,) = await company.stripe.list_all("v1.disputes.list", payment_intent=disputed)
        early = await StripeObjects(company.stripe).fetch("dispute", dispute["id"])
        with pytest.raises(UnexpectedObjectError, match="not booked yet"):
            await write(company.database, apply_dispute, early)
        await company.book_purchase(disputed, 4_000)
        await write(company.database, apply_dispute, dispute)
        won = await company.call(
            "v1.disputes.update", dispute["id"], evidence={"uncategorized_text": "winning_evidence"}
        )
        await write(company.database, apply_dispute, won)
        assert await company.compare() == []

        paid = await company.invoice(43_210)
        await company.call("v1.refunds.create", payment_intent=await company.find_intent(paid), amount=1_234)
        noted = await company.invoice(20_000)
        note = await company.call(
            "v1.credit_notes.create",
            invoice=noted,
            amount=900,
            refund_amount=400,
            credit_amount=300,
            out_of_band_amount=200,
        )
        await write(company.database, credit_notes.apply_stripe_note, note)
        await company.invoice(8_000, paid_out_of_band=True)
        lost = await company.invoice(6_000, "pm_card_createDispute")
        (dispute,) = await company.stripe.list_all("v1.disputes.list", payment_intent=await company.find_intent(lost))
        await company.call("v1.disputes.close", dispute["id"])
        await company.invoice(-5_000)  # This credit pays the next invoice.
        await company.invoice(9_000)
        await company.invoice(30)  # The amount is too small to charge, so it moves to the next invoice.
        await company.invoice(1_000)
        written_off = await company.invoice(2_000, by="nobody")
        await company.call("v1.invoices.mark_uncollectible", written_off)
        await company.refresh(written_off)
        assert await company.compare() == []
        accounts = await company.fetch_accounts()
        assert accounts["bad_debt"] == 2_000
        await company.call("v1.invoices.pay", written_off, payment_method="pm_card_visa")
        await company.refresh(written_off)

        own_sandbox.advance(3 * DAY)
        (available,) = (await company.stripe.call("v1.balance.retrieve"))["available"]
        await company.call("v1.payouts.create", amount=available["amount"], currency="usd")
        assert await company.compare() == []
        assert await balance.sync(time.time()) == 0
        accounts = await company.fetch_accounts()
        listed = await company.stripe.list_all("v1.balance_transactions.list", created={"gte": company.began})
        assert accounts.get("cash", 0) == sum(moved["net"] for moved in listed)
        assert accounts["bank"] == available["amount"] + 8_000 - 300 - 200, "of which the balance paid 300"
        assert accounts["fees"] == sum(moved["fee"] for moved in listed if moved["amount"] != 777)
        assert accounts["chargebacks"] == 6_000
        assert accounts["other"] == -(777 - 53)
        assert not accounts.keys() & {"clearing", "receivable", "refunds", "bad_debt"}
        customer = await company.stripe.call("v1.customers.retrieve", company._customer)
        assert accounts.get("customer_balance", 0) == customer["balance"]
        async with company.database.reading() as connection:  # A refund without a credit note leaves less to credit.
            by_id = match_book_text(connection, invoices_table.c.stripe_id, paid)
            (row,) = await invoices.fetch_invoices(connection, by_id)
            with pytest.raises(NoteRefusedError, match="is above the 41976 left"):
                await note_requests.decide_request(connection, row, 41_977)
            assert await note_requests.decide_request(connection, row, 41_976) == NoteParts(0, 0, 41_976)

    play(database, own_sandbox, work)


def test_entry_missing_in_either_book_is_a_difference(database: str, own_sandbox: Sandbox) -> None:
    async def work(company: Company) -> None:
        assert await company.compare() == []
        lost = await company.pay(2_000, OURS)
        assert await company.compare() == [(lost, "purchase", 0, 2_000)], "its webhook has not come"
        await write(company.database, credits.book_purchase, ACME, Payment("cs_2", lost, 1_999 * CENT))
        assert await company.compare() == [("acme", "purchase", 1_999, 2_000)]
        await write(company.database, credits.book_purchase, ACME, Payment("cs_3", "pi_never", 55 * CENT))
        assert await company.compare() == [("acme", "purchase", 55, 0), ("acme", "purchase", 1_999, 2_000)]

    play(database, own_sandbox, work)


def test_each_day_is_compared_once(sqlite_database: str, own_sandbox: Sandbox) -> None:
    async def work(company: Company) -> None:
        now = time.time() // DAY * DAY - 10 * DAY + 7200
        of, client = company.database, company.stripe
        assert await payments.reconcile_days(of, client, now - 1) == 1
        assert await payments.reconcile_days(of, client, now) == 1
        assert await payments.reconcile_days(of, client, now) == 0
        with mock.patch.object(client, "call", wraps=client.call) as call:
            assert await payments.reconcile_days(of, client, now + 3 * DAY) == 3
        listed = [made.args[0] for made in call.call_args_list]
        assert listed.count("v1.customers.list") == 1, "balances of customers are those of now, whatever the day"
        async with of.reading() as connection:
            days = await discrepancies.list_reconciliations(connection, "D", 100)
        assert len({row["since"] for row in days}) == 5

    play(sqlite_database, own_sandbox, work)


def test_repair_books_missed_webhooks_once(database: str, own_sandbox: Sandbox) -> None:
    async def work(company: Company) -> None:
        bought = await company.buy(3_000)
        await company.call("v1.refunds.create", payment_intent=bought, amount=250)
        unpaid = await company.invoice(4_321, by="nobody")
        await company.call("v1.invoices.pay", unpaid, payment_method="pm_card_visa")
        noted = await company.invoice(900)
        await company.call("v1.credit_notes.create", invoice=noted, amount=400, refund_amount=400)
        now = time.time()
        span = Span(int(now) - DAY, int(now) + 20 * DAY)
        of, client = company.database, company.stripe
        before = [row for row in await payments.compare_span(of, client, span, now, is_booking=False) if row.difference]
        assert [row.meter for row in before] == ["balance", "invoice", "purchase"]
        for _ in range(2):
            repair = await payments.repair_span(of, client, span, now)
            assert [row for row in repair.rows if row.difference] == repair.failures == []
            accounts = await company.fetch_accounts()
            assert accounts.get("clearing", 0) == accounts.get("receivable", 0) == 0
            assert accounts["deferred"] == -2_750

    play(database, own_sandbox, work)


def test_payments_agree_after_an_outage_of_days_at_any_step(
    database: str, own_sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In round n the collector has processed n steps before it stops for days. It compares when it is back."""
    monkeypatch.setenv("STRIPE_SECRET_KEY", KEY)
    rows_of_rounds: list[list[Any]] = []

    async def work(company: Company) -> None:
        now = float(company.began)
        monkeypatch.setattr(journal, "now_ms", lambda: int(now * 1000))
        known = settings(tmp_path, database, own_sandbox.url)
        processor = build_processor(known, company.database, company.stripe, lambda seconds: None)
        processor._clock = lambda: now
        invoices: list[str] = []
        monkeypatch.setattr(company, "refresh", lambda invoice: asyncio.sleep(0))

        async def pay() -> None:
            invoices.append(await company.invoice(4_000))

        async def refund() -> None:
            intent = await company.find_intent(invoices[-1])
            await company.call("v1.refunds.create", payment_intent=intent, amount=500)

        async def credit() -> None:
            invoices.append(await company.invoice(1_500))
            await company.call("v1.credit_notes.create", invoice=invoices[-1], amount=200, refund_amount=200)

        async def owe() -> None:
            invoices.append(await company.invoice(700, by="nobody"))

        steps = (pay, refund, credit, owe)
        for heard in range(len(steps) + 1):
            for number, step in enumerate(steps):
                await step()
                if number < heard:
                    await processor.complete()
            now += 3 * DAY
            own_sandbox.advance(3 * DAY)
            with pytest.raises(payments.BooksIncompleteError) if heard == 1 else nullcontext():
                # Postponed events do not count as differences yet.
                kept = processor._table
                processor._table = {**kept, "invoice": fail} if heard == 1 else kept
                try:
                    await payments.reconcile_days(company.database, company.stripe, now, processor.complete)
                finally:
                    processor._table = kept
            if heard == 1:
                now += HOUR
                await payments.reconcile_days(company.database, company.stripe, now, processor.complete)
            async with company.database.reading() as connection:
                compared = await discrepancies.list_reconciliations(connection, "D", 100)
            rows_of_rounds.append([row["rows"] for row in compared if row["rows"]])

    async def fail(_: AsyncConnection, __: object) -> None:
        raise UnexpectedObjectError("it cannot be applied now")

    play(database, own_sandbox, work)
    assert rows_of_rounds == [[]] * 5
