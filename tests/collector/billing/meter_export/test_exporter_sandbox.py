"""The exporter with Stripe's own package and the sandbox: each row of the ledger is counted once."""

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import stripe as package

from edgeproxy.collector.billing.meter_export import outbox_rows, slicing
from edgeproxy.collector.billing.meter_export.exporter import MeterExporter
from edgeproxy.collector.billing.meter_export.meter_events import StripeMeterEvents, event_name
from edgeproxy.collector.billing.meter_export.outbox import RowState
from edgeproxy.collector.billing.meter_export.outbox_rows import OPEN
from edgeproxy.collector.billing.meter_export.slices import MeteredSegment
from edgeproxy.collector.billing.meter_export.slicing import Slicing
from edgeproxy.collector.billing.mismatch import Level
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.reconciliation import usage
from edgeproxy.collector.billing.stripe.client import Stripe
from edgeproxy.collector.billing.stripe.request_rates import Bucket
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import EVENTS, EVENTS_REGION
from edgeproxy.collector.ledger.ledger_writer import LedgerWriter
from edgeproxy.config.collector.billing import Stripe as Settings
from edgeproxy.wire.batch import FIRST, Batch
from loadtest.testbed.tables_ready import put_tables
from tests.support.stripe_sandbox import KEY, Sandbox

METERS = ("exported_tokens", "exported_calls")
CUSTOMERS = ("acme", "bolt", "cora")
MINUTES = 30
EVENTS_PATH = "/v1/billing/meter_events"
FAULTS = ("call_lost", "answer_lost", "answer_cut", "error_before", "error_after", "rate_limited")


async def made(client: package.StripeClient) -> tuple[dict[str, str], dict[str, str]]:
    """Customers and meters at the sandbox, by our names."""
    v1 = client.v1
    customers = {name: (await v1.customers.create_async({"name": name})).id for name in CUSTOMERS}
    meters = {}
    for name in METERS:
        params: Any = {"display_name": name, "event_name": event_name(name), "default_aggregation": {"formula": "sum"}}
        meters[name] = (await v1.billing.meters.create_async(params)).id
    return customers, meters


@pytest.mark.parametrize("seed", [7])
def test_exporter_sends_each_row_once_despite_lost_answers(tmp_path: Path, own_sandbox: Sandbox, seed: int) -> None:
    customers, meters = own_sandbox.run(made)
    begin = int(time.time()) // 3600 * 3600 - 3 * 3600
    used = {(name, meter): 1000 * len(name + meter) for name in CUSTOMERS for meter in METERS}
    rows = tuple((*pair, "-", value) for pair, value in used.items())

    async def soon(_: float) -> None:
        await asyncio.sleep(0.5)

    async def at_once(_: float) -> None:
        pass

    async def play() -> None:
        database = await Database.connect(put_tables(f"sqlite:///{tmp_path}/ledger.db"))
        stripe = Stripe(Settings(base=own_sandbox.url), {"STRIPE_SECRET_KEY": KEY})
        stripe.pace.whole = stripe.pace.endpoint = 1e6
        ahead = 0.0
        try:
            async with database.writing() as connection:
                edge = {"edge": EVENTS, "region": EVENTS_REGION, "seq": 0, "hash": FIRST, "received": 0}
                await database.ledger.insert_edges(connection, [edge])
                times = [begin + 60 * minute for minute in range(MINUTES)]
                batches = [Batch(EVENTS, EVENTS_REGION, 0, at, at + 60, FIRST, rows) for at in times]
                await LedgerWriter(database).add_batches(connection, batches)
            events = StripeMeterEvents(stripe)
            events.customers, events.meters = customers, meters
            of = Slicing(database, "acct_sandbox")
            exporter = MeterExporter(
                of, events, Bucket(1e6, 0.0), clock=lambda: time.time() + ahead, random_share=lambda: 0.0
            )
            await exporter.take_over()
            segment = MeteredSegment(Span(begin - 86400, begin + 86400))
            await slicing.fix_slices(of, {pair: [segment] for pair in used}, begin, time.time())
            states: Any = {}
            for _ in range(100):
                await exporter.step()
                ahead += 120.0  # Rests are over, and identifiers still unique.
                async with database.reading() as connection:
                    states = await outbox_rows.count_by_state(connection)
                if not any(states[state] for state in OPEN):
                    break
            assert {state for state, count in states.items() if count} == {RowState.ACCEPTED}
            own_sandbox.faults()
            whole = Span(begin, begin + 3600)
            drift, level = await usage.reconcile_span(database, events, whole, time.time(), pause=soon)
            assert (drift.units, drift.different, level) == (MINUTES * sum(used.values()), 0, Level.NONE)
            async with database.reading() as connection:
                assert {row.state for row in await outbox_rows.select_rows(connection)} == {RowState.CONFIRMED}
            # Sums that are wrong by so many parts of a meter, divided among its customers.
            smallest = min(MINUTES * used[name, METERS[0]] for name in CUSTOMERS)
            for parts, expected_level in ((2, Level.WARN), (20, Level.PAGE)):
                own_sandbox.faults({"kind": "summary_wrong", "by": smallest * parts // 10_000})
                drift, level = await usage.reconcile_span(database, events, whole, time.time(), pause=at_once)
                assert (level, drift.compared) == (expected_level, len(used))
                async with database.reading() as connection:
                    titles = sa.select(alerts.c.title).where(alerts.c.severity == expected_level)
                    (title,) = (await connection.execute(titles)).scalars()
                    assert all(f"{name} {meter} +" in title for name, meter in sorted(used)[:5])
        finally:
            await stripe.close()
            await database.close()

    some = [{"kind": kind, "probability": 0.12, "path": EVENTS_PATH} for kind in FAULTS]
    own_sandbox.faults(*some, seed=seed)
    try:
        asyncio.run(play())
        met = own_sandbox.control("faults")
    finally:
        own_sandbox.faults()
    journal = own_sandbox.journal("billing.meter_event.accepted")
    ours = [one for one in journal if one["payload"]["stripe_customer_id"] in customers.values()]
    assert Counter(one["id"] for one in ours).most_common(1)[0][1] == 1, met
    assert len(ours) == len(used) * MINUTES // 5  # A row for each slice of five minutes.
