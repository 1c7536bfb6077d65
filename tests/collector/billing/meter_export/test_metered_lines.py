"""Which lines Stripe makes of what it has counted, and which are items: together they are the rater's."""

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.collector.billing.meter_export.metered_lines import split_lines
from edgeproxy.collector.billing.rating.rater import RatedLine, Segment, Span, UsageKey, rate_segments, sum_amounts
from edgeproxy.config.collector.catalog import Plan

SPAN = Span(0, 86400)
PLAN = Plan.model_validate({"fee": "9", "meters": {"calls": {"included": "100", "price": "0.015"}}})
SEGMENT = Segment("basic@1", PLAN, SPAN, SPAN)


def lines(used: int) -> list[RatedLine]:
    return rate_segments([SEGMENT], {UsageKey(SPAN, "calls"): used})


def test_what_stripe_has_counted_is_its_own_and_fees_are_items() -> None:
    metered, items = split_lines(lines(150), {(0, "calls"): 150})
    assert [(line.tier, line.quantity, line.amount) for line in metered] == [(0, 100, 0), (1, 50, 75)]
    assert [line.kind for line in items] == ["fee"]


def test_usage_that_stripe_never_received_is_an_item() -> None:
    assert split_lines(lines(150), {}) == ([], lines(150))


def test_what_stripe_lacks_is_an_item() -> None:
    metered, items = split_lines(lines(150), {(0, "calls"): 120})
    assert [line.amount for line in metered] == [0, 30]
    assert [(line.quantity, line.amount) for line in items if line.meter] == [(30, 45)]


def test_late_lines_are_items() -> None:
    late = [line._replace(kind="late") for line in lines(150) if line.meter]
    assert split_lines(late, {(0, "calls"): 150}) == ([], late)


@given(st.integers(-50, 300), st.integers(-50, 300))
def test_both_together_are_what_is_due(used: int, counted: int) -> None:
    metered, items = split_lines(lines(used), {(0, "calls"): counted})
    assert sum_amounts([*metered, *items]) == sum_amounts(lines(used))
    if counted <= used:
        own = [line.amount for line in lines(counted) if line.meter and line.amount]
        assert [line.amount for line in metered if line.amount] == own, "as Stripe rates it"
