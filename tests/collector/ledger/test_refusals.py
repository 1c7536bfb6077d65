"""Refusals are ranked by customer and limit, from the ledger's minutes and hours."""

import pytest

from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import HOUR, ledger, series
from edgeproxy.collector.ledger.refusals import RefusalCount, fetch_refusals
from edgeproxy.config import dimensions

NOON = 1_790_000_040 - 1_790_000_040 % 86400 + 43200
YES, NO = (f'{{"certain":"{word}","limit":"basic"}}' for word in ("yes", "no"))


@pytest.mark.both_databases
async def test_refusals_are_ranked_by_customer_and_by_limit(database: str) -> None:
    counted = {
        ("acme", "refused", YES): 5,
        ("acme", "refused", NO): 2,
        ("bolt", "refused", YES): 90,
        ("bolt", "refused", '{"certain":"yes","limit":"burst"}'): 3,
        ("bolt", "requests", ""): 1000,
        ("bolt", "other", '{"certain":"yes","limit":"basic"}'): 1000,
    }

    opened = await Database.connect(database)
    try:
        async with opened.writing() as connection:
            keys = [["edge", "eu", customer, meter, "v1", split] for customer, meter, split in counted]
            await opened.ledger.insert_series(connection, keys)
            numbers = {
                (row.customer, row.meter, row.dimensions): row.id for row in await connection.execute(series.select())
            }
            split = [
                {"name": name, "series": numbers[key], "value": value}
                for key in counted
                for name, value in dimensions.parse_dimensions(key[2]).items()
            ]
            await opened.ledger.insert_series_dimensions(connection, split)
            for minute in (NOON, NOON + HOUR):
                values = {numbers[key]: value for key, value in counted.items()}
                await opened.ledger.add(connection, ledger, {minute: values})
        async with opened.reading(whole=True) as connection:
            found = await fetch_refusals(connection, ["refused"], NOON - 7, NOON + HOUR)
            assert (found.refused, found.uncertain) == (100, 2)
            assert found.customers == [
                RefusalCount("bolt", "basic", 90, 0), RefusalCount("acme", "basic", 7, 2),
                RefusalCount("bolt", "burst", 3, 0),
            ]  # fmt: skip
            assert found.limits == [RefusalCount("", "basic", 97, 2), RefusalCount("", "burst", 3, 0)]
            assert (await fetch_refusals(connection, ["refused"], NOON, NOON + 2 * HOUR)).refused == 200
            assert await fetch_refusals(connection, ["refused"], NOON - 7 * HOUR, NOON) == (0, 0, [], [])
    finally:
        await opened.close()
