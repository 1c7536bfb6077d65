"""The amounts of usage in a part of a billing period, and of groups within it. Pure.

The amount for a span is a difference: the rated usage of the period up to the end of the span, less the rated usage up
to its start. So the amounts of all parts of a period add up to the usage lines of its invoice. Groups share an amount
by their units, to the cent.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from edgeproxy.collector.billing.rating.rater import OTHER, Segment, Span, UsageKey, rate_usage
from edgeproxy.config.collector.catalog import MeterPrice

Group = TypeVar("Group", bound=Hashable)


class SegmentUsage(NamedTuple):
    """The usage of a meter in a segment of a period, by the value that its price depends on."""

    segment: Segment
    until_begin: Mapping[str, int]
    """The units from the start of the segment to the start of the span; empty if the segment begins within the span."""
    until_end: Mapping[str, int]
    """The units from the start of the segment to the end of the span or segment, whichever comes first."""


def clip_segment(segment: Segment, until: int) -> Segment:
    """Return a segment as if it ended at a Unix second within it."""
    return segment if segment.span.end <= until else segment._replace(span=Span(segment.span.start, until))


def rate_time(meter: str, used: Sequence[SegmentUsage]) -> dict[tuple[int, str], int]:
    """Return the cost of a meter's usage in a span, in the currency's smallest unit.

    The keys are the start of the segment and the value that the price depends on. `used` has all segments of one period
    that begin before the end of the span, in order of time.
    """
    amounts: dict[tuple[int, str], int] = {}
    segments = [segment_usage.segment for segment_usage in used]
    for sign, quantities in (
        (1, [segment_usage.until_end for segment_usage in used]),
        (-1, [segment_usage.until_begin for segment_usage in used]),
    ):
        usage = {
            UsageKey(segment.span, meter, value): quantity
            for segment, values in zip(segments, quantities, strict=True)
            for value, quantity in values.items()
        }
        for line in rate_usage(segments, usage):
            part = line.segment.start, line.value
            amounts[part] = amounts.get(part, 0) + sign * line.amount
    return amounts


def get_priced_value(price: MeterPrice, value: str) -> str:
    """Return the value in the form that lines have: OTHER for a value without a price of its own."""
    return value if price.by is not None and value in price.by.prices else OTHER


def share_amount(amount: int, units: Mapping[Group, int]) -> dict[Group, int]:
    """Divide an amount among groups by their units; the parts add up to it. Groups without units get none.

    The result is empty if no group has units. The rest of rounding goes to the largest remainders.
    """
    counted = {group: quantity for group, quantity in units.items() if quantity > 0}
    if len(counted) < 2:  # Most parts of hundreds have one group.
        return dict.fromkeys(counted, amount)
    total = sum(counted.values())
    shares = {group: divmod(amount * quantity, total) for group, quantity in counted.items()}
    left = amount - sum(share for share, _ in shares.values())
    first = set(sorted(shares, key=lambda group: -shares[group][1])[:left])
    return {group: share + (group in first) for group, (share, _) in shares.items()}
