"""How many meter events a second reach Stripe: `python -m tests.billing.measure_exporter [events]`.

A sandbox answers each after 200 ms, as Stripe may. Rows of the outbox are sent as the collector sends them, without the
rates that an account has. Exporter and sandbox have the machine to share; the CPU of each is told apart.
"""

import argparse
import asyncio
import functools
import os
import tempfile
import time
from contextlib import closing
from pathlib import Path

import stripe
import uvloop

from edgeproxy.billing import outbox_rows
from edgeproxy.billing.exporter import Exporter
from edgeproxy.billing.meter_events import StripeMeterEvents, event_name
from edgeproxy.billing.outbox import State
from edgeproxy.billing.outbox_rows import new_row
from edgeproxy.billing.rates import Bucket, Pace
from edgeproxy.billing.slicing import Slicing
from edgeproxy.billing.stripe import Stripe
from edgeproxy.config.billing import Stripe as Way
from edgeproxy.database.database import Database
from tests.support.stripe_sandbox import KEY, Sandbox
from tests.support.tables_ready import put_tables

ACCOUNT, METER = "test", "tokens"
CUSTOMERS = 2000
SLICE_SECONDS, AGO_SECONDS = 300, 7200
ANSWER_SECONDS = 0.2
UNBOUNDED = 1e6
"""Calls a second."""


async def new_meter(client: stripe.StripeClient) -> str:
    """Make the meter at Stripe, and return its id."""
    aggregation = {"formula": "sum"}
    params = {"display_name": METER, "event_name": event_name(METER), "default_aggregation": aggregation}
    return (await client.v1.billing.meters.create_async(params)).id  # type: ignore[arg-type]


def cpu_seconds(pid: int) -> float:
    """What a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def export(sandbox: Sandbox, folder: Path, meter: str, events: int) -> str:
    """Send so many events; tell how long it took and what it cost."""
    assert sandbox.process is not None
    database = await Database.connect(put_tables(f"sqlite:///{folder}/ledger.db"))
    client = Stripe(Way(base=sandbox.url), {"STRIPE_SECRET_KEY": KEY})
    client.pace = client.events_pace = Pace(UNBOUNDED, UNBOUNDED)
    try:
        ways = StripeMeterEvents(client)
        ways.customers = {f"c{number}": f"cus_{number}" for number in range(CUSTOMERS)}
        ways.meters = {METER: meter}
        exporter = Exporter(Slicing(database, ACCOUNT), ways, Bucket(UNBOUNDED, 0.0))
        await exporter.begin()
        first = int(time.time()) // 3600 * 3600 - AGO_SECONDS
        rows = []
        for number in range(events):
            start = first + SLICE_SECONDS * (number // CUSTOMERS)
            of = (f"c{number % CUSTOMERS}", METER, start, 0)
            rows.append(new_row(ACCOUNT, of, start + SLICE_SECONDS, first, 5))
        async with database.writing() as connection:
            await outbox_rows.put(connection, rows, int(time.time() * 1000))
        theirs, ours, began = cpu_seconds(sandbox.process.pid), time.process_time(), time.monotonic()
        sent = 0
        while count := await exporter.step():
            sent += count
        took, ours = time.monotonic() - began, time.process_time() - ours
        theirs = cpu_seconds(sandbox.process.pid) - theirs
        async with database.reading() as connection:
            states = await outbox_rows.standing(connection)
        assert states[State.ACCEPTED] == sent == events, states
        return (
            f"{events:,} events in {took:.1f} s: {events / took:.0f}/s; CPU of an event: "
            f"exporter {1e6 * ours / events:.0f} µs, sandbox {1e6 * theirs / events:.0f} µs"
        )
    finally:
        await client.close()
        await database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Meter events a second at answers after 200 ms.")
    parser.add_argument("events", nargs="?", type=int, default=10_000)
    events = parser.parse_args().events
    with tempfile.TemporaryDirectory() as name, closing(Sandbox(Path(name) / "sandbox")) as sandbox:
        meter = sandbox.start().run(new_meter)
        sandbox.faults({"kind": "latency", "seconds": ANSWER_SECONDS, "path": "/v1/billing/meter_events"})
        work = functools.partial(export, sandbox, Path(name), meter, events)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            print(runner.run(work()))


if __name__ == "__main__":
    main()
