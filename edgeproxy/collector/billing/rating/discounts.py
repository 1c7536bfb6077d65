"""Discounts of coupons: what they take off the lines of each period. Pure.

A discount is of all that a period costs, whichever invoices that is on: its fee and prorations, its usage, also late,
and its minimum fee. A fee for a year, and what a change takes back of it, belong to the period in which the year began.
Each invoice has the difference between the discount of everything invoiced by then and what was taken off before.
Lines that were taken off whole, such as those of a void invoice, are left out, and so is their discount. A credit note
of a part of an invoice leaves the discount as it was.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
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
    """What a redeemed coupon takes off."""

    code: str
    share: int | None
    """The share of each smallest unit in 10⁻¹²; None where it takes off an amount."""
    amount_off: int | None
    """The smallest units that it takes off a period at most."""
    plans: frozenset[str]
    """The names of the plans whose lines count; empty for all."""
    starts: int
    """The beginning of the first period that it is of."""
    until: int | None
    """The beginning of the first period that it is of no more; None: it goes on."""

    def covers(self, start: int) -> bool:
        """Return whether it is of the period that begins so."""
        return self.starts <= start and (self.until is None or start < self.until)

    def compute_amount(self, base: int, currency: str) -> int:
        """Return what it takes off a period that costs so much."""
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
    """Return the discount lines of an invoice with these `lines`, none of which is a discount.

    `invoiced` are all lines of earlier invoices, discounts too; `segments` are those of the subscription.
    """
    if not discounts:
        return []
    before = [line for line in invoiced if line.stands]
    charged = [(line, find_period(line, segments)) for line in (*before, *lines) if line.kind != DISCOUNT]
    rated = []
    for discount in discounts:
        bases: Counter[Span] = Counter()
        for line, period in charged:
            if discount.covers(period.start) and (not discount.plans or get_plan_name(line.version) in discount.plans):
                bases[period] += line.amount
        rated += [_rate_period(discount, period, base, before, segments) for period, base in sorted(bases.items())]
    return [line for line in rated if line.quantity or line.amount]


def _rate_period(
    discount: Discount, period: Span, base: int, before: Sequence[RatedLine], segments: Sequence[Segment]
) -> RatedLine:
    """Return what comes to the discount of a period that costs `base` by now."""
    identity = (DISCOUNT, discount.code, period.start)
    earlier = [line for line in before if identify_line(line) == identity]
    segment = next(one for one in segments if one.period == period)
    amount = -discount.compute_amount(base, segment.plan.currency) - sum_amounts(earlier)
    quantity = base - sum(line.quantity for line in earlier)
    return RatedLine(
        *(DISCOUNT, segment.version, period, "", discount.code, 0), *(quantity, discount.share, amount, period)
    )


def find_period(line: RatedLine, segments: Sequence[Segment]) -> Span:
    """Return the period that a line belongs to."""
    if line.kind not in FEES:
        return next(one.period for one in segments if one.span.start == line.segment.start)
    start = next(one.paid.start for one in segments if (one.version, one.paid.end) == (line.version, line.span.end))
    return next(one.period for one in segments if one.period.start == start and not one.is_trial)
