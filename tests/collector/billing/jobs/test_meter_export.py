"""The export of usage to Stripe's meters: slices have the greatest length, and bad rows do not stop others."""

from pathlib import Path

import sqlalchemy as sa

from edgeproxy.collector.billing.jobs.meter_export import MeterExportJob
from edgeproxy.collector.billing.meter_export import outbox_rows, slicing
from edgeproxy.collector.billing.stripe.client import Stripe
from edgeproxy.collector.billing.subscriptions.plan_versions import record_plans
from edgeproxy.collector.database.billing_tables import plan_versions, segments
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.delivery_tables import billing_exporter, billing_slices
from edgeproxy.collector.database.schema import EVENTS, EVENTS_REGION
from edgeproxy.config.collector.catalog import serialize_plan
from edgeproxy.wire.batch import FIRST
from tests.support.era import Heard
from tests.support.sold import KEY, Sold, settings

NOON = 1_800_014_400
DAY, HOUR, MINUTE = 86400, 3600, 60


async def test_stripe_refusals_lengthen_export_slices(tmp_path: Path, sqlite_database: str) -> None:
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


async def test_unreadable_plan_version_blocks_export_only_for_its_customers(
    tmp_path: Path, sqlite_database: str
) -> None:
    known = settings(tmp_path, sqlite_database, "http://127.0.0.1:9", collection="meters")
    assert known.billing is not None
    database = await Database.connect(sqlite_database)
    stripe = Stripe(known.billing.stripe, KEY)
    of = Sold(database, known)
    exports = MeterExportJob(database, stripe, lambda: known, Heard(), lambda: float(NOON + 2 * DAY))

    async def sent() -> set[tuple[str, int]]:
        await exports.fix_slices()
        await exports.compare_outbox()
        async with database.reading() as connection:
            return {(row.customer, row.value) for row in await outbox_rows.select_rows(connection)}

    async def write(settings: str) -> None:
        async with database.writing() as connection:
            version = plan_versions.c.version == "enterprise@1"
            await connection.execute(sa.update(plan_versions).where(version).values(settings=settings))

    try:
        async with database.writing() as connection:
            await record_plans(connection, known.plans)
            await database.ledger.insert_edges(
                connection, [{"edge": EVENTS, "region": EVENTS_REGION, "seq": 0, "hash": FIRST, "received": 0}]
            )
        for name, plan in (("acme", "standard"), ("bolt", "enterprise")):
            await of.customer(name, plan, now=NOON)
            await of.use(name, {"llm_tokens": len(name)}, at=NOON + HOUR)
        async with database.writing() as connection:
            await connection.execute(sa.update(segments).values(told_from=segments.c.start))
        await write("poison")
        assert await sent() == {("acme", 4)}
        await write(serialize_plan(known.plans["enterprise@1"]))
        assert await sent() == {("acme", 4), ("bolt", 4)}
        await write("poison")
        assert await sent() == {("acme", 4), ("bolt", 4)}, "nothing is taken back"
    finally:
        await stripe.close()
        await database.close()
