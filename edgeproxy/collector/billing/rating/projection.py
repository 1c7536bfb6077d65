"""What usage comes to by the end of a period, if it goes on as it did in the last days. Pure.

Whole numbers only, and no money: what a projection costs, the rater says.
"""

from collections.abc import Mapping

from edgeproxy.collector.billing.rating.money import rounded
from edgeproxy.collector.billing.rating.rater import Key, Span

DAY = 86400
PACE_SECONDS = 7 * DAY
"""Seconds whose usage says how it goes on."""
PACE_SECONDS_MIN = DAY
"""The least of that: a first hour says little about a month."""


def pace(now: int, since: int) -> Span:
    """Return the time whose usage says how that of a customer goes on who is here `since` this Unix second."""
    return Span(max(now - PACE_SECONDS, min(since, now - PACE_SECONDS_MIN)), now)


def projected(used: Mapping[Key, int], lately: Mapping[Key, int], over: Span, segment: Span) -> dict[Key, int]:
    """Return what is used of a segment by its end: what is `used` so far, and the rest of it at the pace of `lately`,
    which was used during `over`. Where more was taken back than used lately, nothing is added."""
    left = max(0, segment.end - over.end)
    found = dict(used)
    for key, quantity in lately.items():
        same = key._replace(segment=segment)
        found[same] = found.get(same, 0) + rounded(max(quantity, 0) * left, over.end - over.start)
    return found
