"""The projection of a plan's usage to the end of a period, by meter and value. Pure.

Whole numbers only, and no money: the rater computes the cost of a projection.
"""

from collections.abc import Mapping, Sequence

from edgeproxy.collector.billing.rating.rater import Span, UsageKey
from edgeproxy.collector.ledger.projection import project_quantity

DayUsage = Mapping[UsageKey, int]
"""The usage of a day, by meter and value."""


def project_usage(
    used: DayUsage, days: Sequence[DayUsage], now: int, segment: Span
) -> tuple[dict[UsageKey, int], dict[UsageKey, int]]:
    """Return the projected usage of a segment at its end, low and high, from the usage so far and the last days."""
    by_key = {key._replace(segment=segment) for day in days for key in day}
    in_segment = [{key._replace(segment=segment): quantity for key, quantity in day.items()} for day in days]
    low, high = dict(used), dict(used)
    for key in by_key:
        quantities = [day.get(key, 0) for day in in_segment]
        low[key], high[key] = project_quantity(used.get(key, 0), quantities, segment.end - now)
    return low, high
