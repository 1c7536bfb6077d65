"""Ledger queries return equal totals at every granularity, before and after roll-ups and deletions, page by page."""

import asyncio
import random
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy.dialects.postgresql import asyncpg

from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY, HOUR, MINUTE, days, hours, ledger
from edgeproxy.collector.ledger import queries, rollup
from edgeproxy.collector.ledger.batch_writer import DatabaseUnavailableError
from edgeproxy.collector.ledger.queries import (
    InvalidQueryError,
    LedgerQuery,
    build_statement,
    fetch_usage,
    format_time,
    parse_query,
)
from edgeproxy.collector.ledger.rollup import RollupState
from edgeproxy.collector.ledger.sources import NotRetainedError, Source, select_sources
from loadtest.testbed.batch_chains import NOON, Chain
from loadtest.testbed.postgresql import Postgresql
from tests.collector.api.year import fill, month
from tests.support.books import Books, Cell, Clock, clock, of_days  # noqa: F401

D = NOON - NOON % DAY
"""The Unix time of the midnight before NOON."""
NOTHING = RollupState(0, 0, 0, 0)

# ---- tables that a query reads


@pytest.mark.parametrize(
    ("seconds", "since", "until", "rolled", "found"),
    [
        (DAY, D, D + DAY, NOTHING, [(days, D, D + DAY), (ledger, D, D + DAY, True)]),
        (DAY, D, D + DAY, RollupState(D + DAY, 0, 0, 0), [(days, D, D + DAY)]),
        (DAY, D, D + DAY, RollupState(D + HOUR, 7, 0, 0), [(days, D, D + DAY), (ledger, D + HOUR, D + DAY, True)]),
        (HOUR, D, D + DAY, RollupState(D + DAY, 0, 0, 0), [(hours, D, D + DAY)]),
        (MINUTE, D, D + DAY, RollupState(D + DAY, 0, 0, 0), [(ledger, D, D + DAY)]),
        (DAY, D, D, NOTHING, []),
        (DAY, D + 1, D + MINUTE, NOTHING, []),
        (DAY, D + 1, D + MINUTE + 1, NOTHING, [(ledger, D + MINUTE, D + 2 * MINUTE)]),
        (DAY, D + 90, D + HOUR - 90, RollupState(D + DAY, 0, 0, 0), [(ledger, D + 120, D + HOUR - MINUTE)]),
        (
            DAY,
            D - HOUR - 90,
            D + 2 * DAY + HOUR + 90,
            RollupState(D + DAY + HOUR, 5, 0, 0),
            [
                (days, D, D + 2 * DAY),
                (hours, D - HOUR, D),
                (hours, D + 2 * DAY, D + 2 * DAY + HOUR),
                (ledger, D - HOUR - MINUTE, D - HOUR),
                (ledger, D + 2 * DAY + HOUR, D + 2 * DAY + HOUR + 2 * MINUTE),
                (ledger, D + DAY + HOUR, D + 2 * DAY + HOUR, True),
            ],
        ),
    ],
)
def test_query_reads_each_count_from_the_coarsest_table(
    seconds: int, since: int, until: int, rolled: RollupState, found: list[Any]
) -> None:
    assert select_sources(seconds, since, until, rolled) == tuple(Source(*each) for each in found)


@pytest.mark.parametrize(
    ("seconds", "since", "until", "kept"),
    [
        (MINUTE, D, D + HOUR, D + 1),
        (MINUTE, D, D + HOUR, None),
        (HOUR, D - DAY, D + HOUR, None),
        (HOUR, D - DAY + MINUTE, D + HOUR, D),
        (DAY, D - DAY, D + MINUTE, None),
        (DAY, D - DAY, D - MINUTE, D),
        (HOUR, D - 2 * DAY, D, D - DAY),
        (DAY, D - 2 * DAY, D, None),
        (DAY, D - 2 * DAY + HOUR, D, D - DAY),
    ],
)
def test_query_for_deleted_rows_raises_not_retained(seconds: int, since: int, until: int, kept: int | None) -> None:
    """`kept` is the start of the rows that are left in the table, or None if no requested row is missing."""
    minutes_from = D + 1 if kept == D + 1 else D
    rolled = RollupState(D, 0, minutes_from, D - DAY)
    if kept is None:
        assert select_sources(seconds, since, until, rolled)
        return
    with pytest.raises(NotRetainedError) as caught:
        select_sources(seconds, since, until, rolled)
    assert caught.value.since == kept


# ---- totals


@pytest.mark.both_databases
def test_query_totals_equal_the_counted_values_at_any_time(
    database: str,
    clock: Clock,  # noqa: F811
    seed: int,
    pytestconfig: pytest.Config,
) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    asyncio.run(_at_any_moment(database, clock, chance, 300 if pytestconfig.getoption("soak") else 10))


async def _at_any_moment(url: str, clock: Clock, chance: random.Random, moments: int) -> None:  # noqa: F811
    books = await Books.open(url, clock, of_days(chance.choice([2, 40]), chance.choice([None, 45]), 10))
    chains = [Chain(f"edge-{number}", f"region-{number % 2}", since=NOON) for number in range(3)]
    answered = 0
    for _ in range(moments):
        clock.now += chance.choice([60, 600, HOUR, HOUR, 7 * HOUR, DAY])
        for chain in chains:
            chain.since = int(clock.now) - chance.choice([0, 0, 60, HOUR, 5 * HOUR, 2 * DAY])
            rows = [(f"c{chance.randrange(4)}", meter, "v1", chance.randint(1, 9)) for meter in ("requests", "bytes")]
            await books.ship(chain.next(*rows))
        for _ in range(chance.randrange(12)):
            await rollup.roll_up_slice(books.database, clock.now, size=chance.choice([1, 3, 100]))
        if chance.random() < 0.1:
            await books.retain()
        for _ in range(4):
            question = _drawn(chance, int(clock.now))
            expected = _of(books.counted, question)
            async with books.database.reading(whole=True) as connection:
                at = await rollup.fetch_state(connection)
                try:
                    told = await fetch_usage(connection, question)
                    pages = await _paged(connection, question, chance, len(expected))
                except InvalidQueryError:
                    assert question.since < at.minutes_from
                    continue
            answered += 1
            assert told["total"] == sum(expected.values())
            assert told["rows"] == pages == _rows(question, expected)
    assert answered > moments
    await books.close()


def _drawn(chance: random.Random, now: int) -> LedgerQuery:
    """Return a random query for a time before or around `now`."""
    step = chance.choice([1, MINUTE, HOUR, DAY])
    since = (now - chance.choice([HOUR, DAY, 5 * DAY, 60 * DAY])) // step * step
    until = chance.choice([since + chance.choice([0, 1, 7 * MINUTE, HOUR, 2 * DAY]), now, now + 2 * DAY]) // step * step
    by = chance.sample(queries.FIELDS, chance.choice([0, 1, 1, 2, 3]))
    customer = chance.choice([None, f"c{chance.randrange(4)}"])
    return LedgerQuery(customer, chance.choice([None, "requests"]), since, max(since, until), tuple(by))


def _of(counted: Mapping[Cell, int], question: LedgerQuery) -> dict[tuple[Any, ...], int]:
    """Return the counted values that a query covers, by the fields of its rows."""
    found: dict[tuple[Any, ...], int] = defaultdict(int)
    for (minute, region, customer, meter, route), value in counted.items():
        times = {name: minute - minute % seconds for name, seconds in queries.SECONDS.items()}
        fields = {**times, "region": region, "customer": customer, "meter": meter, "route": route}
        expected = question.since <= minute < question.until and question.meter in (None, meter)
        if expected and question.customer in (None, customer):
            found[tuple(fields[name] for name in question.by)] += value
    return found


def _rows(question: LedgerQuery, wanted: Mapping[tuple[Any, ...], int]) -> list[dict[str, Any]]:
    return [
        {
            **{
                name: format_time(field) if name in queries.SECONDS else field
                for name, field in zip(question.by, key, strict=True)
            },
            "value": wanted[key],
        }
        for key in sorted(wanted)
    ]


async def _paged(connection: Any, question: LedgerQuery, chance: random.Random, size: int) -> list[dict[str, Any]]:
    """Return the rows of all pages of a query, at most three. Every page must state one total."""
    rows, totals = [], Counter[int]()
    said = {"by": ",".join(question.by), "from": format_time(question.since), "to": format_time(question.until)}
    said |= {name: value for name in ("customer", "meter") if (value := getattr(question, name)) is not None}
    limit = size // 3 + chance.randint(1, 2)
    page: dict[str, Any] = {}
    while not rows or "next" in page:
        cursor = {"cursor": page["next"]} if page else {}
        page = await fetch_usage(connection, parse_query({**said, "limit": str(limit), **cursor}, 0))
        totals[page["total"]] += 1
        rows += page["rows"]
        if "next" not in page:
            break
        assert len(page["rows"]) == limit
    assert len(totals) == 1
    return rows


async def test_pages_neither_repeat_nor_skip_rows_while_batches_arrive(
    database: str,
    clock: Clock,  # noqa: F811
) -> None:
    books = await Books.open(database, clock)
    chain = Chain(since=NOON)
    await books.ship(chain.next(*((f"c{number}", "requests", "v1", 1) for number in range(0, 20, 2))))
    said = {"by": "customer", "from": "1970-01-01", "limit": "3"}
    seen, page = [], {"next": None}
    while "next" in page:
        cursor = {"cursor": page["next"]} if page["next"] else {}
        async with books.database.reading(whole=True) as connection:
            page = await fetch_usage(connection, parse_query({**said, **cursor}, clock.now))
        seen += [row["customer"] for row in page["rows"]]
        # One new row lies before the next page, and one after all rows.
        await books.ship(chain.next((f"c{len(seen) // 2}x", "requests", "v1", 1), ("z", "requests", "v1", 1)))
    assert seen[:-1] == sorted({f"c{number}" for number in range(0, 20, 2)} | set(seen[:-1]))
    assert seen[-1] == "z"
    await books.close()


# ---- cursors


def question(**query: str) -> LedgerQuery:
    """Return a query that is sent at noon."""
    return parse_query({"by": "customer,hour", **query}, NOON)


def test_cursor_keeps_the_times_of_its_query() -> None:
    first = question()
    cursor = first.build_cursor(("acme", D))
    later = parse_query({"by": "customer,hour", "cursor": cursor}, NOON + 40 * DAY)
    assert (later.since, later.until, later.after) == (first.since, first.until, ("acme", D))
    assert question(cursor=cursor, **{"from": format_time(first.since)}).after == ("acme", D)


@pytest.mark.parametrize("query", [{"customer": "acme"}, {"meter": "x"}, {"from": "2026-01-01"}, {"to": "2027-01-01"}])
def test_cursor_of_another_query_is_refused(query: dict[str, str]) -> None:
    cursor = question().build_cursor(("acme", D))
    with pytest.raises(InvalidQueryError, match="of another question"):
        question(cursor=cursor, **query)


@pytest.mark.parametrize(
    "after", [(), ("acme",), ("acme", "x"), (D, "acme"), ("a\0", D), ("acme", -1), ("acme", 2**63)]
)
def test_cursor_with_forged_position_is_refused(after: Any) -> None:
    with pytest.raises(InvalidQueryError, match="none that was given here"):
        question(cursor=question().build_cursor(after))


@pytest.mark.parametrize("cursor", ["", "x", "!", "eyJ9", "W10", "WzEsMiwzXQ", "ä", "W1sxXSwxLDJd"])
def test_malformed_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidQueryError, match="none that was given here"):
        question(cursor=cursor)


# ---- query plans


def test_query_for_a_month_of_a_customer_uses_indexes(postgresql: Postgresql) -> None:
    url = postgresql.database()
    months = (1, 2)

    async def plans() -> list[str]:
        await fill(url, 300, months, paces=())
        database = await Database.connect(url)
        found = []
        async with database.reading(whole=True) as connection:
            rolled = await rollup.fetch_state(connection)
            for by in ((), ("day",), ("hour",), ("minute",), ("minute", "route")):
                statement = build_statement(LedgerQuery("customer-200", None, *month(2), by), rolled)
                options = {"literal_binds": True}
                written_out = str(statement.compile(dialect=asyncpg.dialect(), compile_kwargs=options))
                plan = await connection.exec_driver_sql(f"EXPLAIN {written_out}")
                found.append("\n".join(plan.scalars()))
        await database.close()
        return found

    for plan in asyncio.run(plans()):
        scanned = set(re.findall(r"Seq Scan on (\w+)", plan))
        assert scanned <= {"series"}, plan
        assert "ledger_2026_02" in plan
        assert "ledger_2026_01" not in plan, plan


def test_writer_reloads_its_cached_rows_after_the_ledger_changed(
    postgresql: Postgresql,
    clock: Clock,  # noqa: F811
) -> None:
    """The writer caches which ledger rows exist. Its cache is wrong after another database took its place."""

    async def run() -> int:
        books = await Books.open(postgresql.database(), clock)
        chain = Chain(since=NOON)
        await books.ship(chain.next())
        await books.ship(chain.next())
        async with books.database.writing() as connection:
            await connection.exec_driver_sql("DELETE FROM ledger")
        batch = chain.next()
        with pytest.raises(DatabaseUnavailableError):
            await books.ship(batch)
        await books.ship(batch)
        async with books.database.reading(whole=True) as connection:
            found = await fetch_usage(connection, parse_query({"from": "1970-01-01"}, NOON))
        await books.close()
        total: int = found["total"]
        return total

    assert asyncio.run(run()) == 7
