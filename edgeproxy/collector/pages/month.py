"""The times that usage is shown of as of now: the calendar month of UTC, or a period of billing. Pure."""

from calendar import monthrange
from datetime import UTC, datetime
from typing import NamedTuple

from edgeproxy.collector.database.schema import DAY


class UsageTime(NamedTuple):
    """A time, how many days of UTC it touches, and how much of it is over."""

    since: int
    """The Unix second at which it begins."""
    days: int
    part: float
    """The part that is over, from 0 to 1."""

    @property
    def first_day(self) -> int:
        """Return the Unix second at which its first day begins."""
        return self.since // DAY * DAY


def find_month(second: float) -> UsageTime:
    """Return the month that a Unix second is in."""
    at = datetime.fromtimestamp(second, UTC)
    begins = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    since, days = int(begins.timestamp()), monthrange(at.year, at.month)[1]
    return UsageTime(since, days, (second - since) / (days * DAY))


def find_period(since: float, until: float, second: float) -> UsageTime:
    """Return the period of billing from one Unix second to another, as of a `second` within."""
    start, end = int(since), int(until)
    days = -(-end // DAY) - start // DAY
    return UsageTime(start, days, min(max(second - start, 0) / (end - start), 1.0))
