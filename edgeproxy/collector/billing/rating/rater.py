"""The rater, the only place that turns usage into money. It uses no clock, no I/O and no settings.

`rate_segments` returns the lines of an invoice. If the caller passes the lines invoiced before, it returns only the
lines to add. The sum does not depend on how often usage is rated, nor on late or split usage: it equals the sum of a
single rating.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final, Literal, NamedTuple

from edgeproxy.collector.billing.rating.money import compute_amount, compute_share
from edgeproxy.collector.billing.rating.owed_amount import compute_due
from edgeproxy.config.collector.catalog import MeterPrice, Plan, get_plan_name

OTHER = ""
"""The dimension value of usage without a value, or with a value that has no price of its own."""

LineKind = Literal["fee", "proration", "usage", "late", "minimum", "discount"]
DISCOUNT: Final = "discount"
"""The kind of coupon lines. `discounts.py` computes them from the other lines."""
FEES: Final = ("fee", "proration")
"""The kinds of lines that are paid in advance."""


class Span(NamedTuple):
    """A half-open time span in Unix seconds."""

    start: int
    end: int


class Segment(NamedTuple):
    """A part of a period with one version of a plan in force."""

    version: str
    plan: Plan
    span: Span
    paid: Span
    """The time that the fee pays for: a month, or a year paid in advance."""
    is_yearly: bool = False
    month: Span | None = None
    """The billing period of the segment, or None if it is all of `paid`."""
    is_trial: bool = False
    """The segment is a trial, so nothing is charged."""
    is_resting: bool = False
    """The fee is suspended because requests are refused for unpaid invoices. Usage is still charged."""
    quantity: int = 1
    """The number of units of the plan. Each costs the fee."""

    @property
    def period(self) -> Span:
        """The billing period of the segment."""
        return self.month or self.paid

    @property
    def fee(self) -> int:
        """The fee for `quantity` units and all of `paid`, in the plan's currency; 0 if the fee is suspended.

        Raises ValueError if the plan has no yearly fee.
        """
        if self.is_resting:
            return 0
        fee = self.plan.year_fee if self.is_yearly else self.plan.fee
        if fee is None:
            raise ValueError(f"{self.version} is not sold by the year")
        return fee * self.quantity


class UsageKey(NamedTuple):
    """A segment, a meter, and a value of the dimension that the meter is priced by."""

    segment: Span
    meter: str
    value: str = OTHER


class RatedLine(NamedTuple):
    """An invoice line. Amounts are in the smallest unit of a currency, such as cents.

    `unit_price` is the price of each of `quantity` in 10⁻¹² of that unit, or None for a fee. The quantity of a fee is
    the plan's quantity, negative for the refund of an unused fee. In a discount, `quantity` is the amount that the
    discount applies to, and `unit_price` is its share.
    """

    kind: LineKind
    version: str
    segment: Span
    """The segment that the line belongs to."""
    meter: str
    """The meter, or empty for a fee."""
    value: str
    """The value of the dimension that the meter is priced by; in a discount, the coupon's code."""
    tier: int
    """The number of the price step of a usage line; 0 for included units."""
    quantity: int
    """Units, or packages if `package` is above 1."""
    unit_price: int | None
    amount: int
    span: Span
    """The time that the line pays for."""
    package: int = 1
    """The units in each of `quantity`. The last package may be partly unused."""
    taken_off: int = 0
    """The part of `amount` that is no longer due, with the sign of `amount`.

    The invoice is void or uncollectible, or a credit note reduced the line.
    """
    stands: bool = True
    """Some of the line's invoice is still due.

    A credit note of nearly the whole invoice may cancel all of a small line.
    """


class PriceStep(NamedTuple):
    """A step of a price."""

    tier: int
    price: int
    package: int = 1
    """The units of a package. `price` is for a whole package."""


_Parts = dict[tuple[PriceStep, str], int]
"""Units by price step and value."""


def rate_segments(
    segments: Sequence[Segment],
    usage: Mapping[UsageKey, int],
    invoiced: Iterable[RatedLine] = (),
    *,
    settled: Collection[Span] = (),
    used: Sequence[RatedLine] | None = None,
) -> list[RatedLine]:
    """Return the lines of these segments, less the lines in `invoiced`.

    `segments` are in order of time. `usage` holds all known usage of each (segment, meter, value), including invoiced
    usage; a negative quantity counts as zero. `settled` are the segments that are over and whose usage is complete:
    only they are charged the rest of a minimum fee. `used` are the lines of `rate_usage`, if they are known. Raises
    ValueError for usage of a segment that is not in `segments`.
    """
    spans = {segment.span for segment in segments}
    for key in usage:
        if key.segment not in spans:
            raise ValueError(f"there is usage of {key.meter} in {key.segment}, which is no segment")
    used = rate_usage(segments, usage) if used is None else used
    before = _group_lines(invoiced)
    # A trial is free. Only the check above needs it, because its usage is known, too.
    fees = _rate_fees([segment for segment in segments if not segment.is_trial], before)
    lines = [*fees, *used, *rate_minimums(segments, used, settled)]
    return _subtract_invoiced(before, lines) if before else lines


def subtract_invoiced(invoiced: Iterable[RatedLine], lines: Sequence[RatedLine]) -> list[RatedLine]:
    """Return the lines to add to the `invoiced` ones, of the same segments, so that they become `lines`."""
    return _subtract_invoiced(_group_lines(invoiced), lines)


def sum_amounts(lines: Iterable[RatedLine]) -> int:
    """Return the sum of the amounts of all lines."""
    return sum(line.amount for line in lines)


def _rate_fees(
    segments: Sequence[Segment], before: Mapping[tuple[object, ...], Sequence[RatedLine]]
) -> Iterator[RatedLine]:
    """Yield the lines of fees, which are paid in advance.

    A change within the paid time refunds the unused rest of the earlier fee, in proportion to the part of that fee in
    `before` that was not taken off. After a time without a plan the refund is at most the new fee, because the end of
    the earlier plan refunded nothing.
    """
    last: Segment | None = None
    charged: RatedLine | None = None
    for segment in segments:
        if last is None or _get_terms(last) != _get_terms(segment):
            start = segment.span.start
            is_change = last is not None and last.paid.end > start
            new = _rate_fee(segment, "proration" if is_change else "fee", 1, segment.span)
            if last is not None and charged is not None and is_change:
                unused, fee = _rate_fee(last, "proration", -1, segment.span), before.get(identify_line(charged), ())
                if taken_off := sum(line.taken_off for line in fee):
                    whole = sum_amounts(fee)
                    share = compute_share(unused.amount, whole - taken_off, whole, last.plan.currency)
                    unused = unused._replace(amount=share)
                if last.span.end < start:
                    unused = unused._replace(amount=max(unused.amount, -new.amount))
                yield unused
            charged = new
            yield charged
        last = segment


def _get_terms(segment: Segment) -> tuple[str, Span, bool, int]:
    """Return the terms of a fee. Segments with equal terms share one fee."""
    return segment.version, segment.paid, segment.is_resting, segment.quantity


def _rate_fee(paid_segment: Segment, kind: LineKind, sign: int, segment: Span) -> RatedLine:
    """Return the fee from the start of `segment` to the end of the paid time."""
    left = Span(segment.start, paid_segment.paid.end)
    cents = sign * compute_share(
        paid_segment.fee,
        left.end - left.start,
        paid_segment.paid.end - paid_segment.paid.start,
        paid_segment.plan.currency,
    )
    quantity = sign * paid_segment.quantity
    return RatedLine(kind, paid_segment.version, segment, "", "", 0, quantity, None, cents, left)


def rate_usage(segments: Sequence[Segment], usage: Mapping[UsageKey, int], since: int = 0) -> list[RatedLine]:
    """Return the usage lines of each segment, in the order of its plan's meters, without trials and invoiced lines.

    Included units and price steps apply to a whole period: a later segment of the same plan continues at the step that
    the earlier one reached. Segments that begin before the Unix second `since` get no lines.
    """
    by_segment = _group_usage(usage)
    rater, lines = UsageRater(), list[RatedLine]()
    for segment in segments:
        if not segment.is_trial and (used := by_segment.get(segment.span)):
            if segment.span.start >= since:
                lines += rater.rate(segment, used)
            rater.add(segment, used)
    return lines


def _group_usage(usage: Mapping[UsageKey, int]) -> dict[Span, dict[str, dict[str, int]]]:
    """Return usage by segment, meter and value."""
    by_segment: dict[Span, dict[str, dict[str, int]]] = {}
    for key, quantity in usage.items():
        by_segment.setdefault(key.segment, {}).setdefault(key.meter, {})[key.value] = quantity
    return by_segment


class UsageRater:
    """Rates the usage of segments in order of time, also of a segment that is not over."""

    def __init__(self) -> None:
        self._earlier: dict[tuple[str, Span, str], _EarlierUsage] = {}

    def rate(self, segment: Segment, used: Mapping[str, Mapping[str, int]]) -> Iterator[RatedLine]:
        """Yield the lines of a segment for its usage by meter and value, after the usage that was added."""
        currency = segment.plan.currency
        for meter, price in segment.plan.meters.items():
            values = used.get(meter)
            if values is None or not any(values.values()):
                continue
            earlier = self._earlier.get(_identify_allowance(segment, meter))
            steps = split_by_steps(price, values) if earlier is None else earlier.split_further(price, values)
            for step, value, quantity in steps:
                cents = compute_amount(quantity, step.price, currency)
                yield RatedLine(
                    *("usage", segment.version, segment.span, meter, value, step.tier),
                    *(quantity, step.price, cents, segment.span, step.package),
                )

    def add(self, segment: Segment, used: Mapping[str, Mapping[str, int]]) -> None:
        """Add the usage of a segment that is over."""
        for meter, values in used.items():
            if meter in segment.plan.meters and any(values.values()):
                self._earlier.setdefault(_identify_allowance(segment, meter), _EarlierUsage()).add(values)


def _identify_allowance(segment: Segment, meter: str) -> tuple[str, Span, str]:
    """Return the identity of a period's included units and price steps of a meter: segments of one plan share them."""
    return get_plan_name(segment.version), segment.period, meter


class _EarlierUsage:
    """The usage of a meter in earlier segments of a period, and its division among the steps of a price."""

    def __init__(self) -> None:
        self._values: dict[str, int] = {}
        self._price: MeterPrice | None = None
        self._parts: _Parts = {}
        """The division among the steps of `_price`."""
        self._next: tuple[Mapping[str, int], _Parts] | None = None
        """The usage that was divided last, and the division of the earlier usage with it."""

    def add(self, values: Mapping[str, int]) -> None:
        """Add the usage of a segment."""
        _add_values(self._values, values)
        if self._next is not None and self._next[0] == values:
            self._parts = self._next[1]
        else:
            self._price = None
        self._next = None

    def split_further(self, price: MeterPrice, values: Mapping[str, int]) -> Iterator[tuple[PriceStep, str, int]]:
        """Divide further usage among the price steps that remain."""
        if self._price is not price:
            self._price, self._parts = price, _split_parts(price, self._values)
        whole = dict(self._values)
        _add_values(whole, values)
        parts = _split_parts(price, whole)
        self._next = dict(values), dict(parts)
        # The price of the whole period less the price of its earlier part: a package or an included amount that an
        # earlier segment began is not charged again.
        for part, quantity in self._parts.items():
            parts[part] = parts.get(part, 0) - quantity
        yield from ((step, value, quantity) for (step, value), quantity in parts.items() if quantity)


def _add_values(sums: dict[str, int], values: Mapping[str, int]) -> None:
    """Add the quantities in `values` to `sums`."""
    for value, quantity in values.items():
        sums[value] = sums.get(value, 0) + quantity


def _split_parts(price: MeterPrice, values: Mapping[str, int]) -> _Parts:
    """Divide usage among the steps of a price."""
    parts: _Parts = {}
    for step, value, quantity in split_by_steps(price, values):
        part = step, value
        parts[part] = parts.get(part, 0) + quantity
    return parts


def rate_minimums(
    segments: Sequence[Segment], used: Sequence[RatedLine], settled: Collection[Span]
) -> Iterator[RatedLine]:
    """Yield a line per period for the amount missing up to the minimum fees of its segments.

    A minimum fee is prorated by time. The plan's fee, prorated in the same way, and the usage count towards it. A
    period gets no line until all its segments are settled.
    """
    charged = (segment for segment in segments if not segment.is_trial)
    for period, of_period in groupby(charged, key=lambda segment: segment.period):
        committed = [one for one in of_period if one.plan.minimum is not None and not one.is_resting]
        spans = {segment.span for segment in committed}
        if not committed or not spans <= set(settled):
            continue
        missing = sum(_compute_committed(segment, period) for segment in committed)
        missing -= sum_amounts(line for line in used if line.segment in spans)
        if missing > 0:
            last = committed[-1]
            span = Span(committed[0].span.start, last.span.end)
            yield RatedLine("minimum", last.version, last.span, "", "", 0, 1, None, missing, span)


def _compute_committed(segment: Segment, period: Span) -> int:
    """Return the prorated minimum fee of a segment, less its prorated fee."""
    seconds = segment.span.end - segment.span.start
    currency = segment.plan.currency
    minimum = compute_share(segment.plan.minimum or 0, seconds, period.end - period.start, currency)
    return minimum - compute_share(segment.fee, seconds, segment.paid.end - segment.paid.start, currency)


def split_by_steps(price: MeterPrice, values: Mapping[str, int]) -> Iterator[tuple[PriceStep, str, int]]:
    """Divide usage among the steps of a price as (step, value, quantity), without empty steps.

    The values that the price lists fill the included units first, in that order; all other values come last, as one. If
    the step has packages, the quantity is in packages, and a package in part counts as a whole one.
    """
    prices = price.by.prices if price.by is not None else {}
    quantities = dict.fromkeys([*prices, OTHER], 0)
    for value, quantity in values.items():
        quantities[value if value in quantities else OTHER] += quantity
    steps = iter(_build_steps(price, sum(max(quantity, 0) for quantity in quantities.values())))
    step, left = next(steps)
    for value, quantity in quantities.items():
        # Corrections may exceed the usage that they correct. That earns nothing.
        rest = max(quantity, 0)
        while rest:
            # The last step has no end, so `next` always finds one.
            if left == 0:
                step, left = next(steps)
                continue
            part = rest if left is None else min(rest, left)
            has_own_price = value in prices and step.tier and not price.tiers
            priced = PriceStep(step.tier, prices[value], step.package) if has_own_price else step
            yield priced, value, -(-part // step.package)
            rest -= part
            left = None if left is None else left - part


def _build_steps(price: MeterPrice, total: int) -> list[tuple[PriceStep, int | None]]:
    """Return the steps of a price for `total` units, with the number of units of each; the last step has no end."""
    if price.tiers_mode == "volume":
        number, reached = next(
            (number, tier)
            for number, tier in enumerate(price.tiers, start=1)
            if tier.up_to is None or total <= tier.up_to
        )
        return [(PriceStep(number, reached.price), None)]
    if price.tiers:
        starts = [0, *(tier.up_to for tier in price.tiers)]
        return [
            (PriceStep(number, tier.price), None if tier.up_to is None else tier.up_to - (start or 0))
            for number, (tier, start) in enumerate(zip(price.tiers, starts, strict=False), start=1)
        ]
    if price.included is None:
        return [(PriceStep(0, 0), None)]
    return [(PriceStep(0, 0), price.included), (PriceStep(1, price.price or 0, price.package or 1), None)]


def _group_lines(invoiced: Iterable[RatedLine]) -> dict[tuple[object, ...], list[RatedLine]]:
    """Return the invoiced lines of each price and fee, in the order of writing."""
    groups: dict[tuple[object, ...], list[RatedLine]] = {}
    for line in invoiced:
        groups.setdefault(identify_line(line), []).append(line)
    return groups


def _subtract_invoiced(
    before: Mapping[tuple[object, ...], Sequence[RatedLine]], now: Sequence[RatedLine]
) -> list[RatedLine]:
    """Return the lines that turn the lines `before` into the lines `now`: new fees and late usage."""
    left = dict(before)
    lines = [_subtract(line, line.quantity, line.amount, left.pop(identify_line(line), ())) for line in now]
    # Usage that was corrected to zero.
    lines += [_subtract(earlier[-1], 0, 0, earlier) for earlier in left.values()]
    invoiced = {earlier[0].segment.start for earlier in before.values() if earlier[0].meter}
    return [
        line._replace(kind="late") if line.meter and line.segment.start in invoiced else line
        for line in lines
        if line is not None
    ]


def _subtract(line: RatedLine, quantity: int, amount: int, earlier: Sequence[RatedLine]) -> RatedLine | None:
    """Return the line to add to the `earlier` lines of the same price, or None if there is nothing to add."""
    if not earlier:
        return line if amount or quantity else None
    due = compute_due(amount, [(line.amount, line.taken_off) for line in earlier])
    more = quantity - sum(line.quantity for line in earlier)
    if not due and (not more or any(line.taken_off for line in earlier)):
        return None
    # The sign of a fee's quantity tells a charge from a refund, also on a line that corrects a fee.
    more = line.quantity if line.kind in FEES else more
    return line._replace(quantity=more, amount=due, taken_off=0, stands=True)


def identify_line(line: RatedLine) -> tuple[object, ...]:
    """Return the identity of a line: the usage (on time or late) of one price, or one fee.

    The start identifies a segment, because its end may have been unknown when its fee was invoiced.
    """
    if line.meter:
        return line.version, line.segment.start, line.meter, line.value, line.tier
    if line.kind == DISCOUNT:
        return line.kind, line.value, line.segment.start
    if line.kind == "minimum":
        return line.kind, line.version, line.segment.start
    return line.kind, line.version, line.segment.start, line.quantity
