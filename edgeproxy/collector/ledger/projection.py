"""Projection of usage to the end of a period, the one rule for invoices and quotas. Pure.

What is used so far, and for the rest of the time as on the low and as on the high day of the last seven. Whole numbers
only.
"""

from collections.abc import Sequence
from typing import NamedTuple

DAY = 86400
DAYS = 7
"""The days that a projection goes by, at most."""
DAYS_MIN = 3
"""The fewest days that a projection goes by: one or two say little about a month."""


class Range(NamedTuple):
    """The usage by the end of a period, as on the day with the least and on the one with the most of it."""

    low: int
    high: int


def list_days(now: int, since: int) -> list[tuple[int, int]]:
    """Return begin and end of the last whole days, of 24 hours up to `now`, in which a customer was here since then."""
    count = min(DAYS, max(0, now - since) // DAY)
    return [(now - (number + 1) * DAY, now - number * DAY) for number in range(count)]


def project_quantity(used: int, days: Sequence[int], left: int) -> Range:
    """Return the usage by the end, of what is `used` and of each of these days; `left` are the seconds up to the end.

    Corrections below zero add nothing; a half is rounded up.
    """
    quantities = [max(0, quantity) for quantity in days]
    rest = [(2 * quantity * max(0, left) + DAY) // (2 * DAY) for quantity in (min(quantities), max(quantities))]
    return Range(used + rest[0], used + rest[1])
