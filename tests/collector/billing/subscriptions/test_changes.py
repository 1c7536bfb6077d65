"""The amounts of subscription changes, by the plans of loadtest/testbed/plans.yaml."""

import os
from calendar import timegm
from pathlib import Path

import pytest

from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.subscriptions import changes
from edgeproxy.collector.billing.subscriptions.changes import PlanChangeError, SubscriptionState
from edgeproxy.collector.billing.subscriptions.price_moves import PriceMove
from edgeproxy.config.collector.catalog import Plan, PlanQuantity
from edgeproxy.config.collector.load import load_plans

PLANS = load_plans(Path(__file__).parents[4] / "loadtest/testbed/plans.yaml", os.environ).plans
FREE, STANDARD, ENTERPRISE = "free@1", "standard@1", "enterprise@1"
JANUARY = Span(timegm((2027, 1, 1, 0, 0, 0)), timegm((2027, 2, 1, 0, 0, 0)))
NOON = timegm((2027, 1, 16, 12, 0, 0))


def held(
    version: str, *, now: float = JANUARY.start, is_yearly: bool = False, anchor: int | None = None
) -> SubscriptionState:
    return changes.begin_subscription(version, PLANS[version], now=now, anchor=anchor, is_yearly=is_yearly)


def amounts(of: SubscriptionState, version: str, now: float = NOON, when: changes.When | None = None) -> list[int]:
    before = changes.compute_fees(of.segments, ())
    return [line.amount for line in changes.change_plan(of, version, PLANS[version], when, now, before).lines]


def test_mid_period_upgrade_credits_the_rest_of_the_old_fee() -> None:
    assert amounts(held(STANDARD), ENTERPRISE) == [-4950, 24950]
    assert amounts(held(FREE), STANDARD) == [0, 4950]


def test_of_a_month_that_began_before_only_the_rest_is_paid() -> None:
    late = held(STANDARD, now=NOON + 12.5)
    assert [line.amount for line in changes.compute_fees(late.segments, ())] == [4950]
    assert amounts(late, ENTERPRISE, NOON + 30) == [-4950, 24949], "from the next minute on: one is over"
    assert (held(STANDARD).usage_start, late.usage_start) == (JANUARY.start, NOON)


def test_a_year_in_advance_costs_twelve_months_less_the_discount() -> None:
    year = held(STANDARD, is_yearly=True)
    assert [line.amount for line in changes.compute_fees(year.segments, ())] == [95040]
    assert year.last.paid.end == timegm((2028, 1, 1, 0, 0, 0))
    following = changes.next_segment(year, PLANS)
    assert following is not None
    assert changes.compute_fees([*year.segments, following], changes.compute_fees(year.segments, ())) == []


@pytest.mark.parametrize("anchor", [None, NOON])
def test_downgrade_takes_effect_at_the_end_of_the_paid_period(anchor: int | None) -> None:
    subscription = held(ENTERPRISE, now=NOON, anchor=anchor)
    done = changes.change_plan(subscription, STANDARD, PLANS[STANDARD], None, NOON + 60, ())
    assert (done.when, done.at, done.lines, done.begun) == ("period_end", subscription.period.end, [], None)
    following = changes.next_segment(subscription._replace(next_version=done.next_version), PLANS)
    assert following is not None
    assert (following.version, following.span.start) == (STANDARD, subscription.period.end)
    fees = changes.compute_fees([*subscription.segments, following], changes.compute_fees(subscription.segments, ()))
    assert [(line.kind, line.amount) for line in fees] == [("fee", 9900)]


def test_choosing_the_current_plan_cancels_a_pending_change() -> None:
    waiting = held(ENTERPRISE)._replace(next_version=STANDARD)
    assert changes.change_plan(waiting, ENTERPRISE, PLANS[ENTERPRISE], None, NOON, ()).next_version is None


def test_plan_that_ends_now_has_no_next_period_and_never_outlasts_its_own() -> None:
    current = held(STANDARD)
    start, over = current.last.span.start, current.period.end
    for now, end in ((NOON + 59.9, NOON), (start + 1, start + 60), (over + 3600, over)):
        ended = changes.end_now(current, now)
        assert (ended.cancel_at, ended.last.span.end, changes.next_segment(ended, PLANS)) == (end, end, None)


def test_canceled_subscription_has_no_next_period() -> None:
    assert changes.next_segment(held(STANDARD)._replace(cancel_at=JANUARY.end), PLANS) is None
    year = held(STANDARD, is_yearly=True)
    assert changes.next_segment(year._replace(cancel_at=year.last.paid.end), PLANS) is not None


@pytest.mark.parametrize(
    ("version", "when", "now", "status"),
    [
        (STANDARD, None, NOON, 409),
        (FREE, "now", NOON, 422),
        (ENTERPRISE, "now", JANUARY.end - 30, 409),
    ],
)
def test_refused_plan_change_states_its_reason(
    version: str, when: changes.When | None, now: float, status: int
) -> None:
    of = held(STANDARD, now=JANUARY.end - 45)
    with pytest.raises(PlanChangeError) as raised:
        changes.change_plan(of, version, PLANS[version], when, now, ())
    assert raised.value.status == status


def test_a_second_upgrade_in_a_period_costs_the_rest_of_it() -> None:
    of = held(FREE)
    fee = changes.compute_fees(of.segments, ())
    first = changes.change_plan(of, STANDARD, PLANS[STANDARD], None, NOON, fee)
    assert first.begun is not None
    again = of._replace(segments=[*changes.end_segments(of.segments, first.at), first.begun])
    assert again.has_changed
    invoiced = [*fee, *first.lines]
    at = NOON + 5 * 86400
    second = changes.change_plan(again, ENTERPRISE, PLANS[ENTERPRISE], None, at, invoiced)
    left = (JANUARY.end - at) / (JANUARY.end - JANUARY.start)
    assert [line.amount for line in second.lines] == [-round(9900 * left), round(49900 * left)]
    later = changes.change_plan(again, ENTERPRISE, PLANS[ENTERPRISE], "period_end", NOON + 3600, ())
    assert later.next_version == ENTERPRISE
    ending = of._replace(cancel_at=JANUARY.end)
    back = changes.change_plan(ending, FREE, PLANS[FREE], None, NOON, ())
    assert (back.begun, back.next_version, back.lines) == (None, None, [])
    with pytest.raises(PlanChangeError, match="is ending"):
        changes.change_plan(again._replace(cancel_at=JANUARY.end), ENTERPRISE, PLANS[ENTERPRISE], None, NOON, ())


def test_a_month_becomes_a_year_at_once_and_a_year_a_month_when_it_ends() -> None:
    month = held(STANDARD)
    fees = changes.compute_fees(month.segments, ())
    change = changes.change_plan(month, STANDARD, PLANS[STANDARD], None, NOON, fees, is_yearly=True)
    assert change.begun is not None
    year = Span(JANUARY.start, timegm((2028, 1, 1, 0, 0, 0)))
    assert (change.when, change.begun.paid, change.begun.span) == ("now", year, Span(NOON, JANUARY.end))
    share = (year.end - NOON) / (year.end - year.start)
    assert [line.amount for line in change.lines] == [-4950, round(95040 * share)]

    paid = month._replace(segments=[*changes.end_segments(month.segments, NOON), change.begun])
    back = changes.change_plan(paid, STANDARD, PLANS[STANDARD], None, NOON + 60, fees, is_yearly=False)
    assert (back.when, back.at, back.next_version, back.next_is_yearly) == ("period_end", year.end, STANDARD, False)
    with pytest.raises(PlanChangeError, match="at the end of the paid period"):
        changes.change_plan(paid, STANDARD, PLANS[STANDARD], "now", NOON + 60, fees, is_yearly=False)
    waiting = paid._replace(next_version=STANDARD, next_is_yearly=False)
    kept = changes.change_plan(waiting, STANDARD, PLANS[STANDARD], None, NOON + 60, fees, is_yearly=True)
    assert (kept.next_version, kept.next_is_yearly, kept.begun) == (None, None, None)
    december = Span(timegm((2027, 12, 1, 0, 0, 0)), year.end)
    last = change.begun._replace(span=december, month=december)
    following = changes.next_segment(waiting._replace(segments=[last], period=december), PLANS)
    assert following is not None
    assert (following.is_yearly, following.fee) == (False, 9900)
    with pytest.raises(PlanChangeError, match="by the year"):
        changes.change_plan(held(FREE), FREE, PLANS[FREE], None, NOON, (), is_yearly=True)


def test_monthly_only_plan_refuses_a_yearly_subscription() -> None:
    with pytest.raises(PlanChangeError, match="by the year"):
        held(FREE, is_yearly=True)


@pytest.mark.parametrize(("anchor", "start", "fee"), [(None, JANUARY.start, 5110), (NOON, NOON, 9900)])
def test_first_fee_covers_the_period_after_the_trial(anchor: int | None, start: int, fee: int) -> None:
    tried = Plan.model_validate({"fee": "99", "trial": {"days": "2"}, "annual": {"discount": "20%"}})
    ends = NOON - 43200
    began = ends - 2 * 86400
    trial = changes.begin_subscription(
        "x@1", tried, now=began + 59.0, anchor=None if anchor is None else began, is_yearly=False, has_trial=True
    )
    assert (trial.period, trial.last.is_trial, trial.anchor) == (Span(began, ends), True, anchor and ends)
    assert changes.compute_fees(trial.segments, ()) == []
    following = changes.next_segment(trial, {"x@1": tried})
    assert following is not None
    assert (following.span.start, following.period.start) == (ends, ends if anchor else start)
    assert [line.amount for line in changes.compute_fees([*trial.segments, following], ())] == [fee]
    after = trial._replace(segments=[*trial.segments, following], period=following.period)
    assert not after.has_changed
    (paid,) = changes.begin_subscription("x@1", tried, now=began, anchor=None, is_yearly=True).segments
    assert not paid.is_trial


def test_another_plan_begins_when_the_trial_ends() -> None:
    tried = Plan.model_validate({"fee": "99", "trial": {"days": "2"}})
    trial = changes.begin_subscription("x@1", tried, now=NOON, anchor=None, is_yearly=False, has_trial=True)
    later = changes.change_plan(trial, ENTERPRISE, PLANS[ENTERPRISE], None, NOON + 60, ())
    assert (later.when, later.at, later.next_version) == ("period_end", NOON + 2 * 86400, ENTERPRISE)
    with pytest.raises(PlanChangeError, match="the trial is of x@1"):
        changes.change_plan(trial, ENTERPRISE, PLANS[ENTERPRISE], "now", NOON + 60, ())
    for version, needs in ((ENTERPRISE, True), (FREE, False)):
        following = changes.next_segment(trial._replace(next_version=version), PLANS)
        assert following is not None
        assert changes.needs_payment_method(trial, following) is needs
    assert not changes.needs_payment_method(held(STANDARD), held(STANDARD).last)


@pytest.mark.parametrize(
    ("is_yearly", "at", "met"),
    [
        (False, JANUARY.start, JANUARY.end),
        (False, JANUARY.end, JANUARY.end),
        (False, JANUARY.end + 1, timegm((2027, 3, 1, 0, 0, 0))),
        (True, JANUARY.end, timegm((2028, 1, 1, 0, 0, 0))),
        (True, timegm((2028, 1, 2, 0, 0, 0)), timegm((2029, 1, 1, 0, 0, 0))),
    ],
)
def test_a_price_change_is_met_when_the_paid_time_ends_after_it(is_yearly: bool, at: int, met: int) -> None:
    current = held(STANDARD, is_yearly=is_yearly)
    assert current.find_upcoming_move() is None
    moved = current._replace(moves=[PriceMove("a", "standard", STANDARD, "standard@2", at)])
    assert moved.find_upcoming_move() == (met, STANDARD, "standard@2")
    assert moved._replace(cancel_at=met).find_upcoming_move() is None
    following = changes.next_segment(moved, PLANS | {"standard@2": PLANS[STANDARD]})
    assert following is not None
    assert (following.version == "standard@2") == (met == JANUARY.end)


def test_resuming_a_cheaper_plan_credits_nothing_and_waits_for_the_next_minute() -> None:
    current = held(ENTERPRISE)
    fees = changes.compute_fees(current.segments, ())
    ended = current._replace(segments=changes.end_segments(current.segments, NOON))
    terms = (STANDARD, PLANS[STANDARD])
    with pytest.raises(PlanChangeError, match="in this minute"):
        changes.resume_plan(ended, *terms, NOON, fees, is_yearly=False)
    change = changes.resume_plan(ended, *terms, NOON + 60, fees, is_yearly=False)
    assert [line.amount for line in change.lines] == [-4950, 4950]
    year = changes.resume_plan(ended, *terms, NOON + 60, fees, is_yearly=True)
    assert year.begun is not None
    assert year.begun.paid.end == timegm((2028, 1, 1, 0, 0, 0))
    again = changes.resume_plan(ended, ENTERPRISE, PLANS[ENTERPRISE], NOON, fees, is_yearly=False)
    assert again.begun is not None
    assert (again.at, again.lines) == (NOON, [])
    resumed = ended._replace(segments=[*ended.segments, again.begun])
    assert [allowance_segment.span.start for allowance_segment in resumed.allowance_segments] == [JANUARY.start, NOON]
    paid = held(STANDARD, is_yearly=True)
    dearer = changes.change_plan(paid, ENTERPRISE, PLANS[ENTERPRISE], "period_end", NOON, ())
    assert dearer.next_version == ENTERPRISE


SEATS = PLANS[STANDARD].model_copy(update={"quantity": PlanQuantity(max=5)})


def held_seats(quantity: int, *, is_yearly: bool = False) -> SubscriptionState:
    return changes.begin_subscription(
        STANDARD, SEATS, now=JANUARY.start, anchor=None, is_yearly=is_yearly, quantity=quantity
    )


def test_added_seats_start_at_once_and_removed_seats_end_with_the_paid_period() -> None:
    seats = held_seats(2)
    fees = changes.compute_fees(seats.segments, ())
    assert [(line.quantity, line.amount) for line in fees] == [(2, 19800)]
    more = changes.change_plan(seats, STANDARD, SEATS, None, NOON, fees, quantity=3)
    assert [(line.quantity, line.amount) for line in more.lines] == [(-2, -9900), (3, 14850)]
    fewer = changes.change_plan(seats, STANDARD, SEATS, None, NOON, fees, quantity=1)
    assert (fewer.when, fewer.next_quantity, fewer.lines) == ("period_end", 1, [])
    waiting = seats._replace(next_version=STANDARD, next_quantity=1)
    following = changes.next_segment(waiting, {STANDARD: SEATS})
    assert following is not None
    assert (following.quantity, following.fee) == (1, 9900)
    assert changes.change_plan(waiting, STANDARD, SEATS, None, NOON, fees).next_quantity is None, (
        "the reduction is canceled"
    )


def test_plan_change_keeps_the_quantity_or_resets_it_to_one() -> None:
    seats, large = held_seats(3), PLANS[ENTERPRISE].model_copy(update={"quantity": PlanQuantity(max=5)})
    for plan, quantity in ((large, 3), (PLANS[ENTERPRISE], 1)):
        changed = changes.change_plan(seats, ENTERPRISE, plan, "now", NOON, ())
        assert changed.begun is not None
        assert changed.begun.quantity == quantity
    year = changes.change_plan(seats, STANDARD, SEATS, None, NOON, (), is_yearly=True)
    assert year.begun is not None
    assert (year.begun.quantity, year.begun.fee) == (3, 3 * 95040)
    ended = seats._replace(segments=changes.end_segments(seats.segments, NOON), cancel_at=NOON)
    again = changes.resume_plan(
        ended, STANDARD, SEATS, NOON + 600, changes.compute_fees(seats.segments, ()), is_yearly=False, quantity=4
    )
    assert [line.quantity for line in again.lines] == [-3, 4]


def test_a_quantity_above_that_of_the_plan_is_refused() -> None:
    with pytest.raises(PlanChangeError, match="a subscription has 5 × standard@1 at most"):
        held_seats(6)
    with pytest.raises(PlanChangeError, match="a subscription has 1 × enterprise@1 at most"):
        changes.change_plan(held_seats(2), ENTERPRISE, PLANS[ENTERPRISE], None, NOON, (), quantity=2)
    with pytest.raises(PlanChangeError, match="the plan is 2 × standard@1 already"):
        changes.change_plan(held_seats(2), STANDARD, SEATS, None, NOON, ())
