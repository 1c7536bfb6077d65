"""The projection of usage to the end of a period. Invoices and quotas have this one rule. Pure.

It adds to the usage so far the rest of the period at the pace of the lowest and the highest of the last seven days.
Whole numbers only.
"""

from collections.abc import Sequence
from typing import NamedTuple

DAY = 86400
DAYS = 7
"""The most days that a projection is based on."""
DAYS_MIN = 3
"""The fewest days that a projection is based on. One or two predict little about a month."""


class Range(NamedTuple):
    """The usage by the end of a period, at the pace of the lowest and of the highest day."""

    low: int
    high: int


def list_days(now: int, since: int) -> list[tuple[int, int]]:
    """Return the last whole days, of 24 hours up to `now`, as (start, end) since the customer's creation at `since`."""
    count = min(DAYS, max(0, now - since) // DAY)
    return [(now - (number + 1) * DAY, now - number * DAY) for number in range(count)]


def project_quantity(used: int, days: Sequence[int], left: int) -> Range:
    """Return the projected usage from the usage so far (`used`), these days, and the `left` seconds up to the end.

    Negative corrections add nothing; a half is rounded up.
    """
    quantities = [max(0, quantity) for quantity in days]
    rest = [(2 * quantity * max(0, left) + DAY) // (2 * DAY) for quantity in (min(quantities), max(quantities))]
    return Range(used + rest[0], used + rest[1])
