"""Measure usage queries on a year in PostgreSQL: `python -m tests.collector.api.year [--customers 10000]`.

The database generates the ledger itself. 2 of 10,000 customers are active in every minute, 60 in one of ten, 1,000 in
one of a hundred, the rest in one of a thousand. Each customer has two edges and two meters, one of them by model, so
three series. That makes 42 million minute rows, some 11 GB with hours and days, on disk in the order of their arrival.
"""

import argparse
import asyncio
import calendar
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import asyncpg

from edgeproxy.collector.database.database import Database
from loadtest.testbed.collector import Collector
from loadtest.testbed.postgresql import Postgresql

YEAR = 2026
PACES = ((2, 1), (60, 10), (1_000, 100))
"""Pairs (n, m): n of 10,000 customers are active in one of m minutes."""
REST = 1_000
"""All other customers are active in one of this many minutes."""
QUESTIONS: dict[str, dict[str, str]] = {
    "total": {},
    "by model": {"by": "model"},
    "by day": {"by": "day"},
    "by model and day": {"by": "model,day"},
    "by hour": {"by": "hour"},
    "by model and hour": {"by": "model,hour"},
    "by minute": {"by": "minute"},
    "by route and day": {"by": "route,day"},
    "tokens": {"meter": "tokens"},
    "tokens by model": {"meter": "tokens", "by": "model"},
    "tokens by day": {"meter": "tokens", "by": "day"},
    "tokens by model and day": {"meter": "tokens", "by": "model,day"},
}
RATIO_MAX = 1.5
"""The allowed time of a query by dimension, as a multiple of the query without the dimension."""
METERS = {"requests": {"count": "requests"}, "tokens": {"count": "events", "dimensions": {"model": 50}}}
UNROLLED = 2 * 3600
"""Seconds before the year's end without a roll-up."""

SERIES = """
INSERT INTO series (edge, region, customer, meter, route, dimensions)
SELECT edge, region, 'customer-' || n, meter, 'v1', split
FROM generate_series(0, $1 - 1) n,
     (VALUES ('a', 'eu', 'requests', ''),
             ('a', 'eu', 'tokens', '{"model":"m1"}'),
             ('b', 'us', 'tokens', '{"model":"m2"}')) kinds(edge, region, meter, split)
"""
SPLITS = """
INSERT INTO series_dimensions (series, name, value)
SELECT id, 'model', dimensions::json ->> 'model' FROM series WHERE dimensions <> ''
"""
EDGES = """
INSERT INTO edges (edge, region, seq, hash, received, latest)
SELECT edge, region, 0, '', 0, $1 FROM (VALUES ('a', 'eu'), ('b', 'us')) both_of_them(edge, region)
"""
"""`latest`: the roll-up of an edge's usage may proceed to this second."""
MINUTES = """
INSERT INTO {name} (series, minute, value)
SELECT id, {since} + 60 * minute, 1 + id % 97
FROM (SELECT id, CASE {paces} ELSE {rest} END AS pace FROM (SELECT id, (id - 1) / 3 AS n FROM series) one) paced,
     LATERAL (SELECT step * pace + abs(hashint8(id * 1000003 + step)::bigint) % pace AS minute
              FROM generate_series(0, {minutes} / pace) step) chosen
WHERE minute < {minutes}
ORDER BY minute, id
"""
ROLLED = """
INSERT INTO {table} SELECT series, minute - minute % {seconds} AS time, sum(value) FROM {name}
WHERE minute < {until} GROUP BY 1, 2 ORDER BY 2, 1
"""


def month(number: int) -> tuple[int, int]:
    """Return the Unix seconds at which a month of the year begins and ends."""
    begin = calendar.timegm((YEAR, number, 1, 0, 0, 0))
    return begin, begin + calendar.monthrange(YEAR, number)[1] * 86400


async def fill(
    url: str, customers: int, months: Sequence[int] = range(1, 13), paces: Sequence[tuple[int, int]] = PACES
) -> int:
    """Create and fill the tables. Return the number of minute rows."""
    database = await Database.connect(url)
    await database.close()
    connection = await asyncpg.connect(url, command_timeout=3600)
    for setting in ("work_mem = '256MB'", "maintenance_work_mem = '256MB'", "synchronous_commit = off"):
        await connection.execute(f"SET {setting}")
    await connection.execute(SERIES, customers)
    await connection.execute(SPLITS)
    end = month(months[-1])[1] - UNROLLED
    await connection.execute(EDGES, end + UNROLLED - 60)
    for table in ("hours", "days"):  # Their indexes are created at the end, which is faster.
        await connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey")
    bounds, above = ["WHEN n < 0 THEN 1"], 0
    for count, pace in paces:
        above += max(1, count * customers // 10_000)
        bounds.append(f"WHEN n < {above} THEN {pace}")
    for number in months:
        since, until = month(number)
        name = f"ledger_{YEAR}_{number:02}"
        await connection.execute(f"CREATE TABLE {name} (LIKE ledger INCLUDING CONSTRAINTS) WITH (fillfactor = 50)")
        about = {"paces": " ".join(bounds), "rest": REST, "minutes": (until - since) // 60}
        await connection.execute(MINUTES.format(name=name, since=since, **about))
        await connection.execute(f"ALTER TABLE ledger ATTACH PARTITION {name} FOR VALUES FROM ({since}) TO ({until})")
        for table, seconds in (("hours", 3600), ("days", 86400)):
            await connection.execute(ROLLED.format(table=table, seconds=seconds, name=name, until=end))
    for table, column in (("hours", "hour"), ("days", "day")):
        await connection.execute(f"ALTER TABLE {table} ADD CONSTRAINT {table}_pkey PRIMARY KEY (series, {column})")
    await connection.execute("UPDATE rollup SET hour = $1, series = 0", end)
    await connection.execute("ANALYZE")
    rows: int = await connection.fetchval(
        "SELECT sum(reltuples)::bigint FROM pg_class WHERE relname LIKE 'ledger\\_____\\___'"
    )
    await connection.close()
    return rows


def asked(collector: Collector, customer: int, number: int, query: dict[str, str]) -> tuple[float, int]:
    """Query a customer's month. Return the seconds until the answer, and its total."""
    since, until = (time.strftime("%Y-%m-%d", time.gmtime(second)) for second in month(number))
    began = time.perf_counter()
    answer = collector.get("/v1/usage", **{"customer": f"customer-{customer}", "from": since, "to": until, **query})
    took = time.perf_counter() - began
    assert answer.status == 200, answer
    body = answer.json()
    total: int = sum(body["totals"].values()) if "totals" in body else body["total"]
    return took, total


def measured(collector: Collector, drawn: Sequence[tuple[int, int]]) -> dict[str, list[float]]:
    """Return the milliseconds of each query for these customers' months, and assert that all totals agree.

    Each month gets all queries, each time starting with another one, so that other load affects all queries alike.
    """
    taken: dict[str, list[float]] = {name: [] for name in QUESTIONS}
    totals: dict[tuple[int, int, str], set[int]] = {}
    for turn, (customer, number) in enumerate(drawn):
        names = list(QUESTIONS)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            took, total = asked(collector, customer, number, QUESTIONS[name])
            taken[name].append(took * 1000)
            totals.setdefault((customer, number, QUESTIONS[name].get("meter", "")), set()).add(total)
    apart = {month: some for month, some in totals.items() if len(some) > 1}
    assert not apart, f"questions of {len(apart)} of {len(totals)} months have different answers: {apart}"
    return taken


def ratios(taken: dict[str, list[float]]) -> dict[str, float]:
    """Return, for each query by model, its median time as a multiple of the query without the model."""
    found = {}
    for name, query in QUESTIONS.items():
        by = query.get("by", "").split(",")
        if "model" in by:
            without = ",".join(part for part in by if part != "model")
            plain = {**query, "by": without} if without else {key: said for key, said in query.items() if key != "by"}
            (other,) = [one for one, said in QUESTIONS.items() if said == plain]
            found[name] = statistics.median(taken[name]) / statistics.median(taken[other])
    return found


def drawn(chance: random.Random, customers: int, months: Sequence[int], size: int) -> list[tuple[int, int]]:
    """Draw customers and months to query, among customers who are active in less than one minute in ten."""
    busy = sum(max(1, count * customers // 10_000) for count, pace in PACES if pace <= 10)
    return [(chance.randrange(busy, customers), chance.choice(months)) for _ in range(size)]


def main() -> int:
    parser = argparse.ArgumentParser(description="How long questions about a customer's month take.")
    parser.add_argument("--customers", type=int, default=10_000)
    parser.add_argument("--asked", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance, is_good = random.Random(options.seed), True
    months = range(1, 13)
    with tempfile.TemporaryDirectory() as folder, closing(Postgresql()) as server:
        url = server.database()
        began = time.monotonic()
        rows = asyncio.run(fill(url, options.customers, months))
        print(
            f"{rows:,} rows of minutes, {server.size() / 1e9:.1f} GB, made in {time.monotonic() - began:.0f} s",
            flush=True,
        )
        busy, often = (0, 1), (2, 3)
        kinds = {
            "cold": drawn(chance, options.customers, months, options.asked),
            "warm": drawn(chance, options.customers, months, options.asked),
            "active in one minute of ten": [(chance.choice(often), chance.choice(months)) for _ in range(10)],
            "active in every minute": [(chance.choice(busy), chance.choice(months)) for _ in range(10)],
        }
        server.restart()
        with closing(Collector(Path(folder), url, meters=METERS)) as collector:
            collector.start()
            for kind, some in kinds.items():
                if kind != "cold":
                    measured(collector, some)
                taken = measured(collector, some)
                for name, times in taken.items():
                    p50, p95 = statistics.median(times), statistics.quantiles(times, n=20)[-1]
                    print(f"{kind}, {name}: p50 {p50:.1f} ms, p95 {p95:.1f} ms, max {max(times):.1f} ms", flush=True)
                for name, ratio in ratios(taken).items():
                    is_good &= kind == "cold" or ratio <= RATIO_MAX
                    print(f"{kind}, {name}: {ratio:.2f} times as long as without", flush=True)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
