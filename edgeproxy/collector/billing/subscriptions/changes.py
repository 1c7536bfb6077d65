"""Changes of a subscription: their time, their effect, and the lines due. Pure.

Upgrades are immediate; downgrades take effect when the paid time ends. A change from months to years is an upgrade, and
one from years to months a downgrade. A subscription that ended within its period can be resumed in that period.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from edgeproxy.collector.billing.rating import periods
from edgeproxy.collector.billing.rating.rater import FEES, RatedLine, Segment, Span, rate_segments
from edgeproxy.collector.billing.subscriptions.price_moves import PriceMove, find_moved_version
from edgeproxy.collector.problems import billing_codes
from edgeproxy.collector.problems.coded_error import CodedError
from edgeproxy.config.collector.catalog import Plan, get_plan_name

When = Literal["now", "period_end"]
START, CHANGE, PERIOD, THRESHOLD = "start", "change", "period", "threshold"
"""The kinds of invoices: the first fee, the price of an upgrade, the total of a period, and usage within a period.

Further threshold invoices of a period are `threshold-2` and so on.
"""


class PlanChangeError(CodedError):
    """The change is rejected."""


class UpcomingMove(NamedTuple):
    """A price change as it affects a subscriber."""

    at: int
    """The subscriber pays for the new version from this Unix second on."""
    before: str
    after: str


class SubscriptionState(NamedTuple):
    """The segments of a subscription in order of time, the last of them in force, and its planned changes."""

    segments: Sequence[Segment]
    period: Span
    anchor: int | None
    next_version: str | None = None
    cancel_at: int | None = None
    moves: Sequence[PriceMove] = ()
    """Future price changes of the plan."""
    next_is_yearly: bool | None = None
    """Payment by the year after the paid time ends; None leaves it unchanged."""
    next_quantity: int | None = None
    """The plan's quantity after the paid time ends; None leaves it unchanged."""

    @property
    def last(self) -> Segment:
        """The segment in force."""
        return self.segments[-1]

    @property
    def usage_start(self) -> int:
        """The period's invoice includes usage from this Unix second on. It may be within the period."""
        starts = [segment.span.start for segment in self.segments if segment.period == self.last.period]
        return max(min(starts), self.period.start)

    def find_upcoming_move(self) -> "UpcomingMove | None":
        """Return the first price change that will affect the subscription, or None.

        There is none if no change is planned, or if the subscription ends before.
        """
        version, period, start = self.next_version or self.last.version, self.period, self.last.paid.end
        first = min((move.at for move in self.moves), default=None)
        # A price change affects a subscriber at the first start of a paid time at or after it.
        while first is not None and start < first:
            period = periods.period_at(start, self.anchor)
            start = periods.year_of_period(period, self.anchor).end if self.last.is_yearly else period.end
        if first is None or (self.cancel_at is not None and self.cancel_at <= start):
            return None
        return UpcomingMove(start, version, find_moved_version(version, self.moves, start))

    @property
    def has_changed(self) -> bool:
        """True if there was an immediate change in this period."""
        return sum(segment.period == self.period for segment in self.segments) > 1

    @property
    def allowance_segments(self) -> list[Segment]:
        """The segments of this period that share the included amounts of the plan in force."""
        plan, period = get_plan_name(self.last.version), self.last.period
        return [
            segment for segment in self.segments if (get_plan_name(segment.version), segment.period) == (plan, period)
        ]


class PlanChange(NamedTuple):
    """The effects of a change: the segment that begins now, or the version that begins when the paid time ends."""

    when: When
    at: int
    """The change is effective from this Unix second on."""
    begun: Segment | None
    """The new segment of an immediate change."""
    next_version: str | None
    lines: list[RatedLine]
    """The lines that are due at once."""
    next_is_yearly: bool | None = None
    """Payment by the year from then on; None leaves it unchanged."""
    next_quantity: int | None = None
    """The quantity from then on; None leaves it unchanged."""


def begin_subscription(
    version: str,
    plan: Plan,
    *,
    now: float,
    anchor: int | None,
    is_yearly: bool,
    has_trial: bool = False,
    quantity: int = 1,
) -> SubscriptionState:
    """Return a subscription that begins now, with the plan's trial if `has_trial`. Raises PlanChangeError.

    A trial is a period of its own. The first paid period and its `anchor` begin at the end of the trial.
    """
    _check_sold_yearly(version, plan, is_yearly)
    _check_quantity(version, plan, quantity)
    if has_trial and plan.trial is not None:
        trial = periods.compute_trial(now, plan.trial.days)
        segment = Segment(version, plan, trial, trial, is_yearly, trial, is_trial=True, quantity=quantity)
        return SubscriptionState([segment], trial, None if anchor is None else trial.end)
    period = periods.period_at(now, anchor)
    paid = periods.year_of_period(period, anchor) if is_yearly else period
    begun = Segment(
        version, plan, Span(periods.floor_to_minute(now), period.end), paid, is_yearly, period, quantity=quantity
    )
    return SubscriptionState([begun], period, anchor)


def change_plan(
    current: SubscriptionState,
    version: str,
    plan: Plan,
    when: When | None,
    now: float,
    invoiced: Sequence[RatedLine],
    *,
    is_yearly: bool | None = None,
    quantity: int | None = None,
) -> PlanChange:
    """Return the change to another version or quantity, or between monthly and yearly payment.

    Without `is_yearly` the payment interval stays; without `quantity` the quantity stays if the plan has one. By
    default `when` is now for a change that costs more, and the end of the paid time for one that costs less. `invoiced`
    are the invoiced fees of this period's segments. Raises PlanChangeError.
    """
    last = current.last
    is_yearly = last.is_yearly if is_yearly is None else is_yearly
    quantity = _choose_quantity(last, version, plan, quantity)
    if (version, is_yearly, quantity) == (last.version, last.is_yearly, last.quantity):
        if current.next_version is None and current.cancel_at is None:
            raise PlanChangeError(
                billing_codes.PLAN_UNCHANGED,
                f"the plan is {'' if quantity == 1 else f'{quantity} × '}{version} already",
            )
        # A change to the current plan cancels the pending change or the pending end.
        return PlanChange("period_end", last.paid.end, None, None, [])
    if current.cancel_at is not None:
        raise PlanChangeError(
            billing_codes.SUBSCRIPTION_ENDING,
            f"the subscription is ending: have it go on first, by a change to {last.version}",
        )
    _check_sold_yearly(version, plan, is_yearly)
    is_upgrade = _costs_more(last, plan, quantity, is_yearly=is_yearly)
    when = when or ("now" if is_upgrade and not last.is_trial else "period_end")
    if last.is_trial and when == "now":
        raise PlanChangeError(
            billing_codes.TRIAL_OF_ANOTHER_PLAN, f"the trial is of {last.version}: another plan can begin when it ends"
        )
    if when == "period_end":
        return _change_later(last, version, quantity, is_yearly=is_yearly)
    if not is_upgrade:
        raise PlanChangeError(
            billing_codes.PLAN_NOT_HIGHER,
            f"{version} does not cost more than {last.version}: it can begin at the end of the paid period",
        )
    # Segments begin at whole minutes, because edges count by minutes.
    at = periods.compute_boundary(now, last.span.start)
    return _begin_now(current, version, plan, at, invoiced, is_yearly=is_yearly, quantity=quantity)


def _change_later(last: Segment, version: str, quantity: int, *, is_yearly: bool) -> PlanChange:
    """Return a change that takes effect when the paid time ends."""
    next_is_yearly = None if is_yearly == last.is_yearly else is_yearly
    next_quantity = None if quantity == last.quantity else quantity
    return PlanChange("period_end", last.paid.end, None, version, [], next_is_yearly, next_quantity)


def resume_plan(
    current: SubscriptionState,
    version: str,
    plan: Plan,
    now: float,
    invoiced: Sequence[RatedLine],
    *,
    is_yearly: bool,
    quantity: int = 1,
) -> PlanChange:
    """Return the effects of resuming a subscription that ended within its period. Raises PlanChangeError.

    Paid time stays paid. Another plan costs its fee less the unused part of the earlier fee, but never less than zero,
    because the end of the subscription refunded nothing.
    """
    _check_sold_yearly(version, plan, is_yearly)
    _check_quantity(version, plan, quantity)
    last = current.last
    at = max(periods.compute_boundary(now, last.span.start), last.span.end)
    is_same = (version, is_yearly, quantity) == (last.version, last.is_yearly, last.quantity)
    if at == last.span.end and not is_same and not _costs_more(last, plan, quantity, is_yearly=is_yearly):
        raise PlanChangeError(
            billing_codes.PERIOD_ENDING, f"{last.version} ended in this minute: ask again in the next one"
        )
    return _begin_now(current, version, plan, at, invoiced, is_yearly=is_yearly, quantity=quantity)


def _begin_now(
    current: SubscriptionState,
    version: str,
    plan: Plan,
    at: int,
    invoiced: Sequence[RatedLine],
    *,
    is_yearly: bool,
    quantity: int,
) -> PlanChange:
    """Return the change to a segment that begins at this second of the period. Raises PlanChangeError."""
    last, period = current.last, current.period
    if at >= period.end:
        raise PlanChangeError(billing_codes.PERIOD_ENDING, "the period ends in this minute: ask again in the next one")
    paid = period
    if is_yearly:
        paid = last.paid if last.is_yearly else periods.year_of_period(period, current.anchor)
    new = Segment(version, plan, Span(at, period.end), paid, is_yearly, period, quantity=quantity)
    # A subscription that is resumed has its last segment ended already.
    before = current.segments if last.span.end <= at else end_segments(current.segments, at)
    return PlanChange("now", at, new, None, compute_fees([*before, new], invoiced))


def _costs_more(last: Segment, plan: Plan, quantity: int, *, is_yearly: bool) -> bool:
    """Return whether a quantity of a plan costs more, so that it can begin before the paid time ends.

    `is_yearly` tells yearly from monthly payment.
    """
    if is_yearly == last.is_yearly:
        return quantity * ((plan.year_fee or 0) if is_yearly else plan.fee) > last.fee
    return is_yearly and quantity * plan.fee >= last.fee


def end_segments(segments: Sequence[Segment], at: int) -> list[Segment]:
    """Return these segments with the last one ended at this moment."""
    *before, last = segments
    return [*before, last._replace(span=Span(last.span.start, at))]


def end_now(current: SubscriptionState, now: float) -> SubscriptionState:
    """Return a subscription that ends at once: `cancel_at` is the minute, and nothing is planned after it."""
    at = min(periods.compute_boundary(now, current.last.span.start), current.period.end)
    return SubscriptionState(end_segments(current.segments, at), current.period, current.anchor, cancel_at=at)


def compute_fees(segments: Sequence[Segment], invoiced: Sequence[RatedLine]) -> list[RatedLine]:
    """Return the fees of all segments that are not invoiced yet."""
    return rate_segments(segments, {}, [line for line in invoiced if line.kind in FEES])


def next_segment(current: SubscriptionState, plans: Mapping[str, Plan]) -> Segment | None:
    """Return the segment of the next period, or None if the subscription ends by then."""
    last = current.last
    if current.cancel_at is not None and current.cancel_at <= current.period.end:
        return None
    period = periods.period_after(current.period, current.anchor)
    if last.paid.end > current.period.end:  # The paid year goes on.
        return last._replace(span=period, month=period)
    version = find_moved_version(current.next_version or last.version, current.moves, last.paid.end)
    plan = plans[version]
    is_yearly = last.is_yearly if current.next_is_yearly is None else current.next_is_yearly
    # A price change may have moved the subscription to a version that is not sold by the year.
    is_yearly = is_yearly and plan.year_fee is not None
    paid = periods.year_of_period(period, current.anchor) if is_yearly else period
    quantity = last.quantity if current.next_quantity is None else current.next_quantity
    return Segment(version, plan, Span(last.period.end, period.end), paid, is_yearly, period, quantity=quantity)


def needs_payment_method(current: SubscriptionState, begun: Segment) -> bool:
    """Return whether a subscription ends with its trial unless it has a payment method for the next segment."""
    trial = current.last.plan.trial
    return trial is not None and trial.missing_payment_method == "cancel" and begun.plan.has_prices


def _check_sold_yearly(version: str, plan: Plan, is_yearly: bool) -> None:
    if is_yearly and plan.year_fee is None:
        raise PlanChangeError(billing_codes.PLAN_NOT_YEARLY, f"{version} is not sold by the year")


def _choose_quantity(last: Segment, version: str, plan: Plan, quantity: int | None) -> int:
    """Return the quantity of a change. By default it stays if the plan has a quantity. Raises PlanChangeError."""
    if quantity is None:
        quantity = 1 if plan.quantity is None and version != last.version else last.quantity
    if quantity != last.quantity or version != last.version:
        _check_quantity(version, plan, quantity)
    return quantity


def _check_quantity(version: str, plan: Plan, quantity: int) -> None:
    if quantity > plan.quantity_max:
        raise PlanChangeError(
            billing_codes.QUANTITY_TOO_LARGE,
            f"a subscription has {plan.quantity_max} × {version} at most",
            params={"most": plan.quantity_max},
        )
