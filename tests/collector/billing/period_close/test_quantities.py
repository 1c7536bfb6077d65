"""Billing of meters that are read instead of summed."""

import itertools
import random
from calendar import timegm
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.period_close.quantities import (
    QuantityTerms,
    fetch_daily_sums,
    fetch_quantities,
    fetch_running_gauges,
    fetch_segment_quantities,
)
from edgeproxy.collector.billing.rating.periods import period_at
from edgeproxy.collector.billing.rating.rater import Segment, Span, UsageKey, rate_segments
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.delivery_tables import waivers
from edgeproxy.collector.database.schema import EVENTS, EVENTS_REGION
from edgeproxy.collector.events.event import UsageEvent
from edgeproxy.collector.events.event_rows import insert_events
from edgeproxy.collector.ledger import rollup
from edgeproxy.collector.ledger.queries import LedgerQuery, fetch_usage
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.meters import Meter
from edgeproxy.wire.batch import FIRST
from loadtest.testbed.tables_ready import put_tables
from tests.support.sold import Sold

METERS = {
    name: Meter.model_validate({"count": "events", "aggregate": name}) for name in ("max", "average", "last", "unique")
}
LEVELS = ("max", "average")


def plan(*meters: str) -> Plan:
    return Plan.model_validate({"fee": "0", "meters": {name: {"included": "0", "price": "1"} for name in meters}})


def january(day: int, hour: int = 0) -> int:
    return timegm((2027, 1, day, hour, 0, 0))


async def test_partly_subscribed_period_rounds_its_gauge_usage_once(tmp_path: Path) -> None:
    """Subscribed on the 11th, changed on the 25th. The second plan gets everything: it is in force at the end."""
    period = period_at(january(1))
    segments = [
        Segment(version, plan(*LEVELS), span, period)
        for version, span in (("a@1", Span(january(11), january(25))), ("b@1", Span(january(25), period.end)))
    ]
    readings = [(january(5), 9), (january(10), 1), (january(19, 12), 2)]

    database = await Database.connect(put_tables(f"sqlite:///{tmp_path}/ledger.db"))
    async with database.writing() as connection:
        events = [
            UsageEvent("test", f"{meter}{at}", "acme", meter, value, at, is_summed=False)
            for meter in LEVELS
            for at, value in readings
        ]
        await insert_events(connection, events)
    async with database.reading(whole=True) as connection:
        billed = [
            await fetch_quantities(connection, "acme", segments, segment, QuantityTerms(METERS, None))
            for segment in segments
        ]
    await database.close()
    # 8.5 days at 1 and 12.5 days at 2, of 31 days: 1.08, and not the remainder of 1.6 after its whole part.
    first, of = (segment.span for segment in segments)
    nothing = {UsageKey(first, "max"): 0, UsageKey(first, "average"): 0}
    assert billed == [nothing, {UsageKey(of, "max"): 2, UsageKey(of, "average"): 1}]


async def test_readings_while_charging_is_off_are_left_out(tmp_path: Path) -> None:
    period = period_at(january(1))
    segment = Segment("a@1", plan(*METERS), period, period)
    free = [Span(january(11), january(16)), Span(january(26), period.end)]
    readings = [(january(1), 31), (january(12), 500), (january(16), 62), (january(27), 900)]
    items = [(january(2), "one"), (january(3), "two"), (january(12), "two"), (january(13), "three")]

    database = await Database.connect(put_tables(f"sqlite:///{tmp_path}/ledger.db"))
    async with database.writing() as connection:
        events = [
            UsageEvent("test", f"{meter}{at}", "acme", meter, value, at, is_summed=False)
            for meter in ("max", "average", "last")
            for at, value in readings
        ]
        events += [
            UsageEvent("test", f"{item}{at}", "acme", "unique", 1, at, is_summed=False, item=item) for at, item in items
        ]
        await insert_events(connection, events)
        rows = [{"since": span.start, "until": span.end, "who": "me", "why": "a trial"} for span in free]
        await connection.execute(sa.insert(waivers), rows)
    async with database.reading(whole=True) as connection:
        billed = await fetch_quantities(connection, "acme", [segment], segment, QuantityTerms(METERS, None))
    await database.close()
    # Ten days at 31 and ten at 62, of 31 days.
    assert billed == {
        UsageKey(period, meter): value for meter, value in (("max", 62), ("average", 30), ("last", 62), ("unique", 2))
    }


@pytest.mark.both_databases
async def test_daily_gauge_quantities_equal_periods_that_end_each_day(database: str) -> None:
    chance = random.Random(7)
    period, terms = period_at(january(1)), QuantityTerms(METERS, None)
    by = {"dimension": "model", "prices": {"a": "1", "b": "2"}}
    split = Plan.model_validate({"fee": "0", "meters": {name: {"price": "1", "by": by} for name in METERS}})
    spans = Span(january(3), january(12, 7)), Span(january(12, 7), january(22))
    segments = [Segment("a@1", plan(*METERS), spans[0], period), Segment("b@1", split, spans[1], period)]
    days = [january(day) for day in range(2, 29)]
    events = [
        UsageEvent(
            *("test", str(number), "acme", meter, 1 if meter == "unique" else chance.randrange(50)),
            *(timegm((2026, 12, 25, 0, 0, 0)) + chance.randrange(34 * 24) * 3600,),
            is_summed=False,
            dimensions=chance.choice(["", '{"model":"a"}', '{"model":"b"}', '{"model":"b","of":"x"}']),
            item=str(chance.randrange(12)) if meter == "unique" else None,
        )
        for number, meter in enumerate(chance.choices(list(METERS), k=200))
    ]

    opened = await Database.connect(database)
    async with opened.writing() as connection:
        await insert_events(connection, events)
        free = {"since": january(8, 5), "until": january(11, 2), "who": "me", "why": "a trial"}
        await connection.execute(sa.insert(waivers), [free])
    read: list[str] = []
    async with opened.reading(whole=True) as connection:
        sa.event.listen(connection.sync_engine, "before_cursor_execute", lambda *call: read.append(call[2]))
        running = await fetch_running_gauges(connection, "acme", segments, days, terms)
        statements = sum(" events " in one for one in read)
        for until in days:
            begun = [segment for segment in segments if segment.span.start < until]
            begun[-1:] = [
                segment._replace(span=Span(segment.span.start, min(segment.span.end, until))) for segment in begun[-1:]
            ]
            expected = await fetch_quantities(connection, "acme", begun, begun[-1], terms) if begun else {}
            daily = {(key.meter, key.value): quantity for key, quantity in running[until].items()}
            assert daily == {(key.meter, key.value): quantity for key, quantity in expected.items()}, until
    await opened.close()
    assert statements <= 3 * len(METERS) * len(segments), "as many for a month as for a day"


@pytest.mark.both_databases
async def test_sums_of_all_segments_equal_a_query_for_each(database: str, seed: int) -> None:
    """The borders of segments and of times without charging are at any minute, several of them within an hour."""
    chance = random.Random(seed)
    by = {"dimension": "model", "prices": {"a": "2", "b": "3"}}
    plans = {
        "plain@1": {"tokens": {"included": 900, "price": "1"}, "calls": {"price": "1"}},
        "split@1": {"tokens": {"included": 500, "price": "1", "by": by}},
    }
    versions = {name: Plan.model_validate({"fee": "0", "meters": meters}) for name, meters in plans.items()}
    period, begin = period_at(january(1)), january(10)
    borders = sorted({begin, *(begin + chance.randrange(1 << chance.randrange(8, 21)) // 60 * 60 for _ in range(60))})
    spans = [Span(*pair) for pair in itertools.pairwise(borders)]
    segments = [Segment(name, versions[name], span, period) for span in spans for name in [chance.choice([*versions])]]
    starts = sorted(chance.sample(range(begin, borders[-1], 60), 3))
    ends = [*starts[1:], borders[-1]]
    free = [
        Span(start, min(start + chance.randrange(1, 200) * 60, end)) for start, end in zip(starts, ends, strict=True)
    ]
    used = [
        (chance.randrange(begin, borders[-1]) // 60 * 60, meter, chance.randrange(-50, 400), chance.choice("abc "))
        for meter in ("tokens", "calls", "other")
        for _ in range(150)
    ]
    terms = QuantityTerms({}, None)

    opened = await Database.connect(database)
    of = Sold(opened, CollectorSettings.model_construct())
    for at, meter, value, model in used:
        await of.use("acme", {meter: value}, at=at, split={} if model == " " else {"model": model})
    async with opened.writing() as connection:  # Only the usage of known edges is rolled up.
        edge = {"edge": EVENTS, "region": EVENTS_REGION, "seq": 0, "hash": FIRST, "received": 0}
        await opened.ledger.insert_edges(connection, [edge | {"latest": borders[-1]}])
    for _ in range(chance.randrange(20)):
        await rollup.roll_up_slice(opened, borders[-1], size=50)
    async with opened.writing() as connection:
        rows = [{"since": span.start, "until": span.end, "who": "me", "why": "a trial"} for span in free]
        await connection.execute(sa.insert(waivers), rows)
    read: list[str] = []
    async with opened.reading(whole=True) as connection:
        sa.event.listen(connection.sync_engine, "before_cursor_execute", lambda *call: read.append(call[2]))
        billed = await fetch_segment_quantities(connection, "acme", segments, segments, terms)
        statements = sum(" ledger" in one for one in read)
        daily = await fetch_daily_sums(connection, "acme", segments, terms)
        for segment in segments:
            alone = await sum_alone(connection, segment, free)
            of_segment = {key: value for key, value in billed[segment.span].items() if value or not key.value}
            assert of_segment == alone, segment
            assert rate_segments([segment], billed[segment.span]) == rate_segments([segment], alone)
    await opened.close()
    assert statements <= 2, read
    whole = Counter[UsageKey]()
    for of_day in daily.values():
        whole.update(of_day)
    for of_segment in billed.values():
        whole.subtract(of_segment)
    assert not any(whole.values())


async def sum_alone(connection: AsyncConnection, segment: Segment, free: list[Span]) -> dict[UsageKey, int]:
    """Return the usage of a segment in its times with charging, by a query for each time."""
    clipped = [Span(max(span.start, segment.span.start), min(span.end, segment.span.end)) for span in free]
    sums: Counter[UsageKey] = Counter()
    for meter, price in segment.plan.meters.items():
        sums[UsageKey(segment.span, meter)] = 0
        for sign, span in ((1, segment.span), *((-1, span) for span in clipped if span.start < span.end)):
            by = () if price.by is None else (price.by.dimension,)
            for row in (await fetch_usage(connection, LedgerQuery("acme", meter, *span, by)))["rows"]:
                sums[UsageKey(segment.span, meter, row.get("model", ""))] += sign * row["value"]
    return {key: value for key, value in sums.items() if value or not key.value}
