"""The usage of quotas according to the ledger: shipped by edges, and reported by services."""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.calendar import Period, period_of
from edgeproxy.base.clock import EPOCH
from edgeproxy.collector.database.schema import DAY, HOUR, MINUTE, series
from edgeproxy.collector.ledger import rollup
from edgeproxy.collector.ledger.allocation_levels import fetch_levels
from edgeproxy.collector.ledger.projection import list_days
from edgeproxy.collector.ledger.quantity import fetch_quantity
from edgeproxy.collector.ledger.queries import HALF
from edgeproxy.collector.ledger.readings import fetch_latest_readings
from edgeproxy.collector.ledger.sources import NotRetainedError, Source, select_sources
from edgeproxy.collector.quotas import allocations
from edgeproxy.collector.quotas.customer_quotas import CustomerQuotas
from edgeproxy.collector.quotas.quota_status import QuotaProjection, QuotaUsage
from edgeproxy.config.limits import Quota
from edgeproxy.config.meters import AggregateName, Meter

CUSTOMERS_MAX = 500
"""The most customers that one statement sums."""

MeterSpan = tuple[str, int, int]
"""A meter, and the Unix seconds of its span's start and end."""


def edge_time() -> float:
    """Return the current edge time."""
    return time.time() - EPOCH


def current_period(quota: Quota, now: float) -> Period | None:
    """Return the period of a quota at edge time `now`, or None if it counts allocations."""
    return None if quota.per is None else period_of(now, quota.per, ZoneInfo(quota.timezone))


async def fetch_statuses(
    connection: AsyncConnection, some: Iterable[CustomerQuotas], meters: Mapping[str, Meter], now: float
) -> Mapping[str, list[QuotaUsage]]:
    """Return the usage of each quota of these customers at edge time `now`, by name.

    The connection must read one snapshot. Otherwise usage that is rolled up meanwhile counts twice.
    """
    customers_by_span: dict[MeterSpan, set[str]] = defaultdict(set)
    periods_by_customer: dict[str, list[tuple[Quota, Period | None]]] = {}
    for held in some:
        periods_by_customer[held.customer] = periods = [(quota, current_period(quota, now)) for quota in held.quotas]
        for quota, at in periods:
            if at is not None:
                customers_by_span[_build_span(quota, at)].add(held.customer)
    used: dict[MeterSpan, Mapping[str, int]] = {}
    for span, names in customers_by_span.items():
        meter = meters.get(span[0])
        if meter is None or meter.aggregate == "sum":
            used[span] = await _fetch_used(connection, *span, sorted(names))
        else:
            used[span] = await _fetch_readings(connection, *span, sorted(names), meter.aggregate)
    statuses: dict[str, list[QuotaUsage]] = {}
    for name, periods in periods_by_customer.items():
        statuses[name] = []
        for quota, at in periods:
            if at is None:
                count = await _fetch_level(connection, name, quota.meter, meters, now)
            else:
                count = used[_build_span(quota, at)].get(name, 0)
            statuses[name].append(QuotaUsage(quota, count, at))
    return statuses


async def fetch_projection(
    connection: AsyncConnection, customer: str, status: QuotaUsage, meters: Mapping[str, Meter], since: int, now: float
) -> QuotaProjection | None:
    """Return the projection of a quota of a customer created at the Unix second `since`, at edge time `now`.

    None for quotas that are not sums: allocations have no period, and the future of levels and unique counts is
    unknown.
    """
    meter = meters.get(status.quota.meter)
    if status.period is None or (meter is not None and meter.aggregate != "sum"):
        return None
    minute = (int(now + EPOCH) // MINUTE + 1) * MINUTE
    days = []
    for span in list_days(minute, since):
        days.append((await _fetch_used(connection, status.quota.meter, *span, [customer])).get(customer, 0))
    return status.compute_projection(days, minute - EPOCH)


async def fetch_earlier_levels(
    connection: AsyncConnection, levels: Iterable[tuple[str, str]], meters: Mapping[str, Meter], at: float
) -> Mapping[tuple[str, str], int]:
    """Return the level of each of these meters at a past edge time, by customer and meter."""
    second, earlier = int(at + EPOCH), {}
    for name, meter in levels:
        if meter not in meters or meters[meter].count == "holdings":
            readings = await fetch_levels(connection, name, meter, second, second + 1)
            earlier[name, meter] = sum(reading.value for reading in readings[:1] if reading.second < second)
        else:
            earlier[name, meter] = await _fetch_level(connection, name, meter, meters, at - 1)
    return earlier


async def _fetch_level(
    connection: AsyncConnection, name: str, meter: str, meters: Mapping[str, Meter], now: float
) -> int:
    """Return a customer's current level at edge time `now`: its allocations, or the level of a gauge."""
    if meter not in meters or meters[meter].count == "holdings":
        return await allocations.count_allocations(connection, name, meter)
    is_split = bool(meters[meter].dimensions)
    latest = await fetch_latest_readings(connection, name, meter, int(now + EPOCH) + 1, is_split=is_split)
    return sum(reading.value for reading in latest)


def _build_span(quota: Quota, at: Period) -> MeterSpan:
    return quota.meter, round(at.since + EPOCH), round(at.until + EPOCH)


async def _fetch_used(
    connection: AsyncConnection, meter: str, since: int, until: int, names: list[str]
) -> Mapping[str, int]:
    """Return the usage of a meter by these customers between two Unix seconds, without customers that have none."""
    rolled = await rollup.fetch_state(connection)
    sums: dict[str, int] = defaultdict(int)
    for source in _select_sources(since, until, rolled):
        table = source.table
        halves = (table.c.value.op(">>")(HALF), table.c.value.op("&")((1 << 32) - 1))
        for at in range(0, len(names), CUSTOMERS_MAX):
            statement = (
                sa.select(series.c.customer, *(sa.cast(sa.func.sum(half), sa.BigInteger) for half in halves))
                .select_from(table.join(series, series.c.id == table.c.series))
                .where(series.c.meter == meter, series.c.customer.in_(names[at : at + CUSTOMERS_MAX]))
                .where(source.condition(rolled))
                .group_by(series.c.customer)
            )
            for name, high, low in await connection.execute(statement):
                sums[name] += (high << 32) + low
    return sums


async def _fetch_readings(
    connection: AsyncConnection, meter: str, since: int, until: int, names: list[str], aggregate: AggregateName
) -> Mapping[str, int]:
    """Return the quantity of these customers' readings of a meter between two Unix seconds."""
    return {name: await fetch_quantity(connection, name, meter, since, until, aggregate=aggregate) for name in names}


def _select_sources(since: int, until: int, rolled: rollup.RollupState) -> tuple[Source, ...]:
    """Return the sources of a span. If its first minutes are not retained, begin at the start of that hour or day."""
    for step in (MINUTE, HOUR):
        try:
            return select_sources(DAY, since - since % step, until, rolled)
        except NotRetainedError:
            continue
    return select_sources(DAY, since - since % DAY, until, rolled)
