"""Projection of usage to the end of a period: as on the low and as on the high day of the last seven. Pure.

Whole numbers only, and no money: the rater says what a projection costs.
"""

from collections.abc import Mapping, Sequence

from edgeproxy.collector.billing.rating.money import divide_rounded
from edgeproxy.collector.billing.rating.rater import Span, UsageKey

DAY = 86400
DAYS = 7
"""The days that a projection goes by, at most."""
DAYS_MIN = 3
"""The fewest days that a projection goes by: one or two say little about a month."""

DayUsage = Mapping[UsageKey, int]
"""The usage of a day, by meter and value."""


def list_days(now: int, since: int) -> list[Span]:
    """Return the last whole days, of 24 hours up to `now`, in which a customer was here who came at `since`."""
    count = min(DAYS, max(0, now - since) // DAY)
    return [Span(now - (number + 1) * DAY, now - number * DAY) for number in range(count)]


def project_usage(
    used: DayUsage, days: Sequence[DayUsage], now: int, segment: Span
) -> tuple[dict[UsageKey, int], dict[UsageKey, int]]:
    """Return the usage of a segment by its end, low and high: what is `used` so far, and for the rest of the time as
    on the day with the least and on the one with the most of it. Corrections below zero add nothing."""
    left = max(0, segment.end - now)
    by_key = {key._replace(segment=segment) for day in days for key in day}
    in_segment = [{key._replace(segment=segment): max(0, quantity) for key, quantity in day.items()} for day in days]
    low, high = dict(used), dict(used)
    for key in by_key:
        quantities = [day.get(key, 0) for day in in_segment]
        low[key] = low.get(key, 0) + divide_rounded(min(quantities) * left, DAY)
        high[key] = high.get(key, 0) + divide_rounded(max(quantities) * left, DAY)
    return low, high
