"""Drafts that a person touches at Stripe before they are closed here, against the sandbox."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.billing.invoices.bookings import book_invoices
from edgeproxy.collector.billing.invoices.invoices import Invoice
from edgeproxy.collector.billing.invoices.stripe_reports import STEPS, Progress, Report
from edgeproxy.collector.billing.jobs.period_close import PeriodCloseJob
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.stripe.client import Stripe
from edgeproxy.collector.billing.stripe_balance.sync import StripeBalance
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.credit_tables import credit_entries, credit_transactions
from loadtest.testbed.tables_ready import put_tables
from tests.support.era import Era, era
from tests.support.invoiced import FEBRUARY, FREEZE, JANUARY, MARCH, apply_stripe_events, at_stripe, fetch_invoices
from tests.support.sold import KEY, Killed, Sold, sold
from tests.support.stripe_sandbox import Sandbox

pytestmark = pytest.mark.usefixtures("secret_key")

CLOSED = FEBRUARY + FREEZE
PERIOD = "2027-01-01 period"


async def begin(shop: Sold, closing: PeriodCloseJob, *names: str) -> list[str]:
    """Have customers with a draft at Stripe of their first month; return the ids of the drafts."""
    for name in names:
        await shop.customer(name, "enterprise", now=JANUARY)
    for at in (JANUARY + 5, FEBRUARY + 5):
        await closing.step(at)
    drafts = [(await fetch_invoices(shop, name))[PERIOD] for name in names]
    assert all((invoice["state"], invoice["lines"]) == ("draft", []) for invoice in drafts)
    return [str(invoice["stripe_id"]) for invoice in drafts]


async def at_sandbox(sandbox: Sandbox, method: str, path: str, body: str = "") -> None:
    answer = await asyncio.to_thread(sandbox.call, method, path, body)
    assert answer.status == 200, answer


async def raised(shop: Sold, column: sa.Column[str] = alerts.c.kind) -> list[str]:
    async with shop.database.reading() as connection:
        return list((await connection.execute(sa.select(column).order_by(alerts.c.id))).scalars())


DONE = {"finalize": "finalized without an amount", "delete": "deleted", "void": "voided"}


@pytest.mark.parametrize("is_reported", [True, False], ids=["reported", "unreported"])
async def test_a_draft_that_is_deleted_voided_or_finalized_empty_is_replaced_and_paid_once(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str, is_reported: bool
) -> None:
    names = {f"{database.partition(':')[0]}-{change}-{is_reported}": change for change in DONE}
    replaced = ["invoice_replaced"] * len(DONE)

    async def fetch_periods(shop: Sold) -> list[Invoice]:
        return [(await fetch_invoices(shop, name))[PERIOD] for name in names]

    async with sold(tmp_path, database, stripe_sandbox.url) as (shop, closing):
        drafts = await begin(shop, closing, *names)
        for draft, change in zip(drafts, DONE, strict=True):
            if change == "delete":
                await at_sandbox(stripe_sandbox, "DELETE", f"/v1/invoices/{draft}")
            else:
                for step in ("finalize",) if change == "finalize" else ("add_lines", "finalize", "void"):
                    body = LINE if step == "add_lines" else ""
                    await at_sandbox(stripe_sandbox, "POST", f"/v1/invoices/{draft}/{step}", body)
        if is_reported:
            await apply_stripe_events(shop)
            await apply_stripe_events(shop)
            assert await raised(shop) == replaced, "at once, and once"
            assert {invoice["state"] for invoice in await fetch_periods(shop)} == {"draft"}
        for at in (CLOSED - 5, CLOSED, CLOSED + 5):
            await closing.step(at)
        await apply_stripe_events(shop)
        periods = await fetch_periods(shop)
        assert {(invoice["state"], invoice["total"]) for invoice in periods} == {("open", 49900)}
        assert {invoice["stripe_id"] for invoice in periods}.isdisjoint(drafts)
        assert await raised(shop) == replaced
        titles = await raised(shop, alerts.c.title)
        for done in DONE.values():
            assert [f"was {done} at Stripe by hand" in title for title in titles].count(True) == 1, done
        await closing.step(MARCH)
        await closing.step(MARCH + FREEZE)
        for name in names:
            assert (await fetch_invoices(shop, name))["2027-02-01 period"]["total"] == 49900, "and no month twice"
    for name in names:
        due = [invoice["amount_due"] for invoice in at_stripe(stripe_sandbox, name) if invoice["status"] == "open"]
        assert due == [49900, 49900, 49900]


LINE = "lines[0][amount]=500&lines[0][description]=by+hand"


@asynccontextmanager
async def metered_january(folder: Path, sandbox: Sandbox) -> AsyncIterator[Era]:
    """Play until the first seconds of February. Stripe has a draft of the customer's January usage.

    The collector has not seen this draft.
    """
    async with era(folder, put_tables(f"sqlite:///{folder}/ledger.db"), sandbox, JANUARY) as timeline:
        await timeline.of.customer("acme", "enterprise", now=JANUARY)
        await timeline.of.use("acme", {"api_calls": 7}, at=JANUARY + 600)
        await timeline.turns(3)
        await timeline.to(FEBRUARY + 5)
        yield timeline


@pytest.mark.parametrize("change", ["finalize", "void"])
async def test_a_draft_that_stripe_has_made_by_its_meters_is_replaced_too(
    new_sandbox: Sandbox, tmp_path: Path, change: str
) -> None:
    """No webhook reports the person's change of the draft."""

    async with metered_january(tmp_path, new_sandbox) as of:
        await of.turns(3)
        draft = (await fetch_invoices(of.of, "acme"))[PERIOD]["stripe_id"]
        steps = ("finalize",) if change == "finalize" else ("add_lines", "finalize", "void")
        for step in steps:
            await at_sandbox(new_sandbox, "POST", f"/v1/invoices/{draft}/{step}", LINE * (step == "add_lines"))
        await of.to(FEBRUARY + FREEZE)
        await of.turns(3, 601)
        period = (await fetch_invoices(of.of, "acme"))[PERIOD]
        assert (period["state"], period["total"]) == ("open", 49900), period["held_why"]
        assert period["stripe_id"] != draft
        assert await raised(of.of) == ["invoice_replaced"]
    due = [one["amount_due"] for one in at_stripe(new_sandbox, "acme") if one["status"] == "open"]
    assert due == [49900, 49900]


@pytest.mark.parametrize("amount", [500, 0])
async def test_metered_draft_finalized_in_the_dashboard_is_adopted(
    new_sandbox: Sandbox, tmp_path: Path, amount: int
) -> None:
    async with metered_january(tmp_path, new_sandbox) as of:
        found = at_stripe(new_sandbox, "acme")
        (draft,) = [each["id"] for each in found if each["status"] == "draft"]
        for step, body in (("add_lines", LINE), ("finalize", ""))[0 if amount else 1 :]:
            await at_sandbox(new_sandbox, "POST", f"/v1/invoices/{draft}/{step}", body)
        await of.turns(3)
        period = (await fetch_invoices(of.of, "acme"))[PERIOD]
        if amount:
            assert (period["state"], period["stripe_id"]) == ("held", draft)
            assert f"somebody has finalized {draft} at Stripe with $5.00" in period["held_why"]
            assert await raised(of.of) == ["invoice_held"]
        else:
            await of.to(FEBRUARY + FREEZE)
            await of.turns(3, 601)
            period = (await fetch_invoices(of.of, "acme"))[PERIOD]
            assert (period["state"], period["total"]) == ("open", 49900), period["held_why"]
            assert await raised(of.of) == ["invoice_replaced"]


async def test_draft_finalized_by_hand_with_an_amount_holds_our_invoice(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    name = f"{database.partition(':')[0]}-by-hand"

    async with sold(tmp_path, database, stripe_sandbox.url) as (shop, closing):
        (draft,) = await begin(shop, closing, name)
        await at_sandbox(stripe_sandbox, "POST", f"/v1/invoices/{draft}/add_lines", LINE)
        await at_sandbox(stripe_sandbox, "POST", f"/v1/invoices/{draft}/finalize")
        await apply_stripe_events(shop)
        await apply_stripe_events(shop)
        held = (await fetch_invoices(shop, name))[PERIOD]
        assert held["state"] == "held"
        assert "with $5.00 (open), and ours is not closed: void it there" in str(held["held_why"])
        assert await raised(shop) == ["invoice_held"], "at once, and once"
        await closing.step(CLOSED)
        # The person does as it says.
        await at_sandbox(stripe_sandbox, "POST", f"/v1/invoices/{draft}/void")
        await apply_stripe_events(shop)
        held = (await fetch_invoices(shop, name))[PERIOD]
        assert (held["state"], held["stripe_id"], held["url"]) == ("held", None, None)
        async with shop.database.writing() as connection:
            accepted = {"tries": 1, "try_at": 0, "held_why": None}
            await invoices.transition(connection, held["id"], invoices.HELD, invoices.DRAFT, **accepted)
        for at in (CLOSED + 5, CLOSED + 10):
            await closing.step(at)
        period = (await fetch_invoices(shop, name))[PERIOD]
        assert (period["state"], period["total"], period["stripe_id"] != draft) == ("open", 49900, True)
    statuses = sorted((one["status"], one["total"]) for one in at_stripe(stripe_sandbox, name))
    assert statuses == [("open", 49900), ("open", 49900), ("void", 500)]


@pytest.mark.parametrize("is_reported", [True, False], ids=["accepted", "reported late"])
async def test_a_draft_that_is_finalized_with_an_amount_is_booked_with_that_amount(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str, is_reported: bool
) -> None:
    """The difference from our lines is booked as revenue, not as tax."""
    name = f"{database.partition(':')[0]}-booked-{is_reported}"

    async with sold(tmp_path, database, stripe_sandbox.url) as (shop, closing):
        (draft,) = await begin(shop, closing, name)
        await book_invoices(shop.database)
        before = await sum_accounts(shop)
        await at_sandbox(stripe_sandbox, "POST", f"/v1/invoices/{draft}/add_lines", LINE)
        await at_sandbox(stripe_sandbox, "POST", f"/v1/invoices/{draft}/finalize")
        if is_reported:
            await apply_stripe_events(shop)
            held = (await fetch_invoices(shop, name))[PERIOD]
            async with shop.database.writing() as connection:
                accepted = {"tries": 1, "try_at": 0, "held_why": None, "accepted_why": "it is right"}
                await invoices.transition(connection, held["id"], invoices.HELD, invoices.DRAFT, **accepted)
        else:
            await closing.step(CLOSED)
            assert (await fetch_invoices(shop, name))[PERIOD]["state"] == "held"
            await apply_stripe_events(shop)
        for at in (CLOSED + 5, CLOSED + 10):
            await closing.step(at)
        period = (await fetch_invoices(shop, name))[PERIOD]
        assert (period["state"], period["subtotal"], period["total"]) == ("open", 500, 500)
        await book_invoices(shop.database)
        after = await sum_accounts(shop)
        change = {account: after[account] - before.get(account, 0) for account in after}
        expected = {"receivable": 500, "deferred_fees": -49900, "revenue": 49400}
        assert {account: cents for account, cents in change.items() if cents} == expected


async def sum_accounts(shop: Sold) -> dict[str, int]:
    """The balance of each account, in cents."""
    total = sa.cast(sa.func.sum(credit_entries.c.amount), sa.BigInteger)
    statement = sa.select(credit_entries.c.account, total).group_by(credit_entries.c.account)
    async with shop.database.reading() as connection:
        return {account: amount // CENT for account, amount in await connection.execute(statement)}


async def sync_balance(shop: Sold) -> None:
    """Book the movements of the balance at Stripe."""
    assert shop.known.billing is not None
    stripe = Stripe(shop.known.billing.stripe, KEY)
    try:
        await StripeBalance(shop.database, stripe).sync(time.time())
    finally:
        await stripe.close()


@pytest.mark.parametrize("is_paid", [True, False], ids=["paid", "open"])
async def test_draft_finalized_by_hand_stays_at_stripe_after_ours_is_voided(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str, is_paid: bool
) -> None:
    name = f"{database.partition(':')[0]}-voided-{is_paid}"

    async with sold(tmp_path, database, stripe_sandbox.url) as (shop, closing):
        (draft,) = await begin(shop, closing, name)
        await shop.use(name, {"api_calls": 50_000_000}, at=JANUARY + 60)
        await at_sandbox(stripe_sandbox, "POST", f"/v1/invoices/{draft}/add_lines", LINE)
        await at_sandbox(stripe_sandbox, "POST", f"/v1/invoices/{draft}/finalize")
        if is_paid:
            await at_sandbox(stripe_sandbox, "POST", f"/v1/invoices/{draft}/pay", "payment_method=pm_card_visa")
        await apply_stripe_events(shop)
        held = (await fetch_invoices(shop, name))[PERIOD]
        assert held["state"] == "held"
        await sync_balance(shop)
        async with shop.database.writing() as connection:
            voided = {"tries": 1, "try_at": CLOSED, "voided_why": "the other one is right"}
            await invoices.transition(connection, held["id"], invoices.HELD, invoices.VOIDING, **voided)
        await apply_stripe_events(shop)
        for at in (CLOSED - 5, CLOSED, CLOSED + 5):
            await closing.step(at)
        await apply_stripe_events(shop)
        period = (await fetch_invoices(shop, name))[PERIOD]
        assert (period["state"], period["stripe_id"], period["total"]) == ("void", None, 0)
        assert period["subtotal"] > 49900, "the usage of January, and the fee of February"
        for at in (MARCH, MARCH + FREEZE):
            await closing.step(at)
        assert (await fetch_invoices(shop, name))["2027-02-01 period"]["total"] == 49900, "nothing of it comes later"
        await sync_balance(shop)
        await book_invoices(shop.database)
        ours = credit_transactions.c.original == held["id"]
        async with shop.database.reading() as connection:
            assert not (await connection.execute(sa.select(credit_transactions).where(ours))).all()
    statuses = sorted((one["status"], one["total"]) for one in at_stripe(stripe_sandbox, name))
    assert statuses == sorted([("open", 49900), ("open", 49900), ("paid" if is_paid else "open", 500)])


def test_killed_payment_resumes_although_stripe_reports_the_invoice_open(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    name = f"{database.partition(':')[0]}-open-early"

    class Mortal(Stripe):
        async def call(self, call_name: str, /, *ids: str, key: str | None = None, **params: Any) -> dict[str, Any]:
            answer = await super().call(call_name, *ids, key=key, **params)
            if call_name == "v1.invoices.finalize_invoice" and answer["total"] == 49900:
                raise Killed
            return answer

    async def work() -> None:
        async with sold(tmp_path, database, stripe_sandbox.url, Mortal) as (shop, closing):
            await shop.customer(name, "enterprise", now=JANUARY)
            with pytest.raises(BaseException) as died:
                await closing.step(JANUARY + 5)
            assert isinstance(died.value, Killed)
        async with sold(tmp_path, database, stripe_sandbox.url) as (shop, closing):
            await apply_stripe_events(shop)
            assert (await fetch_invoices(shop, name))["2027-01-01 start"]["state"] == "closing"
            await closing.step(JANUARY + 10)
            assert (await fetch_invoices(shop, name))["2027-01-01 start"]["state"] == "open"

    asyncio.run(work())
    (start,) = at_stripe(stripe_sandbox, name)
    events = stripe_sandbox.call("GET", "/v1/events?type=invoice.sent&limit=100").json()["data"]
    assert [event["data"]["object"]["id"] for event in events].count(start["id"]) == 1, "the invoice is mailed once"


def test_each_progress_has_a_step_for_each_report() -> None:
    assert set(STEPS) == set(Progress)
    assert all(set(steps) == set(Report) for steps in STEPS.values())
