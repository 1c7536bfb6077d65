"""What a change of a subscription does: from when on, to what, and what is due. Pure.

Upgrades are at once, downgrades when what is paid ends. There is one immediate change in a period, as each segment has
its whole included amounts.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from edgeproxy.collector.billing.rating import periods
from edgeproxy.collector.billing.rating.rater import Line, Segment, Span, rate
from edgeproxy.config.catalog import Plan

When = Literal["now", "period_end"]
START, CHANGE, PERIOD = "start", "change", "period"
"""The kinds of invoices: the first fee, what an upgrade costs, and what a period comes to."""


class No(Exception):
    """The change cannot be made: an HTTP status that says so, and a sentence for who asks."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(status, why)
        self.status = status
        self.why = why


class Held(NamedTuple):
    """A subscription as it stands: its segments in the order of time, the last of which is in force."""

    segments: Sequence[Segment]
    period: Span
    anchor: int | None
    next_version: str | None = None
    cancel_at: int | None = None

    @property
    def last(self) -> Segment:
        """The segment in force."""
        return self.segments[-1]

    @property
    def has_changed(self) -> bool:
        """Whether there was an immediate change in this period."""
        return sum(segment.span.start >= self.period.start for segment in self.segments) > 1


class Change(NamedTuple):
    """What is to be written: the segment that ends, the one that begins, what happens when what is paid ends."""

    when: When
    at: int
    """From when on it holds."""
    begun: Segment | None
    """The new segment of a change at once."""
    next_version: str | None
    lines: list[Line]
    """What is due at once."""


def begun(version: str, plan: Plan, *, now: float, anchor: int | None, is_yearly: bool) -> Held:
    """A subscription that begins now; raises No."""
    _must_be_sold(version, plan, is_yearly)
    period = periods.period_at(now, anchor)
    paid = periods.year_from(period, anchor) if is_yearly else period
    return Held([Segment(version, plan, Span(periods.minute(now), period.end), paid, is_yearly)], period, anchor)


def changed(held: Held, version: str, plan: Plan, when: When | None, now: float, invoiced: Sequence[Line]) -> Change:
    """The change to another version; `invoiced`: the fees of this period's segments that are invoiced. Raises No.

    `when` is by default now for what costs more, and when what is paid ends for what costs less.
    """
    last = held.last
    if version == last.version:
        if held.next_version is None and held.cancel_at is None:
            raise No(409, f"the plan is {version} already")
        # The change, or the end, that was to come is taken back.
        return Change("period_end", last.paid.end, None, None, [])
    if held.cancel_at is not None:
        raise No(409, f"the subscription is ending: have it go on first, by a change to {last.version}")
    _must_be_sold(version, plan, last.is_yearly)
    is_upgrade = plan.fee > last.plan.fee
    when = when or ("now" if is_upgrade else "period_end")
    if when == "period_end":
        return Change(when, last.paid.end, None, version, [])
    if not is_upgrade:
        raise No(422, f"{version} does not cost more than {last.version}: it can begin when what is paid ends")
    if held.has_changed:
        raise No(409, "the plan was changed in this period already: the next change can begin when it ends")
    at = periods.boundary(now, last.span.start)
    if at >= held.period.end:
        raise No(409, "the period ends in this minute: ask again in the next one")
    paid = last.paid if last.is_yearly else held.period
    new = Segment(version, plan, Span(at, held.period.end), paid, last.is_yearly)
    return Change(when, at, new, None, fees([*ended(held.segments, at), new], invoiced))


def ended(segments: Sequence[Segment], at: int) -> list[Segment]:
    """These segments, the last of which ends at this moment."""
    *before, last = segments
    return [*before, last._replace(span=Span(last.span.start, at))]


def fees(segments: Sequence[Segment], invoiced: Sequence[Line]) -> list[Line]:
    """The fees of all segments that are not invoiced yet."""
    return rate(segments, {}, [line for line in invoiced if not line.meter])


def following(held: Held, plans: Mapping[str, Plan]) -> Segment | None:
    """The segment of the next period; None where the subscription is over by then."""
    last = held.last
    if held.cancel_at is not None and held.cancel_at <= held.period.end:
        return None
    period = periods.period_after(held.period, held.anchor)
    if last.paid.end > held.period.end:  # Of a year.
        return last._replace(span=period)
    version = held.next_version or last.version
    plan = plans[version]
    is_yearly = last.is_yearly and plan.year_fee is not None
    return Segment(version, plan, period, periods.year_from(period, held.anchor) if is_yearly else period, is_yearly)


def _must_be_sold(version: str, plan: Plan, is_yearly: bool) -> None:
    if is_yearly and plan.year_fee is None:
        raise No(422, f"{version} is not sold by the year")
