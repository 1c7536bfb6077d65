"""The projection of usage to the end of a month, at its pace so far. Pure."""

from calendar import monthrange
from datetime import UTC, datetime
from typing import NamedTuple

PART_MIN = 0.03
"""The part of a month before which there is no projection: a day."""


class MonthProgress(NamedTuple):
    """A month in UTC, and its progress."""

    begins: datetime
    days: int
    part: float
    """The part that is over, from 0 to 1."""

    def projected(self, used: float) -> int | None:
        """Return the projected usage at the end of the month; None while too little of it is over."""
        return None if self.part < PART_MIN else round(used / self.part)


def find_month(second: float) -> MonthProgress:
    """Return the month that a Unix second is in."""
    at = datetime.fromtimestamp(second, UTC)
    begins = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    days = monthrange(at.year, at.month)[1]
    return MonthProgress(begins, days, (at - begins).total_seconds() / (days * 86400))
