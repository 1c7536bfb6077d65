"""Counts of the billing API's responses, summed over all collectors in the database by hour.

Responses to authenticated callers count, and all errors of ours. Rejections do not count, nor do responses to anonymous
callers, because anyone could lower the share of errors with such requests.
"""

from collections import Counter
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.database import Database, build_insert_new
from edgeproxy.collector.database.delivery_tables import billing_answers
from edgeproxy.collector.database.schema import HOUR

REFUSED, ERROR = 400, 500
columns = billing_answers.c


class ResponseCounts:
    """The responses of this collector that are not written yet."""

    def __init__(self) -> None:
        self._requests: Counter[int] = Counter()
        self._errors: Counter[int] = Counter()

    def record(self, status: int, now: float, *, is_known: bool) -> None:
        """Count a response. `is_known` means that the caller is authenticated."""
        if (status < REFUSED and not is_known) or REFUSED <= status < ERROR:
            return
        hour = int(now) // HOUR * HOUR
        self._requests[hour] += 1
        self._errors[hour] += status >= ERROR

    async def write(self, database: Database) -> None:
        """Add the new counts to the database."""
        requests, errors = dict(self._requests), dict(self._errors)
        if not requests:
            return
        async with database.writing() as connection:
            for hour in sorted(requests):
                row = {"hour": hour, "requests": 0, "errors": 0}
                await connection.execute(build_insert_new(connection, billing_answers, "hour").values(row))
                grown = {"requests": columns.requests + requests[hour], "errors": columns.errors + errors[hour]}
                await connection.execute(sa.update(billing_answers).where(columns.hour == hour).values(grown))
        # Counts added meanwhile, or all counts after a failed write, remain for the next time.
        self._requests -= Counter(requests)
        self._errors -= Counter(errors)


class ResponseTotals(NamedTuple):
    """The number of answered requests, and the number of those answered by an error of ours."""

    requests: int
    errors: int


async def fetch_since(connection: AsyncConnection, second: float) -> ResponseTotals:
    """Return the totals from the hour of a Unix second on, including all of that hour."""
    sums = [sa.func.coalesce(sa.func.sum(column), 0) for column in (columns.requests, columns.errors)]
    statement = sa.select(*sums).where(columns.hour >= int(second) // HOUR * HOUR)
    return ResponseTotals(*map(int, (await connection.execute(statement)).one()))
