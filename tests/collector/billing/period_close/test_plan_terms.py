"""Terms of plans from usage to money, against the Stripe sandbox: minimum fees."""

from pathlib import Path

from tests.support.invoiced import FEBRUARY, FREEZE, JANUARY, MARCH, amounts, at, at_stripe, fetch_invoices
from tests.support.sold import sold
from tests.support.stripe_sandbox import Sandbox

PLANS = """
plans:
  team@1:
    fee: "10"
    minimum: "50"
    tier: standard
    meters: {calls: {included: 0, price: "1"}}
"""
NOON = at(2027, 1, 16, 12)
APRIL = at(2027, 4, 1)


def write_plans(folder: Path) -> str:
    file = folder / "plans.yaml"
    file.write_text(PLANS)
    return str(file)


async def test_minimum_fee_shortfall_is_a_line_that_late_usage_reduces(
    stripe_sandbox: Sandbox, tmp_path: Path, sqlite_database: str
) -> None:
    async with sold(tmp_path, sqlite_database, stripe_sandbox.url, plans=write_plans(tmp_path)) as (shop, closing):
        await shop.customer("committed", "team", now=JANUARY)
        await shop.use("committed", {"calls": 5}, at=NOON)
        for time in (FEBRUARY, FEBRUARY + FREEZE):
            await closing.step(time)
        assert amounts((await fetch_invoices(shop, "committed"))["2027-01-01 period"]) == [1000, 500, 3500]
        await shop.use("committed", {"calls": 10}, at=NOON)
        await shop.use("committed", {"calls": 60}, at=FEBRUARY)
        for time in (MARCH, MARCH + FREEZE):
            await closing.step(time)
        february = (await fetch_invoices(shop, "committed"))["2027-02-01 period"]
        assert [(line["kind"], line["amount"]) for line in february["lines"]] == [
            *(("fee", 1000), ("late", 1000), ("usage", 6000), ("minimum", -1000))
        ]
        assert february["lines"][-1]["text"] == "Minimum fee of Team, corrected, 2027-01-01 to 2027-02-01"
        for time in (APRIL, APRIL + FREEZE):
            await closing.step(time)
        march = (await fetch_invoices(shop, "committed"))["2027-03-01 period"]
        assert [(line["kind"], line["amount"]) for line in march["lines"] if line["amount"]] == [
            *(("fee", 1000), ("minimum", 4000)),
        ]
    assert sorted(one["total"] for one in at_stripe(stripe_sandbox, "committed")) == [1000, 5000, 5000, 7000]
