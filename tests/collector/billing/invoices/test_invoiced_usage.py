"""Usage that is on a closed invoice, and so cannot be taken back any more."""

from pathlib import Path

import pytest

from edgeproxy.collector.billing.invoices.invoiced_usage import find_invoiced
from edgeproxy.collector.billing.subscriptions import subscriptions
from tests.support.invoiced import FEBRUARY, FREEZE, JANUARY, MARCH, at
from tests.support.sold import CALLER, sold
from tests.support.stripe_sandbox import Sandbox

PLANS = 'plans:\n  small@1: {fee: "0", tier: standard, meters: {calls: {included: 0, price: "1"}}}\n'
HOUR = 3600
ENDED = at(2027, 1, 10, 12)


@pytest.mark.both_databases
async def test_usage_counts_as_invoiced_after_its_segment_invoice_is_closed(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str
) -> None:
    """A subscription that ended within its period has an invoice of its own, and the part that goes on another one."""
    file = tmp_path / "plans.yaml"
    file.write_text(PLANS)
    name = f"{database.partition(':')[0]}-corrects"
    before, gap, after, next_month = ENDED - HOUR, ENDED + HOUR // 2, ENDED + 2 * HOUR, FEBRUARY
    uses = {(name, second) for second in (JANUARY - 1, JANUARY, before, ENDED - 1, ENDED, gap, after, next_month)}

    async with sold(tmp_path, database, stripe_sandbox.url, plans=str(file)) as (shop, closing):

        async def find() -> list[int]:
            async with shop.database.reading() as connection:
                assert await find_invoiced(connection, set()) == set()
                invoiced = await find_invoiced(connection, {*uses, ("nobody", before)})
            return sorted(second - ENDED for _, second in invoiced)

        await shop.customer(name, "small", now=JANUARY)
        async with shop.database.writing() as connection:
            await subscriptions.cancel_subscription(connection, CALLER, name, "now", settings=shop.known, now=ENDED)
        await shop.subscribe(name, "small", now=ENDED + HOUR)
        await closing.step(ENDED + 2 * HOUR)
        assert await find() == [], "the invoice is a draft"
        await closing.step(ENDED + FREEZE)
        first = [JANUARY - ENDED, -HOUR, -1]
        assert await find() == first
        for time in (FEBRUARY, FEBRUARY + FREEZE):
            await closing.step(time)
        assert await find() == [*first, 2 * HOUR]
        for time in (MARCH, MARCH + FREEZE):
            await closing.step(time)
        assert await find() == [*first, 2 * HOUR, FEBRUARY - ENDED]
