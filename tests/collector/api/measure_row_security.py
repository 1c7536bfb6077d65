"""The cost of row-level security: `python -m tests.collector.api.measure_row_security`.

Two collectors use one PostgreSQL, each with its own database. One database has no policies. They get requests in turns,
so other load on the machine affects both. The output has the medians of each, and of their ratios.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from edgeproxy.collector.database.schema import DAY
from loadtest.testbed.collector import ADMIN, Collector
from loadtest.testbed.postgresql import Postgresql
from tests.collector.api.measure import made, ship

CUSTOMERS = 300
BLOCK = 25
"""Requests to one collector before the other has its turn."""
SIDES = ("without", "with")
BEGIN = 1_790_812_800 // DAY * DAY
"""The first of October 2026, the month of the queries."""
FILL = f"""
    INSERT INTO series (edge, region, customer, meter, route)
        SELECT 'e', 'r', 'c' || n, 'requests', 'r' || route
        FROM generate_series(0, {CUSTOMERS - 1}) n, generate_series(0, 2) route;
    CREATE TABLE ledger_2026_10 (LIKE ledger INCLUDING CONSTRAINTS) WITH (fillfactor = 50);
    ALTER TABLE ledger ATTACH PARTITION ledger_2026_10 FOR VALUES FROM ({BEGIN}) TO ({BEGIN + 31 * DAY});
    INSERT INTO ledger SELECT id, {BEGIN} + 60 * (100 * n + id % 100), 1 + n % 97
        FROM series, generate_series(0, 445) n WHERE edge = 'e';
    INSERT INTO hours SELECT series, minute / 3600 * 3600, sum(value) FROM ledger_2026_10 GROUP BY 1, 2;
    INSERT INTO days SELECT series, hour / 86400 * 86400, sum(value) FROM hours GROUP BY 1, 2;
    UPDATE rollup SET hour = {BEGIN + 31 * DAY}, series = 0;
    INSERT INTO customers (id, name, tier, settings, metadata, created_at, version)
        SELECT 'id' || n, 'c' || n, 'basic', '{{"tier": "basic"}}', '{{}}', 0, 1
        FROM generate_series(0, {CUSTOMERS - 1}) n;
    INSERT INTO keys (id, customer, sha256, start, created_at, version)
        SELECT 'key' || n, 'id' || n / 5, md5(n::text) || md5(n::text), 'k', 0, 1
        FROM generate_series(0, {5 * CUSTOMERS - 1}) n;
    INSERT INTO alerts (key, kind, severity, customer, title, details, at)
        SELECT 'a' || n, 'quota', 'warn', 'c' || n % {CUSTOMERS}, 't', '{{}}', n
        FROM generate_series(0, {20 * CUSTOMERS}) n;
"""
MONTH = "/v1/usage?from=2026-10-01&to=2026-11-01"
REQUESTS = {
    "usage of a month": f"{MONTH}&meter=requests",
    "by day": f"{MONTH}&meter=requests&by=day",
    "by hour": f"{MONTH}&meter=requests&by=hour",
    "by minute": f"{MONTH}&meter=requests&by=minute",
    "the customer": "/v1/customers/{customer}",
    "its keys": "/v1/customers/{customer}/keys",
    "alerts": "/v1/alerts",
    "balance": "/billing/balance",
    "a new key": "/v1/customers/{customer}/keys",
}


class Side:
    """A collector, with or without policies."""

    def __init__(self, name: str, server: Postgresql, folder: Path, ends: ExitStack) -> None:
        self.name = name
        self.server = server
        url = server.empty_database()
        self.collector = ends.enter_context(closing(Collector(folder / name, url)))
        if name == "without":
            self.collector.command = (sys.executable, "-m", "tests.support.unsecured", "collector", "-c")
        self.collector.start()
        self.database = url.rpartition("/")[2]
        self.tokens: dict[str, str] = {}

    def token(self, customer: str) -> str:
        """Return the secret of a customer's token."""
        if customer not in self.tokens:
            sent = self.collector.send("POST", "/v1/tokens", {"name": f"of-{customer}", "customer": customer})
            self.tokens[customer] = sent.json()["secret"]
        return self.tokens[customer]

    def ship(self, chains: Any) -> tuple[float, float, float]:
        """Return rows per second, and the CPU seconds of the collector and of the server."""
        before, served = self.collector.cpu(), self.server.cpu()
        took = asyncio.run(ship(self.collector.port, chains))
        return took, self.collector.cpu() - before, self.server.cpu() - served

    async def ask(self, client: aiohttp.ClientSession, what: str, customer: str) -> float:
        """Return the milliseconds of a request."""
        url = f"http://127.0.0.1:{self.collector.port}{REQUESTS[what].format(customer=customer)}"
        method, body = ("POST", orjson.dumps({"name": "made"})) if what == "a new key" else ("GET", None)
        fields = {"Authorization": f"Bearer {self.token(customer)}", "Content-Type": "application/json"}
        began = time.perf_counter()
        async with client.request(method, url, headers=fields, data=body) as answer:
            content = await answer.read()
            assert answer.status in (200, 201), content
        return (time.perf_counter() - began) * 1000


def ingest(sides: list[Side], options: argparse.Namespace) -> None:
    """Print the cost of ingesting batches, in turns."""
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in SIDES}
    for turn in range(options.turns):
        chains = [made(f"edge-{turn}-{n}", options.batches, options.rows) for n in range(8)]
        for side in sides if turn % 2 else sides[::-1]:
            rows[side.name].append(side.ship(chains))
    total = 8 * options.batches * options.rows
    for place, what in enumerate(("rows/s", "CPU of the collector, µs a row", "CPU of the server, µs a row")):
        shown = {
            name: [total / one[0] if not place else one[place] / total * 1e6 for one in some]
            for name, some in rows.items()
        }
        ratio = statistics.median(b / a for a, b in zip(shown["without"], shown["with"], strict=True))
        medians = " ".join(f"{name} {statistics.median(some):,.2f}" for name, some in shown.items())
        print(f"{what}: {medians}, × {ratio:.2f}")


async def requests(sides: list[Side], blocks: int) -> None:
    """Print the time and CPU of customers' requests. The collectors get blocks of BLOCK requests in turns."""
    async with aiohttp.ClientSession() as client:
        for what in REQUESTS:
            took: dict[str, list[float]] = {name: [] for name in SIDES}
            cpu = {name: [0.0, 0.0] for name in SIDES}
            for turn in range(-1, blocks):
                for side in sides if turn % 2 else sides[::-1]:
                    before = side.collector.cpu(), side.server.cpu()
                    some = [await side.ask(client, what, f"c{n}") for n in range(BLOCK)]
                    used = side.collector.cpu() - before[0], side.server.cpu() - before[1]
                    if turn >= 0:  # The first one warms up.
                        took[side.name] += some
                        cpu[side.name] = [sum(one) for one in zip(cpu[side.name], used, strict=True)]
            a, b = (statistics.median(took[name]) for name in SIDES)
            each = 1000 / (blocks * BLOCK)
            spent = ", ".join(f"{name} {cpu[name][0] * each:.2f} and {cpu[name][1] * each:.2f}" for name in SIDES)
            print(f"{what}: without {a:.1f} ms, with {b:.1f} ms, × {b / a:.2f}; CPU of collector and server {spent} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description="What row-level security costs.")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--blocks", type=int, default=8)
    options = parser.parse_args()
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory()))
        server = ends.enter_context(closing(Postgresql(durable=True)))
        sides = [Side(name, server, folder, ends) for name in SIDES]
        assert [side.collector.metric("collector_row_security") for side in sides] == [0, 1]
        for side in sides:
            server.ask_in(side.database, FILL, user="edgeproxy")
            server.ask_in(side.database, "ANALYZE")
        for side in sides:
            for number in range(50):
                side.token(f"c{number}")
            assert side.collector.get("/v1/customers/c1", token=ADMIN).status == 200
        if options.blocks:
            asyncio.run(requests(sides, options.blocks))
        ingest(sides, options)


if __name__ == "__main__":
    main()
