"""The rater: the one place where usage becomes money. No clock, no I/O, no settings.

`rate_segments` returns the lines of an invoice. Given the lines that were invoiced before, it returns what has come to
them since. However often, late or split usage is rated, the sum is what one rating of everything gives.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final, Literal, NamedTuple

from edgeproxy.collector.billing.rating.money import compute_amount, compute_share
from edgeproxy.collector.billing.rating.owed_amount import compute_due
from edgeproxy.config.collector.catalog import MeterPrice, Plan, get_plan_name

OTHER = ""
"""The dimension value of usage that has none, or one without a price of its own."""

LineKind = Literal["fee", "proration", "usage", "late", "minimum", "discount"]
DISCOUNT: Final = "discount"
"""The kind of lines of coupons, which discounts.py rates by the others."""
FEES: Final = ("fee", "proration")
"""The kinds of lines that are paid in advance."""


class Span(NamedTuple):
    """A time, half-open, in Unix seconds."""

    start: int
    end: int


class Segment(NamedTuple):
    """A part of a period in which a version of a plan was in force."""

    version: str
    plan: Plan
    span: Span
    paid: Span
    """The time that its fee is for: the month, or the year that is paid in advance."""
    is_yearly: bool = False
    month: Span | None = None
    """The period in which it is; None where that is all of `paid`."""
    is_trial: bool = False
    """Whether it is a trial, of which nothing is charged."""
    is_resting: bool = False
    """Whether its fee rests, as the customer is refused for unpaid invoices. Usage is charged."""
    quantity: int = 1
    """How many of the plan there are: each costs the fee."""

    @property
    def period(self) -> Span:
        """The period in which it is."""
        return self.month or self.paid

    @property
    def fee(self) -> int:
        """The fee of the quantity for all of `paid`, in the plan's currency; 0 if it rests. Raises ValueError without a
        yearly fee."""
        if self.is_resting:
            return 0
        fee = self.plan.year_fee if self.is_yearly else self.plan.fee
        if fee is None:
            raise ValueError(f"{self.version} is not sold by the year")
        return fee * self.quantity


class UsageKey(NamedTuple):
    """A segment, a meter, and the value of the dimension that its price is by."""

    segment: Span
    meter: str
    value: str = OTHER


class RatedLine(NamedTuple):
    """A line of an invoice. Amounts are smallest units of a currency, such as cents; `unit_price` is 10⁻¹² of them for
    each of `quantity`, None of fees. The quantity of a fee is that of the plan, below zero of an unused fee. Of a
    discount, `quantity` is what it is of, and `unit_price` its share."""

    kind: LineKind
    version: str
    segment: Span
    """The segment that the line is of."""
    meter: str
    """Empty of fees."""
    value: str
    """The value of the dimension that the price is by; of a discount, the code of its coupon."""
    tier: int
    """The number of the meter's price that a usage line has, 0 for included units."""
    quantity: int
    """Units; packages where `package` is above 1."""
    unit_price: int | None
    amount: int
    span: Span
    """The time that it pays for."""
    package: int = 1
    """The units that each of `quantity` stands for, the last of which may not be used."""
    taken_off: int = 0
    """The part of `amount` that does not stand any more, with the same sign: its invoice is void or uncollectible, or
    a credit note took it off."""
    stands: bool = True
    """Whether any of its invoice stands. A credit note of nearly all may take all of a small line off."""


class PriceStep(NamedTuple):
    """Units of one price: `width` of them, None for all further ones."""

    tier: int
    width: int | None
    price: int
    package: int = 1
    """The units of a package, for each of which the price is."""


def rate_segments(
    segments: Sequence[Segment],
    usage: Mapping[UsageKey, int],
    invoiced: Iterable[RatedLine] = (),
    *,
    settled: Collection[Span] = (),
) -> list[RatedLine]:
    """Return the lines of these segments, less those `invoiced` before.

    Segments are in the order of time. Usage of a (segment, meter, value) is all that is known of it, also what was
    invoiced; below zero it counts as zero. Raises ValueError where it is of a segment that is not there. `settled` are
    the segments that are over, whose usage is given completely: the rest of the minimum fee is of them.
    """
    spans = {segment.span for segment in segments}
    for key in usage:
        if key.segment not in spans:
            raise ValueError(f"there is usage of {key.meter} in {key.segment}, which is no segment")
    segments = [segment for segment in segments if not segment.is_trial]
    used = list(_rate_usage(segments, usage))
    before = _group_lines(invoiced)
    lines = [*_rate_fees(segments, before), *used, *_rate_minimums(segments, used, settled)]
    return _subtract_invoiced(before, lines) if before else lines


def sum_amounts(lines: Iterable[RatedLine]) -> int:
    """Return the sum of all lines."""
    return sum(line.amount for line in lines)


def _rate_fees(
    segments: Sequence[Segment], before: Mapping[tuple[object, ...], Sequence[RatedLine]]
) -> Iterator[RatedLine]:
    """Yield the lines of fees. They are paid in advance: a change within the paid time gives back the rest of what
    stands of the fee `before`. After a time without a plan, whose end gave nothing back, no more than the new fee is.
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
    """Return the terms of a fee: segments with the same terms share one fee."""
    return segment.version, segment.paid, segment.is_resting, segment.quantity


def _rate_fee(paid_segment: Segment, kind: LineKind, sign: int, segment: Span) -> RatedLine:
    """Return the fee for the rest of the paid time when a segment begins."""
    left = Span(segment.start, paid_segment.paid.end)
    cents = sign * compute_share(
        paid_segment.fee,
        left.end - left.start,
        paid_segment.paid.end - paid_segment.paid.start,
        paid_segment.plan.currency,
    )
    quantity = sign * paid_segment.quantity
    return RatedLine(kind, paid_segment.version, segment, "", "", 0, quantity, None, cents, left)


def _rate_usage(segments: Sequence[Segment], usage: Mapping[UsageKey, int]) -> Iterator[RatedLine]:
    """Yield the usage lines of each segment, in the order of its plan.

    The included amounts and price steps of a plan are those of a period: a later segment of the same plan goes on where
    the earlier one was.
    """
    by_segment: dict[tuple[Span, str], dict[str, int]] = {}
    for key, quantity in usage.items():
        by_segment.setdefault((key.segment, key.meter), {})[key.value] = quantity
    earlier: dict[tuple[str, Span, str], dict[str, int]] = {}
    for segment in segments:
        for meter, price in segment.plan.meters.items():
            values = by_segment.get((segment.span, meter))
            if values is None:
                continue
            before = earlier.setdefault((get_plan_name(segment.version), segment.period, meter), {})
            for step, value, quantity in _split_further(price, before, values):
                cents = compute_amount(quantity, step.price, segment.plan.currency)
                yield RatedLine(
                    *("usage", segment.version, segment.span, meter, value, step.tier),
                    *(quantity, step.price, cents, segment.span, step.package),
                )
            _add_values(before, values)


def _split_further(
    price: MeterPrice, before: Mapping[str, int], values: Mapping[str, int]
) -> Iterator[tuple[PriceStep, str, int]]:
    """Divide usage among the steps of a price, after usage `before` in the same period has filled the first ones."""
    if not before:
        yield from split_by_steps(price, values)
        return
    whole = dict(before)
    _add_values(whole, values)
    parts: dict[tuple[PriceStep, str], int] = {}
    for sign, quantities in ((1, whole), (-1, before)):
        for step, value, quantity in split_by_steps(price, quantities):
            part = step._replace(width=None), value
            parts[part] = parts.get(part, 0) + sign * quantity
    yield from ((step, value, quantity) for (step, value), quantity in parts.items() if quantity)


def _add_values(sums: dict[str, int], values: Mapping[str, int]) -> None:
    """Add quantities by value to others."""
    for value, quantity in values.items():
        sums[value] = sums.get(value, 0) + quantity


def _rate_minimums(
    segments: Sequence[Segment], used: Sequence[RatedLine], settled: Collection[Span]
) -> Iterator[RatedLine]:
    """Yield what is missing in each period up to the minimum fees of its segments, each in proportion to its time.

    Their fees count, in the same proportion, and their usage. Periods with segments that are not settled have none.
    """
    for period, of_period in groupby(segments, key=lambda segment: segment.period):
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
    """Return the share of the minimum fee of a segment above that of its fee."""
    seconds = segment.span.end - segment.span.start
    currency = segment.plan.currency
    minimum = compute_share(segment.plan.minimum or 0, seconds, period.end - period.start, currency)
    return minimum - compute_share(segment.fee, seconds, segment.paid.end - segment.paid.start, currency)


def split_by_steps(price: MeterPrice, values: Mapping[str, int]) -> Iterator[tuple[PriceStep, str, int]]:
    """Divide usage among the steps of a price: (step, value, quantity), empty ones left out.

    Values fill the included amount in the order in which the price lists them, others last and together. A quantity is
    of packages where the step has them: a package that is begun counts whole.
    """
    listed = list(price.by.prices) if price.by is not None else []
    quantities = dict.fromkeys([*listed, OTHER], 0)
    for value, quantity in values.items():
        quantities[value if value in quantities else OTHER] += quantity
    steps = _build_steps(price, sum(max(quantity, 0) for quantity in quantities.values()))
    shared = iter(steps)
    step = next(shared)
    left = step.width
    for value, quantity in quantities.items():
        rest = max(quantity, 0)
        while rest:
            if left == 0:
                step = next(shared)
                left = step.width
                continue
            part = rest if left is None else min(rest, left)
            priced = step._replace(price=_unit_price(price, value)) if step.tier and not price.tiers else step
            yield priced, value, -(-part // step.package)
            rest -= part
            left = None if left is None else left - part


def _build_steps(price: MeterPrice, total: int) -> list[PriceStep]:
    """Return the steps of a price for a `total` of units, the last of which has no end."""
    if price.tiers_mode == "volume":
        number, reached = next(
            (number, tier)
            for number, tier in enumerate(price.tiers, start=1)
            if tier.up_to is None or total <= tier.up_to
        )
        return [PriceStep(number, None, reached.price)]
    if price.tiers:
        starts = [0, *(tier.up_to for tier in price.tiers)]
        return [
            PriceStep(number, None if tier.up_to is None else tier.up_to - (start or 0), tier.price)
            for number, (tier, start) in enumerate(zip(price.tiers, starts, strict=False), start=1)
        ]
    if price.included is None:
        return [PriceStep(0, None, 0)]
    return [PriceStep(0, price.included, 0), PriceStep(1, None, price.price or 0, price.package or 1)]


def _unit_price(price: MeterPrice, value: str) -> int:
    """Return the price of a unit of this value above what is included."""
    by = price.by.prices if price.by is not None else {}
    return by.get(value, price.price or 0)


def _group_lines(invoiced: Iterable[RatedLine]) -> dict[tuple[object, ...], list[RatedLine]]:
    """Return the lines of each price and fee, in the order in which they were written."""
    groups: dict[tuple[object, ...], list[RatedLine]] = {}
    for line in invoiced:
        groups.setdefault(identify_line(line), []).append(line)
    return groups


def _subtract_invoiced(
    before: Mapping[tuple[object, ...], Sequence[RatedLine]], now: Sequence[RatedLine]
) -> list[RatedLine]:
    """Return the lines that have to be added to those before to come to those now: new fees, and late usage."""
    left = dict(before)
    lines = [_subtract(line, line.quantity, line.amount, left.pop(identify_line(line), ())) for line in now]
    # Usage that was corrected to nothing.
    lines += [_subtract(earlier[-1], 0, 0, earlier) for earlier in left.values()]
    invoiced = {earlier[0].segment.start for earlier in before.values() if earlier[0].meter}
    return [
        line._replace(kind="late") if line.meter and line.segment.start in invoiced else line
        for line in lines
        if line is not None
    ]


def _subtract(line: RatedLine, quantity: int, amount: int, earlier: Sequence[RatedLine]) -> RatedLine | None:
    """Return the line that comes to the `earlier` ones of its price; None where nothing does."""
    due = compute_due(amount, [(one.amount, one.taken_off) for one in earlier])
    more = quantity - sum(one.quantity for one in earlier)
    if not due and (not more or any(one.taken_off for one in earlier)):
        return None
    # The sign of a fee's quantity says whether it is charged or unused, also on a line that corrects it.
    more = line.quantity if line.kind in FEES else more
    return line._replace(quantity=more, amount=due, taken_off=0, stands=True)


def identify_line(line: RatedLine) -> tuple[object, ...]:
    """Return the identity of a line: usage and late usage of one price, or one fee. A segment is identified by its
    beginning, as its end may not have been known when its fee was invoiced."""
    if line.meter:
        return line.version, line.segment.start, line.meter, line.value, line.tier
    if line.kind == DISCOUNT:
        return line.kind, line.value, line.segment.start
    if line.kind == "minimum":
        return line.kind, line.version, line.segment.start
    return line.kind, line.version, line.segment.start, line.quantity
