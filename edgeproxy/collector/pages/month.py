"""Times with usage up to now: the calendar month of UTC, or a billing period. Pure."""

from calendar import monthrange
from datetime import UTC, datetime
from typing import NamedTuple

from edgeproxy.collector.database.schema import DAY


class UsageTime(NamedTuple):
    """A time, the number of UTC days that it touches, and the elapsed part."""

    since: int
    """The Unix second when it begins."""
    days: int
    part: float
    """The elapsed part, from 0 to 1."""

    @property
    def first_day(self) -> int:
        """Return the Unix second when its first day begins."""
        return self.since // DAY * DAY


def find_month(second: float) -> UsageTime:
    """Return the month of a Unix second."""
    at = datetime.fromtimestamp(second, UTC)
    begins = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    since, days = int(begins.timestamp()), monthrange(at.year, at.month)[1]
    return UsageTime(since, days, (second - since) / (days * DAY))


def find_period(since: float, until: float, second: float) -> UsageTime:
    """Return the billing period between two Unix seconds, with the part elapsed at `second`."""
    start, end = int(since), int(until)
    days = -(-end // DAY) - start // DAY
    return UsageTime(start, days, min(max(second - start, 0) / (end - start), 1.0))
