"""Disputed payments of invoices against the Stripe sandbox: states, alerts, messages, lines and the journal."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from edgeproxy.collector.billing.credits import purchases
from edgeproxy.collector.billing.invoices import credit_notes, disputes, invoices, note_requests
from edgeproxy.collector.billing.invoices.bookings import book_invoices
from edgeproxy.collector.billing.invoices.credit_decision import NoteRefusedError
from edgeproxy.collector.billing.invoices.dispute_states import Dispute, DisputeState, advance
from edgeproxy.collector.billing.invoices.unexpected_objects import UnbookedPaymentError
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.journal.verification import verify_journal
from edgeproxy.collector.billing.reports.response_counts import ResponseCounts
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.billing_tables import disputes as disputes_table
from edgeproxy.collector.database.billing_tables import invoice_lines as line_table
from edgeproxy.collector.database.billing_tables import invoices as table
from edgeproxy.collector.database.credit_tables import credit_entries, credit_transactions
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.database.webhook_tables import webhook_endpoints, webhook_messages
from edgeproxy.collector.jobs import billing as billing_jobs
from edgeproxy.collector.jobs.billing import BillingJobs
from tests.support.collector_fixtures import only_sqlite
from tests.support.invoiced import (
    FEBRUARY,
    FREEZE,
    JANUARY,
    amounts,
    apply_stripe_events,
    at,
    enter_card,
    fetch_invoices,
)
from tests.support.sold import Sold, sold
from tests.support.stripe_sandbox import Sandbox

pytestmark = pytest.mark.usefixtures("secret_key")

PLANS = """
plans:
  small@1: {fee: "100", tier: standard, meters: {calls: {included: 0, price: "1"}}}
  large@1: {fee: "500", tier: enterprise, meters: {calls: {included: 0, price: "1"}}}
"""
NOON = at(2027, 1, 16, 12)
"""Half of January."""
DISPUTED_CARD = "pm_card_createDispute"
START = "2027-01-01 start"


@pytest.fixture
def plans(tmp_path: Path) -> str:
    file = tmp_path / "plans.yaml"
    file.write_text(PLANS)
    return str(file)


async def pay_start(sandbox: Sandbox, shop: Sold, name: str, card: str = DISPUTED_CARD) -> None:
    """Have the first invoice of a customer paid by a card, and apply what Stripe reports."""
    invoice = (await fetch_invoices(shop, name))[START]
    answer = await asyncio.to_thread(
        sandbox.call, "POST", f"/v1/invoices/{invoice['stripe_id']}/pay", f"payment_method={card}"
    )
    assert answer.status == 200, answer
    await apply_stripe_events(shop)


async def find_dispute(sandbox: Sandbox, shop: Sold) -> str:
    """Return the id at Stripe of the only dispute that is stored."""
    async with shop.database.reading() as connection:
        return str((await connection.execute(sa.select(disputes_table.c.stripe_id))).scalar_one())


async def decide(sandbox: Sandbox, shop: Sold, result: str) -> None:
    """Have the bank decide the dispute, and apply what Stripe reports."""
    dispute = await find_dispute(sandbox, shop)
    form = f"evidence[uncategorized_text]={result}_evidence"
    answer = await asyncio.to_thread(sandbox.call, "POST", f"/v1/disputes/{dispute}", form)
    assert answer.status == 200, answer
    await apply_stripe_events(shop)


async def list_disputes(shop: Sold, state: str) -> list[tuple[str, str | None, str, str | None]]:
    """Return the disputes as the console lists them."""
    async with shop.database.reading() as connection:
        listed = await disputes.list_disputes(connection, None, 10, state=state)
    return [(dispute["customer"], dispute["invoice"], dispute["state"], dispute["answer_by"]) for dispute in listed]


async def fetch_alerts(shop: Sold) -> list[tuple[str, str, dict[str, Any]]]:
    columns = alerts.c
    about = columns.kind.in_(("payment_disputed", "dispute_closed"))
    statement = sa.select(columns.kind, columns.severity, columns.details).where(about).order_by(columns.id)
    async with shop.database.reading() as connection:
        return [(row[0], row[1], orjson.loads(row[2])) for row in await connection.execute(statement)]


async def fetch_messages(shop: Sold, types: str = "dispute.%") -> list[tuple[str, dict[str, Any]]]:
    columns = webhook_messages.c
    async with shop.database.reading() as connection:
        statement = sa.select(columns.type, columns.body).where(columns.type.like(types)).order_by(columns.id)
        return [(row[0], orjson.loads(row[1])["data"]) for row in await connection.execute(statement)]


async def fetch_accounts(shop: Sold, kinds: tuple[str, ...] = ("dispute_lost", "dispute_won")) -> dict[str, int]:
    """Return the balances of accounts by transactions of these kinds, in cents, once all is booked."""
    while await book_invoices(shop.database):
        pass
    total = sa.cast(sa.func.sum(credit_entries.c.amount), sa.BigInteger)
    joined = sa.join(credit_transactions, credit_entries, credit_entries.c.seq == credit_transactions.c.seq)
    is_such = credit_transactions.c.kind.in_(kinds)
    statement = sa.select(credit_entries.c.account, total).select_from(joined).where(is_such)
    async with shop.database.reading(whole=True) as connection:
        await verify_journal(connection)
        rows = await connection.execute(statement.group_by(credit_entries.c.account))
        return {account: amount // CENT for account, amount in rows if amount}


async def listen(shop: Sold, name: str) -> None:
    """Give a customer an endpoint of webhooks."""
    owner = sa.select(customers.c.id).where(customers.c.name == name).scalar_subquery()
    endpoint = {"id": f"we_{name}", "url": "https://shop.example/", "secret": b"x", "state": "enabled"}
    async with shop.database.writing() as connection:
        values = {"customer": owner, "created_at": 0, "version": 1, **endpoint}
        await connection.execute(sa.insert(webhook_endpoints).values(values))


async def test_dispute_raises_an_alert_and_a_loss_takes_lines_off(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str, plans: str
) -> None:
    name = f"{database.partition(':')[0]}-disputes"

    async with sold(tmp_path, database, stripe_sandbox.url, plans=plans) as (shop, closing):
        await shop.customer(name, "small", now=JANUARY)
        await listen(shop, name)
        await closing.step(JANUARY + 5)
        await pay_start(stripe_sandbox, shop, name)
        invoice = (await fetch_invoices(shop, name))[START]
        assert (invoice["state"], invoice["amount_disputed"], invoice["amount_lost"]) == ("paid", 10000, 0)
        ((kind, severity, details),) = await fetch_alerts(shop)
        assert (kind, severity, details["invoice"]) == ("payment_disputed", "warn", invoice["id"])
        assert (details["amount"], details["of"]) == ("100.00 USD", name)
        async with shop.database.reading() as connection:
            (dispute,) = await disputes.list_of_invoice(connection, invoice["id"])
        assert (dispute["state"], dispute["answer_by"]) == ("needs_response", details["answer_by"])
        assert await list_disputes(shop, "open") == [(name, invoice["id"], "needs_response", dispute["answer_by"])]
        assert await list_disputes(shop, "lost") == []
        ((type_, data),) = await fetch_messages(shop)
        assert (type_, data["invoice"], data["amount"]) == ("dispute.opened", invoice["id"], 10000)
        assert data["answer_by"] is None, "the time for our answer is no matter of the customer's"
        assert await fetch_accounts(shop) == {}, "the dispute is not decided yet"

        await decide(stripe_sandbox, shop, "losing")
        invoice = (await fetch_invoices(shop, name))[START]
        assert (invoice["state"], invoice["amount_disputed"], invoice["amount_lost"]) == ("paid", 0, 10000)
        assert await list_disputes(shop, "open") == []
        assert await list_disputes(shop, "lost") == [(name, invoice["id"], "lost", None)]
        assert [(alert[0], alert[1]) for alert in await fetch_alerts(shop)][1:] == [("dispute_closed", "warn")]
        (_, (type_, data)) = await fetch_messages(shop)
        assert (type_, data["state"], data["amount_lost"]) == ("dispute.closed", "lost", 10000)
        assert await fetch_accounts(shop) == {"deferred_fees": 10000, "chargebacks": -10000}
        await shop.change(name, "large", now=NOON)
        assert amounts((await fetch_invoices(shop, name))["2027-01-01 change"]) == [0, 25000], "no unused fee is left"
        await apply_stripe_events(shop)
        assert len(await fetch_alerts(shop)) == 2, "events that come twice say nothing new"


@only_sqlite("database")
async def test_won_dispute_keeps_the_lines_and_a_reversed_loss_restores_them(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str, plans: str
) -> None:
    name = f"{database.partition(':')[0]}-wins"

    async with sold(tmp_path, database, stripe_sandbox.url, plans=plans) as (shop, closing):
        await shop.customer(name, "small", now=JANUARY)
        await closing.step(JANUARY + 5)
        await pay_start(stripe_sandbox, shop, name)
        await decide(stripe_sandbox, shop, "winning")
        invoice = (await fetch_invoices(shop, name))[START]
        assert (invoice["amount_disputed"], invoice["amount_lost"]) == (0, 0)
        assert [(alert[0], alert[1]) for alert in await fetch_alerts(shop)][1:] == [("dispute_closed", "info")]
        assert await fetch_accounts(shop) == {}
        stripe_id = await find_dispute(stripe_sandbox, shop)
        there = {"id": stripe_id, "amount": 4000, "currency": "usd", "evidence_details": {}, "reason": "fraudulent"}
        expected = {"lost": ({"deferred_fees": 4000, "chargebacks": -4000}, -3000), "won": ({}, -5000)}
        for status in ("lost", "won", "lost", "won"):
            async with shop.database.writing() as connection:
                await disputes.apply_stripe_dispute(connection, {**there, "status": status}, None)
            assert await fetch_accounts(shop) == expected[status][0]
        async with shop.database.writing() as connection:
            await disputes.apply_stripe_dispute(connection, {**there, "status": "lost"}, None)
        await shop.change(name, "large", now=NOON)
        change = (await fetch_invoices(shop, name))["2027-01-01 change"]
        assert amounts(change) == [expected["lost"][1], 25000], "a part is lost, and the rest stands"
        async with shop.database.writing() as connection:
            await disputes.apply_stripe_dispute(connection, {**there, "status": "won"}, None)
        for time in (FEBRUARY, FEBRUARY + FREEZE):
            await closing.step(time)
        later = await fetch_invoices(shop, name)
        assert amounts(later["2027-01-01 period"]) == [-2000, 50000]


@only_sqlite("database")
async def test_void_invoice_restores_lines_of_a_lost_dispute(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str, plans: str
) -> None:
    name = f"{database.partition(':')[0]}-void-after-loss"

    async with sold(tmp_path, database, stripe_sandbox.url, plans=plans) as (shop, closing):
        await shop.customer(name, "small", now=JANUARY)
        await closing.step(JANUARY + 5)
        await pay_start(stripe_sandbox, shop, name)
        await decide(stripe_sandbox, shop, "losing")
        assert await fetch_accounts(shop) == {"deferred_fees": 10000, "chargebacks": -10000}
        number = (await fetch_invoices(shop, name))[START]["id"]
        async with shop.database.writing() as connection:
            await invoices.transition(connection, number, invoices.PAID, invoices.VOID)
        kinds = ("invoice", "invoice_void", "dispute_lost", "dispute_won")
        assert await fetch_accounts(shop, kinds) == {}
        dispute = await find_dispute(stripe_sandbox, shop)
        there = {"id": dispute, "amount": 10000, "currency": "usd", "evidence_details": {}}
        for status in ("won", "lost"):
            async with shop.database.writing() as connection:
                await disputes.apply_stripe_dispute(connection, {**there, "status": status}, None)
            assert await fetch_accounts(shop, kinds) == {}, "nothing stands that could be lost"
        await shop.change(name, "large", now=NOON)
        assert amounts((await fetch_invoices(shop, name))["2027-01-01 change"]) == [0, 25000]


@pytest.mark.parametrize("is_adopted", [True, False])
async def test_dispute_event_waits_for_its_unknown_invoice(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str, plans: str, is_adopted: bool
) -> None:
    """The invoice as a collector has it that was killed before it wrote down Stripe's id: found by its metadata, or
    with lines that are not written yet."""
    name = f"{database.partition(':')[0]}-early-{is_adopted}"

    async with sold(tmp_path, database, stripe_sandbox.url, plans=plans) as (shop, closing):
        await shop.customer(name, "small", now=JANUARY)
        await closing.step(JANUARY + 5)
        invoice = (await fetch_invoices(shop, name))[START]
        path = f"/v1/invoices/{invoice['stripe_id']}"
        await asyncio.to_thread(stripe_sandbox.call, "POST", f"{path}/pay", f"payment_method={DISPUTED_CARD}")
        stripe_invoice = (await asyncio.to_thread(stripe_sandbox.call, "GET", path)).json()
        dispute = {"id": f"du_{name}", "object": "dispute", "amount": 10000, "currency": "usd"}
        dispute |= {"status": "needs_response", "evidence_details": {}, "reason": "fraudulent"}
        dispute |= {"payment_intent": None, disputes.PAID_INVOICE: stripe_invoice}

        async def change(**values: Any) -> None:
            async with shop.database.writing() as connection:
                await connection.execute(sa.update(table).where(table.c.id == invoice["id"]).values(**values))

        await change(stripe_id=None, state="closing" if is_adopted else "held")
        async with shop.database.writing() as connection:
            lines = list((await connection.execute(sa.select(line_table))).mappings())
            if not is_adopted:
                await connection.execute(sa.delete(line_table))
        if not is_adopted:
            with pytest.raises(UnbookedPaymentError, match="not written yet"):
                async with shop.database.writing() as connection:
                    await purchases.apply_dispute(connection, dispute)
            assert await fetch_alerts(shop) == []
            await change(state="closing")
            async with shop.database.writing() as connection:
                await connection.execute(sa.insert(line_table), [dict(line) for line in lines])
        async with shop.database.writing() as connection:
            await purchases.apply_dispute(connection, dispute)
        assert [alert[2]["invoice"] for alert in await fetch_alerts(shop)] == [invoice["id"]]


async def test_operators_are_paged_once_two_days_before_the_last_answer(
    stripe_sandbox: Sandbox, tmp_path: Path, sqlite_database: str, plans: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    completed_at: list[float] = []
    clock = SimpleNamespace(now=float(JANUARY))

    async def complete() -> None:
        completed_at.append(clock.now)

    async with sold(tmp_path, sqlite_database, stripe_sandbox.url, plans=plans) as (shop, closing):
        await shop.customer("reminded", "small", now=JANUARY)
        await closing.step(JANUARY + 5)
        await pay_start(stripe_sandbox, shop, "reminded")
        async with shop.database.reading() as connection:
            answer_by = (await connection.execute(sa.select(disputes_table.c.answer_by))).scalar_one()
        assert answer_by is not None
        jobs = BillingJobs(
            shop.database, lambda: shop.known, lambda state: None, ResponseCounts(), lambda revenue: None
        )
        jobs._complete_events = complete
        monkeypatch.setattr(billing_jobs, "time", SimpleNamespace(time=lambda: clock.now))
        for clock.now in (answer_by - 2 * 86400 - 1, answer_by - 2 * 86400, answer_by - 60, answer_by + 1):
            await jobs._raise_reminders()
        assert completed_at == [answer_by - 2 * 86400, answer_by - 60], "the events are read if a reminder is due"
        assert [(alert[0], alert[1]) for alert in await fetch_alerts(shop)][1:] == [("payment_disputed", "page")]


async def test_a_disputed_payment_is_not_refunded_by_any_entrance(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str, plans: str
) -> None:
    """A request is refused at once. One that was accepted before the dispute is refused with an alert."""
    name = f"{database.partition(':')[0]}-refunds"

    async with sold(tmp_path, database, stripe_sandbox.url, plans=plans) as (shop, closing):
        await shop.customer(name, "small", now=JANUARY)
        await closing.step(JANUARY + 5)
        number = (await fetch_invoices(shop, name))[START]["id"]

        async def request(amount: int) -> None:
            async with shop.database.writing() as connection:
                row = await invoices.get_invoice(connection, number, lock=True)
                await note_requests.request_note(connection, row, amount, "sorry")

        await request(4000)  # Before it is paid: less is due, and Stripe does not have it yet.
        await pay_start(stripe_sandbox, shop, name)
        with pytest.raises(NoteRefusedError, match="has a disputed payment"):
            await request(1000)
        await closing.step(JANUARY + 10)
        async with shop.database.reading() as connection:
            (note,) = await credit_notes.list_of_invoice(connection, number)
            kinds = list((await connection.execute(sa.select(alerts.c.kind).order_by(alerts.c.id))).scalars())
        assert (note["state"], kinds) == ("refused", ["payment_disputed", "credit_note_failed"])
        await decide(stripe_sandbox, shop, "winning")
        await request(4000)
        await closing.step(JANUARY + 20)
        assert (await fetch_invoices(shop, name))[START]["amount_refunded"] == 4000, "the bank has decided for us"


async def test_credit_note_refunds_the_balance_part_to_the_balance(
    stripe_sandbox: Sandbox, tmp_path: Path, sqlite_database: str, plans: str
) -> None:
    async with sold(tmp_path, sqlite_database, stripe_sandbox.url, plans=plans) as (shop, closing):
        await shop.customer("balance-paid", "small", now=JANUARY)
        await listen(shop, "balance-paid")
        customer = await enter_card(shop, "balance-paid")
        path = f"/v1/customers/{customer}/balance_transactions"
        await asyncio.to_thread(stripe_sandbox.call, "POST", path, "amount=-3000&currency=usd")
        await closing.step(JANUARY + 5)
        invoice = (await fetch_invoices(shop, "balance-paid"))[START]
        assert (invoice["state"], invoice["amount_paid"], invoice["balance_applied"]) == ("paid", 7000, 3000)
        async with shop.database.writing() as connection:
            row = await invoices.get_invoice(connection, invoice["id"], lock=True)
            await note_requests.request_note(connection, row, 8000, "an outage")
        await closing.step(JANUARY + 10)
        invoice = (await fetch_invoices(shop, "balance-paid"))[START]
        assert (invoice["amount_credited"], invoice["amount_refunded"]) == (8000, 7000)
        answer = await asyncio.to_thread(stripe_sandbox.call, "GET", f"/v1/customers/{customer}")
        assert answer.json()["balance"] == -1000
        await apply_stripe_events(shop)  # Stripe reports it too.
        ((type_, data),) = await fetch_messages(shop, "credit_note.%")
        assert (type_, data["invoice"], data["refunded"]) == ("credit_note.created", invoice["id"], 7000)


async def test_refund_returned_by_the_bank_raises_an_alert(
    new_sandbox: Sandbox, tmp_path: Path, sqlite_database: str, plans: str
) -> None:
    async with sold(tmp_path, sqlite_database, new_sandbox.url, plans=plans) as (shop, closing):
        await shop.customer("sent-back", "small", now=JANUARY)
        await closing.step(JANUARY + 5)
        await pay_start(new_sandbox, shop, "sent-back", "pm_card_refundFail")
        number = (await fetch_invoices(shop, "sent-back"))[START]["id"]
        async with shop.database.writing() as connection:
            row = await invoices.get_invoice(connection, number, lock=True)
            await note_requests.request_note(connection, row, 2500, "sorry")
        await closing.step(JANUARY + 10)
        await asyncio.to_thread(new_sandbox.advance, 61)
        await apply_stripe_events(shop)
        async with shop.database.reading() as connection:
            (alert,) = (await connection.execute(sa.select(alerts).where(alerts.c.kind == "refund_failed"))).all()
        assert (orjson.loads(alert.details)["invoice"], "$25.00" in alert.title) == (number, True)


@pytest.mark.parametrize(
    ("before", "status", "left", "after"),
    [
        (DisputeState.INQUIRY, "warning_needs_response", 100, (DisputeState.INQUIRY, 0, 9, None)),
        (DisputeState.INQUIRY, "warning_closed", 100, (DisputeState.CLOSED, 0, None, 5)),
        (DisputeState.INQUIRY, "needs_response", 100, (DisputeState.NEEDS_RESPONSE, 0, 9, None)),
        (DisputeState.NEEDS_RESPONSE, "under_review", 100, (DisputeState.UNDER_REVIEW, 0, None, None)),
        (DisputeState.UNDER_REVIEW, "lost", 100, (DisputeState.LOST, 80, None, 5)),
        (DisputeState.UNDER_REVIEW, "lost", 30, (DisputeState.LOST, 30, None, 5)),
        (DisputeState.UNDER_REVIEW, "lost", -10, (DisputeState.LOST, 0, None, 5)),
        (DisputeState.UNDER_REVIEW, "a new word", 100, (DisputeState.UNDER_REVIEW, 0, None, None)),
    ],
)
def test_lost_dispute_takes_off_at_most_the_remaining_amount(
    before: DisputeState, status: str, left: int, after: tuple[object, ...]
) -> None:
    dispute = Dispute("d", "c", "i", None, before, 80, "usd", "general", 9, 0, 1, None)
    there = {"status": status, "amount": 80, "evidence_details": {"due_by": 9}}
    result = advance(dispute, there, left, 5)
    assert (result.state, result.taken_off, result.answer_by, result.closed_at) == after
    assert advance(result, there, 0, 6) == result, "once it is lost, later changes of the invoice leave it as it is"
