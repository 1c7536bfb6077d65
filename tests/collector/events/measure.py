"""Measure what events cost a collector: `python -m tests.collector.events.measure [sqlite] [postgresql]`.

Each sender has one connection. It sends batches of new events of 100 customers with two dimensions, and waits for each
answer. The collector answers once the events are on disk. The CPU time of the collector and of the database server are
reported separately.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from threading import Lock
from typing import Any

from loadtest.testbed.collector import SERVICE, Collector
from loadtest.testbed.postgresql import Postgresql

CUSTOMERS = 100
METERS = {name: {"count": "events", "dimensions": {"model": 50, "agent": 50}} for name in ("tokens", "runs")}
FIELDS = {"Authorization": f"Bearer {SERVICE}", "Content-Type": "application/json"}


def event(chance: random.Random, now: int) -> dict[str, Any]:
    """Return a unique event of the last two minutes."""
    return {
        "id": f"{chance.getrandbits(128):032x}",
        "source": "measured",
        "customer": f"c{chance.randrange(CUSTOMERS)}",
        "meter": chance.choice(("tokens", "runs")),
        "value": chance.randrange(1, 1000),
        "time": datetime.fromtimestamp(now - chance.randrange(120), UTC).isoformat(),
        "dimensions": {"model": f"m{chance.randrange(4)}", "agent": f"a{chance.randrange(3)}"},
    }


class Senders:
    """Send each body once. `seconds` holds the time from each request to its 202."""

    def __init__(self, port: int, bodies: Iterator[bytes]) -> None:
        self.seconds: list[float] = []
        self._port, self._bodies, self._lock = port, bodies, Lock()

    def send(self) -> None:
        """Send bodies until none is left."""
        connection = HTTPConnection("127.0.0.1", self._port)
        while (body := self._next()) is not None:
            began = time.perf_counter()
            connection.request("POST", "/v1/events", body, FIELDS)
            answer = connection.getresponse()
            said = answer.read()
            assert answer.status == 202, said
            self.seconds.append(time.perf_counter() - began)
        connection.close()

    def _next(self) -> bytes | None:
        with self._lock:
            return next(self._bodies, None)


def measure(kind: str, count: int, size: int, senders: int) -> str:
    """Send `count` events in batches of `size`, and return the result as text."""
    chance, now = random.Random(1), int(time.time())
    bodies = [json.dumps([event(chance, now) for _ in range(size)]).encode() for _ in range(count // size)]
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory()))
        server = ends.enter_context(closing(Postgresql(durable=True))) if kind == "postgresql" else None
        url = server.database() if server else f"sqlite:///{folder}/ledger.db"
        customers = {f"c{number}": {"tier": "basic"} for number in range(CUSTOMERS)}
        made = Collector(folder / "collector", url, meters=METERS, customers=customers)
        collector = ends.enter_context(closing(made)).start()
        sending = Senders(collector.port, iter(bodies))
        pool = ends.enter_context(ThreadPoolExecutor(senders))
        before, began = (collector.cpu(), server.cpu() if server else 0.0), time.monotonic()
        for one in [pool.submit(sending.send) for _ in range(senders)]:
            one.result()
        took, own = time.monotonic() - began, collector.cpu() - before[0]
        beside = f", the server's {(server.cpu() - before[1]) / count * 1e6:.1f}" if server else ""
        waited = sorted(sending.seconds)
        middle, late = (waited[int(len(waited) * share)] * 1000 for share in (0.5, 0.99))
        return (
            f"{kind}, batches of {size} by {senders}: {count / took:,.0f} events/s, {count / own:,.0f}/s a core of the "
            f"collector; CPU {own / count * 1e6:.1f} µs an event{beside}; a batch p50 {middle:.0f}, p99 {late:.0f} ms"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="How many events a collector takes, and what each costs it.")
    parser.add_argument("kinds", nargs="*", default=["sqlite", "postgresql"])
    parser.add_argument("--events", type=int, default=400_000)
    parser.add_argument("--size", type=int, nargs="+", default=[100, 1000], help="events of a batch")
    parser.add_argument("--senders", type=int, default=8)
    options = parser.parse_args()
    for kind in options.kinds:
        for size in options.size:
            print(measure(kind, options.events, size, options.senders), flush=True)


if __name__ == "__main__":
    main()
