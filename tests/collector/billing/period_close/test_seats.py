"""Held places, for example seats, are invoiced. They are returned or expire."""

from calendar import timegm
from pathlib import Path

import pytest
import yaml

from edgeproxy.collector.billing.invoices import invoices, line_rows
from edgeproxy.collector.quotas import allocations
from tests.support.sold import Sold, sold
from tests.support.stripe_sandbox import Sandbox

AT_ONCE = 10
"""Places that are taken together."""
PLANS = {
    "standard@1": {
        "fee": "9",
        "meters": {"desks": {"included": 2, "price": "0.333"}, "seats": {"included": 5, "price": "1.25"}},
    }
}
METERS = {"desks": {"count": "holdings", "aggregate": "average"}, "seats": {"count": "holdings", "aggregate": "max"}}
FREEZE = 2 * 86400


def at(month: int, day: int, hour: int = 0) -> int:
    return timegm((2027 if month < 12 else 2026, month, day, hour, 0, 0))


async def test_a_month_of_places_comes_to_the_cent(
    stripe_sandbox: Sandbox, tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"places-{database.partition(':')[0]}"
    plans = tmp_path / "plans.yaml"
    plans.write_text(yaml.safe_dump({"plans": PLANS}))

    async def take(shop: Sold, who: str, when: float, seconds: int | None = None) -> None:
        monkeypatch.setattr(allocations, "now_ms", lambda: int(when * 1000))
        async with shop.database.writing() as connection:
            for meter in METERS:
                for n in range(AT_ONCE):
                    await allocations.allocate(
                        shop.database, connection, name, meter, f"{who}{n}", allowed=None, seconds=seconds, token="test"
                    )

    async def give_back(shop: Sold, who: str, when: float) -> None:
        monkeypatch.setattr(allocations, "now_ms", lambda: int(when * 1000))
        async with shop.database.writing() as connection:
            for meter in METERS:
                for n in range(AT_ONCE):
                    await allocations.release_allocation(connection, name, meter, f"{who}{n}")

    more = {"plans": str(plans)}
    async with sold(tmp_path, database, stripe_sandbox.url, meters=METERS, **more) as (shop, closing):
        await take(shop, "before", at(12, 28))
        await shop.customer(name, "standard", now=at(1, 1))
        await take(shop, "ends", at(1, 11), 5 * 86400)
        await take(shop, "ends", at(1, 14), 7 * 86400)  # It is kept for longer.
        await give_back(shop, "before", at(1, 16, 12))
        await take(shop, "next", at(1, 21))  # At the exact second when the earlier places end.
        await take(shop, "blink", at(1, 22) + 0.1)
        await give_back(shop, "blink", at(1, 22) + 0.9)
        await give_back(shop, "next", at(1, 26))
        await take(shop, "last", at(1, 30), 4 * 86400)  # Nobody looks when it ends.
        for now in (at(2, 1), at(2, 1) + FREEZE, at(3, 1), at(3, 1) + FREEZE, at(4, 1), at(4, 1) + FREEZE):
            await closing.step(now)
        async with shop.database.reading() as connection:
            rows = [row for row in await invoices.fetch_invoices(connection) if row.kind == "period"]
            used = {}
            for row in rows:
                lines = await line_rows.fetch_lines(connection, row.id)
                assert row.total == 900 + sum(line.amount for line in lines[1:])
                used[row.period] = [(line.meter, line.quantity, line.amount) for line in lines if line.quantity][1:]
    # Days of ten desks: 15.5, 10, 5 and 2 of 31, which are 10.48; and 20 seats at most. Then 2 of 28, and ten.
    assert used == {
        "2027-01-01": [("desks", 2, 0), ("desks", 8, 266), ("seats", 5, 0), ("seats", 15, 1875)],
        "2027-02-01": [("seats", 5, 0), ("seats", 5, 625)],
        "2027-03-01": [],
    }
