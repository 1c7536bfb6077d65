"""The recent errors of a customer, by status, answerer, route and region, as reported by edges."""

from typing import Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.schema import MINUTE
from edgeproxy.collector.database.traffic_tables import customer_errors
from edgeproxy.wire.traffic_report import ErrorGroup

UNNAMED: Final = ErrorGroup("", "", 0, "edge")
"""The group of errors without customer in reports. A minute had too many groups for naming all."""
RECENT_SECONDS = 5 * MINUTE
"""Errors within this time count as recent."""
GROUPS_MAX = 50
"""Groups of errors shown, the largest ones."""


class CustomerErrors(NamedTuple):
    """The errors of a customer with one status, route and region. Times are Unix seconds of whole minutes."""

    status: int
    by: str
    route: str
    region: str
    requests: int
    recent: int
    """Errors in the last five minutes."""
    first_at: int
    last_at: int


class UnnamedErrors(NamedTuple):
    """Errors whose customers edges did not report."""

    requests: int
    minutes: int
    """The number of minutes with such errors."""


async def fetch_errors(
    connection: AsyncConnection, customer: str, since: int, until: int
) -> tuple[list[CustomerErrors], UnnamedErrors]:
    """Return the errors of a customer, and the errors without a known customer, within [since, until).

    Times are Unix seconds. The errors with the most requests come first.
    """
    columns = customer_errors.c
    requests = sa.cast(sa.func.sum(columns.requests), sa.BigInteger)
    within = (columns.start >= since, columns.start < until)
    keys = (columns.status, columns.by, columns.route, columns.region)
    recent = sa.func.sum(sa.case((columns.start >= until - RECENT_SECONDS, columns.requests), else_=0))
    first, last = sa.func.min(columns.start), sa.func.max(columns.start)
    groups = (
        sa.select(*keys, requests, sa.cast(recent, sa.BigInteger), first, last)
        .where(columns.customer == customer, *within)
        .group_by(*keys)
        .order_by(requests.desc(), *keys)
        .limit(GROUPS_MAX)
    )
    errors = [CustomerErrors(*row) for row in await connection.execute(groups)]
    minutes = sa.func.count(columns.start.distinct())
    unnamed = sa.select(sa.func.coalesce(requests, 0), minutes).where(columns.customer == UNNAMED.customer, *within)
    return errors, UnnamedErrors(*(await connection.execute(unnamed)).one())
