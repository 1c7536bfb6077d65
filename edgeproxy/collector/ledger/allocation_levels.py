"""Held allocations as readings of a gauge: their number from each second on.

They are not events: `holdings` has the current ones, with their ends if known, and `past_holdings` the released ones.
An allocation that begins and ends within a second appears in no reading.
"""

from itertools import accumulate

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.quota_tables import holdings, past_holdings
from edgeproxy.collector.ledger.aggregates import Reading

SERIES = ""
"""The series of all allocations, which have no dimensions."""


async def fetch_levels(connection: AsyncConnection, customer: str, meter: str, since: int, until: int) -> list[Reading]:
    """Return the changes of a customer's seat count before `until`: each Unix second and the count from then on.

    The first reading may lie before `since`: it is the count held then. The result is empty if there are none.
    """
    begin, end = since * 1000, until * 1000
    now = sa.select(holdings.c.taken_at, holdings.c.expires_at.label("ended_at"))
    now = now.where(holdings.c.customer == customer, holdings.c.meter == meter)
    past = sa.select(past_holdings.c.taken_at, past_holdings.c.ended_at)
    past = past.where(past_holdings.c.customer == customer, past_holdings.c.meter == meter)
    held = sa.union_all(now, past.where(past_holdings.c.ended_at >= begin)).subquery().c
    lasted = held.ended_at.is_(None) | (held.ended_at >= begin)
    taken_at = sa.case((held.taken_at < begin, since - 1), else_=held.taken_at // 1000)
    taken = sa.select(taken_at.label("second"), sa.literal(1).label("change")).where(held.taken_at < end, lasted)
    freed = sa.select(held.ended_at // 1000, sa.literal(-1)).where(held.ended_at >= begin, held.ended_at < end)
    both = sa.union_all(taken, freed).subquery().c
    change = sa.cast(sa.func.sum(both.change), sa.BigInteger)
    changes = sa.select(both.second, change).group_by(both.second).having(change != 0).order_by(both.second)
    rows = (await connection.execute(changes)).all()
    levels = accumulate(change for _, change in rows)
    return [Reading(second, SERIES, level) for (second, _), level in zip(rows, levels, strict=True)]


async def fetch_customers(connection: AsyncConnection, meter: str, until: int) -> set[str]:
    """Return the customers with seats of a meter before a Unix second."""
    end = until * 1000
    now = sa.select(holdings.c.customer).where(holdings.c.meter == meter, holdings.c.taken_at < end)
    past = sa.select(past_holdings.c.customer).where(past_holdings.c.meter == meter, past_holdings.c.taken_at < end)
    return set(await connection.scalars(sa.union(now, past)))
