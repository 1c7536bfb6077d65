"""The response times of the accounts API: `python -m tests.collector.accounts.measure [sqlite] [postgresql]`.

A collector process signs the customer directory. Requests start at a steady rate without waiting for earlier answers,
and each is timed from its due time. Nine of ten requests read a customer, its keys or a page of customers. The others
create a customer, change one or create a key. One fsync a second is timed beside them, because each change waits for
the disk. The host must be idle, or else requests wait for a CPU.
"""

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import sqlalchemy as sa

from edgeproxy.base.tasks import Tasks
from edgeproxy.collector.accounts import customers, keys
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.models import CreateCustomerRequest, CreateKeyRequest
from edgeproxy.collector.database import schema
from edgeproxy.wire import directory_signatures
from loadtest.testbed.collector import ADMIN, COMMAND, Collector
from loadtest.testbed.postgresql import Postgresql
from loadtest.testbed.waiting import until
from tests.edge.directory.measure import within

CONNECTIONS = 20
READS, WRITES = "reads", "writes"


class Asked(NamedTuple):
    """A request to the accounts API."""

    kind: str
    method: str
    path: str
    body: dict[str, Any] | None = None


def mix(there: int, count: int, chance: random.Random) -> list[Asked]:
    """Return `count` requests. One of ten is a change."""
    found = []
    for number in range(count):
        one = f"/v1/customers/c{chance.randrange(there)}"
        reads = [Asked(READS, "GET", one)] * 6 + [Asked(READS, "GET", f"{one}/keys")] * 2
        reads.append(Asked(READS, "GET", "/v1/customers?limit=50"))
        writes = [
            Asked(WRITES, "POST", "/v1/customers", {"name": f"n{number}", "tier": "basic"}),
            Asked(WRITES, "PATCH", one, {"metadata": {"seen": str(number)}}),
            Asked(WRITES, "POST", f"{one}/keys", {"name": "made"}),
        ]
        found.append(writes[number // 10 % len(writes)] if number % 10 == 0 else chance.choice(reads))
    return found


async def ask(port: int, asked: list[Asked], rate: float) -> dict[str, list[float]]:
    """Send the requests, and return the milliseconds from each due time to the answer, by kind."""
    taken: dict[str, list[float]] = {READS: [], WRITES: []}
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    fields = {"Authorization": f"Bearer {ADMIN}"}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector, headers=fields) as client:

        async def one(asked: Asked, due: float) -> None:
            own = {"Idempotency-Key": str(uuid.uuid4())} if asked.method == "POST" else {}
            async with client.request(asked.method, asked.path, json=asked.body, headers=own) as answer:
                said = await answer.read()
                assert answer.status < 300, said
            taken[asked.kind].append(1000 * (time.monotonic() - due))

        began = time.monotonic()
        async with asyncio.TaskGroup() as all_of_them:
            for number, some in enumerate(asked):
                due = began + number / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                all_of_them.create_task(one(some, due))
    return taken


async def fsyncs(folder: Path, taken: list[float]) -> None:
    """Write a page once a second, and append the milliseconds of its fsync to `taken`."""
    with (folder / "page").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
            began = time.monotonic()
            await asyncio.to_thread(os.fsync, file.fileno())
            taken.append(1000 * (time.monotonic() - began))
            await asyncio.sleep(1)


def adds(url: str, names: list[str]) -> None:
    """Create customers with one key each."""

    async def add(connection: Any) -> None:
        rows = [
            customers.build_row(CreateCustomerRequest(name=name, tier="basic"), {"tier": "basic"}) for name in names
        ]
        await connection.execute(sa.insert(schema.customers), rows)
        for name in names:
            await keys.create_key(connection, Caller("measure"), name, CreateKeyRequest())

    within(url, add)


def is_published(url: str) -> bool:
    """Return whether all changes are published to edges."""
    found: list[int] = []

    async def look(connection: Any) -> None:
        found.append(
            (await connection.execute(sa.select(sa.func.count()).select_from(schema.directory_outbox))).scalar_one()
        )

    within(url, look)
    return found == [0]


async def measure(
    port: int, asked: list[Asked], rate: float, folder: Path
) -> tuple[dict[str, list[float]], list[float]]:
    """Return the times of the requests, and of the disk's fsyncs meanwhile."""
    synced: list[float] = []
    beside = Tasks()
    beside.start("fsyncs", fsyncs(folder, synced))
    try:
        return await ask(port, asked, rate), synced
    finally:
        await beside.cancel()


def percentiles(taken: list[float]) -> str:
    """Format the percentiles of times in milliseconds."""
    cuts = statistics.quantiles(taken, n=100, method="inclusive")
    return f"p50 {cuts[49]:.1f} ms, p95 {cuts[94]:.1f} ms, p99 {cuts[98]:.1f} ms"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("kinds", nargs="*", default=["sqlite", "postgresql"])
    options.add_argument("--rate", type=float, default=200.0, help="requests a second")
    options.add_argument("--seconds", type=float, default=30.0)
    options.add_argument("--customers", type=int, default=2_000)
    options.add_argument("--profile", type=Path, help="where to write what cProfile says of the collector")
    given = options.parse_args()
    for kind in given.kinds:
        with ExitStack() as ends:
            folder = Path(ends.enter_context(tempfile.TemporaryDirectory()))
            server = None
            url = f"sqlite:///{folder}/accounts.db"
            if kind == "postgresql":
                server = ends.enter_context(closing(Postgresql(durable=True)))
                url = server.database()
            directory_signatures.create_key_file(folder / "directory.key")
            directory = {"key": str(folder / "directory.key")}
            collector = ends.enter_context(closing(Collector(folder / "collector", url, directory=directory)))
            if given.profile is not None:
                profiled = ("-m", "cProfile", "-o", f"{given.profile.absolute()}.{kind}", *COMMAND[1:])
                collector.command = (sys.executable, *profiled)
            collector.start()
            adds(url, [f"c{number}" for number in range(given.customers)])
            until(lambda url=url: is_published(url), "the added customer is published", seconds=300)  # type: ignore[misc]
            asked = mix(given.customers, int(given.rate * given.seconds), random.Random(1))
            cpu, served = collector.cpu(), server.cpu() if server else 0.0
            taken, synced = asyncio.run(measure(collector.port, asked, given.rate, folder))
            each = 1000 * (collector.cpu() - cpu) / len(asked)
            on_server = f", of the server {1000 * (server.cpu() - served) / len(asked):.2f}" if server else ""
            print(f"{kind}, {given.rate:g}/s: all {percentiles(taken[READS] + taken[WRITES])}")
            for some, times in taken.items():
                print(f"  {some}: {percentiles(times)} ({len(times)})")
            print(f"  CPU of the collector {each:.2f} ms a request{on_server}")
            print(f"  an fsync of the disk: median {statistics.median(synced):.1f} ms, most {max(synced):.1f} ms")


if __name__ == "__main__":
    main()
