"""Fees and usage whose invoice was taken off, wholly or in part, and what later invoices charge, with the sandbox."""

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.billing.period_close import explanation
from edgeproxy.collector.database.billing_tables import credit_notes
from edgeproxy.collector.database.billing_tables import invoices as table
from tests.support.invoiced import FEBRUARY, FREEZE, JANUARY, MARCH, ON_BOTH_IF_SOAKED, at, fetch_invoices
from tests.support.sold import Sold, sold
from tests.support.stripe_sandbox import Sandbox

PLANS = """
plans:
  small@1: {fee: "100", tier: standard, meters: {calls: {included: 0, price: "1"}}}
  large@1: {fee: "500", tier: enterprise, meters: {calls: {included: 0, price: "1"}}}
"""
NOON = at(2027, 1, 16, 12)
"""Half of January."""
START, CHANGE, PERIOD = "2027-01-01 start", "2027-01-01 change", "2027-01-01 period"
NEXT = "2027-02-01 period"


async def take_off(shop: Sold, invoice: dict[str, Any], state: str) -> None:
    """Void an invoice, or give it another such state, as a report of Stripe's does; or credit a part of it."""
    async with shop.database.writing() as connection:
        if state.startswith("credit"):
            amount = int(state.partition(" ")[2])
            note = {"id": f"{invoice['id'][:-1]}_", "invoice": invoice["id"], "amount": amount, "state": "made"}
            more = {"why": "agreed", "tries": 0, "created_at": 0}
            await connection.execute(sa.insert(credit_notes).values(**note, **more))
        else:
            await connection.execute(sa.update(table).where(table.c.id == invoice["id"]).values(state=state))


async def fetch_lines(shop: Sold, name: str, invoice: str) -> list[tuple[str, int]]:
    return [(line["kind"], line["amount"]) for line in (await fetch_invoices(shop, name))[invoice]["lines"]]


UNUSED = {"paid": -5000, "void": 0, "voiding": 0, "uncollectible": 0, "writing_off": 0, "waived": 0}
UNUSED |= {"credit 4000": -3000, "credit 10000": 0}
"""The credit for half of a fee of $100, by the state of its invoice."""


@ON_BOTH_IF_SOAKED
async def test_upgrade_credits_the_unused_part_of_the_remaining_fee(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    file = tmp_path / "plans.yaml"
    file.write_text(PLANS)
    names = {f"{database.partition(':')[0]}-{state.replace(' ', '-')}-then-upgrade": state for state in UNUSED}

    async with sold(tmp_path, database, stripe_sandbox.url, plans=str(file)) as (shop, closing):
        for name in names:
            await shop.customer(name, "small", now=JANUARY)
        await closing.step(JANUARY + 5)
        for name, state in names.items():
            await take_off(shop, (await fetch_invoices(shop, name))[START], state)
            await shop.change(name, "large", now=NOON)
            change = await fetch_lines(shop, name, CHANGE)
            assert change == [("proration", UNUSED[state]), ("proration", 25000)], state
        for time in (FEBRUARY, FEBRUARY + FREEZE):
            await closing.step(time)
        for name, state in names.items():
            period = await fetch_lines(shop, name, PERIOD)
            assert period == [("fee", 50000)], f"{state}: nothing of the change is charged again"


async def test_later_invoices_account_for_lines_taken_off_earlier_invoices(
    stripe_sandbox: Sandbox, tmp_path: Path, sqlite_database: str
) -> None:
    """The fee becomes void after the upgrade gave a half of it back, and usage becomes void before more arrives."""
    file = tmp_path / "plans.yaml"
    file.write_text(PLANS)

    async with sold(tmp_path, sqlite_database, stripe_sandbox.url, plans=str(file)) as (shop, closing):
        for name in ("fee-void-later", "usage-void"):
            await shop.customer(name, "small", now=JANUARY)
        await closing.step(JANUARY + 5)
        await shop.change("fee-void-later", "large", now=NOON)
        await shop.use("usage-void", {"calls": 30}, at=NOON)
        for time in (FEBRUARY, FEBRUARY + FREEZE):
            await closing.step(time)
        await take_off(shop, (await fetch_invoices(shop, "fee-void-later"))[START], "void")
        await take_off(shop, (await fetch_invoices(shop, "usage-void"))[PERIOD], "void")
        await shop.use("usage-void", {"calls": 5}, at=NOON)
        for time in (MARCH, MARCH + FREEZE):
            await closing.step(time)
        assert await fetch_lines(shop, "fee-void-later", NEXT) == [("proration", 5000), ("fee", 50000)]
        assert await fetch_lines(shop, "usage-void", NEXT) == [("fee", 10000), ("late", 500)]
        february = (await fetch_invoices(shop, "fee-void-later"))[NEXT]
        assert february["lines"][0]["text"] == "Unused time of Small, corrected, 2027-01-16 to 2027-02-01"
        async with shop.database.reading() as connection:
            (row,) = await invoices.fetch_invoices(connection, table.c.id == february["id"])
            why = await explanation.explain_line(connection, row, 0, shop.known.meters)
        assert "less -5000 that does not stand" in why.formula
