"""What usage will come to by the end of a month, if it goes on as it did. Pure."""

from calendar import monthrange
from datetime import UTC, datetime
from typing import NamedTuple

PART_MIN = 0.03
"""The part of a month after which anything can be said of the rest: a day."""


class MonthProgress(NamedTuple):
    """A month of UTC, and how far it has come."""

    begins: datetime
    days: int
    part: float
    """What of it is over, from 0 to 1."""

    def projected(self, used: float) -> int | None:
        """Return what `used` so far comes to by the end; None while too little of the month is over."""
        return None if self.part < PART_MIN else round(used / self.part)


def find_month(second: float) -> MonthProgress:
    """Return the month that a Unix second is in."""
    at = datetime.fromtimestamp(second, UTC)
    begins = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    days = monthrange(at.year, at.month)[1]
    return MonthProgress(begins, days, (at - begins).total_seconds() / (days * 86400))
