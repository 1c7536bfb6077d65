"""Declined payments against the Stripe sandbox: alerts, retries, another card, and the end of a pause."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.billing.invoices import dunning
from edgeproxy.collector.billing.jobs.period_close import PeriodCloseJob
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.stripe.client import Stripe
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.billing_tables import dunning as dunning_table
from edgeproxy.collector.database.billing_tables import invoices
from tests.support.collector_fixtures import only_sqlite
from tests.support.invoiced import (
    FEBRUARY,
    FREEZE,
    JANUARY,
    apply_stripe_events,
    at_stripe,
    count_sent,
    fetch_invoices,
    set_card,
)
from tests.support.sold import CALLER, Killed, Sold, sold
from tests.support.stripe_sandbox import Sandbox

pytestmark = pytest.mark.usefixtures("secret_key")

DAY = 86400
DECLINED, GOOD = "pm_card_chargeCustomerFail", "pm_card_visa"
RETURNED, DEBITED = "pm_usBankAccount_insufficientFunds", "pm_usBankAccount_success"
CLOSED = FEBRUARY + FREEZE


async def tries(shop: Sold) -> list[tuple[str, int, int | None]]:
    column = dunning_table.c
    async with shop.database.reading() as connection:
        rows = await connection.execute(
            sa.select(column.state, column.declines, column.retry_at).order_by(column.invoice)
        )
        return [(row[0], row[1], row[2]) for row in rows]


async def failures(shop: Sold) -> list[Any]:
    """Return the alerts of declined payments."""
    statement = sa.select(alerts).where(alerts.c.kind == "payment_failed").order_by(alerts.c.id)
    async with shop.database.reading() as connection:
        return list(await connection.execute(statement))


async def pay_by_page(sandbox: Sandbox, shop: Sold, name: str, invoice: str) -> None:
    """Have a customer pay an invoice on its page at Stripe."""
    number = (await fetch_invoices(shop, name))[invoice]["stripe_id"]
    await asyncio.to_thread(sandbox.call, "POST", f"/v1/invoices/{number}/pay", f"payment_method={GOOD}")


async def close_declined(
    sandbox: Sandbox, shop: Sold, closing: PeriodCloseJob, name: str, *, invoices: int = 1, card: str = DECLINED
) -> list[int]:
    """Decline a customer's card for this number of invoices. Return the times of the declines.

    The first invoice was mailed before the customer had a card, and is paid.
    """
    await shop.customer(name, "standard", now=JANUARY)
    await closing.step(JANUARY + 5)
    await pay_by_page(sandbox, shop, name, "2027-01-01 start")
    set_card(sandbox, name, card)
    await apply_stripe_events(shop)
    times = [CLOSED, CLOSED + 28 * DAY][:invoices]
    for time in times:
        await closing.step(time - FREEZE)
        await closing.step(time)
    return times


@only_sqlite("database")
def test_declined_payment_raises_an_alert_and_is_retried_four_times(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    name = f"{database.partition(':')[0]}-declined"

    async def work() -> None:
        async with sold(tmp_path, database, stripe_sandbox.url) as (shop, closing):
            await close_declined(stripe_sandbox, shop, closing, name)
            (alert,) = await failures(shop)
            assert (alert.severity, alert.customer) == ("warn", name), "the customer reads it too"
            details = orjson.loads(alert.details)
            assert details["pay"].startswith("http")
            assert (details["amount"], details["why"]) == ("99.00 USD", "Your card was declined.")
            assert details["decline_reason"] == "other", "the bank gave no reason"
            for tries_made, days in enumerate((1, 3, 5, 7), start=1):
                assert await tries(shop) == [("retrying", tries_made, CLOSED + days * DAY)]
                await closing.step(CLOSED + days * DAY - 1)
                assert len(await failures(shop)) == tries_made, "not before its time"
                await closing.step(CLOSED + days * DAY)
            assert await tries(shop) == [("exhausted", 5, None)]
            (period,) = [invoice for invoice in (await fetch_invoices(shop, name)).values() if invoice["declined"]]
            first_at = format_timestamp(CLOSED * 1000)
            assert period["declined"] == {"times": 5, "first_at": first_at, "retry_at": None, "reason": "other"}
            assert period["due_at"] == period["issued_at"], "an automatic charge is due at once"
            await closing.step(CLOSED + 20 * DAY)
            assert [alert.severity for alert in await failures(shop)] == ["warn", "info", "info", "info", "warn"]

    asyncio.run(work())
    (period,) = [one for one in at_stripe(stripe_sandbox, name) if one["collection_method"] == "charge_automatically"]
    assert (period["attempt_count"], period["status"]) == (5, "open")


async def test_new_card_retries_all_open_invoices_and_ends_the_pause(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    name = f"{database.partition(':')[0]}-changed"

    async with sold(tmp_path, database, stripe_sandbox.url) as (shop, closing):
        _, second = await close_declined(stripe_sandbox, shop, closing, name, invoices=2)
        now = second + 30 * DAY
        for days in (1, 3, 5, 7, 30):
            await closing.step(second + days * DAY)
        assert [state for state, _, _ in await tries(shop)] == ["exhausted", "exhausted"]
        async with shop.database.writing() as connection:
            assert await dunning.pause_and_release(connection, shop.known, now, [name]) == ([name], [])
        declines = len(await failures(shop))
        await apply_stripe_events(shop)
        await closing.step(now)
        assert len(await failures(shop)) == declines, "nothing has changed about the card that is charged"
        set_card(stripe_sandbox, name, GOOD)
        await apply_stripe_events(shop)
        await closing.step(now)
        states = {period: invoice["state"] for period, invoice in (await fetch_invoices(shop, name)).items()}
        assert {states.pop("2027-03-01 period", "draft")} == {"draft"}
        assert set(states.values()) == {"paid"}, states
        async with shop.database.writing() as connection:
            assert await dunning.pause_and_release(connection, shop.known, now, [name]) == ([], [name])


@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
def test_lost_payment_retry_counts_once_and_stopped_charging_pauses_retries(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    name = f"{database.partition(':')[0]}-retry-killed"

    lost: set[str] = set()

    class Lost(Stripe):
        async def call(self, call_name: str, /, *ids: str, key: str | None = None, **params: Any) -> dict[str, Any]:
            answer = await super().call(call_name, *ids, key=key, **params)
            if call_name == "v1.invoices.retrieve" and params.get("expand") and ids[0] not in lost:
                lost.add(ids[0])
                raise Killed  # The card is declined, but the collector dies before it reads the answer.
            return answer

    async def work() -> None:
        async with sold(tmp_path, database, stripe_sandbox.url) as (shop, closing):
            await close_declined(stripe_sandbox, shop, closing, name)
            async with shop.database.writing() as connection:
                await charging.stop_charging(connection, CALLER, "free", "a fault")
            await closing.step(CLOSED + DAY)
            assert len(await failures(shop)) == 1
            async with shop.database.writing() as connection:
                await charging.resume_charging(connection, CALLER, "mended")
        async with sold(tmp_path, database, stripe_sandbox.url, Lost) as (shop, closing):
            with pytest.raises(BaseException) as died:
                await closing.step(CLOSED + DAY)
            assert isinstance(died.value, Killed)
            await closing.step(CLOSED + DAY + 1)
            assert await tries(shop) == [("retrying", 2, CLOSED + 3 * DAY)]

    asyncio.run(work())
    (period,) = [one for one in at_stripe(stripe_sandbox, name) if one["collection_method"] == "charge_automatically"]
    assert period["attempt_count"] == 2, "the first time, and once more"


async def test_bank_debit_stays_processing_until_the_bank_declines_it(
    own_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    name = f"{database.partition(':')[0]}-debited"

    async with sold(tmp_path, database, own_sandbox.url) as (shop, closing):
        await close_declined(own_sandbox, shop, closing, name, card=RETURNED)
        assert await tries(shop) == [("processing", 0, CLOSED + DAY)]
        await apply_stripe_events(shop)
        await closing.step(CLOSED + DAY)
        assert await tries(shop) == [("processing", 0, CLOSED + 2 * DAY)]
        async with shop.database.writing() as connection:
            among = [name]
            assert await dunning.pause_and_release(connection, shop.known, CLOSED + 99 * DAY, among) == ([], [])
        assert await failures(shop) == [], "nothing has failed, and there is nothing to do for the customer"
        await asyncio.to_thread(own_sandbox.advance, 4 * DAY + 60)
        await apply_stripe_events(shop)
        await closing.step(CLOSED + 2 * DAY - 1)
        (alert,) = await failures(shop)
        details = orjson.loads(alert.details)
        assert "insufficient funds" in details["why"]
        assert details["decline_reason"] == "funds"
        assert await tries(shop) == [("retrying", 1, CLOSED + 3 * DAY - 1)]
        set_card(own_sandbox, name, DEBITED)
        await apply_stripe_events(shop)
        await closing.step(CLOSED + 2 * DAY)
        assert await tries(shop) == [("processing", 1, CLOSED + 3 * DAY)], "by the other account"
        declined = (await fetch_invoices(shop, name))["2027-01-01 period"]["declined"]
        assert declined["reason"] == "funds", "the last decline was for it, whatever is under way"
        await asyncio.to_thread(own_sandbox.advance, 4 * DAY + 60)
        await closing.step(CLOSED + 3 * DAY)
        assert len(await failures(shop)) == 1
        states = {period: invoice["state"] for period, invoice in (await fetch_invoices(shop, name)).items()}
        assert states["2027-01-01 period"] == "paid", "though no event has come"


async def test_new_card_is_charged_after_a_pending_debit_is_returned(
    own_sandbox: Sandbox, tmp_path: Path, sqlite_database: str
) -> None:
    async with sold(tmp_path, sqlite_database, own_sandbox.url) as (shop, closing):
        await close_declined(own_sandbox, shop, closing, "changed", card=RETURNED)
        set_card(own_sandbox, "changed", GOOD)
        await apply_stripe_events(shop)
        assert await tries(shop) == [("processing", 0, CLOSED + DAY)], "the debit may still succeed"
        await asyncio.to_thread(own_sandbox.advance, 4 * DAY + 60)
        await closing.step(CLOSED + DAY)
        await closing.step(CLOSED + DAY + 5)
        states = {period: invoice["state"] for period, invoice in (await fetch_invoices(shop, "changed")).items()}
        assert states["2027-01-01 period"] == "paid"


async def test_a_debit_that_fails_after_an_update_from_before_is_a_decline_too(
    own_sandbox: Sandbox, tmp_path: Path, sqlite_database: str
) -> None:
    async with sold(tmp_path, sqlite_database, own_sandbox.url) as (shop, closing):
        await close_declined(own_sandbox, shop, closing, "updated", card=RETURNED)
        # As if a version that recorded no debits had closed this invoice.
        async with shop.database.writing() as connection:
            await connection.execute(sa.delete(dunning_table))
        await asyncio.to_thread(own_sandbox.advance, 4 * DAY + 60)
        await apply_stripe_events(shop)
        await closing.step(CLOSED + DAY)
        assert await tries(shop) == [("retrying", 1, CLOSED + 2 * DAY)]


def test_mailed_invoice_is_charged_at_its_due_date_to_a_new_card(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    name = f"{database.partition(':')[0]}-mailed"
    due = FEBRUARY + DAY

    async def work() -> None:
        async with sold(tmp_path, database, stripe_sandbox.url) as (shop, closing):
            await shop.customer(name, "standard", now=JANUARY)
            await closing.step(JANUARY + 5)
            await closing.step(FEBRUARY)  # The new draft will be mailed.
            await apply_stripe_events(shop)
            async with shop.database.writing() as connection:  # The sandbox stamps them with today's date.
                await connection.execute(sa.update(invoices).values(issued_at=JANUARY, due_at=due))
            set_card(stripe_sandbox, name, DECLINED)
            await apply_stripe_events(shop)
            await closing.step(due - 1)
            assert await tries(shop) == [], "the customer has time until then"
            await closing.step(due)
            assert await tries(shop) == [("retrying", 1, due + DAY)]
            async with shop.database.writing() as connection:
                assert await dunning.pause_and_release(connection, shop.known, due, [name]) == ([name], [])
            set_card(stripe_sandbox, name, GOOD)
            await apply_stripe_events(shop)
            await closing.step(CLOSED)
            states = {period: invoice["state"] for period, invoice in (await fetch_invoices(shop, name)).items()}
            assert states == {"2027-01-01 start": "paid", "2027-01-01 period": "paid"}
            async with shop.database.writing() as connection:
                assert await dunning.pause_and_release(connection, shop.known, CLOSED, [name]) == ([], [name])

    asyncio.run(work())
    assert [one["collection_method"] for one in at_stripe(stripe_sandbox, name)] == ["send_invoice"] * 2
    assert count_sent(stripe_sandbox, name) == 1, "by the freeze of the second one there was a card"
