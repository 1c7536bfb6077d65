"""Projection of usage to the end of a period, at the pace of the last days. Pure.

Whole numbers only, and no money: the rater says what a projection costs.
"""

from collections.abc import Mapping

from edgeproxy.collector.billing.rating.money import divide_rounded
from edgeproxy.collector.billing.rating.rater import Span, UsageKey

DAY = 86400
PACE_SECONDS = 7 * DAY
"""The time whose usage gives the pace, in seconds."""
PACE_SECONDS_MIN = DAY
"""The fewest seconds that give a pace: a first hour says little about a month."""


def compute_pace_span(now: int, since: int) -> Span:
    """Return the time whose usage gives the pace of a customer who is here `since` this Unix second."""
    return Span(max(now - PACE_SECONDS, min(since, now - PACE_SECONDS_MIN)), now)


def project_usage(
    used: Mapping[UsageKey, int], recent: Mapping[UsageKey, int], recent_span: Span, segment: Span
) -> dict[UsageKey, int]:
    """Return the usage of a segment by its end: what is `used` so far, and the rest of the time at the pace of
    `recent`, which was used during `recent_span`. Corrections below zero add nothing."""
    left = max(0, segment.end - recent_span.end)
    projection = dict(used)
    for key, quantity in recent.items():
        projected_key = key._replace(segment=segment)
        projection[projected_key] = projection.get(projected_key, 0) + divide_rounded(
            max(quantity, 0) * left, recent_span.end - recent_span.start
        )
    return projection
