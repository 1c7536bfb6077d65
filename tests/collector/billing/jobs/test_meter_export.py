"""Slices are as long as Stripe lets them be sent."""

import asyncio
from pathlib import Path

import sqlalchemy as sa

from edgeproxy.collector.billing.jobs.meter_export import MeterExportJob
from edgeproxy.collector.billing.meter_export import slicing
from edgeproxy.collector.billing.stripe.client import Stripe
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.delivery_tables import billing_exporter, billing_slices
from tests.support.era import Heard
from tests.support.sold import KEY, settings

NOON = 1_800_014_400
HOUR, MINUTE = 3600, 60


def test_a_minute_of_refusals_makes_slices_longer_long_before_one_is_due(tmp_path: Path, sqlite_database: str) -> None:
    async def work() -> None:
        known = settings(tmp_path, sqlite_database, "http://127.0.0.1:9", collection="meters")
        assert known.billing is not None
        database = await Database.connect(sqlite_database)
        stripe = Stripe(known.billing.stripe, KEY)
        now = float(NOON)
        exports = MeterExportJob(database, stripe, lambda: known, Heard(), lambda: now)

        async def length() -> int:
            assert await exports.fix_slices() == 0
            async with database.reading() as connection:
                return int((await connection.execute(slicing.LENGTH)).scalar_one())

        try:
            async with database.writing() as connection:
                await connection.execute(sa.update(billing_exporter).values(length=HOUR))
                fixed = {"start": NOON - HOUR, "until": NOON, "fixed": 0}
                await connection.execute(sa.insert(billing_slices), [fixed])
            lengths = []
            for _ in range(6):
                now += 15
                exports.bucket.halve(now)
                lengths.append(await length())
            assert lengths == [HOUR] * 3 + [2 * HOUR] * 3
            now += 2 * MINUTE
            assert await length() == 2 * HOUR, "the refusals are over"
        finally:
            await stripe.close()
            await database.close()

    asyncio.run(work())
