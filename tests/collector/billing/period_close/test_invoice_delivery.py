"""Invoices from usage to money, against the Stripe sandbox.

Both databases run the tests with different behavior: lock order, state after a kill, and the largest numbers. Other
tests run equal code on equal rows, and need PostgreSQL only with `--soak`.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import contacts, customers
from edgeproxy.collector.billing.invoices import invoices, stripe_reports
from edgeproxy.collector.billing.invoices.invoices import Invoice
from edgeproxy.collector.billing.jobs.period_close import PeriodCloseJob
from edgeproxy.collector.billing.period_close import invoice_lines, period_roll
from edgeproxy.collector.billing.period_close.collection.invoice_items import (
    POSITION,
    InvoiceMismatchError,
    check_agreement,
)
from edgeproxy.collector.billing.rating.rater import RatedLine, Span
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.stripe.client import CallOutcome, Stripe, StripeCallError
from edgeproxy.collector.billing.subscriptions import subscription_rows, subscriptions
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.billing_tables import credit_notes
from edgeproxy.collector.database.billing_tables import invoices as table
from edgeproxy.collector.database.schema import rollup
from tests.support.collector_fixtures import only_sqlite
from tests.support.invoiced import (
    FEBRUARY,
    FREEZE,
    JANUARY,
    MARCH,
    ON_BOTH_IF_SOAKED,
    amounts,
    at,
    at_stripe,
    count_sent,
    fetch_invoices,
    find_payers,
)
from tests.support.sold import CALLER, Killed, Mortal, Sold, sold
from tests.support.stripe_sandbox import Sandbox

NOON = at(2027, 1, 16, 12)
WORKED = {"llm_tokens": 1_234_567, "agent_executions": 5003, "api_calls": 100_015, "storage_gb": 112, "seats": 27}
LARGE = {"llm_tokens": 12_345_678, "agent_executions": 50_000, "api_calls": 1_000_010, "storage_gb": 1001, "seats": 400}


async def run(closing: PeriodCloseJob, *times: float) -> None:
    for time in times:
        await closing.step(time)


def enter_email(sandbox: Sandbox, name: str, email: str) -> None:
    """Set a customer's e-mail at Stripe, like a checkout does."""
    (payer,) = find_payers(sandbox, name)
    assert sandbox.call("POST", f"/v1/customers/{payer['id']}", f"email={email}").status == 200


def kind(database: str) -> str:
    """Return a prefix for names at the sandbox, which has the customers of both databases."""
    return database.partition(":")[0]


@only_sqlite("database")
def test_worked_months_are_invoiced_to_the_cent(stripe_sandbox: Sandbox, tmp_path: Path, database: str) -> None:
    worked_, large_, grows_, nothing_ = (f"{kind(database)}-{name}" for name in ("worked", "large", "grows", "nothing"))

    async def work() -> None:
        async with sold(tmp_path, database, stripe_sandbox.url) as (shop, closing):
            await shop.customer(worked_, "standard", now=JANUARY)
            await shop.customer(large_, "enterprise", now=JANUARY)
            await shop.customer(grows_, "standard", now=JANUARY)
            await shop.customer(nothing_, "free", now=JANUARY)
            await run(closing, JANUARY + 5)
            first = await fetch_invoices(shop, worked_)
            assert (first["2027-01-01 start"]["total"], first["2027-01-01 start"]["state"]) == (9900, "open")
            assert (await fetch_invoices(shop, nothing_))["2027-01-01 start"]["state"] == "paid", "nothing is due"
            await shop.use(worked_, WORKED, at=NOON)
            await shop.use(large_, LARGE, at=NOON)
            await shop.use(grows_, {"llm_tokens": 1_000_500}, at=NOON - 60)
            await shop.change(grows_, "enterprise", now=NOON)
            await shop.use(grows_, {"llm_tokens": 10_000_200}, at=NOON)
            await run(closing, NOON + 5, FEBRUARY + 5)
            waiting = (await fetch_invoices(shop, worked_))["2027-01-01 period"]
            assert (waiting["state"], waiting["lines"]) == ("draft", [])
            assert waiting["stripe_id"] is not None, "Stripe has a draft already"
            await run(closing, FEBRUARY + FREEZE - 1, FEBRUARY + FREEZE)
            worked = (await fetch_invoices(shop, worked_))["2027-01-01 period"]
            assert amounts(worked) == [9900, 0, 235, 0, 30, 0, 2, 0, 600, 0, 1000]
            assert (worked["total"], worked["state"]) == (11767, "open")
            large = (await fetch_invoices(shop, large_))["2027-01-01 period"]
            assert (large["total"], sorted(filter(None, amounts(large)))) == (51099, [1, 25, 1173, 49900])
            grown = await fetch_invoices(shop, grows_)
            assert amounts(grown["2027-01-01 change"]) == [-4950, 24950]
            assert amounts(grown["2027-01-01 period"]) == [49900, 0, 1, 0, 0], "each segment by its own plan"
            # Late usage: 400 tokens add less than a cent, 1,000 more add one.
            await shop.use(worked_, {"llm_tokens": 400}, at=NOON)
            await run(closing, MARCH, MARCH + FREEZE)
            await shop.use(worked_, {"llm_tokens": 1000}, at=NOON)
            await run(closing, at(2027, 4, 1), at(2027, 4, 1) + FREEZE)
            later = await fetch_invoices(shop, worked_)
            for period, quantity, amount in (("2027-02-01 period", 400, 0), ("2027-03-01 period", 1000, 1)):
                late = [line for line in later[period]["lines"] if line["kind"] == "late"]
                assert [(line["quantity"], line["amount"]) for line in late] == [(quantity, amount)]
                assert later[period]["total"] == 9900 + amount

    asyncio.run(work())
    (period,) = [one for one in at_stripe(stripe_sandbox, worked_) if one["total"] == 11767]
    assert (period["status"], period["auto_advance"], period["collection_method"]) == ("open", False, "send_invoice")
    assert len(at_stripe(stripe_sandbox, worked_)) == 4
    assert at_stripe(stripe_sandbox, nothing_) == [], "an unpaid customer without charges is not reported"


async def test_invoice_is_mailed_to_the_alert_contact_or_the_first_one(
    stripe_sandbox: Sandbox, tmp_path: Path, sqlite_database: str
) -> None:
    async with sold(tmp_path, sqlite_database, stripe_sandbox.url) as (shop, closing):
        for name in ("mail-none", "mail-first", "mail-alerts"):
            await shop.customer(name, "standard", now=JANUARY)
        emails = {"emails": ["b@example.org", "a@example.org"]}
        async with shop.database.writing() as connection:
            for name in ("mail-first", "mail-alerts"):
                await contacts.put_contacts(connection, CALLER, name, contacts.Contacts.model_validate(emails))
            await contacts.put_alert_address(connection, CALLER, "mail-alerts", "b@example.org", shop.known)
        await run(closing, JANUARY + 5)
        # The next invoice goes to the current contacts. An address that was entered at Stripe stays.
        await asyncio.to_thread(enter_email, stripe_sandbox, "mail-alerts", "entered@example.org")
        async with shop.database.writing() as connection:
            for name in ("mail-none", "mail-first", "mail-alerts"):
                emails = {"emails": [f"{name}@example.org"]}
                await contacts.put_contacts(connection, CALLER, name, contacts.Contacts.model_validate(emails))
        await run(closing, FEBRUARY + 5, FEBRUARY + FREEZE)
    addresses = {
        name: [invoice["customer_email"] for invoice in at_stripe(stripe_sandbox, name)[::-1]]
        for name in ("mail-none", "mail-first", "mail-alerts")
    }
    assert addresses == {
        "mail-none": [None, "mail-none@example.org"],
        "mail-first": ["a@example.org", "mail-first@example.org"],
        "mail-alerts": ["b@example.org", "entered@example.org"],
    }


@ON_BOTH_IF_SOAKED
def test_upgrade_before_the_previous_month_closes_is_charged_once(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    name = "early"

    async def work() -> dict[str, Invoice]:
        async with sold(tmp_path, database, stripe_sandbox.url) as (shop, closing):
            await shop.customer(name, "standard", now=JANUARY)
            await run(closing, JANUARY + 5, FEBRUARY + 5)
            await shop.change(name, "enterprise", now=FEBRUARY + 86400)
            await run(closing, FEBRUARY + FREEZE, MARCH, MARCH + FREEZE)
            return await fetch_invoices(shop, name)

    by_period = asyncio.run(work())
    # 27 of 28 days are left. The change invoice comes first and carries February's fee.
    assert amounts(by_period["2027-02-01 change"]) == [9900, -9546, 48118]
    assert by_period["2027-01-01 period"]["total"] == 0
    assert amounts(by_period["2027-02-01 period"]) == [49900]


@pytest.mark.parametrize(
    ("database", "forgets"),
    [
        ("sqlite", False),
        ("sqlite", True),
        ("postgresql", False),
        pytest.param("postgresql", True, marks=pytest.mark.soak),
    ],
    indirect=["database"],
)
def test_kill_after_any_call_leaves_one_invoice(
    request: pytest.FixtureRequest,
    stripe_sandbox: Sandbox,
    tmp_path: Path,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    forgets: bool,
) -> None:
    """Each changing call kills the process before the answer arrives.

    With `forgets` Stripe has forgotten the idempotency keys when the next process starts.
    """
    name = f"{kind(database)}-mortal-{forgets}"
    sandbox = stripe_sandbox
    if forgets:  # This test advances the clock, so it cannot use the shared sandbox.
        sandbox = Sandbox(tmp_path / "stripe")
        request.addfinalizer(sandbox.close)
        sandbox.start()

    async def work() -> dict[str, Invoice]:
        async with sold(tmp_path, database, sandbox.url) as (shop, _):
            await shop.customer(name, "standard", now=JANUARY)
            await shop.use(name, WORKED, at=NOON)
        for deaths in range(100):
            async with sold(tmp_path, database, sandbox.url, Mortal) as (shop, closing):
                try:
                    for time in (JANUARY + 5, FEBRUARY, FEBRUARY + FREEZE):
                        await closing.step(time)
                except Killed:
                    if forgets:
                        await asyncio.to_thread(sandbox.advance, 25 * 3600)
                    continue
                # One call creates the customer. Each invoice needs four: draft, lines, finalization and sending.
                assert deaths >= 9, "each step was the last one of a run"
                return await fetch_invoices(shop, name)
        raise AssertionError("it dies for ever")

    if forgets:
        monkeypatch.setattr("edgeproxy.collector.billing.stripe.customers.KEY_SECONDS", 0)
    by_period = asyncio.run(work())
    assert [(one["total"], one["state"]) for one in by_period.values()] == [(9900, "open"), (11767, "open")]
    assert sorted(one["total"] for one in at_stripe(sandbox, name)) == [9900, 11767]
    assert count_sent(sandbox, name) == 2


FAULTS = ("call_lost", "error_before", "answer_lost", "answer_cut", "error_after", "rate_limited")


@ON_BOTH_IF_SOAKED
def test_lost_calls_and_answers_leave_one_invoice(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str, seed: int
) -> None:
    name = f"{kind(database)}-lossy"

    async def work() -> dict[str, Invoice]:
        async with sold(tmp_path, database, stripe_sandbox.url) as (shop, closing):
            await shop.customer(name, "standard", now=JANUARY)
            await shop.use(name, WORKED, at=NOON)
            faults = [{"kind": kind, "probability": 0.12, "method": "POST", "path": "/v1/"} for kind in FAULTS]
            await asyncio.to_thread(stripe_sandbox.faults, *faults, seed=seed)
            for tries in range(1, 200):
                await closing.step(FEBRUARY + FREEZE + 3601 * tries)
                by_period = await fetch_invoices(shop, name)
                if len(by_period) == 2 and all(invoice["state"] == "open" for invoice in by_period.values()):
                    return by_period
            raise AssertionError(by_period)

    try:
        by_period = asyncio.run(work())
    finally:
        stripe_sandbox.faults()
    assert [invoice["total"] for invoice in by_period.values()] == [9900, 11767]
    assert sorted(one["total"] for one in at_stripe(stripe_sandbox, name)) == [9900, 11767]
    assert count_sent(stripe_sandbox, name) == 2, "the mail of each is sent once"


def test_a_failure_after_its_effect_mails_no_invoice_twice(
    stripe_sandbox: Sandbox, tmp_path: Path, sqlite_database: str
) -> None:
    """Stripe repeats a 500 for its key for 24 hours. The next try has a new key, so Stripe treats it as a new call."""

    async def close(name: str) -> None:
        async with sold(tmp_path, sqlite_database, stripe_sandbox.url) as (shop, closing):
            await shop.customer(name, "standard", now=JANUARY)
            for tries in range(1, 10):
                await closing.step(JANUARY + 3601 * tries)
                if [invoice["state"] for invoice in (await fetch_invoices(shop, name)).values()] == ["open"]:
                    return
            raise AssertionError("it stays as it is")

    for call in range(4):
        fault = {"kind": "error_after", "method": "POST", "path": "/v1/invoices/", "skip": call, "count": 1}
        stripe_sandbox.faults(fault)
        try:
            asyncio.run(close(f"mailed-{call}"))
        finally:
            stripe_sandbox.faults()
        assert count_sent(stripe_sandbox, f"mailed-{call}") == 1


@ON_BOTH_IF_SOAKED
async def test_existing_invoice_lines_are_not_created_again(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    """An older version created lines one by one and was killed."""
    name = f"{kind(database)}-begun"

    async def begin(client: Any, draft: Invoice) -> None:
        there = await client.v1.invoices.retrieve_async(draft["stripe_id"])
        parameters = {"customer": there.customer, "invoice": there.id, "amount": 9900, "currency": "usd"}
        await client.v1.invoice_items.create_async({**parameters, "metadata": {POSITION: "0"}})

    async with sold(tmp_path, database, stripe_sandbox.url) as (shop, closing):
        await shop.customer(name, "standard", now=JANUARY)
        await shop.use(name, WORKED, at=NOON)
        await run(closing, JANUARY + 5, FEBRUARY)
        draft = (await fetch_invoices(shop, name))["2027-01-01 period"]
        await asyncio.to_thread(stripe_sandbox.run, lambda client: begin(client, draft))
        await run(closing, FEBRUARY + FREEZE)
        invoice = (await fetch_invoices(shop, name))["2027-01-01 period"]
    assert (invoice["state"], invoice["total"]) == ("open", 11767)
    assert sorted(one["total"] for one in at_stripe(stripe_sandbox, name)) == [9900, 11767]


@ON_BOTH_IF_SOAKED
def test_tax_is_added_and_invoices_without_an_address_are_held(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    here, nowhere = (f"{kind(database)}-{where}" for where in ("here", "nowhere"))
    made: list[tuple[str, Any]] = []

    class Noted(Stripe):
        async def call(self, name: str, /, *ids: str, key: str | None = None, **params: Any) -> dict[str, Any]:
            if name in ("v1.invoice_items.create", "v1.invoices.add_lines"):
                made.append((name, params.get("tax_behavior")))
            return await super().call(name, *ids, key=key, **params)

    async def live(client: Any, customer: str) -> None:
        await client.v1.customers.update_async(customer, {"address": {"country": "US", "postal_code": "94107"}})

    async def work() -> None:
        async with sold(tmp_path, database, stripe_sandbox.url, Noted, tax={"stripe_tax": True}) as (shop, closing):
            for name in (here, nowhere):
                await shop.customer(name, "standard", now=JANUARY)
            await run(closing, JANUARY + 5)
            for name in (here, nowhere):
                (start,) = (await fetch_invoices(shop, name)).values()
                assert (start["state"], str(start["held_why"]).partition(":")[0]) == ("held", invoices.NO_TAX)
            (there,) = find_payers(stripe_sandbox, here)
            await asyncio.to_thread(stripe_sandbox.run, lambda client: live(client, there["id"]))
            await shop.use(here, WORKED, at=NOON)
            await run(closing, FEBRUARY, FEBRUARY + FREEZE)
            assert (await fetch_invoices(shop, nowhere))["2027-01-01 period"]["state"] == "held"
            invoice = (await fetch_invoices(shop, here))["2027-01-01 period"]
            assert (invoice["state"], invoice["total"]) == ("open", 11767)

    asyncio.run(work())
    assert set(made) == {("v1.invoice_items.create", "exclusive")}


def test_total_with_included_tax_raises_a_mismatch() -> None:
    month = Span(JANUARY, FEBRUARY)
    line = RatedLine("fee", "standard@1", month, "", "", 0, 1, None, 10_000, month)
    tax = {"automatic_tax": {"enabled": True, "status": "complete"}, "total_taxes": [{"amount": 1597}]}
    there = {"currency": "jpy", "subtotal": 10_000, "total": 10_000, **tax}
    with pytest.raises(InvoiceMismatchError, match="a total of ¥10,000, and ours ¥11,597"):
        check_agreement(there, [{"amount": 10_000}], [line], "acme")
    check_agreement({**there, "total": 11_597}, [{"amount": 10_000}], [line], "acme")


@ON_BOTH_IF_SOAKED
async def test_draft_with_a_mismatch_is_held_until_an_operator_decides(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    accepted_, voided = names = [f"{kind(database)}-held-{number}" for number in (1, 2)]

    async def meddle(client: Any, invoice: Invoice) -> None:
        there = await client.v1.invoices.retrieve_async(invoice["stripe_id"])
        await client.v1.invoice_items.create_async(
            {"customer": there.customer, "invoice": there.id, "amount": 77, "currency": "usd"}
        )

    async with sold(tmp_path, database, stripe_sandbox.url) as (shop, closing):
        for name in names:
            await shop.customer(name, "standard", now=JANUARY)
        await run(closing, JANUARY + 5, FEBRUARY)
        for name in names:
            draft = (await fetch_invoices(shop, name))["2027-01-01 period"]
            await asyncio.to_thread(stripe_sandbox.run, lambda client, draft=draft: meddle(client, draft))
        await run(closing, FEBRUARY + FREEZE, FEBRUARY + FREEZE + 60)
        for name, state in ((accepted_, invoices.CLOSING), (voided, invoices.VOIDING)):
            held = (await fetch_invoices(shop, name))["2027-01-01 period"]
            assert held["state"] == "held"
            assert "$0.77" in str(held["held_why"])
            async with shop.database.writing() as connection:
                await invoices.transition(connection, held["id"], invoices.HELD, state, accepted_why="it is right")
        await run(closing, FEBRUARY + FREEZE + 120)
        accepted = (await fetch_invoices(shop, accepted_))["2027-01-01 period"]
        assert (accepted["state"], accepted["subtotal"], accepted["total"]) == ("open", 9977, 9977)
        assert (await fetch_invoices(shop, voided))["2027-01-01 period"]["state"] == "void"
    assert [one["status"] for one in at_stripe(stripe_sandbox, voided)] == ["open"], "the draft is gone"


@ON_BOTH_IF_SOAKED
async def test_uncharged_customer_has_waived_invoices_and_never_pays_them(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    looks_ = f"{kind(database)}-looks"

    shadow = {"mode": "shadow", "rollout": {"allow": ["pays"]}}
    async with sold(tmp_path, database, stripe_sandbox.url, **shadow) as (shop, closing):
        for name in ("pays", looks_):
            await shop.customer(name, "standard", now=JANUARY)
        await shop.use(looks_, WORKED, at=NOON)
        await run(closing, JANUARY + 5, FEBRUARY, FEBRUARY + FREEZE)
        looks = await fetch_invoices(shop, looks_)
        assert [(look["state"], look["total"]) for look in looks.values()] == [("waived", 9900), ("waived", 11767)]
        assert {invoice["state"] for invoice in (await fetch_invoices(shop, "pays")).values()} == {"open"}
    async with sold(tmp_path, database, stripe_sandbox.url) as (shop, closing):
        await run(closing, MARCH, MARCH + FREEZE)
        later = (await fetch_invoices(shop, looks_))["2027-02-01 period"]
        assert (later["state"], amounts(later)) == ("open", [9900])
    async with sold(tmp_path, database, stripe_sandbox.url, charging="off") as (shop, closing):
        await run(closing, at(2027, 4, 1), at(2027, 4, 1) + FREEZE)
        assert (await fetch_invoices(shop, looks_))["2027-03-01 period"]["state"] == "draft", "drafts stay drafts"
    assert [one["total"] for one in at_stripe(stripe_sandbox, looks_)] == [9900]


async def test_kill_switch_stops_invoices_while_they_close(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    async with sold(tmp_path, database, stripe_sandbox.url) as (shop, closing):
        await shop.customer("stopped", "standard", now=JANUARY)
        stripe: Any = closing._delivery._collection._stripe  # type: ignore[attr-defined]
        call = stripe.call

        async def last(name: str, /, *ids: str, **more: Any) -> Any:
            if name == "v1.invoices.send_invoice":
                async with shop.database.writing() as connection:
                    await charging.stop_charging(connection, CALLER, "free", "a fault")
            return await call(name, *ids, **more)

        stripe.call = last
        await run(closing, FEBRUARY + FREEZE)
        states = {period: invoice["state"] for period, invoice in (await fetch_invoices(shop, "stopped")).items()}
        assert states == {"2027-01-01 start": "open", "2027-01-01 period": "closing"}


async def test_invoice_above_the_largest_amount_is_held(stripe_sandbox: Sandbox, tmp_path: Path, database: str) -> None:
    whale_name = f"whale-{database.partition(':')[0]}"

    async with sold(tmp_path, database, stripe_sandbox.url) as (shop, closing):
        await shop.customer("minus", "standard", now=JANUARY)
        await shop.customer("vast", "standard", now=JANUARY)
        await shop.customer(whale_name, "standard", now=JANUARY)
        await shop.use(whale_name, {"seats": 25 + 200_000}, at=NOON)
        await shop.use("minus", {"llm_tokens": -(10**12), "seats": 27}, at=NOON)
        await shop.use("vast", {"llm_tokens": 5}, at=NOON)
        for minute in range(3):  # A minute cannot hold a larger value.
            await shop.use("vast", {"seats": 10**15 - 1}, at=NOON + 60 * minute)
        async with shop.database.reading(whole=True) as connection:
            loaded = await subscription_rows.get_by_customer(connection, "minus")
            coming = (await invoice_lines.compute_upcoming(connection, loaded, shop.known.meters)).lines
            assert [line.amount for line in coming] == [9900, 0, 1000], "below zero in total counts as none"
        await run(closing, JANUARY + 5, FEBRUARY, FEBRUARY + FREEZE)
        assert (await fetch_invoices(shop, "minus"))["2027-01-01 period"]["total"] == 10900
        vast = (await fetch_invoices(shop, "vast"))["2027-01-01 period"]
        assert (vast["state"], vast["lines"]) == ("held", [])
        assert str(vast["held_why"]).startswith(invoices.NOT_RATED)
        whale = (await fetch_invoices(shop, whale_name))["2027-01-01 period"]
        assert (whale["state"], whale["total"], sum(amounts(whale))) == ("held", 100_009_900, 100_009_900)
        assert "Stripe charges $999,999.99 at most" in str(whale["held_why"])
        drafts = at_stripe(stripe_sandbox, whale_name)
        assert [draft["status"] for draft in drafts] == ["draft", "open"]
        # After an operator accepts it, the billable lines are charged. No later invoice is held for this reason.
        async with shop.database.writing() as connection:
            again = {"accepted_why": "a meter gone wrong", "try_at": 0}
            await invoices.transition(connection, vast["id"], invoices.HELD, invoices.DRAFT, **again)
        await run(closing, FEBRUARY + FREEZE + 5, MARCH, MARCH + FREEZE)
        by_period = await fetch_invoices(shop, "vast")
        assert [by_period[f"2027-0{month}-01 period"]["state"] for month in (1, 2)] == ["open", "open"]
        assert by_period["2027-01-01 period"]["accepted_why"] is None, "its amount was compared with Stripe's"
        assert [amounts(by_period[f"2027-0{month}-01 period"])[0] for month in (1, 2)] == [9900, 9900]
        assert {line["meter"] for line in by_period["2027-01-01 period"]["lines"]} == {None, "llm_tokens"}


@ON_BOTH_IF_SOAKED
async def test_ended_subscription_is_invoiced_and_the_old_tier_returns(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    async def tier(shop: Sold, name: str) -> str:
        async with shop.database.reading() as connection:
            return str((await customers.get_row(connection, name)).tier)

    async with sold(tmp_path, database, stripe_sandbox.url) as (shop, closing):
        for name in ("leaves", "flees", "shrinks"):
            await shop.customer(name, "enterprise", now=JANUARY)
            assert await tier(shop, name) == "enterprise"
        await shop.use("flees", {"seats": 5, "llm_tokens": 20_000_000}, at=NOON - 60)
        async with shop.database.writing() as connection:
            for name, when in (("leaves", "period_end"), ("flees", "now")):
                await subscriptions.cancel_subscription(connection, CALLER, name, when, settings=shop.known, now=NOON)
        await shop.change("shrinks", "standard", now=NOON)
        assert [await tier(shop, name) for name in ("leaves", "flees", "shrinks")] == [
            "enterprise",
            "basic",
            "enterprise",
        ]
        await run(closing, NOON + FREEZE, NOON + FREEZE + 60, FEBRUARY, FEBRUARY + FREEZE)
        assert [await tier(shop, name) for name in ("leaves", "flees", "shrinks")] == ["basic", "basic", "standard"]
        fled = (await fetch_invoices(shop, "flees"))["2027-01-01 period"]
        assert (fled["state"], amounts(fled)) == ("open", [0, 5000, 0])
        assert (await fetch_invoices(shop, "leaves"))["2027-01-01 period"]["total"] == 0
        assert (await fetch_invoices(shop, "shrinks"))["2027-01-01 period"]["total"] == 9900
        async with shop.database.reading() as connection:
            assert not (await connection.execute(sa.select(table).where(table.c.period == "2027-02-01"))).all()


@ON_BOTH_IF_SOAKED
async def test_subscription_that_cannot_end_does_not_block_others(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(period_roll, "PAGE", 1)  # The stuck subscription fills the page.

    async with sold(tmp_path, database, stripe_sandbox.url) as (shop, closing):
        for name in ("stuck", "goes"):
            await shop.customer(name, "standard", now=JANUARY)
        async with shop.database.writing() as connection:
            await subscriptions.cancel_subscription(
                connection, CALLER, "stuck", "period_end", settings=shop.known, now=NOON
            )
        tiers = {name: tier for name, tier in shop.known.tiers.items() if name != "basic"}
        less = shop.known.model_copy(update={"tiers": tiers})
        closing._roll._settings = lambda: less
        await run(closing, FEBRUARY + 5, FEBRUARY + 10, FEBRUARY + 15)
        assert "2027-01-01 period" in await fetch_invoices(shop, "goes")
        assert "2027-01-01 period" not in await fetch_invoices(shop, "stuck"), "the tier that it had before is gone"
        async with shop.database.reading() as connection:
            assert list((await connection.execute(sa.select(alerts.c.kind))).scalars()) == [
                "subscription_period_failed"
            ]
        closing._roll._settings = lambda: shop.known
        await run(closing, FEBRUARY + 5 + period_roll.PAUSE_SECONDS)
        assert "2027-01-01 period" in await fetch_invoices(shop, "stuck")


@ON_BOTH_IF_SOAKED
async def test_month_with_deleted_minutes_is_held(stripe_sandbox: Sandbox, tmp_path: Path, database: str) -> None:
    async with sold(tmp_path, database, stripe_sandbox.url) as (shop, closing):
        await shop.customer("acme", "standard", now=NOON + 1800)
        await shop.use("acme", WORKED, at=NOON + 3600)
        async with shop.database.writing() as connection:
            await connection.execute(sa.update(rollup).values(minutes_from=FEBRUARY))
        await run(closing, FEBRUARY + 5, FEBRUARY + FREEZE)
        invoice = (await fetch_invoices(shop, "acme"))["2027-01-01 period"]
        assert (invoice["state"], invoice["lines"]) == ("held", [])
        assert "not kept any more" in str(invoice["held_why"])


@ON_BOTH_IF_SOAKED
async def test_negative_total_is_credit_for_the_next_invoice(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    """Stripe marks the invoice as paid and adds the credit to the customer's balance."""

    name = f"{kind(database)}-back"

    async with sold(tmp_path, database, stripe_sandbox.url) as (shop, closing):
        await shop.customer(name, "standard", now=JANUARY)
        await shop.use(name, {"agent_executions": 6000}, at=NOON)
        await run(closing, FEBRUARY, FEBRUARY + FREEZE)
        assert (await fetch_invoices(shop, name))["2027-01-01 period"]["total"] == 9900 + 10_000
        await shop.use(name, {"agent_executions": -1000}, at=NOON + 60)
        async with shop.database.writing() as connection:
            await subscriptions.cancel_subscription(
                connection, CALLER, name, "period_end", settings=shop.known, now=FEBRUARY + 60
            )
        await run(closing, MARCH, MARCH + FREEZE)
        last = (await fetch_invoices(shop, name))["2027-02-01 period"]
        assert (last["state"], last["total"]) == ("paid", -10_000)
    totals = sorted((one["total"], one["status"], one["amount_due"]) for one in at_stripe(stripe_sandbox, name))
    assert totals[0] == (-10_000, "paid", 0)
    assert find_payers(stripe_sandbox, name)[0]["balance"] == -10_000


@ON_BOTH_IF_SOAKED
def test_unexpected_failure_of_an_invoice_does_not_block_others(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks = f"{kind(database)}-breaks"
    period_lines, roll = invoice_lines.compute_period_lines, subscriptions.roll_period

    async def fails(connection: Any, row: Any, meters: Any) -> Any:
        if row.name == "odd":
            raise ZeroDivisionError
        return await period_lines(connection, row, meters)

    async def sticks(connection: Any, number: str, **how: Any) -> bool:
        loaded = await subscription_rows.get_by_id(connection, number)
        if loaded.customer.name == "stuck":
            raise ZeroDivisionError
        return await roll(connection, number, **how)

    class Faulty(Stripe):
        async def call(self, name: str, /, *ids: str, key: str | None = None, **params: Any) -> dict[str, Any]:
            if name == "v1.invoices.add_lines" and ids[0] in broken:
                raise ZeroDivisionError
            return await super().call(name, *ids, key=key, **params)

    broken: set[str] = set()

    async def work() -> None:
        async with sold(tmp_path, database, stripe_sandbox.url, Faulty) as (shop, closing):
            for name in ("odd", "stuck", breaks, "goes-on"):
                await shop.customer(name, "standard", now=JANUARY)
            await run(closing, JANUARY + 60)
            monkeypatch.setattr(invoice_lines, "compute_period_lines", fails)
            monkeypatch.setattr(subscriptions, "roll_period", sticks)
            await run(closing, FEBRUARY)
            broken.add(str((await fetch_invoices(shop, breaks))["2027-01-01 period"]["stripe_id"]))
            await run(closing, FEBRUARY + FREEZE, FEBRUARY + FREEZE + 1)
            states = {name: await fetch_invoices(shop, name) for name in ("odd", breaks, "goes-on")}
            state_by_name = {name: state["2027-01-01 period"]["state"] for name, state in states.items()}
            assert state_by_name == {"odd": "draft", breaks: "closing", "goes-on": "open"}
            assert "2027-01-01 period" not in await fetch_invoices(shop, "stuck")
            async with shop.database.reading() as connection:
                kinds = sorted((await connection.execute(sa.select(alerts.c.kind))).scalars())
            assert kinds == ["invoice_failed", "invoice_failed", "subscription_period_failed"]
            monkeypatch.undo()
            broken.clear()
            await run(closing, FEBRUARY + FREEZE + 60, FEBRUARY + 2 * FREEZE, FEBRUARY + 2 * FREEZE + 1)
            for name in ("odd", "stuck", breaks):
                assert (await fetch_invoices(shop, name))["2027-01-01 period"]["state"] == "open"

    asyncio.run(work())


def test_failed_call_does_not_undo_a_concurrent_decision(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    decided: list[Any] = []

    class Slow(Stripe):
        async def call(self, name: str, /, *ids: str, key: str | None = None, **params: Any) -> dict[str, Any]:
            if name == "v1.invoices.finalize_invoice" and decided:
                await decided.pop()()
                raise StripeCallError(CallOutcome.REFUSED, "no")
            return await super().call(name, *ids, key=key, **params)

    async def work() -> None:
        async with sold(tmp_path, database, stripe_sandbox.url, Slow) as (shop, closing):
            await shop.customer("torn", "standard", now=JANUARY)
            await run(closing, JANUARY + 60, FEBRUARY)
            number = (await fetch_invoices(shop, "torn"))["2027-01-01 period"]["id"]

            async def void() -> None:
                async with shop.database.writing() as connection:
                    values = {"state": invoices.VOIDING, "tries": 1}
                    await connection.execute(sa.update(table).where(table.c.id == number).values(values))

            decided.append(void)
            await run(closing, FEBRUARY + FREEZE, FEBRUARY + FREEZE + 5)
            assert (await fetch_invoices(shop, "torn"))["2027-01-01 period"]["state"] == "void"

    asyncio.run(work())


@ON_BOTH_IF_SOAKED
def test_failed_credit_note_is_retried_and_a_denied_key_stops_all(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    outcomes = [CallOutcome.BUSY, CallOutcome.DENIED]
    tried: list[int] = []

    class Failing(Stripe):
        async def call(self, name: str, /, *ids: str, key: str | None = None, **params: Any) -> dict[str, Any]:
            if name == "v1.credit_notes.create":
                tried.append(params["amount"])
                if outcomes:
                    raise StripeCallError(outcomes.pop(0), "no")
            return await super().call(name, *ids, key=key, **params)

    async def work() -> None:
        async with sold(tmp_path, database, stripe_sandbox.url, Failing) as (shop, closing):
            await shop.customer("noted", "standard", now=JANUARY)
            await run(closing, JANUARY + 60)
            invoice = (await fetch_invoices(shop, "noted"))["2027-01-01 start"]["id"]
            async with shop.database.writing() as connection:
                note = {"invoice": invoice, "why": "sorry", "state": "requested", "tries": 0, "created_at": 0}
                rows = [{**note, "id": f"{invoice}-{amount}", "amount": amount} for amount in (1, 2)]
                await connection.execute(sa.insert(credit_notes), rows)
            await run(closing, JANUARY + 70)
            assert tried == [1, 2], "the first is busy, and then the key is denied"
            await run(closing, JANUARY + 71, JANUARY + 129)
            assert tried == [1, 2]
            await run(closing, JANUARY + 130, JANUARY + 131)
            assert tried == [1, 2, 1, 2]
            async with shop.database.reading() as connection:
                assert set((await connection.execute(sa.select(credit_notes.c.state))).scalars()) == {"made"}

    asyncio.run(work())


async def test_refused_credit_note_raises_an_alert(
    stripe_sandbox: Sandbox, tmp_path: Path, sqlite_database: str
) -> None:
    async with sold(tmp_path, sqlite_database, stripe_sandbox.url) as (shop, closing):
        await shop.customer("note-refused", "standard", now=JANUARY)
        await run(closing, JANUARY + 60)
        invoice = (await fetch_invoices(shop, "note-refused"))["2027-01-01 start"]["id"]
        note = {"invoice": invoice, "why": "sorry", "state": "requested", "tries": 0, "created_at": 0}
        async with shop.database.writing() as connection:
            await connection.execute(sa.insert(credit_notes).values(**note, id=f"{invoice}-x", amount=10**7))
        await run(closing, JANUARY + 70)
        async with shop.database.reading() as connection:
            assert (await connection.execute(sa.select(credit_notes.c.state))).scalar_one() == "refused"
            (alert,) = await connection.execute(sa.select(alerts))
        assert (alert.kind, alert.title[:27]) == ("credit_note_failed", "A credit note cannot be mad")


def test_unexpected_failure_of_a_credit_note_does_not_block_others(
    stripe_sandbox: Sandbox, tmp_path: Path, sqlite_database: str
) -> None:
    is_broken = [True]

    class Faulty(Stripe):
        async def call(self, name: str, /, *ids: str, key: str | None = None, **params: Any) -> dict[str, Any]:
            if name == "v1.credit_notes.create" and params["amount"] == 1 and is_broken[0]:
                raise KeyError("id")
            return await super().call(name, *ids, key=key, **params)

    async def work() -> None:
        async with sold(tmp_path, sqlite_database, stripe_sandbox.url, Faulty) as (shop, closing):
            await shop.customer("note-blocked", "standard", now=JANUARY)
            await run(closing, JANUARY + 60)
            invoice = (await fetch_invoices(shop, "note-blocked"))["2027-01-01 start"]["id"]
            async with shop.database.writing() as connection:
                note = {"invoice": invoice, "why": "sorry", "state": "requested", "tries": 0, "created_at": 0}
                rows = [{**note, "id": f"{invoice}-{amount}", "amount": amount} for amount in (1, 2)]
                await connection.execute(sa.insert(credit_notes), rows)
            states = sa.select(credit_notes.c.state).order_by(credit_notes.c.id)
            await run(closing, JANUARY + 70, JANUARY + 71, JANUARY + 90)
            async with shop.database.reading() as connection:
                assert list((await connection.execute(states)).scalars()) == ["requested", "made"]
                (alert,) = await connection.execute(sa.select(alerts))
            assert (alert.kind, alert.severity) == ("credit_note_failed", "page")
            assert f"{invoice}-1" in alert.details
            is_broken[0] = False
            await run(closing, JANUARY + 4000)
            async with shop.database.reading() as connection:
                assert list((await connection.execute(states)).scalars()) == ["made", "made"]

    asyncio.run(work())


@only_sqlite("database")
async def test_due_paid_credited_and_refunded_amounts_agree_with_stripe(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    """Credit notes reduce the due amount of an open invoice and refund a paid one. The balance pays a later invoice."""
    name = f"{kind(database)}-four-numbers"

    async def credit(shop: Sold, closing: PeriodCloseJob, number: str, amount: int, now: float) -> None:
        note = {"invoice": number, "why": "sorry", "state": "requested", "tries": 0, "created_at": 0}
        async with shop.database.writing() as connection:
            await connection.execute(sa.insert(credit_notes), [{**note, "id": f"{number}-{amount}", "amount": amount}])
        await closing.step(now)

    def four(invoice: Invoice) -> tuple[int, int, int, int]:
        return (
            invoice["amount_due"],
            invoice["amount_paid"],
            invoice["amount_credited"],
            invoice["amount_refunded"],
        )

    async with sold(tmp_path, database, stripe_sandbox.url) as (shop, closing):
        await shop.customer(name, "standard", now=JANUARY)
        await run(closing, JANUARY + 60)
        first = (await fetch_invoices(shop, name))["2027-01-01 start"]
        assert four(first) == (9900, 0, 0, 0)
        (issued,) = at_stripe(stripe_sandbox, name)
        assert (first["number"], first["paid_at"]) == (issued["number"], None)
        finalized_at = format_timestamp(issued["status_transitions"]["finalized_at"] * 1000)
        assert (first["issued_at"], first["due_at"]) == (finalized_at, format_timestamp(issued["due_date"] * 1000))
        await credit(shop, closing, first["id"], 100, JANUARY + 70)
        assert four((await fetch_invoices(shop, name))["2027-01-01 start"]) == (9800, 0, 100, 0)
        path = f"/v1/invoices/{first['stripe_id']}/pay"
        await asyncio.to_thread(stripe_sandbox.call, "POST", path, "payment_method=pm_card_visa")
        (paid,) = at_stripe(stripe_sandbox, name)
        async with shop.database.writing() as connection:
            await stripe_reports.apply_stripe_invoice(connection, paid)
        settled = (await fetch_invoices(shop, name))["2027-01-01 start"]
        assert four(settled) == (0, 9800, 100, 0)
        assert settled["paid_at"] == format_timestamp(paid["status_transitions"]["paid_at"] * 1000)
        await credit(shop, closing, first["id"], 4900, JANUARY + 80)
        assert four((await fetch_invoices(shop, name))["2027-01-01 start"]) == (0, 9800, 5000, 4900)
        body = "amount=-400&currency=usd"
        path = f"/v1/customers/{paid['customer']}/balance_transactions"
        await asyncio.to_thread(stripe_sandbox.call, "POST", path, body)
        await run(closing, FEBRUARY, FEBRUARY + FREEZE)
        second = (await fetch_invoices(shop, name))["2027-01-01 period"]
        assert (four(second), second["balance_applied"], second["total"]) == ((9500, 0, 0, 0), 400, 9900)
