"""The ledger's counts of quotas that are nearly used up, published to edges, so that no quota is used twice.

Each quota has one row, for its latest period; `used` only grows within it. Each change gets a number under a lock, so a
reader that has all changes up to a number finds every later one after it.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.quota_tables import quota_counts

NEAR_PERCENT = 80
"""Counts are published from this percentage of the included units on."""
STEPS = 1000
"""The included units are divided into this number of parts: each further used part is published, and the last unit at
once."""
LEFT_STEPS = 100
"""The remaining credits are divided into this number of parts: each further used part is published."""
PAGE_MAX = 1000
"""The most changes of a page."""

of = quota_counts.c


class QuotaCount(NamedTuple):
    """The count of a quota in a day or a month of its time zone."""

    customer: str
    meter: str
    per: str
    timezone: str
    period: int
    used: int


class CountChange(NamedTuple):
    """A count, and the number of its change."""

    seq: int
    quota_count: QuotaCount


def is_worth_publishing(
    published: QuotaCount | None, now: QuotaCount, included: int, near_percent: int = NEAR_PERCENT
) -> bool:
    """Return whether the count `now` should be published, given the `published` one that edges have."""
    if now.used * 100 < near_percent * included or not now.used:
        return False
    if published is None or published.period != now.period:
        return True
    if published.used < included <= now.used:
        return True
    return now.used - published.used >= max(1, included // STEPS)


def is_balance_worth_publishing(published: QuotaCount | None, now: QuotaCount, granted: int) -> bool:
    """Return whether a count of credits should be published, also for each hundredth of the remaining credits.

    The credits ever granted may be a hundred times as many, so their parts alone would be too coarse.
    """
    if is_worth_publishing(published, now, granted, near_percent=0):
        return True
    left = granted - now.used
    return published is not None and left > 0 and now.used - published.used >= max(1, left // LEFT_STEPS)


async def write_counts(database: Database, connection: AsyncConnection, counts: Collection[QuotaCount]) -> None:
    """Write counts, except those below the stored ones."""
    if not counts:
        return
    await database.hold(connection, "quota counts")
    seq = await fetch_newest(connection)
    for count in counts:
        own = (of.customer == count.customer) & (of.meter == count.meter)
        own &= (of.per == count.per) & (of.timezone == count.timezone)
        there = (await connection.execute(sa.select(of.period, of.used).where(own))).one_or_none()
        if there is not None and (there.period, there.used) >= (count.period, count.used):
            continue
        seq += 1
        if there is None:
            await connection.execute(sa.insert(quota_counts), [{**count._asdict(), "seq": seq}])
        else:
            changed = {"period": count.period, "used": count.used, "seq": seq}
            await connection.execute(sa.update(quota_counts).where(own).values(changed))


async def fetch_newest(connection: AsyncConnection) -> int:
    """Return the number of the latest change, or 0."""
    number: int | None = (await connection.execute(sa.select(sa.func.max(of.seq)))).scalar_one()
    return number or 0


async def list_changes(connection: AsyncConnection, seq: int, limit: int = PAGE_MAX) -> Sequence[CountChange]:
    """Return the changes after this number, oldest first."""
    statement = sa.select(quota_counts).where(of.seq > seq).order_by(of.seq).limit(limit)
    return [
        CountChange(row.seq, QuotaCount(row.customer, row.meter, row.per, row.timezone, row.period, row.used))
        for row in await connection.execute(statement)
    ]
