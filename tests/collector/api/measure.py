"""Measure the usage rows accepted a second: `python -m tests.collector.api.measure [sqlite] [postgresql]`.

The collector runs in its own process. Each edge ships one compressed batch at a time over a socket, and the collector
answers once the batch is on disk. The measuring process creates all batches beforehand, outside the collector.
"""

import argparse
import asyncio
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

import aiohttp
import zstandard

from edgeproxy.wire.batch import FIRST, Batch, compute_digest, format_batch, format_headers
from loadtest.testbed.collector import EDGE, Collector
from loadtest.testbed.postgresql import Postgresql

BEGIN = int(time.time()) // 60 * 60
"""The current minute. Usage of rolled-up hours would take longer, since it is added to the hours too."""
EVERY = 5


def made(edge: str, batches: int, rows: int) -> list[tuple[bytes, dict[str, str]]]:
    """Return an edge's compressed batches with their headers. All have equal series; twelve cover a minute."""
    squeeze = zstandard.ZstdCompressor(level=3)
    found, prev = [], FIRST
    for seq in range(1, batches + 1):
        since = BEGIN + (seq - 1) * EVERY
        names = ((f"customer-{n % (rows // 4 or 1)}", "requests", f"route-{n * 4 // rows}") for n in range(rows))
        counted = tuple((*name, 1 + seq * n % 97) for n, name in enumerate(names))
        batch = Batch(edge, "eu-test", seq, since, since + EVERY, prev, counted)
        plain = format_batch(batch)
        prev = compute_digest(plain)
        sent = format_headers(batch, plain) | {"Authorization": f"Bearer {EDGE}", "Content-Encoding": "zstd"}
        found.append((squeeze.compress(plain), sent))
    return found


async def ship(port: int, chains: list[list[tuple[bytes, dict[str, str]]]]) -> float:
    """Ship all batches. Return the seconds until the last acknowledgement."""
    url = f"http://127.0.0.1:{port}/v1/batches"
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as client:

        async def one(chain: list[tuple[bytes, dict[str, str]]]) -> None:
            for sent, fields in chain:
                while True:
                    async with client.post(url, data=sent, headers=fields) as answer:
                        if answer.status != 429:
                            assert answer.status == 200, await answer.text()
                            break
                    await asyncio.sleep(float(answer.headers["Retry-After"]))

        began = time.monotonic()
        await asyncio.gather(*map(one, chains))
        return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description="Usage rows a second that a collector takes.")
    parser.add_argument("kinds", nargs="*", default=["sqlite", "postgresql"])
    parser.add_argument("--edges", type=int, default=8)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--rows", type=int, default=2000)
    options = parser.parse_args()
    chains = [made(f"edge-{n}", options.batches, options.rows) for n in range(options.edges)]
    total = options.edges * options.batches * options.rows
    for kind in options.kinds:
        with ExitStack() as ends:
            folder = Path(ends.enter_context(tempfile.TemporaryDirectory()))
            url, server = f"sqlite:///{folder}/ledger.db", None
            if kind == "postgresql":
                server = ends.enter_context(closing(Postgresql(durable=True)))
                url = server.database()
            collector = ends.enter_context(closing(Collector(folder / "collector", url))).start()
            before, served = collector.cpu(), server.cpu() if server else 0.0
            took = asyncio.run(ship(collector.port, chains))
            cpu = collector.cpu() - before
            served = server.cpu() - served if server else 0.0
            assert collector.usage(**{"from": "2020-01-01"})["total"] > 0
            each = options.batches * options.edges
            print(
                f"{kind}: {total / took:,.0f} rows/s ({total:,} rows in {each} batches of {options.edges} edges, "
                f"{took:.2f} s; CPU of the collector {cpu / total * 1e6:.2f} µs a row, "
                f"of the server {served / total * 1e6:.2f})"
            )


if __name__ == "__main__":
    main()
