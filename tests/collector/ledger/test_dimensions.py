"""Usage of edges and events by dimension, at every granularity, before and after roll-ups, and its bound on values."""

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
import sqlalchemy as sa

from edgeproxy.collector.billing.subscriptions.plan_versions import record_plans
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.schema import DAY, HOUR, MINUTE, batches, events, series_dimensions
from edgeproxy.collector.events.event import UsageEvent
from edgeproxy.collector.events.event_writer import EventRequest, EventWriter
from edgeproxy.collector.ledger import queries, readings, rollup
from edgeproxy.collector.ledger.chain_audit import BrokenChainError
from edgeproxy.collector.ledger.dimension_values import find_month_start
from edgeproxy.collector.ledger.quantity import fetch_quantities, fetch_quantity
from edgeproxy.collector.ledger.queries import LedgerQuery
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.meters import Meter
from loadtest.testbed.batch_chains import NOON, Chain
from tests.support.books import Books, Clock, clock, of_days  # noqa: F401

BOUND = 3
METERS = {
    "tokens": Meter.model_validate(
        {"count": "events", "dimensions": {"model": BOUND, "agent": 50}},
    ),
    "seats": Meter.model_validate({"count": "events", "aggregate": "max", "dimensions": {"team": 5}}),
    "users": Meter.model_validate({"count": "events", "aggregate": "unique", "dimensions": {"team": 5}}),
}


class Quiet:
    """Metrics that record nothing."""

    def __init__(self) -> None:
        self.goods: list[Any] = []

    def events_settled(self, receipt: Any) -> None:
        pass

    def failed(self) -> None:
        pass


class Services:
    """Services that report events to the database of `books`."""

    def __init__(self, books: Books) -> None:
        self._intake = EventWriter(books.database, books.ingest._names, Quiet())
        self._intake.values.set_bounds(METERS)
        self._running = asyncio.get_running_loop().create_task(self._intake.run())

    async def report(self, *some: UsageEvent) -> tuple[int, int, int]:
        receipt = await self._intake.write_events(EventRequest("worker", list(enumerate(some)), ()))
        return receipt.accepted, receipt.duplicates, len(receipt.rejected)

    async def close(self) -> None:
        self._intake.end()
        await self._running


def event(number: int, at: int, meter: str = "tokens", value: int = 1, split: str = "", **also: Any) -> UsageEvent:
    return UsageEvent("s", f"e{number}", "acme", meter, value, at, True, None, split, **also)


def split(model: str | None, agent: str | None = None) -> str:
    said = {"agent": agent, "model": model}
    return queries.dimensions.format_dimensions({name: value for name, value in said.items() if value is not None})


@pytest.mark.both_databases
def test_usage_by_dimension_equals_the_counts_before_and_after_rollup(
    database: str,
    clock: Clock,  # noqa: F811
    seed: int,
) -> None:
    print(f"seed {seed}")
    asyncio.run(_at_any_moment(database, clock, random.Random(seed)))


async def _check_spans(books: Books, question: LedgerQuery, now: int, chance: random.Random) -> None:
    """Check that one statement for several spans returns the rows of a statement for each. Spans may overlap."""
    spans = []
    for _ in range(12):
        since = now - chance.choice([5 * HOUR, 3 * DAY, 40 * DAY]) + chance.randrange(3 * HOUR)
        since -= since % chance.choice([1, MINUTE, HOUR, DAY])
        spans.append((since, since + chance.choice([0, 1, MINUTE, chance.randrange(3 * HOUR), HOUR, 3 * DAY])))
    async with books.database.reading(whole=True) as connection:
        unstored = await queries.find_unstored(connection, spans)
        stored = [span for span in spans if span not in unstored]
        by_span = await queries.fetch_usage_of_spans(connection, question, stored)
        for place, span in enumerate(stored):
            one = queries.replace(question, since=span[0], until=span[1])
            rows = (await queries.fetch_usage(connection, one))["rows"]
            assert [row for number, row in by_span if number == place] == rows, span
        for span in unstored:
            one = queries.replace(question, since=span[0], until=span[1])
            with pytest.raises(queries.InvalidQueryError, match="not kept any more"):
                await queries.fetch_usage(connection, one)
            with pytest.raises(queries.InvalidQueryError, match="not kept any more"):
                await queries.fetch_usage_of_spans(connection, question, spans)


async def _at_any_moment(url: str, clock: Clock, chance: random.Random) -> None:  # noqa: F811
    books = await Books.open(url, clock, of_days(2, None, 1))
    books.ingest.values.set_bounds(METERS)
    services = Services(books)
    chains = [Chain(f"edge-{number}", f"region-{number}", since=NOON) for number in range(2)]
    counted: Counter[tuple[int, str, str, str]] = Counter()
    taken: dict[tuple[int, str], list[str]] = {}

    def as_counted(minute: int, customer: str, model: str | None) -> str:
        """Return the counted value: `model` while the customer's month has room for it, else "~other"."""
        if model is None:
            return ""
        values = taken.setdefault((find_month_start(minute), customer), [])
        if model not in values and len(values) < BOUND:
            values.append(model)
        return model if model in values else "~other"

    number = 0
    for _ in range(5):
        clock.now += chance.choice([600, HOUR, 7 * HOUR, DAY])
        for chain in chains:
            chain.since = int(clock.now) - chance.choice([0, 60, 5 * HOUR])
            rows = []
            some = [(customer, chance.choice([None, "m1", "m2", "m3", "m4", "m5"])) for customer in ("acme", "bolt")]
            if not counted:
                some = [("acme", f"m{one}") for one in range(1, BOUND + 2)]
            for customer, model in some:
                row = (customer, "tokens", "v1", chance.randint(1, 9))
                rows.append((*row, split(model, "a")) if model else row)
            batch = chain.next(*rows)
            for row in batch.rows:  # In the order of the body.
                model = queries.dimensions.parse_dimensions(row[4])["model"] if len(row) == 5 else None
                agent = "a" if len(row) == 5 else ""
                counted[batch.minute, row[0], as_counted(batch.minute, row[0], model), agent] += row[3]
            await books.ship(batch)
        at = int(clock.now) - chance.choice([0, 90, 6 * HOUR])
        model = chance.choice([None, "m1", "m6"])
        one = event(number := number + 1, at, value=5, split=split(model))
        assert await services.report(one) == (1, 0, 0)
        assert await services.report(one, one._replace(value=6, dimensions=split("new"))) == (0, 1, 1)
        counted[one.minute, "acme", as_counted(one.minute, "acme", model), ""] += 5
        for _ in range(chance.randrange(5)):
            await rollup.roll_up_slice(books.database, clock.now, size=chance.choice([1, 100]))
        if chance.random() < 0.3:
            await books.retain()
        await books.verify()
        units = {"minute": MINUTE, "hour": HOUR, "day": DAY}
        for by in (("model",), ("customer", "agent"), ("day", "model", "agent"), ("model", "hour", "customer")):
            expected: Counter[tuple[Any, ...]] = Counter()
            for (minute, customer, value, agent), count in counted.items():
                fields: dict[str, Any] = {"customer": customer, "model": value, "agent": agent}
                fields |= {name: minute - minute % unit for name, unit in units.items()}
                expected[tuple(fields[name] for name in by)] += count
            question = LedgerQuery(None, "tokens", 0, int(clock.now) + DAY, by)
            async with books.database.reading(whole=True) as connection:
                found = await queries.fetch_usage(connection, question)
                first = await queries.fetch_usage(connection, queries.replace(question, limit=2))
                pages = list(first["rows"])
                while "next" in first:
                    after = question.continue_from(first["next"], since=None, until=None)
                    first = await queries.fetch_usage(connection, queries.replace(after, limit=2))
                    pages += first["rows"]
                whole = await fetch_quantities(connection, "acme", "tokens", 0, int(clock.now) + DAY, by="model")
            told = {
                tuple(
                    queries.format_time(part) if name in units else part for name, part in zip(by, key, strict=True)
                ): n
                for key, n in expected.items()
            }
            assert {tuple(row[name] for name in by): row["value"] for row in found["rows"]} == told
            assert pages == found["rows"]
            assert found["total"] == sum(counted.values())
            own = Counter[str]()
            for (_, customer, value, _), count in counted.items():
                if customer == "acme":
                    own[value] += count
            assert whole == own
        for by in (("meter",), ("model",), ("day", "model", "agent")):
            await _check_spans(books, LedgerQuery("acme", "tokens", 0, 0, by), int(clock.now), chance)
    passed = {(find_month_start(minute), customer) for minute, customer, value, _ in counted if value == "~other"}
    assert passed, "the bound was never passed"
    async with books.database.reading() as connection:
        raised = (await connection.execute(sa.select(alerts.c.customer, alerts.c.kind))).all()
    assert Counter(customer for customer, kind in raised if kind == "dimension_limit_exceeded") == Counter(
        customer for _, customer in passed
    )

    # Verification finds usage that was moved from one value to another, in each table.
    of = series_dimensions.c
    (some,), *_ = await books.all(sa.select(of.value).where(of.name == "model", of.value != "~other"))
    async with books.database.writing() as connection:
        await connection.execute(sa.update(series_dimensions).where(of.value == some).values(value="x"))
    with pytest.raises(BrokenChainError, match=f"is grouped by model as x, and is of {some}"):
        await books.verify()
    async with books.database.writing() as connection:
        await connection.execute(sa.update(series_dimensions).where(of.value == "x").values(value=some))
        await connection.execute(sa.update(events).values(folded=split("m9")))
    with pytest.raises(BrokenChainError, match="m9"):
        await books.verify()
    await services.close()
    await books.close()


async def test_priced_and_named_values_are_counted_beyond_the_bound(database: str, clock: Clock) -> None:  # noqa: F811
    """Values without a price or a name arrive first and fill the bound.

    One plan version is recorded before usage arrives, another one later.
    """

    books = await Books.open(database, clock)
    named = METERS["tokens"].dimensions["model"].model_copy(update={"named": ["kept"]})
    tokens = METERS["tokens"].model_copy(update={"dimensions": {"model": named}})
    books.ingest.values.set_bounds({**METERS, "tokens": tokens})
    services = Services(books)
    await record_prices(books, "a@1", "dear")
    fillers = [event(number, NOON, split=split(f"x{number}")) for number in range(BOUND)]
    assert await services.report(*fillers) == (BOUND, 0, 0)
    chain = Chain()
    await books.ship(chain.next(("acme", "tokens", "v1", 7, split("dear")), ("acme", "tokens", "v1", 1, split("y"))))
    await services.report(event(100, NOON, value=5, split=split("new")))
    await record_prices(books, "a@2", "new")
    await services.report(event(101, NOON, value=9, split=split("new")), event(102, NOON, split=split("z")))
    await books.ship(chain.next(("acme", "tokens", "v1", 3, split("kept"))))
    async with books.database.reading(whole=True) as connection:
        found = await fetch_quantities(connection, "acme", "tokens", 0, int(clock.now) + DAY, by="model")
    assert found == {
        **{f"x{number}": 1 for number in range(BOUND)},
        "dear": 7,
        "new": 9,
        "kept": 3,
        "~other": 1 + 5 + 1,
    }
    await services.close()
    await books.verify()
    await books.close()


async def record_prices(books: Books, version: str, model: str) -> None:
    by = {"dimension": "model", "prices": {model: "1"}}
    plan = {"fee": "0", "meters": {"tokens": {"included": "0", "price": "0.01", "by": by}}}
    async with books.database.writing() as connection:
        await record_plans(connection, {version: Plan.model_validate(plan)})


async def test_verify_rejects_a_changed_record_of_folded_values(database: str, clock: Clock) -> None:  # noqa: F811
    books = await Books.open(database, clock)
    chain = Chain()
    await books.ship(chain.next(("acme", "tokens", "v1", 1, split("m1"))))
    for note in ('{"0":"{\\"model\\":\\"m2\\"}"}', '{"7":"{}"}', "[]"):
        async with books.database.writing() as connection:
            await connection.execute(sa.update(batches).values(folded=note))
        with pytest.raises(BrokenChainError, match="what of it was folded"):
            await books.verify()
    await books.close()


async def test_quantities_of_gauges_and_unique_counts_follow_the_readings(database: str, clock: Clock) -> None:  # noqa: F811
    books = await Books.open(database, clock)
    services = Services(books)
    month = find_month_start(NOON)
    teams = ['{"team":"x"}', '{"team":"y"}']
    said = [
        event(1, month - 40 * DAY, "seats", 7, teams[0], is_summed=False),
        event(2, month + 10 * DAY, "seats", 3, teams[1], is_summed=False),
        event(3, month + 20 * DAY, "seats", 1, teams[0], is_summed=False),
        *(event(9 + n, month + n, "users", 1, teams[n % 2], item=f"u{n % 3}", is_summed=False) for n in range(6)),
    ]
    random.Random(7).shuffle(said)
    assert await services.report(*said) == (9, 0, 0)
    end = month + 30 * DAY
    async with books.database.reading() as connection:

        async def q(meter: str, aggregate: Any, **also: Any) -> int:
            return await fetch_quantity(connection, "acme", meter, month, end, aggregate=aggregate, **also)

        assert await q("seats", "max") == 7 + 3
        assert await q("seats", "last") == 1 + 3
        assert await q("seats", "average") == (7 * 20 + 1 * 10 + 3 * 20) // 30
        assert await q("seats", "max", dimension="team", value="y") == 3
        assert await q("seats", "average", dimension="team", value="x") == (7 * 20 + 10) // 30
        assert await q("users", "unique") == 3
        found = await fetch_quantities(connection, "acme", "users", month, month + 3, aggregate="unique", by="team")
        assert found == {"x": 2, "y": 1}
        assert await fetch_quantity(connection, "acme", "seats", month, end) == 0, "a reading is in no sum"
        nothing = await readings.fetch_usage(connection, LedgerQuery("nobody", "seats", month, end, ()), "max", end)
        assert nothing == {"total": 0, "rows": []}
    assert (await books.verify()).events == 9
    await services.close()
    await books.close()
