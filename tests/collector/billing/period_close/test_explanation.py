"""The explanation of a line adds up to its amount, for any usage, changes and late usage."""

import random
from pathlib import Path

import pytest

from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.billing.invoices import invoices, line_rows
from edgeproxy.collector.billing.period_close.explanation import explain_line
from edgeproxy.collector.database.schema import customers
from tests.support.credited import read
from tests.support.invoiced import FEBRUARY, FREEZE, JANUARY, MARCH, at
from tests.support.sold import sold
from tests.support.stripe_sandbox import Sandbox

METERS = ("llm_tokens", "agent_executions", "api_calls")
APRIL, CHANGED = at(2027, 4, 1), at(2027, 1, 16, 12)


async def test_explanation_adds_up_to_each_invoice_line(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str, seed: int
) -> None:
    drawn = random.Random(seed)

    async with sold(tmp_path, database, stripe_sandbox.url) as (shop, closing):
        name = f"{database.partition(':')[0]}-explained"
        await shop.customer(name, "standard", now=JANUARY)
        for month, close in ((JANUARY, FEBRUARY), (FEBRUARY, MARCH), (MARCH, APRIL)):
            if month == JANUARY:
                await shop.change(name, "enterprise", now=CHANGED)
            for _ in range(20):
                minute = drawn.randrange(JANUARY, month + 28 * 86400)  # A minute of an earlier month is late usage.
                await shop.use(name, {meter: drawn.randrange(1, 3_000_000) for meter in METERS}, at=minute)
            await closing.step(close)
            await closing.step(close + FREEZE)
        rows = await read(shop.database, invoices.fetch_invoices, customers.c.name == name)
        late, quantities, hours = 0, {}, {}
        for row in rows:
            lines = await read(shop.database, line_rows.fetch_lines, row.id)
            for position, line in enumerate(lines):
                why = await read(shop.database, explain_line, row, position, shop.known.meters)
                assert why.placed.line == line
                assert why.rated - sum(one.line.amount for one in why.before) == line.amount, why
                late += bool(why.before)
                if why.hours is not None:
                    key = line.segment.start, line.meter
                    quantities[key] = quantities.get(key, 0) + line.quantity
                    hours[key] = sum(used for _, used in why.hours)
            with pytest.raises(ChangeRejectedError, match="no such line"):
                await read(shop.database, explain_line, row, len(lines), shop.known.meters)
        assert quantities == hours, "the tiers of a segment are its hours"
        assert (len(quantities) > 9, late > 0) == (True, True)
