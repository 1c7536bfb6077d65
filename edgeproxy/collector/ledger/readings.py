"""Usage from readings, which are not added up: the levels of gauges, and unique items.

The readings are events; the number of held allocations is in `holdings` (allocation_levels.py).
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.schema import EVENTS_REGION, EVENTS_ROUTE, MINUTE, events
from edgeproxy.collector.ledger import allocation_levels
from edgeproxy.collector.ledger.aggregates import GAUGES, ReadAs, Reading
from edgeproxy.collector.ledger.queries import (
    ROWS_MAX,
    SECONDS,
    InvalidQueryError,
    Key,
    LedgerQuery,
    UsageRow,
    format_time,
)
from edgeproxy.collector.ledger.sources import round_up
from edgeproxy.config import dimensions

SPLIT = sa.func.coalesce(events.c.folded, events.c.dimensions)
"""The dimensions that an event counts with."""
ZERO: sa.ColumnElement[int] = sa.literal_column("0")
"""A literal, because the index of readings has this condition."""
ITEMS_MAX = 1_000_000
"""The most different items that a grouped query may cover."""

DimensionGroup = tuple[str, ...]
"""The values of the requested dimensions, each empty if there is none."""


async def fetch_quantities(
    connection: AsyncConnection,
    customer: str,
    meter: str,
    span: tuple[int, int],
    aggregate: ReadAs,
    names: Sequence[str],
    without: Sequence[tuple[int, int]] = (),
) -> dict[DimensionGroup, int]:
    """Aggregate a customer's readings within a non-empty span, by the values of these dimensions.

    Unique items are counted only outside the spans in `without`.
    """
    if aggregate == "unique" and not names:
        items = sa.select(sa.func.count(events.c.item.distinct())).where(_is_item_of(customer, meter, span, without))
        return {(): (await connection.execute(items)).scalar_one()}
    by_time = await _compute_by_time(connection, customer, meter, span, aggregate, names, span[1] - span[0], without)
    return {values: value for (_, values), value in by_time.items()}


async def fetch_running_quantities(
    connection: AsyncConnection,
    customer: str,
    meter: str,
    since: int,
    ends: Sequence[int],
    aggregate: Literal["max", "last", "held", "unique"],
    names: Sequence[str],
    without: Sequence[tuple[int, int]] = (),
) -> dict[int, dict[DimensionGroup, int]]:
    """Aggregate a customer's readings from `since` until each of the `ends`, by the values of these dimensions.

    The readings are read once. The `ends` are in order and later than `since`. The spans `without` do not count.
    """
    if aggregate == "unique":
        return await _count_running_items(connection, customer, meter, since, ends, names, without)
    before, within = await _fetch_groups(connection, customer, meter, (since, ends[-1]), names)
    edges = {since, *ends, *(at for span in without for at in span)}
    starts = sorted(at for at in edges if since <= at < ends[-1])
    running: dict[int, dict[DimensionGroup, int]] = {end: {} for end in ends}
    for group in before.keys() | within.keys():
        begun = since if group in before else within[group][0].second
        units = _aggregate_units(before[group], within[group], starts, ends[-1], aggregate)
        value: int | None = None
        for (start, of_unit), end in zip(units, [*starts[1:], ends[-1]], strict=True):
            if end > begun and not any(first <= start < last for first, last in without):
                value = of_unit if value is None else _add_unit(value, of_unit, aggregate)
            if value is not None and end in running:
                running[end][group] = value
    return running


def _add_unit(before: int, value: int, aggregate: ReadAs) -> int:
    if aggregate == "held":
        return before + value
    return max(before, value) if aggregate == "max" else value


async def _count_running_items(
    connection: AsyncConnection,
    customer: str,
    meter: str,
    since: int,
    ends: Sequence[int],
    names: Sequence[str],
    without: Sequence[tuple[int, int]],
) -> dict[int, dict[DimensionGroup, int]]:
    """Count the different items from `since` until each of the `ends`. Each counts from its first use on."""
    is_item = _is_item_of(customer, meter, (since, ends[-1]), without)
    first = sa.func.min(events.c.time).label("first")
    new: dict[int, Counter[DimensionGroup]] = defaultdict(Counter)
    if names:
        items = sa.select(SPLIT.label("split"), events.c.item, first).where(is_item).group_by("split", events.c.item)
        rows = (await connection.execute(items.limit(ITEMS_MAX + 1))).all()
        if len(rows) > ITEMS_MAX:
            raise InvalidQueryError(f"by: is of more than {ITEMS_MAX} different items, ask for less at once")
        seen: dict[tuple[DimensionGroup, str], int] = {}
        of = _group_by(names)
        for split, item, second in rows:
            key = of(split), item
            seen[key] = min(second, seen.get(key, second))
        for (group, _), second in seen.items():
            new[ends[bisect_right(ends, second)]][group] += 1
    else:
        used = sa.select(first).where(is_item).group_by(events.c.item).subquery()
        end = sa.case(*((used.c.first < end, sa.literal_column(str(end))) for end in ends)).label("until")
        for until, number in await connection.execute(sa.select(end, sa.func.count()).group_by("until")):
            new[until][()] = number
    running: dict[int, dict[DimensionGroup, int]] = {}
    total: Counter[DimensionGroup] = Counter()
    for until in ends:
        total.update(new[until])
        running[until] = dict(total)
    return running


async def fetch_usage(
    connection: AsyncConnection, question: LedgerQuery, aggregate: ReadAs, now: float
) -> dict[str, Any]:
    """Return `{total, rows}` of a query about such a meter, up to now; `next` if there are more rows.

    The total is for one customer, because levels of several customers cannot be summed. Raises InvalidQueryError.
    """
    if question.where is not None:
        raise InvalidQueryError(f"where: {question.meter} has no filter, as it is not added up; group by the field")
    if question.customer is None and "customer" not in question.by:
        raise InvalidQueryError(
            f"meter: what {question.meter} comes to is a customer's: name one, or group by customer too"
        )
    assert question.meter is not None
    customer, meter = question.customer, question.meter
    since, until = (
        round_up(question.since, MINUTE),
        min(round_up(question.until, MINUTE), round_up(int(now) + 1, MINUTE)),
    )
    if until <= since:
        return {"total": 0 if customer is not None else None, "rows": []}
    units = [SECONDS[name] for name in question.by if name in SECONDS]
    names = [name for name in question.by if name not in (*SECONDS, *CONSTANT, "customer", "meter")]
    unit = min(units) if units else until - since
    values_by_key: dict[Key, int] = {}
    for one in [customer] if customer is not None else await _fetch_customers(connection, meter, until):
        of_one = await _compute_by_time(connection, one, meter, (since, until), aggregate, names, unit)
        for (at, values), value in of_one.items():
            fields: dict[str, int | str] = {"customer": one, "meter": meter, **CONSTANT}
            fields |= zip(names, values, strict=True)
            fields |= {name: at - at % SECONDS[name] for name in SECONDS}
            if value:
                values_by_key[tuple(fields[name] for name in question.by)] = value
        if len(values_by_key) > ROWS_MAX:
            raise InvalidQueryError(f"by: makes more than {ROWS_MAX} rows, ask for less at once")
    keys = sorted(key for key in values_by_key if question.after is None or key > question.after)
    page = keys[: ROWS_MAX if question.limit is None else question.limit]
    rows = [_format_row(question.by, key, values_by_key[key]) for key in page]
    total = None
    if customer is not None:
        total = (await fetch_quantities(connection, customer, meter, (since, until), aggregate, ())).get((), 0)
    return {
        "total": total,
        "rows": rows,
        **({"next": question.build_cursor(page[-1])} if len(page) < len(keys) else {}),
    }


CONSTANT: dict[str, int | str] = {"route": EVENTS_ROUTE, "region": EVENTS_REGION}
"""Fields with the same value in all readings."""


def _format_row(by: Sequence[str], key: Key, value: int) -> UsageRow:
    fields = {name: format_time(int(field)) if name in SECONDS else field for name, field in zip(by, key, strict=True)}
    return {**fields, "value": value}


def _is_reading_of(customer: str, meter: str) -> sa.ColumnElement[bool]:
    return (events.c.is_summed == ZERO) & (events.c.customer == customer) & (events.c.meter == meter)


def _is_item_of(
    customer: str, meter: str, span: tuple[int, int], without: Sequence[tuple[int, int]]
) -> sa.ColumnElement[bool]:
    columns = events.c
    within = (columns.time >= span[0]) & (columns.time < span[1])
    for start, end in without:
        within &= (columns.time < start) | (columns.time >= end)
    return _is_reading_of(customer, meter) & columns.item.is_not(None) & within


async def _fetch_customers(connection: AsyncConnection, meter: str, until: int) -> Sequence[str]:
    columns = events.c
    having = sa.select(columns.customer).where(columns.is_summed == ZERO, columns.meter == meter, columns.time < until)
    read = set(await connection.scalars(having.distinct()))
    return sorted(read | await allocation_levels.fetch_customers(connection, meter, until))


async def _compute_by_time(
    connection: AsyncConnection,
    customer: str,
    meter: str,
    span: tuple[int, int],
    aggregate: ReadAs,
    names: Sequence[str],
    unit: int,
    without: Sequence[tuple[int, int]] = (),
) -> dict[tuple[int, DimensionGroup], int]:
    """Aggregate readings by the starting second of each time unit and by the values of dimensions."""
    of = _group_by(names)
    if aggregate == "unique":
        at = sa.literal(span[0], sa.BigInteger) if unit == span[1] - span[0] else events.c.time - events.c.time % unit
        different = sa.select(at, SPLIT, events.c.item).where(_is_item_of(customer, meter, span, without)).distinct()
        items: dict[tuple[int, DimensionGroup], set[str]] = defaultdict(set)
        rows = (await connection.execute(different.limit(ITEMS_MAX + 1))).all()
        if len(rows) > ITEMS_MAX:
            raise InvalidQueryError(f"by: is of more than {ITEMS_MAX} different items, ask for less at once")
        for second, series, item in rows:
            items[second, of(series)].add(item)
        return {key: len(some) for key, some in items.items()}
    before, within = await _fetch_groups(connection, customer, meter, span, names)
    starts = _list_unit_starts(span, unit)
    if len(starts) * len(before.keys() | within.keys()) > 2 * ROWS_MAX:
        raise InvalidQueryError(f"by: makes more than {ROWS_MAX} rows, ask for less at once")
    return {
        (second, group): value
        for group in before.keys() | within.keys()
        for second, value in _aggregate_units(before[group], within[group], starts, span[1], aggregate)
    }


def _group_by(names: Sequence[str]) -> Callable[[str], DimensionGroup]:
    """Return the function that returns the values of these dimensions of a series."""

    @cache
    def of(series: str) -> DimensionGroup:
        split_values = dimensions.parse_dimensions(series)
        return tuple(split_values.get(name, "") for name in names)

    return of


async def _fetch_groups(
    connection: AsyncConnection, customer: str, meter: str, span: tuple[int, int], names: Sequence[str]
) -> tuple[dict[DimensionGroup, dict[str, int]], dict[DimensionGroup, list[Reading]]]:
    """Return the levels of a gauge's series before a span, and the readings within it, by the values of dimensions."""
    of = _group_by(names)
    levels, readings = await _fetch_levels(connection, customer, meter, span)
    before: dict[DimensionGroup, dict[str, int]] = defaultdict(dict)
    within: dict[DimensionGroup, list[Reading]] = defaultdict(list)
    for series, level in levels.items():
        before[of(series)][series] = level
    for reading in readings:
        within[of(reading.series)].append(reading)
    return before, within


def _list_unit_starts(span: tuple[int, int], unit: int) -> list[int]:
    """Return the starting seconds of time units; the first one is the start of the span."""
    since, until = span
    if unit == until - since:
        return [since]
    return [since, *range(round_up(since + 1, unit), until, unit)]


def _aggregate_units(
    before: Mapping[str, int], readings: Iterable[Reading], starts: Sequence[int], until: int, aggregate: ReadAs
) -> list[tuple[int, int]]:
    """Aggregate a gauge's readings by time unit."""
    levels, rest, place = dict(before), list(readings), 0
    aggregated = []
    for since, end in zip(starts, [*starts[1:], until], strict=True):
        begin = place
        while place < len(rest) and rest[place].second < end:
            place += 1
        some = rest[begin:place]
        aggregated.append((since, GAUGES[aggregate](levels, some, since, end)))
        levels |= {reading.series: reading.value for reading in some}
    return aggregated


async def fetch_latest_readings(
    connection: AsyncConnection, customer: str, meter: str, until: int, *, is_split: bool = True
) -> list[Reading]:
    """Return the latest reading of each series of an event gauge before a Unix second.

    Without `is_split`, only the series without dimensions is read, with one lookup for any number of readings.
    """
    columns = events.c
    gauge = _is_gauge_of(customer, meter)
    if not is_split:
        unsplit = sa.select(columns.time, SPLIT, columns.value).where(gauge, columns.time < until, SPLIT == "")
        newest = unsplit.order_by(columns.time.desc(), columns.value.desc()).limit(1)
        return [Reading(*row) for row in await connection.execute(newest)]
    latest = (
        sa.select(SPLIT.label("split"), sa.func.max(columns.time).label("second"))
        .where(gauge, columns.time < until)
        .group_by("split")
        .subquery()
    )
    readings = (
        sa.select(latest.c.second, latest.c.split, sa.func.max(columns.value))
        .join_from(latest, events, (latest.c.split == SPLIT) & (columns.time == latest.c.second))
        .where(gauge)
        .group_by(latest.c.split, latest.c.second)
    )
    return [Reading(*row) for row in await connection.execute(readings)]


async def _fetch_levels(
    connection: AsyncConnection, customer: str, meter: str, span: tuple[int, int]
) -> tuple[Mapping[str, int], list[Reading]]:
    """Return the level of each series of a gauge before a span, and the readings within it, in order."""
    columns = events.c
    latest = await fetch_latest_readings(connection, customer, meter, span[0])
    before = {reading.series: reading.value for reading in latest}
    within = sa.select(columns.time, SPLIT, columns.value).where(
        _is_gauge_of(customer, meter), columns.time >= span[0], columns.time < span[1]
    )
    readings = [Reading(*row) for row in await connection.execute(within)]
    for reading in await allocation_levels.fetch_levels(connection, customer, meter, *span):
        if reading.second < span[0]:
            before[reading.series] = reading.value
        else:
            readings.append(reading)
    return before, sorted(readings)


def _is_gauge_of(customer: str, meter: str) -> sa.ColumnElement[bool]:
    return _is_reading_of(customer, meter) & events.c.item.is_(None)
