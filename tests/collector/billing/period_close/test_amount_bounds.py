"""The table in docs/billing/billing.md about amounts that Stripe does not charge, walked for every way of payment."""

import asyncio
import re
from pathlib import Path

import sqlalchemy as sa

from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.billing.stripe.client import Stripe
from edgeproxy.collector.billing.stripe.customers import StripeCustomers
from edgeproxy.collector.database.schema import customers as customers_table
from loadtest.testbed.process import ROOT
from loadtest.testbed.tables_ready import put_tables
from tests.support.era import era
from tests.support.invoiced import FEBRUARY, FREEZE, JANUARY, MARCH, ON_BOTH_IF_SOAKED, fetch_invoices
from tests.support.sold import KEY, Sold, sold
from tests.support.stripe_sandbox import Sandbox

PLANS = 'plans: {small@1: {fee: "0", tier: standard, meters: {calls: {price: "0.01"}}}}'
DAY = 86400
SIZES = {"below the least charge": 30, "above 99,999,999": 100_000_500, "below zero": -1000}
"""The amount due of the second month, in cents, by the rows of the table."""
CREDIT = 700
"""The cents that the balance of a customer has for the invoice."""


def read_table() -> dict[str, dict[str, str]]:
    """Return the rule for each amount and way of payment, as the page says it."""
    text = (ROOT / "docs/billing/billing.md").read_text().partition("### Amounts that Stripe does not charge")[2]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in re.findall(r"^\|.*\|$", text, re.MULTILINE)[:5]]
    head = rows[0][1:]
    return {row[0]: dict(zip(head, row[1:], strict=True)) for row in rows[2:]}


async def use_for(shop: Sold, name: str, size: str, paid_by_balance: int = 0) -> None:
    """Report usage that makes this amount due. An amount below zero takes back usage that was invoiced."""
    due = SIZES[size]
    await shop.use(
        name, {"calls": due if due < 0 else due + paid_by_balance}, at=JANUARY + DAY if due < 0 else FEBRUARY
    )


def classify(invoice: invoices.Invoice, due: int, balance: int) -> str:
    """Return the word of the table for the outcome of an invoice. A balance above zero is a debt."""
    settles = invoices.SETTLING in invoices.TRANSITIONS[invoice["state"]]
    if invoice["state"] == "held" and "at most" in str(invoice["held_why"]):
        return "held"
    if (invoice["state"], invoice["amount_paid"], settles, balance) == ("paid", 0, False, due):
        return "carried" if due > 0 else "credited"
    return f"{invoice['state']}, {invoice['amount_paid']}, {balance}"


async def prepare_customer(shop: Sold, sandbox: Sandbox, stripe: Stripe, name: str, way: str) -> str:
    """Create a customer with this way of payment and with usage in January. Return its id at Stripe."""
    await shop.customer(name, "small", now=JANUARY)
    await shop.use(name, {"calls": 5000}, at=JANUARY + DAY)
    async with shop.database.reading() as connection:
        by_name = sa.select(customers_table.c.id).where(customers_table.c.name == name)
        number = (await connection.execute(by_name)).scalar_one()
    stripe_id = await StripeCustomers(shop.database, stripe).get_or_create(number, name, tries=0, since=0)
    if way == "by card":
        card = "invoice_settings[default_payment_method]=pm_card_visa"
        assert (await asyncio.to_thread(sandbox.call, "POST", f"/v1/customers/{stripe_id}", card)).status == 200
    return stripe_id


def get_name(way: str, size: str) -> str:
    return f"{way} {size}".replace(" ", "-").replace(",", "")


def get_balance(sandbox: Sandbox, stripe_id: str) -> int:
    return int(sandbox.call("GET", f"/v1/customers/{stripe_id}").json()["balance"])


@ON_BOTH_IF_SOAKED
async def test_amounts_out_of_bounds_follow_the_table(stripe_sandbox: Sandbox, tmp_path: Path, database: str) -> None:
    file = tmp_path / "plans.yaml"
    file.write_text(PLANS)
    outcomes: dict[str, dict[str, str]] = {size: {} for size in SIZES}

    async with sold(tmp_path, database, stripe_sandbox.url, plans=str(file)) as (shop, closing):
        assert shop.known.billing is not None
        stripe = Stripe(shop.known.billing.stripe, KEY)
        stripe_ids: dict[tuple[str, str], str] = {}
        for way in ("by card", "mailed", "from the balance"):
            for size in SIZES:
                name = get_name(way, size)
                stripe_ids[way, size] = await prepare_customer(shop, stripe_sandbox, stripe, name, way)
        for time in (FEBRUARY, FEBRUARY + FREEZE):
            await closing.step(time)
        for (way, size), stripe_id in stripe_ids.items():
            pays = CREDIT if way == "from the balance" else 0
            if pays:
                path = f"/v1/customers/{stripe_id}/balance_transactions"
                body = f"amount={-pays}&currency=usd"
                assert (await asyncio.to_thread(stripe_sandbox.call, "POST", path, body)).status == 200
            await use_for(shop, get_name(way, size), size, pays)
        for time in (MARCH, MARCH + FREEZE):
            await closing.step(time)
        await stripe.close()
        for (way, size), stripe_id in stripe_ids.items():
            invoice = (await fetch_invoices(shop, get_name(way, size)))["2027-02-01 period"]
            balance = await asyncio.to_thread(get_balance, stripe_sandbox, stripe_id)
            if way == "from the balance" and SIZES[size] < 0:
                balance += CREDIT
            outcomes[size][way] = classify(invoice, SIZES[size], balance)
    table = read_table()
    assert outcomes == {size: {way: table[size][way] for way in row} for size, row in outcomes.items()}


def test_amounts_of_meters_follow_the_table(own_sandbox: Sandbox, tmp_path: Path) -> None:
    """An amount that is too large can be voided, though its draft at Stripe cannot be finalized."""
    file = tmp_path / "plans.yaml"
    file.write_text(PLANS)

    async def work() -> dict[str, str]:
        where = put_tables(f"sqlite:///{tmp_path}/ledger.db")
        async with era(tmp_path, where, own_sandbox, JANUARY, plans=str(file)) as timeline:
            stripe_ids = {}
            assert timeline.of.known.billing is not None
            stripe = Stripe(timeline.of.known.billing.stripe, KEY)
            for number, size in enumerate(SIZES):
                stripe_ids[size] = await prepare_customer(timeline.of, own_sandbox, stripe, f"c-{number}", "mailed")
            await stripe.close()
            await timeline.turns(2)
            for month in (FEBRUARY, MARCH):
                await timeline.to(month + 5)
                await timeline.turns(2)
                await timeline.to(month + FREEZE)
                await timeline.turns(4, 301)
                if month == FEBRUARY:  # Its usage is invoiced: usage below zero is late.
                    for number, size in enumerate(SIZES):
                        await use_for(timeline.of, f"c-{number}", size)
            outcomes = {}
            for number, size in enumerate(SIZES):
                invoice = (await fetch_invoices(timeline.of, f"c-{number}"))["2027-02-01 period"]
                balance = await asyncio.to_thread(get_balance, own_sandbox, stripe_ids[size])
                outcomes[size] = classify(invoice, SIZES[size], balance)
                if outcomes[size] == "held":
                    async with timeline.of.database.writing() as connection:
                        voided = {"voided_why": "by hand", "try_at": 0}
                        await invoices.transition(connection, invoice["id"], invoices.HELD, invoices.VOIDING, **voided)
                    await timeline.turns(2)
                    assert (await fetch_invoices(timeline.of, f"c-{number}"))["2027-02-01 period"]["state"] == "void"
            return outcomes

    assert asyncio.run(work()) == {size: read_table()[size]["by `meters`"] for size in SIZES}
