"""Measure meter events a second to Stripe: `python -m tests.collector.billing.measure_exporter [events] [--sandbox]`.

Each event is answered after 200 ms, as by Stripe. The exporter sends rows of the outbox like the collector, without the
rate limits of an account. The receiver runs on this machine, so it only parses each form and sums its values. With
`--sandbox` the receiver is the sandbox, which checks requests like Stripe and takes more CPU than the exporter. The CPU
time of both processes is printed.
"""

import argparse
import asyncio
import functools
import gc
import multiprocessing
import os
import re
import tempfile
import time
from contextlib import ExitStack, closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, cast
from urllib.parse import parse_qs

import orjson
import stripe
import uvloop

from edgeproxy.collector.billing.meter_export import outbox_rows
from edgeproxy.collector.billing.meter_export.exporter import MeterExporter
from edgeproxy.collector.billing.meter_export.meter_events import StripeMeterEvents, event_name
from edgeproxy.collector.billing.meter_export.outbox import RowState
from edgeproxy.collector.billing.meter_export.outbox_rows import new_row
from edgeproxy.collector.billing.meter_export.slicing import Slicing
from edgeproxy.collector.billing.stripe.client import Stripe
from edgeproxy.collector.billing.stripe.request_rates import Bucket, RequestPacer
from edgeproxy.collector.database.database import Database
from edgeproxy.config.collector.billing import Stripe as Way
from loadtest.testbed.tables_ready import put_tables
from tests.support.stripe_sandbox import KEY, Sandbox

ACCOUNT, METER = "test", "tokens"
CUSTOMERS = 2000
SLICE_SECONDS, AGO_SECONDS = 300, 7200
ANSWER_SECONDS = 0.2
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
UNBOUNDED = 1e6
"""Calls a second."""


class Taken(NamedTuple):
    """The received events. Without duplicates there are as many identifiers as events."""

    events: int
    identifiers: int
    units: int


class Answers(asyncio.Protocol):
    """A connection that answers each meter event after a delay, and records its value in `taken`."""

    def __init__(self, taken: dict[str, list[int]]) -> None:
        self._taken = taken
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        length = LENGTH.search(head + b"\r\n")
        assert length is not None
        if len(rest) < int(length[1]):
            return
        self._buffer = b""  # The exporter sends the next event after the answer.
        fields = {name: values[0] for name, values in parse_qs(rest.decode(), strict_parsing=True).items()}
        self._taken.setdefault(fields["identifier"], []).append(int(fields["payload[value]"]))
        event = {"object": "billing.meter_event", "created": int(time.time()), "livemode": False, **fields}
        body = orjson.dumps(event)
        answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        asyncio.get_running_loop().call_later(ANSWER_SECONDS, self._transport.write, answer + body)


def answer(pipe: Connection) -> None:
    """Send a free port over the pipe and serve it until a message arrives. Then send the totals of the events."""
    taken: dict[str, list[int]] = {}

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Answers(taken), "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        is_stopping = asyncio.Event()
        loop.add_reader(pipe.fileno(), is_stopping.set)
        await is_stopping.wait()

    uvloop.run(serve())
    values = [value for some in taken.values() for value in some]
    pipe.send(Taken(len(values), len(taken), sum(values)))


async def new_meter(client: stripe.StripeClient) -> str:
    """Create the meter at Stripe, and return its id."""
    aggregation = {"formula": "sum"}
    params = {"display_name": METER, "event_name": event_name(METER), "default_aggregation": aggregation}
    return (await client.v1.billing.meters.create_async(params)).id  # type: ignore[arg-type]


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def export(url: str, pid: int, folder: Path, meter: str, events: int) -> str:
    """Send `events` events to `url`. Return the duration and CPU time of both processes as text."""
    database = await Database.connect(put_tables(f"sqlite:///{folder}/ledger.db"))
    client = Stripe(Way(base=url), {"STRIPE_SECRET_KEY": KEY})
    client.pace = client.events_pace = RequestPacer(UNBOUNDED, UNBOUNDED)
    try:
        ways = StripeMeterEvents(client)
        ways.customers = {f"c{number}": f"cus_{number}" for number in range(CUSTOMERS)}
        ways.meters = {METER: meter}
        exporter = MeterExporter(Slicing(database, ACCOUNT), ways, Bucket(UNBOUNDED, 0.0))
        await exporter.take_over()
        first = int(time.time()) // 3600 * 3600 - AGO_SECONDS
        rows = []
        for number in range(events):
            start = first + SLICE_SECONDS * (number // CUSTOMERS)
            of = (f"c{number % CUSTOMERS}", METER, start, 0)
            rows.append(new_row(ACCOUNT, of, start + SLICE_SECONDS, first, 5))
        async with database.writing() as connection:
            await outbox_rows.insert_rows(connection, rows, int(time.time() * 1000))
        gc.freeze()  # as in the collector
        gc.set_threshold(100_000, 50, 100)
        theirs, ours, began = cpu_seconds(pid), time.process_time(), time.monotonic()
        sent = 0
        while count := await exporter.step():
            sent += count
        took, ours = time.monotonic() - began, time.process_time() - ours
        theirs = cpu_seconds(pid) - theirs
        async with database.reading() as connection:
            states = await outbox_rows.count_by_state(connection)
        assert states[RowState.ACCEPTED] == sent == events, states
        return (
            f"{events:,} events in {took:.1f} s: {events / took:.0f}/s; CPU of an event: "
            f"exporter {1e6 * ours / events:.0f} µs, who answers {1e6 * theirs / events:.0f} µs"
        )
    finally:
        await client.close()
        await database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Meter events a second at answers after 200 ms.")
    parser.add_argument("events", nargs="?", type=int, default=10_000)
    parser.add_argument("--sandbox", action="store_true", help="have the sandbox answer")
    options = parser.parse_args()
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory()))
        if options.sandbox:
            sandbox = ends.enter_context(closing(Sandbox(folder / "sandbox"))).start()
            meter = sandbox.run(new_meter)
            sandbox.faults({"kind": "latency", "seconds": ANSWER_SECONDS, "path": "/v1/billing/meter_events"})
            assert sandbox.process is not None
            url, pid = sandbox.url, sandbox.process.pid
        else:
            spawning = multiprocessing.get_context("spawn")
            ours, theirs = spawning.Pipe()
            process = spawning.Process(target=answer, args=(theirs,), daemon=True)
            process.start()
            assert process.pid is not None
            url, meter, pid = f"http://127.0.0.1:{ours.recv()}", "mtr_1", process.pid
        work = functools.partial(export, url, pid, folder, meter, options.events)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            print(runner.run(work()))
        if not options.sandbox:
            ours.send("end")
            taken = ours.recv()
            assert taken == Taken(options.events, options.events, 5 * options.events), taken


if __name__ == "__main__":
    main()
