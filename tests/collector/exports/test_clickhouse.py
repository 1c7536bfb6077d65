"""The questions that docs/usage/export.md puts to ClickHouse, answered by ClickHouse itself as by the ledger."""

import asyncio
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from edgeproxy.collector.database.schema import DAY, HOUR, hours, series
from edgeproxy.collector.events.event import UsageEvent
from edgeproxy.collector.events.event_writer import EventRequest, EventWriter
from edgeproxy.collector.ledger.known_names import KnownNames
from edgeproxy.collector.metrics import Metrics
from loadtest.testbed.batch_chains import NOON, Chain
from loadtest.testbed.process import ROOT
from tests.support.books import Books, Clock, clock, of_days  # noqa: F401

chdb = pytest.importorskip("chdb", reason="there is no chdb here")
pytest.importorskip("pyarrow", reason="there is no pyarrow on this machine")
from edgeproxy.collector.exports import exporter  # noqa: E402
from edgeproxy.collector.exports.storage import Storage  # noqa: E402

HOURS = NOON // HOUR * HOUR + 7 * DAY
Row = tuple[datetime, str, str, str, str, str, dict[str, str], int]
"""The hour, customer, meter, region, edge, route, dimensions and value of a row of the ledger."""


def read_questions() -> tuple[str, list[str]]:
    """Return the page's view, and its questions."""
    page = (ROOT / "docs" / "usage" / "export.md").read_text()
    block = re.findall(r"^```sql\n(CREATE VIEW.*?)^```", page, re.MULTILINE | re.DOTALL)[0]
    view, *questions = re.split(r"^-- \d+\..*\n", block, flags=re.MULTILINE)
    return view, questions


def add_up(rows: Iterable[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Return the sum of the last column for each of the others."""
    sums: Counter[tuple[object, ...]] = Counter()
    for *key, value in rows:
        sums[tuple(key)] += value  # type: ignore[call-overload]
    return [(*key, value) for key, value in sums.items()]


def of_meter(rows: list[Row], meter: str) -> Iterator[Row]:
    return (row for row in rows if row[2] == meter)


def share_regions(rows: list[Row]) -> list[tuple[object, ...]]:
    sums = add_up((row[3], row[7]) for row in of_meter(rows, "requests"))
    total = sum(row[-1] for row in sums)  # type: ignore[misc]
    return [(region, round(100 * value / total, 2)) for region, value in sums]  # type: ignore[operator]


def find_busiest(rows: list[Row]) -> list[tuple[object, ...]]:
    by_customer: dict[str, Counter[datetime]] = defaultdict(Counter)
    for row in of_meter(rows, "requests"):
        by_customer[row[1]][row[0]] += row[7]
    busiest = {name: max(sums, key=lambda hour: (sums[hour], -hour.timestamp())) for name, sums in by_customer.items()}
    return [(name, f"{hour:%Y-%m-%d %H:%M:%S}") for name, hour in busiest.items()]


def count_customers(rows: list[Row]) -> list[tuple[object, ...]]:
    by_day: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        by_day[f"{row[0]:%Y-%m-%d}"].add(row[1])
    return [(day, len(names)) for day, names in by_day.items()]


ANSWERS: list[Callable[[list[Row]], list[tuple[object, ...]]]] = [
    lambda rows: add_up((row[2], row[7]) for row in rows),
    lambda rows: add_up((row[1], row[7]) for row in of_meter(rows, "requests")),
    lambda rows: add_up((row[1], row[6].get("model", ""), row[7]) for row in of_meter(rows, "tokens")),
    lambda rows: add_up((f"{row[0]:%Y-%m-%d}", row[7]) for row in of_meter(rows, "requests")),
    lambda rows: add_up((row[0].hour, row[7]) for row in of_meter(rows, "requests")),
    share_regions,
    lambda rows: sorted(
        add_up((row[5], row[7]) for row in of_meter(rows, "requests") if row[1] == "acme"),
        key=lambda row: (-row[1], row[0]),  # type: ignore[operator]
    ),
    find_busiest,
    count_customers,
    lambda rows: add_up((row[1], row[2], row[7]) for row in rows if row[4] == "~events"),
]


async def fill(books: Books, clock: Clock) -> None:  # noqa: F811
    """Count usage of five hours over the end of a month in two regions, and events."""
    for edge, region in (("edge-1", "eu"), ("edge-2", "us")):
        chain = Chain(edge, region)
        for number, step in enumerate((0, 1, 4, 30, 24 * 3)):
            chain.since = HOURS + step * HOUR
            await books.ship(
                chain.next(
                    ("acme", "tokens", "v1", 3 + step, '{"model":"m1"}'),
                    ("acme", "tokens", "v1", 5, '{"model":"m2"}'),
                    ("acme", "requests", "v1", 2 + number),
                    ("acme", "requests", "files", 7 if region == "eu" else 3),
                    *([("bolt", "requests", "v1", 9 - number)] if number % 2 else []),
                )
            )
        clock.now = chain.since + 2 * HOUR
    metrics = Metrics()
    event = UsageEvent("billing", "1", "acme", "tokens", 11, HOURS + HOUR, dimensions='{"model":"m1"}')
    writer = EventWriter(books.database, KnownNames((), (), metrics), metrics)
    running = asyncio.get_running_loop().create_task(writer.run())
    await writer.write_events(EventRequest("billing", [(0, event)], ()))
    writer.end()
    await running
    await books.roll_up()


async def list_rows(books: Books) -> list[Row]:
    """Return the ledger's closed hours."""
    of, at = series.c, hours.c
    names = (of.customer, of.meter, of.region, of.edge, of.route, of.dimensions, at.value)
    rows = await books.all(sa.select(at.hour, *names).join_from(hours, series, at.series == of.id))
    return [
        (datetime.fromtimestamp(hour, UTC), *texts, json.loads(dimensions or "{}"), value)  # type: ignore[misc]
        for hour, *texts, dimensions, value in rows
    ]


def test_clickhouse_answers_ten_questions_as_the_ledger_does(clock: Clock, tmp_path: Path) -> None:  # noqa: F811
    async def run() -> list[Row]:
        books = await Books.open(f"sqlite:///{tmp_path}/ledger.db", clock)
        await fill(books, clock)
        await exporter.export_hours(books.database, Storage(f"file://{tmp_path}/parquet", {}))
        # Late usage goes to additional files of its hours.
        late = Chain("edge-3", "eu")
        late.since = HOURS + HOUR
        await books.ship(late.next(("acme", "requests", "v1", 100), ("cove", "requests", "v1", 1)))
        await books.roll_up()
        await exporter.export_hours(books.database, Storage(f"file://{tmp_path}/parquet", {}))
        rows = await list_rows(books)
        await books.close()
        return rows

    rows = asyncio.run(run())
    assert len({path.name for path in (tmp_path / "parquet/usage").glob("*/*.2.parquet")}) == 1
    view, questions = read_questions()
    assert len(questions) == len(ANSWERS) == 10
    files = f"file('{tmp_path}/parquet/usage/*/*.parquet', 'Parquet')"
    session = chdb.session.Session(str(tmp_path / "clickhouse"))
    session.query(re.sub(r"s3\(.*?\)(?=;)", files, view))
    for question, answer in zip(questions, ANSWERS, strict=True):
        lines = session.query(question.rstrip().rstrip(";"), "JSONCompactEachRow").bytes().decode().splitlines()
        got = [tuple(int(load) if str(load).isdigit() else load for load in json.loads(line)) for line in lines]
        expected = answer(rows)
        assert expected, question
        is_ordered = "ORDER BY" in question
        assert (got if is_ordered else sorted(got)) == (expected if is_ordered else sorted(expected)), question
    session.close()
