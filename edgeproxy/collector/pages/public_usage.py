"""Usage that the status page publishes: of the owner's choice of meters, what all customers together used in a week.

Only whole days are in it, and two digits of the sum, so that nobody learns what a single customer does, or how business
goes from one hour to the next.
"""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.schema import DAY, HOUR
from edgeproxy.collector.ledger import queries
from edgeproxy.collector.ledger.queries import LedgerQuery

DAYS = 7
LATE_SECONDS = HOUR
"""Seconds after its end at which a day is read; edges ship each minute."""


class PublicUsage:
    """The sums of whole days by meter. Each day is read once, as its sum over all customers is dear."""

    def __init__(self, meters: Sequence[str]) -> None:
        self._meters = meters
        self._days: dict[int, dict[str, int]] = {}

    async def refresh(self, connection: AsyncConnection, now: float) -> None:
        """Read the days that are over at the Unix second `now` and were not read yet."""
        today = int(now - LATE_SECONDS) // DAY * DAY
        days = range(today - DAYS * DAY, today, DAY)
        self._days = {day: counts for day, counts in self._days.items() if day in days}
        for day in days:
            if day not in self._days:
                self._days[day] = {meter: await _fetch_total(connection, meter, day) for meter in self._meters}

    def list_totals(self) -> list[tuple[str, int]]:
        """Return each meter and its sum over the days, rounded to two digits; empty before the first read."""
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
