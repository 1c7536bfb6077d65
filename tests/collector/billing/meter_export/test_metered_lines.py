"""Some usage lines come from Stripe's counts, others are items. Together they equal the rater's lines."""

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.collector.billing.meter_export.meter_keys import fold_values, list_unit_prices
from edgeproxy.collector.billing.meter_export.metered_lines import split_lines
from edgeproxy.collector.billing.rating.money import compute_amount
from edgeproxy.collector.billing.rating.rater import RatedLine, Segment, Span, UsageKey, rate_segments, sum_amounts
from edgeproxy.config.collector.catalog import Plan

SPAN = Span(0, 86400)
PLAN = Plan.model_validate({"fee": "9", "meters": {"calls": {"included": "100", "price": "0.015"}}})
SEGMENT = Segment("basic@1", PLAN, SPAN, SPAN)


def lines(used: int) -> list[RatedLine]:
    return rate_segments([SEGMENT], {UsageKey(SPAN, "calls"): used})


def test_metered_lines_carry_usage_counted_by_stripe_and_fees_are_items() -> None:
    metered, items = split_lines(lines(150), {(0, "calls"): 150})
    assert [(line.tier, line.quantity, line.amount) for line in metered] == [(0, 100, 0), (1, 50, 75)]
    assert [line.kind for line in items] == ["fee"]


def test_usage_that_stripe_never_received_is_an_item() -> None:
    assert split_lines(lines(150), {}) == ([], lines(150))


def test_usage_missing_at_stripe_becomes_an_item() -> None:
    metered, items = split_lines(lines(150), {(0, "calls"): 120})
    assert [line.amount for line in metered] == [0, 30]
    assert [(line.quantity, line.amount) for line in items if line.meter] == [(30, 45)]


def test_late_usage_becomes_an_invoice_item() -> None:
    late = [line._replace(kind="late") for line in lines(150) if line.meter]
    assert split_lines(late, {(0, "calls"): 150}) == ([], late)


BY = {"dimension": "model", "prices": {"large": "0.03", "small": "0.004"}}
SPLIT_PLAN = Plan.model_validate({"fee": "9", "meters": {"calls": {"included": "100", "price": "0.015", "by": BY}}})
SPLIT = Segment("models@1", SPLIT_PLAN, SPAN, SPAN)
PRICES = {("models@1", key): price for key, price in list_unit_prices(SPLIT_PLAN).items()}


def split_usage(quantities: dict[str, int]) -> list[RatedLine]:
    return rate_segments([SPLIT], {UsageKey(SPAN, "calls", value): used for value, used in quantities.items()})


def test_units_that_values_share_are_taken_off_by_items() -> None:
    lines_ = split_usage({"large": 150, "small": 40, "": 7})
    metered, items = split_lines(lines_, {(0, "calls:large"): 150, (0, "calls:small"): 40, (0, "calls"): 7}, PRICES)
    assert [(line.value, line.quantity, line.amount) for line in metered] == [
        ("large", 150, 450),
        ("small", 40, 16),
        ("", 7, 11),
    ]
    assert [(line.kind, line.value, line.quantity, line.amount) for line in items] == [
        ("fee", "", 1, 900),
        ("usage", "large", -100, -300),
    ]


def test_values_uncounted_by_stripe_become_items() -> None:
    metered, items = split_lines(split_usage({"large": 150}), {(0, "calls:large"): 0}, PRICES)
    assert metered == []
    assert [(line.kind, line.value, line.quantity, line.amount) for line in items] == [
        ("fee", "", 1, 900),
        ("usage", "large", 50, 150),
    ]


VALUES = st.dictionaries(st.sampled_from(["large", "small", "", "other"]), st.integers(-50, 300))


@given(VALUES, VALUES)
def test_split_lines_sum_to_the_amount_due_for_dimension_values(used: dict[str, int], counted: dict[str, int]) -> None:
    of_keys = {
        (0, key): quantity for key, quantity in fold_values("calls", SPLIT_PLAN.meters["calls"], counted).items()
    }
    metered, items = split_lines(split_usage(used), of_keys, PRICES)
    assert sum_amounts([*metered, *items]) == sum_amounts(split_usage(used))
    assert all(line.amount == compute_amount(line.quantity, line.unit_price or 0) for line in metered)


@given(st.integers(-50, 300), st.integers(-50, 300))
def test_metered_lines_and_items_sum_to_the_amount_due(used: int, counted: int) -> None:
    metered, items = split_lines(lines(used), {(0, "calls"): counted})
    assert sum_amounts([*metered, *items]) == sum_amounts(lines(used))
    if counted <= used:
        own = [line.amount for line in lines(counted) if line.meter and line.amount]
        assert [line.amount for line in metered if line.amount] == own, "as Stripe rates it"
