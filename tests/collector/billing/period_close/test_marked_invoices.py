"""Invoices that people mark as paid elsewhere, or write off: Stripe has each once, wherever it is killed."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.invoices import bookings, invoices, stripe_reports
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.journal.verification import verify_journal
from edgeproxy.collector.billing.period_close import invoice_tries
from edgeproxy.collector.billing.stripe.client import CallOutcome, Stripe, StripeCallError
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.billing_tables import credit_notes
from edgeproxy.collector.database.credit_tables import credit_entries
from tests.support.credited import read, write
from tests.support.invoiced import JANUARY, at_stripe, fetch_invoices
from tests.support.sold import Killed, Mortal, Sold, sold
from tests.support.stripe_sandbox import Sandbox

START = "2027-01-01 start"
NAMES = ("transfers", "fails", "recovers", "half-back", "card-first")


async def sums(connection: Any) -> dict[str, int]:
    total = sa.cast(sa.func.sum(credit_entries.c.amount), sa.BigInteger)
    rows = await connection.execute(sa.select(credit_entries.c.account, total).group_by(credit_entries.c.account))
    return {account: amount // CENT for account, amount in rows if amount}


async def test_marked_invoice_is_marked_at_stripe_and_booked_once(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invoice_tries, "AT_ONCE", 1)  # Else an end cuts others off in their transactions.
    names = {name: f"{database.partition(':')[0]}-{name}" for name in NAMES}

    async def mark(shop: Sold, name: str, state: str, **values: Any) -> None:
        row = (await fetch_invoices(shop, names[name]))[START]
        await write(shop.database, invoices.transition, row["id"], row["state"], state, try_at=0, tries=1, **values)

    async def run_killed(now: int) -> int:
        """Run until nothing is left to do, with an end after each call that changes something."""
        for deaths in range(50):
            async with sold(tmp_path, database, stripe_sandbox.url, Mortal) as (_, closing):
                try:
                    await closing.step(now)
                except Killed:
                    continue
                return deaths
        raise AssertionError("it dies for ever")

    async def states(shop: Sold) -> list[str]:
        return [(await fetch_invoices(shop, name))[START]["state"] for name in names.values()]

    async with sold(tmp_path, database, stripe_sandbox.url) as (shop, closing):
        for name in names.values():
            await shop.customer(name, "standard", now=JANUARY)
        await closing.step(JANUARY + 60)
        for name in ("transfers", "half-back", "card-first"):
            await mark(shop, name, invoices.SETTLING)
        for name in ("fails", "recovers"):
            await mark(shop, name, invoices.WRITING_OFF)
        # Earlier reports of Stripe change nothing, and the customer may have paid by card meanwhile.
        (open_,) = at_stripe(stripe_sandbox, names["transfers"])
        await write(shop.database, stripe_reports.apply_stripe_invoice, open_)
        (other,) = at_stripe(stripe_sandbox, names["card-first"])
        path = f"/v1/invoices/{other['id']}/pay"
        await asyncio.to_thread(stripe_sandbox.call, "POST", path, "payment_method=pm_card_visa")
        assert await states(shop) == ["settling", "writing_off", "writing_off", "settling", "settling"]
        assert await run_killed(JANUARY + 70) == 4, "the one that was paid by card needs no call"
        assert await states(shop) == ["paid", "uncollectible", "uncollectible", "paid", "paid"]
        while await bookings.book_invoices(shop.database):
            pass
        await mark(shop, "recovers", invoices.SETTLING)
        half = (await fetch_invoices(shop, names["half-back"]))[START]
        note = {"id": f"{half['id']}-4950", "invoice": half["id"], "amount": 4950, "why": "sorry", "tries": 0}
        async with shop.database.writing() as connection:
            await connection.execute(sa.insert(credit_notes), [{**note, "state": "requested", "created_at": 0}])
        assert await run_killed(JANUARY + 80) == 2
        while await bookings.book_invoices(shop.database):
            pass
        await read(shop.database, verify_journal)
        # Three of the five were paid by transfer, and half of one of them was refunded. One was paid by card, one
        # is lost.
        booked = await read(shop.database, sums)
        assert (booked.pop("bank"), booked.pop("clearing"), booked.pop("bad_debt")) == (24750, 9900, 9900)
        assert booked == {"deferred_fees": -44550}, "a note takes its share off the fee, of which nothing is earned yet"
        async with shop.database.reading() as connection:
            kinds = list((await connection.execute(sa.select(alerts.c.kind))).scalars())
        assert kinds == [AlertKind.INVOICE_PAID_TWICE]
    there = [at_stripe(stripe_sandbox, name) for name in names.values()]
    assert [[(one["status"], one["amount_paid_off_stripe"]) for one in of_one] for of_one in there] == [
        [("paid", 9900)],
        [("uncollectible", 0)],
        [("paid", 9900)],
        [("paid", 9900)],
        [("paid", 0)],
    ]


def test_refused_invoice_mark_is_retried_with_a_new_key_without_delaying_others(
    stripe_sandbox: Sandbox, tmp_path: Path, sqlite_database: str
) -> None:
    keys: list[str | None] = []

    class Refusing(Stripe):
        async def call(self, name: str, /, *ids: str, key: str | None = None, **params: Any) -> dict[str, Any]:
            if name in ("v1.invoices.mark_uncollectible", "v1.invoices.void_invoice"):
                keys.append(key)
                if len(keys) <= 2:
                    raise StripeCallError(CallOutcome.REFUSED, "not now")
            return await super().call(name, *ids, key=key, **params)

    async def work() -> None:
        async with sold(tmp_path, sqlite_database, stripe_sandbox.url, Refusing) as (shop, closing):
            for name, state in (("lost", invoices.WRITING_OFF), ("taken-back", invoices.VOIDING)):
                await shop.customer(name, "standard", now=JANUARY)
                await closing.step(JANUARY + 60)
                number = (await fetch_invoices(shop, name))[START]["id"]
                await write(shop.database, invoices.transition, number, invoices.OPEN, state)
            for seconds in (70, 80, 90):
                await closing.step(JANUARY + seconds)
            assert [(await fetch_invoices(shop, name))[START]["state"] for name in ("lost", "taken-back")] == [
                "uncollectible",
                "void",
            ]

    asyncio.run(work())
    assert len(keys) == len(set(keys)) == 4


@pytest.mark.parametrize(("state", "decided"), [(invoices.VOIDING, "void"), (invoices.WRITING_OFF, "uncollectible")])
@pytest.mark.parametrize("is_reported", [True, False])
async def test_a_decision_that_comes_too_late_raises_an_alert(
    stripe_sandbox: Sandbox, tmp_path: Path, sqlite_database: str, state: str, decided: str, is_reported: bool
) -> None:
    """The customer pays by card before Stripe hears of the decision; the webhook or the job learns it first."""
    name = f"late-{decided}-{is_reported}"

    async with sold(tmp_path, sqlite_database, stripe_sandbox.url) as (shop, closing):
        await shop.customer(name, "standard", now=JANUARY)
        await closing.step(JANUARY + 60)
        row = (await fetch_invoices(shop, name))[START]
        await write(shop.database, invoices.transition, row["id"], row["state"], state, try_at=0, tries=1)
        path = f"/v1/invoices/{row['stripe_id']}/pay"
        await asyncio.to_thread(stripe_sandbox.call, "POST", path, "payment_method=pm_card_visa")
        if is_reported:
            (paid,) = at_stripe(stripe_sandbox, name)
            await write(shop.database, stripe_reports.apply_stripe_invoice, paid)
        await closing.step(JANUARY + 70)
        assert (await fetch_invoices(shop, name))[START]["state"] == "paid"
        async with shop.database.reading() as connection:
            (alert,) = (await connection.execute(sa.select(alerts))).all()
        assert (alert.kind, f"to become {decided}: it is paid" in alert.title) == ("decision_failed", True)
