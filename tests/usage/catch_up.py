"""How fast a backlog is shipped: to a collector on SQLite, both on this machine; and what it costs the edge.

python -m tests.usage.catch_up [BATCHES [ROWS [FOLDER]]]      batches of the backlog; rows of each; where
"""

import asyncio
import random
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from edgeproxy.usage.ship import Shipper
from edgeproxy.usage.spool import Spool
from edgeproxy.usage.transport import Http
from tests.support.collector import EDGE, Collector
from tests.usage.peer import append


async def ship(spool: Spool, url: str) -> None:
    """Ship all that there is."""
    http = Http(url, EDGE)
    shipper = Shipper(spool, http)
    running = asyncio.get_running_loop().create_task(shipper.run())
    await shipper.finish(600.0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await http.close()
    print({result: times for result, times in shipper.standing.results.items() if times})


def main(batches: int = 1000, rows: int = 100, folder: str | None = None) -> None:
    """Fill, ship, print."""
    chance = random.Random(1)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        spool = Spool.open(Path(scratch) / "spool")
        for _ in range(batches):
            grown = sorted(chance.sample(range(20_000), rows))
            append(spool, rows=tuple((f"customer-{n % 5000}", "requests", f"v{n // 5000}", n + 1) for n in grown))
        print(f"{batches} batches of {rows} rows, {spool.size >> 10} KiB in the spool")
        with closing(Collector(Path(scratch) / "collector", f"sqlite:///{scratch}/ledger.db")) as collector:
            collector.start()
            cpu, clock = time.process_time(), time.perf_counter()
            before = collector.cpu()
            asyncio.run(ship(spool, f"http://127.0.0.1:{collector.port}"))
            cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
            there = collector.cpu() - before
            print(
                f"{batches / clock:.0f} batches/s, {batches * rows / clock:.0f} rows/s in {clock:.1f} s; "
                f"{1e3 * cpu / batches:.2f} ms of CPU a batch here, {1e3 * there / batches:.2f} ms there"
            )
            assert collector.edges()["edge-1"]["watermark"] == batches
            sys.stdout = sys.stderr  # What the collector wrote is none of it.
        spool.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *sys.argv[3:4])
