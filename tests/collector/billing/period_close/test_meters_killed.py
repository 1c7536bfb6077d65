"""A collector that dies after every call of Stripe's that changes anything, under `collection: meters`."""

import asyncio
from pathlib import Path
from typing import Any

from loadtest.testbed.tables_ready import put_tables
from tests.support.era import Era, era
from tests.support.invoiced import FEBRUARY, FREEZE, JANUARY, at_stripe, fetch_invoices
from tests.support.sold import Killed, Mortal
from tests.support.stripe_sandbox import Sandbox

DAY = 86400


async def turns(timeline: Era, count: int, seconds: float = 61.0) -> int:
    """Do the due work this number of times, and restart killed jobs. Return the number of kills."""
    killed = 0
    while count:
        try:
            await timeline.turns(1, seconds)
            count -= 1
        except Killed:
            killed += 1
            await timeline.exports.take_over()
    return killed


def test_a_month_with_a_change_is_charged_once_however_often_it_is_killed(own_sandbox: Sandbox, tmp_path: Path) -> None:
    async def work() -> tuple[int, dict[str, Any]]:
        where = put_tables(f"sqlite:///{tmp_path}/ledger.db")
        async with era(tmp_path, where, own_sandbox, JANUARY, Mortal) as timeline:
            await timeline.of.customer("mortal", "standard", now=JANUARY)
            await timeline.of.use("mortal", {"llm_tokens": 1_100_000}, at=JANUARY + DAY)
            killed = await turns(timeline, 2)
            await timeline.to(JANUARY + 3 * DAY)
            await timeline.of.change("mortal", "enterprise", now=timeline.now())
            await timeline.of.use("mortal", {"llm_tokens": 10_200_000}, at=JANUARY + 5 * DAY)
            killed += await turns(timeline, 3)
            await timeline.to(FEBRUARY + 5)
            killed += await turns(timeline, 2)
            await timeline.to(FEBRUARY + FREEZE)
            killed += await turns(timeline, 4, 301)
            return killed, dict(await fetch_invoices(timeline.of, "mortal"))

    killed, by_period = asyncio.run(work())
    period = by_period["2027-01-01 period"]
    assert (period["total"], period["state"]) == (49900 + 100 + 100, "open")
    assert killed >= 10, "it was killed at each step"
    totals = sorted(one["total"] for one in at_stripe(own_sandbox, "mortal"))
    assert totals == sorted(invoice["total"] for invoice in by_period.values())
    assert len(own_sandbox.journal("customer.subscription.created")) == 1
