"""Discounts of coupons: the amounts that they take off the lines of each period. Pure.

A discount applies to the whole cost of a period, on all of its invoices. The cost consists of the fee, its prorations,
the usage (late usage, too) and the minimum fee. A yearly fee belongs to the period of its start, and so does the part
of the fee that a change of plan gives back. The discount on an invoice is a difference: the discount of all lines
invoiced so far, less the discounts on earlier invoices. A line that was taken off completely, for example by a void
invoice, does not count, and neither does its discount. A credit note for a part of an invoice does not change the
discount.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from edgeproxy.collector.billing.rating.money import compute_amount
from edgeproxy.collector.billing.rating.rater import (
    DISCOUNT,
    FEES,
    RatedLine,
    Segment,
    Span,
    identify_line,
    sum_amounts,
)
from edgeproxy.config.collector.catalog import get_plan_name


class Discount(NamedTuple):
    """The discount of a redeemed coupon."""

    code: str
    share: int | None
    """The discount for each smallest unit, in 10⁻¹² of a unit. None: the coupon takes off an amount."""
    amount_off: int | None
    """The largest amount that the coupon takes off a period, in smallest units."""
    plans: frozenset[str]
    """The names of the plans whose lines count. Empty: all plans."""
    starts: int
    """The beginning of the first period with this discount."""
    until: int | None
    """The beginning of the first period after this discount. None: the discount has no end."""

    def covers(self, start: int) -> bool:
        """Return whether the discount applies to the period that begins at `start`."""
        return self.starts <= start and (self.until is None or start < self.until)

    def compute_amount(self, base: int, currency: str) -> int:
        """Return the discount of a period that costs `base`."""
        base = max(base, 0)
        if self.share is None:
            return min(self.amount_off or 0, base)
        return compute_amount(base, self.share, currency)


def rate_discounts(
    lines: Sequence[RatedLine],
    invoiced: Iterable[RatedLine],
    segments: Sequence[Segment],
    discounts: Sequence[Discount],
) -> list[RatedLine]:
    """Return the discount lines of an invoice with these `lines`. None of `lines` is a discount.

    `invoiced` has all lines of earlier invoices, including discounts. `segments` has all segments of the subscription.
    """
    if not discounts:
        return []
    # Lines of an invoice without any amount due do not count, nor do their discounts.
    before = [line for line in invoiced if line.stands]
    places = {segment.span.start: place for place, segment in enumerate(segments)}
    charged = [(line, _find_period(line, segments, places)) for line in (*before, *lines) if line.kind != DISCOUNT]
    rated = []
    for discount in discounts:
        # A period whose lines were all taken off may still have discounts to correct.
        bases = Counter({line.segment: 0 for line in before if (line.kind, line.value) == (DISCOUNT, discount.code)})
        for line, period in charged:
            if discount.covers(period.start) and (not discount.plans or get_plan_name(line.version) in discount.plans):
                bases[period] += line.amount
        rated += [_rate_period(discount, period, base, before, segments) for period, base in sorted(bases.items())]
    return [line for line in rated if line.quantity or line.amount]


def _rate_period(
    discount: Discount, period: Span, base: int, before: Sequence[RatedLine], segments: Sequence[Segment]
) -> RatedLine:
    """Return the line for a period that costs `base` so far: its discount, less the discounts on earlier invoices."""
    identity = (DISCOUNT, discount.code, period.start)
    earlier = [line for line in before if identify_line(line) == identity]
    segment = next(segment for segment in segments if segment.period == period)
    # The discount of the whole period less the earlier ones: the sum does not depend on the number of invoices.
    amount = -discount.compute_amount(base, segment.plan.currency) - sum_amounts(earlier)
    quantity = base - sum(line.quantity for line in earlier)
    return RatedLine(
        *(DISCOUNT, segment.version, period, "", discount.code, 0), *(quantity, discount.share, amount, period)
    )


def _find_period(line: RatedLine, segments: Sequence[Segment], places: Mapping[int, int]) -> Span:
    """Return the period of a line. An unused fee belongs to the period when that fee began.

    `places` has the place of each segment by its start.
    """
    place = places[line.segment.start]
    paid = begun = segments[place]
    if line.kind not in FEES or line.quantity > 0:
        return begun.period
    for segment in reversed(segments[:place]):
        if (segment.version, segment.paid.end, segment.quantity) != (line.version, line.span.end, -line.quantity):
            break
        paid = segment
    return paid.period
