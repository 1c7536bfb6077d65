"""Discounts of coupons: the amounts that they take off the lines of each period. Pure.

A discount applies to the whole cost of a period, on all of its invoices. The cost consists of the fee, its prorations,
the usage (late usage, too) and the minimum fee. A yearly fee belongs to the period of its start, and so does the part
of the fee that a change of plan gives back. The discount on an invoice is a difference: the discount of all lines
invoiced so far, less the discounts on earlier invoices. A line that was taken off completely, for example by a void
invoice, does not count, and neither does its discount. A credit note for a part of an invoice does not change the
discount.
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
    lines: Iterable[RatedLine],
    invoiced: Iterable[RatedLine],
    segments: Sequence[Segment],
    discounts: Sequence[Discount],
) -> list[RatedLine]:
    """Return the discount lines of an invoice with these `lines`. None of `lines` is a discount.

    `invoiced` has all lines of earlier invoices, including discounts. `segments` has all segments of the subscription.
    """
    rater = DiscountRater(segments, discounts)
    rater.add_invoiced(invoiced)
    return rater.rate(lines)


class DiscountRater:
    """Rates discounts after lines that are added one after another, so that no line is looked at twice."""

    def __init__(self, segments: Sequence[Segment], discounts: Sequence[Discount]) -> None:
        self._segments, self._discounts = segments, discounts
        self._places = {segment.span.start: place for place, segment in enumerate(segments)}
        self._bases: Counter[tuple[str, Span]] = Counter()
        """The amounts of lines by the name of their plan and their period."""
        self._earlier: dict[tuple[object, ...], list[RatedLine]] = {}
        """The invoiced discounts by identity: code and period."""

    def add_invoiced(self, lines: Iterable[RatedLine]) -> None:
        """Add lines of earlier invoices. Lines of an invoice without any amount due do not count."""
        due = [line for line in lines if line.stands]
        self.add(line for line in due if line.kind != DISCOUNT)
        for line in due:
            if line.kind == DISCOUNT:
                self._earlier.setdefault(identify_line(line), []).append(line)

    def add(self, lines: Iterable[RatedLine]) -> None:
        """Add lines that are no discounts."""
        self._bases.update(self._add_up(lines))

    def rate(self, lines: Iterable[RatedLine]) -> list[RatedLine]:
        """Return the discount lines of an invoice with these lines and the added ones."""
        bases = self._add_up(lines)
        bases.update(self._bases)
        rated: list[RatedLine] = []
        for discount in self._discounts:
            # A period whose lines were all taken off may still have discounts to correct.
            earlier = (of_period[0] for of_period in self._earlier.values())
            by_period = Counter({line.segment: 0 for line in earlier if line.value == discount.code})
            for (plan, period), amount in bases.items():
                if discount.covers(period.start) and (not discount.plans or plan in discount.plans):
                    by_period[period] += amount
            rated += [self._rate_period(discount, period, base) for period, base in sorted(by_period.items())]
        return [line for line in rated if line.quantity or line.amount]

    def _add_up(self, lines: Iterable[RatedLine]) -> Counter[tuple[str, Span]]:
        """Return the amounts of lines by the name of their plan and their period."""
        sums: Counter[tuple[str, Span]] = Counter()
        if self._discounts:
            by_version: Counter[tuple[str, Span]] = Counter()
            for line in lines:
                by_version[line.version, self._find_period(line)] += line.amount
            for (version, period), amount in by_version.items():
                sums[get_plan_name(version), period] += amount
        return sums

    def _rate_period(self, discount: Discount, period: Span, base: int) -> RatedLine:
        """Return the line for a period that costs `base` so far: its discount, less the earlier discounts."""
        earlier = self._earlier.get((DISCOUNT, discount.code, period.start), ())
        segment = next(segment for segment in self._segments if segment.period == period)
        # The discount of the whole period less the earlier ones: the sum does not depend on the number of invoices.
        amount = -discount.compute_amount(base, segment.plan.currency) - sum_amounts(earlier)
        quantity = base - sum(line.quantity for line in earlier)
        return RatedLine(
            *(DISCOUNT, segment.version, period, "", discount.code, 0), *(quantity, discount.share, amount, period)
        )

    def _find_period(self, line: RatedLine) -> Span:
        """Return the period of a line. An unused fee belongs to the period when that fee began."""
        place = self._places[line.segment.start]
        paid = begun = self._segments[place]
        if line.kind not in FEES or line.quantity > 0:
            return begun.period
        for earlier in range(place - 1, -1, -1):
            segment = self._segments[earlier]
            if (segment.version, segment.paid.end, segment.quantity) != (line.version, line.span.end, -line.quantity):
                break
            paid = segment
        return paid.period
