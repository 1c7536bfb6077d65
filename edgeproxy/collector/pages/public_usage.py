"""Usage on the status page: the sum over all customers in a week, for meters that the operator chooses.

It has only whole days, and sums are rounded to two digits. So a single customer's usage or the business of an hour
cannot be inferred.
"""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.schema import DAY, HOUR
from edgeproxy.collector.ledger import queries
from edgeproxy.collector.ledger.queries import LedgerQuery

DAYS = 7
LATE_SECONDS = HOUR
"""Seconds after its end when a day is read. Edges ship every minute."""


class PublicUsage:
    """The sums of whole days by meter. Each day is read once, because a sum over all customers is expensive."""

    def __init__(self, meters: Sequence[str]) -> None:
        self._meters = meters
        self._days: dict[int, dict[str, int]] = {}

    async def refresh(self, connection: AsyncConnection, now: float) -> None:
        """Read the days that have ended at the Unix second `now` and were not read yet."""
        today = int(now - LATE_SECONDS) // DAY * DAY
        days = range(today - DAYS * DAY, today, DAY)
        self._days = {day: counts for day, counts in self._days.items() if day in days}
        for day in days:
            if day not in self._days:
                self._days[day] = {meter: await _fetch_total(connection, meter, day) for meter in self._meters}

    def list_totals(self) -> list[tuple[str, int]]:
        """Return each meter with its sum over the days, rounded to two digits. It is empty before the first read."""
        if not self._days:
            return []
        totals = {meter: sum(day[meter] for day in self._days.values()) for meter in self._meters}
        return [(meter, round_to_digits(total)) for meter, total in totals.items()]


async def _fetch_total(connection: AsyncConnection, meter: str, day: int) -> int:
    usage = await queries.fetch_usage(connection, LedgerQuery(None, meter, day, day + DAY, ()))
    return int(usage["total"])


def round_to_digits(value: int) -> int:
    """Round a whole number down to its first two digits."""
    digits = str(value)
    return int(digits[:2].ljust(len(digits), "0"))
