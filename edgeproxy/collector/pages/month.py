"""The calendar month of UTC that usage is shown of. Pure."""

from calendar import monthrange
from datetime import UTC, datetime
from typing import NamedTuple


class Month(NamedTuple):
    """A month in UTC, and how much of it is over."""

    begins: datetime
    days: int
    part: float
    """The part that is over, from 0 to 1."""


def find_month(second: float) -> Month:
    """Return the month that a Unix second is in."""
    at = datetime.fromtimestamp(second, UTC)
    begins = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    days = monthrange(at.year, at.month)[1]
    return Month(begins, days, (at - begins).total_seconds() / (days * 86400))
