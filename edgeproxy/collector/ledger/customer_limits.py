"""The effect of a customer's limits: requests per minute for each rate, and refusals by limit, route and region.

The data is what edges have shipped, so the last seconds are missing. Edges count refusals in meters of `count:
refusals`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.schema import DAY, MINUTE, ledger, series, series_dimensions
from edgeproxy.collector.ledger.queries import LedgerQuery, fetch_usage, parse_time
from edgeproxy.config.limits import Limit
from edgeproxy.config.meters import CERTAIN, LIMIT
from edgeproxy.config.selection import is_of_all

RECENT_SECONDS = 5 * MINUTE
"""A refusal counts as recent for this many seconds."""
GROUPS_MAX = 50
"""The most groups of refusals: those with the most refusals."""


class RefusalGroup(NamedTuple):
    """The refusals of a customer by a limit, on a route, in a region. Times are Unix seconds of minute starts."""

    limit: str
    route: str
    region: str
    refused: int
    uncertain: int
    recent: int
    """Refusals of the last five minutes."""
    first_at: int
    last_at: int


class LimitUse(NamedTuple):
    """The use of a rate in its last whole window, and in the fullest window of the day; None if unknown."""

    used: int | None
    peak: int | None


async def fetch_refusal_groups(
    connection: AsyncConnection, customer: str, meters: Sequence[str], since: int, until: int
) -> list[RefusalGroup]:
    """Return the refusals of a customer that these meters counted within [since, until), most refused first."""
    certain, limited = series_dimensions.alias("certain"), series_dimensions.alias("limited_by")
    value, at = ledger.c.value, list(ledger.primary_key)[1]
    keys = (limited.c.value.label("limit"), series.c.route, series.c.region)
    refused = sa.cast(sa.func.sum(value), sa.BigInteger)
    doubtful = sa.func.sum(sa.case((certain.c.value == "no", value), else_=0))
    recent = sa.func.sum(sa.case((at >= until - RECENT_SECONDS, value), else_=0))
    sums = (refused, sa.cast(doubtful, sa.BigInteger), sa.cast(recent, sa.BigInteger), sa.func.min(at), sa.func.max(at))
    statement = (
        sa.select(*keys, *sums)
        .join_from(series, certain, (certain.c.series == series.c.id) & (certain.c.name == CERTAIN))
        .join(limited, (limited.c.series == series.c.id) & (limited.c.name == LIMIT))
        .join(ledger, ledger.c.series == series.c.id)
        .where(series.c.customer == customer, series.c.meter.in_(meters), at >= since, at < until)
        .group_by(*keys)
        .order_by(refused.desc(), *keys)
        .limit(GROUPS_MAX)
    )
    return [RefusalGroup(*row) for row in await connection.execute(statement)]


async def fetch_minutes(connection: AsyncConnection, customer: str, meter: str, until: int) -> dict[int, int]:
    """Return the usage of a meter in each minute of the two days before a Unix second, by the minute's start."""
    usage = await fetch_usage(connection, LedgerQuery(customer, meter, until - 2 * DAY, until, ("minute",)))
    return {parse_time("minute", row["minute"]): row["value"] for row in usage["rows"]}


def compute_use(limit: Limit, minutes: Mapping[int, int] | None, until: int) -> LimitUse:
    """Compute the use of a rate up to a Unix second, and its peak in the day before, from requests by minute.

    It is unknown for windows that are not whole minutes or are longer than a day. It is also unknown for rates that do
    not count all requests of the customer together.
    """
    window = round(limit.window)
    if minutes is None or not _is_computable(limit):
        return LimitUse(None, None)
    end = until // MINUTE * MINUTE
    total = used = sum(minutes.get(at, 0) for at in range(end - window, end, MINUTE))
    peak = used
    for first in range(end - MINUTE, end - DAY, -MINUTE):  # The window moves back by a minute.
        total += minutes.get(first - window, 0) - minutes.get(first, 0)
        peak = max(peak, total)
    return LimitUse(used, peak)


def compute_current_use(limit: Limit, minutes: Mapping[int, int] | None, now: int) -> int | None:
    """Compute the use of a rate now, with the minute that goes on; None if it is unknown, as in `compute_use`.

    The sum leaves out the minute in which the window begins. So it is never above the use that the edge decides by.
    """
    if minutes is None or not _is_computable(limit):
        return None
    end = now // MINUTE * MINUTE + MINUTE
    return sum(minutes.get(at, 0) for at in range(end - round(limit.window), end, MINUTE))


def _is_computable(limit: Limit) -> bool:
    """Return True if the requests of minutes state the use of a rate."""
    window = round(limit.window)
    counts_all = limit.scope == "customer" and limit.per is None and limit.counts_requests and is_of_all(limit)
    return counts_all and not window % MINUTE and MINUTE <= window <= DAY
