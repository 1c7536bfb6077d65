"""The amounts of parts of a period add up to its invoice, and the amounts of groups to the total."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.collector.billing.rating.rater import Segment, Span, UsageKey, rate_segments
from edgeproxy.collector.billing.rating.usage_amounts import SegmentUsage, clip_segment, rate_time, share_amount
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.collector.load import load_collector
from loadtest.testbed.process import ROOT

MONTH = Span(0, 30 * 86400)
MODELS = ("large", "small", "unpriced", "")


def load_plans() -> dict[str, Plan]:
    """Return the plans that are shipped."""
    return load_collector(ROOT / "config/collector.yaml", {}).plans


PRICES = st.sampled_from(
    (
        {"included": 1000, "price": "0.10", "by": {"dimension": "model", "prices": {"large": "0.30", "small": "0.04"}}},
        {"included": 500, "price": "0.05"},
        {"included": 100, "price": "0.50", "package": 10},
        {"tiers": [{"up_to": 700, "price": "0.20"}, {"up_to": "none", "price": "0.05"}]},
        {
            "tiers": [{"up_to": 700, "price": "0.20"}, {"up_to": "none", "price": "0.05"}],
            "tiers_mode": "volume",
        },
    )
)
EVENTS = st.lists(
    st.tuples(st.integers(0, 29), st.sampled_from(MODELS), st.integers(-50, 2000)), min_size=1, max_size=12
)


def build_segments(prices: list[dict[str, object]]) -> list[Segment]:
    """Return segments of equal length in a month, each with a plan of these prices for `tokens`."""
    days = 30 // len(prices)
    spans = [Span(n * days * 86400, (n + 1) * days * 86400) for n in range(len(prices))]
    spans[-1] = Span(spans[-1].start, MONTH.end)
    return [
        Segment(
            f"p{n}@1" if prices.index(price) == n else f"p{prices.index(price)}@{n + 1}",
            Plan.model_validate({"fee": "9", "meters": {"tokens": price}}),
            *(span, MONTH, False, MONTH),
        )
        for n, (price, span) in enumerate(zip(prices, spans, strict=True))
    ]


def sum_until(segment: Segment, events: list[tuple[int, str, int]], until: int) -> dict[str, int]:
    """Return the units of a segment by value, of events before a Unix second."""
    units: dict[str, int] = {}
    for day, value, quantity in events:
        if segment.span.start <= day * 86400 < min(until, segment.span.end):
            units[value] = units.get(value, 0) + quantity
    return units


def rate_part(segments: list[Segment], events: list[tuple[int, str, int]], part: Span) -> int:
    """Return the cost of the events of a part."""
    begun = [segment for segment in segments if segment.span.start < part.end]
    used = [
        SegmentUsage(clip_segment(one, part.end), sum_until(one, events, part.start), sum_until(one, events, part.end))
        for one in begun
    ]
    return sum(rate_time("tokens", used).values())


@given(st.lists(PRICES, min_size=1, max_size=3), EVENTS, st.lists(st.integers(1, 29), max_size=5))
def test_the_amounts_of_parts_add_up_to_the_invoice(
    prices: list[dict[str, object]], events: list[tuple[int, str, int]], cuts: list[int]
) -> None:
    segments = build_segments(prices)
    usage = {
        UsageKey(segment.span, "tokens", value): quantity
        for segment in segments
        for value, quantity in sum_until(segment, events, MONTH.end).items()
    }
    invoiced = sum(line.amount for line in rate_segments(segments, usage) if line.kind == "usage")
    ends = [0, *sorted({cut * 86400 for cut in cuts}), MONTH.end]
    parts = [Span(*pair) for pair in itertools.pairwise(ends)]
    assert sum(rate_part(segments, events, part) for part in parts) == invoiced


@given(st.integers(-(10**9), 10**9), st.dictionaries(st.text(max_size=2), st.integers(-5, 10**6), max_size=8))
def test_shares_add_up_and_follow_the_units(amount: int, units: dict[str, int]) -> None:
    shares = share_amount(amount, units)
    total = sum(quantity for quantity in units.values() if quantity > 0)
    assert bool(shares) is (total > 0)
    if shares:
        assert sum(shares.values()) == amount
        assert all(abs(share * total - amount * units[group]) < total for group, share in shares.items())


@pytest.mark.parametrize(("version", "cents"), [("standard@1", 2300), ("enterprise@1", 0)])
def test_shipped_prices_rate_each_model_above_the_included_usage(version: str, cents: int) -> None:
    # 3.5 million tokens are $23.00: neither $53.00, as though nothing were included, nor $105.07 at the dearest model.
    segment = Segment(version, load_plans()[version], MONTH, MONTH)
    used = [SegmentUsage(segment, {}, {"large": 1_500_000, "small": 2_000_000})]
    assert sum(rate_time("llm_tokens", used).values()) == cents


def test_upgrade_keeps_the_old_price_for_earlier_usage() -> None:
    plans, noon = load_plans(), 15 * 86400
    segments = [
        Segment("standard@1", plans["standard@1"], Span(0, noon), MONTH, False, MONTH),
        Segment("enterprise@1", plans["enterprise@1"], Span(noon, MONTH.end), MONTH, False, MONTH),
    ]
    used = [
        SegmentUsage(segments[0], {}, {"large": 1_500_000, "small": 2_000_000}),
        SegmentUsage(segments[1], {}, {"small": 10_000}),
    ]
    assert sum(rate_time("llm_tokens", used).values()) == 2300
