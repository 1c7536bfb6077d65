"""The one place where usage becomes money: no clock, no I/O, no settings.

`rate` gives the lines of an invoice. Given those that were invoiced before, it gives what has come to them since, so
that however often, late or split usage is rated, what is charged in the end is what one rating of everything gives.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from edgeproxy.collector.billing.rating.money import amount, share
from edgeproxy.config.catalog import MeterPrice, Plan

OTHER = ""
"""The dimension value of usage that has none, or one without a price of its own."""

Kind = Literal["fee", "proration", "usage", "late"]


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

    @property
    def fee(self) -> int:
        """Cents for all of `paid`; raises ValueError where the plan is not sold by the year."""
        fee = self.plan.year_fee if self.is_yearly else self.plan.fee
        if fee is None:
            raise ValueError(f"{self.version} is not sold by the year")
        return fee


class Key(NamedTuple):
    """Of which usage is told: the segment it was in, the meter, and the value of the dimension that its price is by."""

    segment: Span
    meter: str
    value: str = OTHER


class Line(NamedTuple):
    """A line of an invoice. Amounts are cents; `unit_price` is 10⁻¹² cents, None of fees."""

    kind: Kind
    version: str
    segment: Span
    """The segment it is of."""
    meter: str
    """Empty of fees."""
    value: str
    tier: int
    """Of a usage line: which of its prices, 0 for what is included."""
    quantity: int
    unit_price: int | None
    amount: int
    span: Span
    """The time that it pays for."""


class Step(NamedTuple):
    """Units that cost the same: `width` of them, None for all further ones."""

    tier: int
    width: int | None
    price: int
    value: str | None = None
    """The only value of the dimension whose units may fill it; None: any."""


def rate(segments: Sequence[Segment], usage: Mapping[Key, int], invoiced: Iterable[Line] = ()) -> list[Line]:
    """Return the lines that these segments come to, less those `invoiced` before.

    Segments are in the order of time. Usage of a (segment, meter, value) is all that is known of it, also what was
    invoiced; below zero it counts as zero. Raises ValueError where it is of a segment that is not there.
    """
    spans = {segment.span for segment in segments}
    for key in usage:
        if key.segment not in spans:
            raise ValueError(f"there is usage of {key.meter} in {key.segment}, which is no segment")
    lines = [line for one in (_fees(segments), _usage(segments, usage)) for line in one]
    before = list(invoiced)
    return _since(before, lines) if before else lines


def total(lines: Iterable[Line]) -> int:
    """Cents of all lines."""
    return sum(line.amount for line in lines)


def _fees(segments: Sequence[Segment]) -> Iterator[Line]:
    """Fees are paid in advance: what follows before the time is over that was paid takes back what is left of it."""
    last: Segment | None = None
    for segment in segments:
        if last is None or (last.version, last.paid) != (segment.version, segment.paid):
            start = segment.span.start
            is_change = last is not None and last.paid.end > start
            if last is not None and is_change:
                yield _fee(last, "proration", -1, segment.span)
            yield _fee(segment, "proration" if is_change else "fee", 1, segment.span)
        last = segment


def _fee(of: Segment, kind: Kind, sign: int, segment: Span) -> Line:
    """The fee for what is left of the paid time when a segment begins."""
    left = Span(segment.start, of.paid.end)
    cents = sign * share(of.fee, left.end - left.start, of.paid.end - of.paid.start)
    return Line(kind, of.version, segment, "", "", 0, sign, None, cents, left)


def _usage(segments: Sequence[Segment], usage: Mapping[Key, int]) -> Iterator[Line]:
    """Lines of each segment, in the order of its plan."""
    by_segment: dict[tuple[Span, str], dict[str, int]] = {}
    for key, quantity in usage.items():
        by_segment.setdefault((key.segment, key.meter), {})[key.value] = quantity
    for segment in segments:
        for meter, price in segment.plan.meters.items():
            values = by_segment.get((segment.span, meter))
            if values is not None:
                for step, value, quantity in charged(price, values):
                    cents = amount(quantity, step.price)
                    yield Line(
                        *("usage", segment.version, segment.span, meter, value, step.tier),
                        *(quantity, step.price, cents, segment.span),
                    )


def charged(price: MeterPrice, values: Mapping[str, int]) -> Iterator[tuple[Step, str, int]]:
    """Divide usage among the steps of a price: (step, value, quantity), those without any left out.

    Values fill the included amount in the order in which the price lists them, others last and together.
    """
    listed = list(price.by.prices) if price.by is not None else []
    quantities = dict.fromkeys([*listed, OTHER], 0)
    for value, quantity in values.items():
        quantities[value if value in quantities else OTHER] += quantity
    steps = _steps(price)
    shared = iter(steps)
    step = next(shared)
    room = step.width
    for value, quantity in quantities.items():
        rest = max(quantity, 0)
        while rest:
            if room == 0:
                step = next(shared)
                room = step.width
                continue
            taken = rest if room is None else min(rest, room)
            priced = step._replace(price=_price_of(price, value)) if step.tier and not price.tiers else step
            yield priced, value, taken
            rest -= taken
            room = None if room is None else room - taken


def _steps(price: MeterPrice) -> list[Step]:
    """The steps of a price, the last of which has no end."""
    if price.tiers:
        starts = [0, *(tier.up_to for tier in price.tiers)]
        return [
            Step(number, None if tier.up_to is None else tier.up_to - (start or 0), tier.price)
            for number, (tier, start) in enumerate(zip(price.tiers, starts, strict=False), start=1)
        ]
    if price.included is None:
        return [Step(0, None, 0)]
    return [Step(0, price.included, 0), Step(1, None, price.price or 0)]


def _price_of(price: MeterPrice, value: str) -> int:
    """What a unit of this value costs above what is included."""
    by = price.by.prices if price.by is not None else {}
    return by.get(value, price.price or 0)


def _since(before: Sequence[Line], now: Sequence[Line]) -> list[Line]:
    """What has to be added to the lines before to come to those now: fees that are new, and late usage."""
    had: dict[tuple[object, ...], tuple[Line, int, int]] = {}
    for line in before:
        _, quantity, cents = had.get(_identity(line), (line, 0, 0))
        had[_identity(line)] = line, quantity + line.quantity, cents + line.amount
    found = []
    for line in now:
        _, quantity, cents = had.pop(_identity(line), (line, 0, 0))
        found.append(line._replace(quantity=line.quantity - quantity, amount=line.amount - cents))
    for line, quantity, cents in had.values():  # What there was and is no more: usage that was corrected to nothing.
        found.append(line._replace(quantity=-quantity, amount=-cents))
    invoiced = {line.segment.start for line in before if line.meter}
    return [
        line._replace(kind="late") if line.meter and line.segment.start in invoiced else line
        for line in found
        if line.quantity or line.amount
    ]


def _identity(line: Line) -> tuple[object, ...]:
    """What makes two lines the same one: usage and late usage of one price, or one fee. A segment is known by its
    beginning, as its end may not have been known when its fee was invoiced.
    """
    if line.meter:
        return line.version, line.segment.start, line.meter, line.value, line.tier
    return line.kind, line.version, line.segment.start, line.quantity
