"""How long the pages of the console take where there is much: many customers, and a ledger of many rows.

    .venv/bin/python -m loadtest.pages --customers 1000000 --rows 40000000

It fills a database of SQLite in a folder of its own, starts a collector on it, signs an operator in, and asks for each
page again and again, one request at a time. For each page it prints the time to the first byte and the bytes sent.
"""

import argparse
import re
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode

from edgeproxy.database.schema import DAY, HOUR
from tests.support.collector import ADMIN, Collector
from tests.support.ports import HOST
from tests.support.waiting import until

LINK = re.compile(r"/sign-in/link\?token=(\S+)")
GOAL_MS, GOAL_BYTES = 150.0, 100 << 10
PAGES = (
    *("", "/customers", "/customers?q=c0000", "/customers/{customer}", "/edges", "/refusals", "/incidents", "/alerts"),
    *("/stuck", "/tokens", "/audit", "/invoices", "/invoices?state=", "/rollout", "/reconciliation", "/figures"),
)
BATCH = 50_000
METERS = {"requests": {"count": "requests"}, "tokens": {"count": "events"}, "refused": {"count": "refusals"}}


def main(arguments: list[str]) -> int:
    """Measure; 1 where a page is slower or larger than the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=400_000, help="of the ledger, in hours of the last 30 days")
    parser.add_argument("--requests", type=int, default=100, help="of each page")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="pages-") as name:
        folder = Path(name)
        collector = Collector(folder, f"sqlite:///{folder}/ledger.db", meters=METERS, pages={})
        with closing(collector):
            collector.start()
            collector.end()
            began = time.monotonic()
            rows = fill(collector.database, options.customers, options.rows)
            print(f"{options.customers} customers and {rows} rows were written in {time.monotonic() - began:.0f} s")
            collector.start()
            return 0 if measured(collector, options.customers, options.requests) else 1


def fill(database: Path, customers: int, rows: int) -> int:
    """Write customers, a series of each and its hours; return how many hours. Every hundredth customer is refused."""
    now = int(time.time())
    hour = now // HOUR * HOUR
    each = max(1, rows // customers)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        for first in range(0, customers, BATCH):
            some = range(first, min(first + BATCH, customers))
            made = [
                (f"018f0000-0000-7000-8000-{n:012x}", name_of(n), "basic", '{"tier":"basic"}', "{}", now * 1000, 1)
                for n in some
            ]
            columns = "id, name, tier, settings, metadata, created_at, version"
            connection.executemany(f"INSERT INTO customers ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", made)
            series = [("edge-1", "eu-west", name_of(n), "requests", "v1", "") for n in some]
            refused = '{"certain":"yes","limit":"basic"}'
            series += [("edge-1", "eu-west", name_of(n), "refused", "v1", refused) for n in some if n % 100 == 0]
            connection.executemany(
                "INSERT INTO series (edge, region, customer, meter, route, dimensions) VALUES (?, ?, ?, ?, ?, ?)",
                series,
            )
        connection.execute(
            "INSERT INTO series_dimensions SELECT 'limit', id, 'basic' FROM series WHERE meter = 'refused'"
        )
        connection.execute(
            "INSERT INTO series_dimensions SELECT 'certain', id, 'yes' FROM series WHERE meter = 'refused'"
        )
        numbers = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?)"
        spread = max(HOUR, 30 * DAY // each // HOUR * HOUR)
        hours = f"{numbers} INSERT INTO hours SELECT id, ? - n * ?, 7 FROM series CROSS JOIN n"
        connection.execute(hours, [each, hour, spread])
        connection.execute("INSERT INTO days SELECT series, hour - hour % 86400, sum(value) FROM hours GROUP BY 1, 2")
        connection.execute("UPDATE rollup SET hour = ?, series = (SELECT max(id) FROM series)", [hour])
        connection.commit()
        (count,) = connection.execute("SELECT count(*) FROM hours").fetchone()
    return int(count)


def name_of(number: int) -> str:
    """The name of a customer."""
    return f"c{number:07}"


def measured(collector: Collector, customers: int, requests: int) -> bool:
    """Print how long each page takes; whether all are within the goals."""
    until(lambda: LINK.search(collector.output) is not None, "the link is printed")
    (token, *_) = reversed(LINK.findall(collector.output))
    site = f"http://{HOST}:{collector.port}"
    with closing(HTTPConnection(HOST, collector.port, timeout=600)) as connection:
        fields = {"Origin": site, "Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/sign-in/link", urlencode({"token": token}), fields)
        answer = connection.getresponse()
        answer.read()
        cookie = (answer.headers["Set-Cookie"] or "").partition(";")[0]
        is_good = True
        print(f"{'page':32} {'p50 ms':>8} {'p95 ms':>8} {'first':>8} {'bytes':>8}")
        for page in PAGES:
            path = "/console" + page.format(customer=name_of(customers // 2))
            times, size = [], 0
            for _ in range(requests):
                status = 429
                while status == 429:  # What is about money may be asked for 100 times a minute.
                    began = time.perf_counter()
                    connection.request("GET", path, headers={"Cookie": cookie})
                    answer = connection.getresponse()  # Returns with the head, which comes with the first byte.
                    took = (time.perf_counter() - began) * 1000
                    size, status = len(answer.read()), answer.status
                    time.sleep(1.0 if status == 429 else 0.0)
                assert status == 200, (path, status)
                times.append(took)
            p95 = statistics.quantiles(times, n=20)[-1] if len(times) > 1 else times[0]
            within = p95 <= GOAL_MS and size <= GOAL_BYTES
            is_good &= within
            figures = f"{statistics.median(times):8.1f} {p95:8.1f} {times[0]:8.1f} {size:8}"
            print(f"{path:32} {figures}{'' if within else '  above the goal'}", flush=True)
    assert collector.get("/v1/customers", token=ADMIN, limit="1").status == 200
    return is_good


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
