"""The rater: the worked examples, what holds for every plan and usage, and a second rater that agrees to the cent."""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.collector.billing.rating.money import compute_amount, divide_rounded
from edgeproxy.collector.billing.rating.rater import (
    RatedLine,
    Segment,
    Span,
    UsageKey,
    UsageRater,
    rate_segments,
    rate_usage,
    subtract_invoiced,
    sum_amounts,
)
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.collector.load import load_plans
from edgeproxy.config.collector.money import reading_in
from tests.support import second_rater
from tests.support.random_plans import CURRENCIES, draw_plan, draw_usage, to_keys

LONG = (pytest.mark.soak, pytest.mark.timeout(1800))
PLANS = load_plans(Path(__file__).parents[4] / "loadtest/testbed/plans.yaml", {}).plans
JANUARY = Span(1_798_761_600, 1_801_440_000)
FEBRUARY = Span(JANUARY.end, JANUARY.end + 28 * 86400)
CHANGE = JANUARY.end - 1_339_200
"""16 January, 12:00 UTC."""


def month(version: str, plan: Plan | None = None, span: Span = JANUARY, period: Span = JANUARY) -> Segment:
    return Segment(version, plan or PLANS[version], span, period)


def usage(segment: Segment, **quantities: int) -> dict[UsageKey, int]:
    return {UsageKey(segment.span, meter): quantity for meter, quantity in quantities.items()}


ENTERPRISE = {"llm_tokens": 12_345_678, "agent_executions": 50_000, "api_calls": 1_000_010} | {
    "storage_gb": 1_001,
    "seats": 400,
}
STANDARD = {"llm_tokens": 1_234_567, "agent_executions": 5_003, "api_calls": 100_015, "storage_gb": 112, "seats": 27}


@pytest.mark.parametrize(
    ("version", "quantities", "amounts"),
    [
        ("standard@1", STANDARD, [9900, 0, 235, 0, 30, 0, 2, 0, 600, 0, 1000]),
        ("enterprise@1", ENTERPRISE, [49900, 0, 1173, 0, 0, 1, 0, 25, 0]),
        ("free@1", {"api_calls": 5000}, [0, 0, 0]),
    ],
)
def test_rater_computes_the_worked_examples(version: str, quantities: dict[str, int], amounts: list[int]) -> None:
    segment = month(version)
    lines = rate_segments([segment], usage(segment, **quantities))
    assert [line.amount for line in lines] == amounts


def test_late_usage_costs_the_same_as_timely_usage() -> None:
    segment = month("standard@1")
    known = STANDARD
    invoiced = rate_segments([segment], usage(segment, **known))
    for more, cents in ((400, 0), (1000, 1)):
        known = known | {"llm_tokens": known["llm_tokens"] + more}
        (late,) = rate_segments([segment], usage(segment, **known), invoiced)
        assert (late.kind, late.meter, late.quantity, late.amount) == ("late", "llm_tokens", more, cents)
        invoiced.append(late)
    assert rate_segments([segment], usage(segment, **known), invoiced) == []


def test_lines_of_more_usage_are_reached_from_the_invoiced_ones() -> None:
    segment = month("standard@1")
    invoiced = rate_segments([segment], usage(segment, **STANDARD))
    more = usage(segment, **STANDARD | {"llm_tokens": STANDARD["llm_tokens"] + 1400})
    (late,) = subtract_invoiced(invoiced, rate_segments([segment], more))
    assert [late] == rate_segments([segment], more, invoiced)


def test_a_segment_under_way_is_rated_again_by_the_price_of_the_earlier_one() -> None:
    """A cost curve rates the usage of each day so far, after the usage of the segments that are over."""
    before = month("standard@1", span=Span(JANUARY.start, CHANGE))
    after = month("standard@1", span=Span(CHANGE, JANUARY.end))
    rater = UsageRater()
    rater.add(before, {"llm_tokens": {"": 999_000}})
    days = [[*rater.rate(after, {"llm_tokens": {"": tokens}})] for tokens in (1000, 501_000, 501_000)]
    assert [sum_amounts(lines) for lines in days] == [0, 500, 500]


def test_upgrade_credits_the_rest_of_the_old_fee() -> None:
    before = month("standard@1", span=Span(JANUARY.start, CHANGE))
    after = month("enterprise@1", span=Span(CHANGE, JANUARY.end))
    (first,) = rate_segments([month("standard@1")], {})
    assert first.amount == 9900
    back, new = rate_segments([before, after], {}, [first])
    assert (back.kind, back.amount, new.kind, new.amount) == ("proration", -4950, "proration", 24950)
    used = usage(before, llm_tokens=1_001_000) | usage(after, llm_tokens=1_001_000)
    charged = [line for line in rate_segments([before, after], used, [first, back, new]) if line.amount]
    assert [(line.version, line.amount) for line in charged] == [("standard@1", 1)], "each by its own plan"


def test_upgrade_credits_the_unused_part_of_the_remaining_fee() -> None:
    before = month("standard@1", span=Span(JANUARY.start, CHANGE))
    after = month("enterprise@1", span=Span(CHANGE, JANUARY.end))
    (fee,) = rate_segments([month("standard@1")], {})
    for taken_off, unused in ((0, -4950), (4950, -2475), (9900, 0)):
        lines = rate_segments([before, after], {}, [fee._replace(taken_off=taken_off)])
        assert [line.amount for line in lines if line.quantity < 0] == [unused]


def test_a_year_is_paid_once_and_in_advance() -> None:
    assert PLANS["standard@1"].year_fee == 95040
    assert PLANS["free@1"].year_fee is None
    year = Span(JANUARY.start, JANUARY.start + 365 * 86400)
    months = [Segment("standard@1", PLANS["standard@1"], span, year, is_yearly=True) for span in (JANUARY, FEBRUARY)]
    assert [(line.kind, line.amount) for line in rate_segments(months, {})] == [("fee", 95040)]
    march = Span(FEBRUARY.end, FEBRUARY.end + 31 * 86400)
    changed = [*months, Segment("enterprise@1", PLANS["enterprise@1"], march, march)]
    left = round(95040 * (365 - 59) / 365)
    assert [line.amount for line in rate_segments(changed, {})] == [95040, -left, 49900]
    with pytest.raises(ValueError, match="free@1 is not sold by the year"):
        rate_segments([Segment("free@1", PLANS["free@1"], JANUARY, year, is_yearly=True)], {})


def test_no_fee_is_charged_while_it_rests() -> None:
    resting = Segment("standard@1", PLANS["standard@1"], JANUARY, JANUARY, is_resting=True)
    assert sum_amounts(rate_segments([resting], {})) == 0


def test_mid_period_start_charges_the_rest_of_the_fee() -> None:
    joined = month("standard@1", span=Span(CHANGE, JANUARY.end))
    assert [(line.kind, line.amount) for line in rate_segments([joined], {})] == [("fee", 4950)]


def test_usage_of_no_segment_is_an_error() -> None:
    with pytest.raises(ValueError, match="which is no segment"):
        rate_segments([month("standard@1")], {UsageKey(FEBRUARY, "seats"): 1})


@pytest.mark.parametrize(
    ("price", "known", "more", "first", "late"),
    [
        ({"included": "100", "price": "5", "package": "1000"}, 1_100, 1_101, [(100, 0), (1, 500)], [(1, 500)]),
        ({"included": "0", "price": "5", "package": "1000"}, 1, 1_000, [(1, 500)], []),
        (
            {
                "tiers": [{"up_to": "100", "price": "0.10"}, {"up_to": "none", "price": "0.05"}],
                "tiers_mode": "volume",
            },
            *(100, 101),
            [(100, 1000)],
            [(101, 505), (-100, -1000)],
        ),
    ],
)
def test_package_prices_round_up_and_volume_prices_apply_to_all_units(
    price: dict[str, Any], known: int, more: int, first: list[tuple[int, int]], late: list[tuple[int, int]]
) -> None:
    segment = month("x@1", Plan.model_validate({"fee": "0", "meters": {"calls": price}}))
    invoiced = rate_segments([segment], usage(segment, calls=known))[1:]
    assert [(line.quantity, line.amount) for line in invoiced] == first
    added = rate_segments([segment], usage(segment, calls=more), invoiced)[1:]
    assert [(line.quantity, line.amount) for line in added] == late


def test_fees_and_usage_of_all_segments_count_towards_the_minimum_fee() -> None:
    calls = {"calls": {"included": "0", "price": "1"}}
    small = Plan.model_validate({"fee": "10", "minimum": "31", "meters": calls})
    large = Plan.model_validate({"fee": "100", "minimum": "310", "meters": calls})
    begins = JANUARY.start + 10 * 86400
    first = month("small@1", small, Span(JANUARY.start, begins))
    second = month("large@1", large, Span(begins, JANUARY.end))
    used = usage(first, calls=20) | usage(second, calls=50)
    assert not [line for line in rate_segments([first, second], used, settled={first.span}) if line.kind == "minimum"]
    invoiced = rate_segments([first, second], used, settled={first.span, second.span})
    (missing,) = [line for line in invoiced if line.kind == "minimum"]
    # Of 10 and 21 days: 1000 and 21000 cents, less fees of 323 and 6774, less usage.
    assert (missing.version, missing.amount, missing.span) == ("large@1", 22000 - 7097 - 7000, JANUARY)
    both = {"settled": {first.span, second.span}}
    for late, cents in ((30, [3000, -3000]), (1_000, [100_000, -(22000 - 7097 - 7000)])):
        more = rate_segments([first, second], used | usage(second, calls=50 + late), invoiced, **both)
        assert [line.amount for line in more] == cents, "what comes late is taken off the rest"


def test_correction_to_zero_credits_all_invoiced_usage() -> None:
    segment = month("standard@1")
    invoiced = rate_segments([segment], usage(segment, **STANDARD))
    back = rate_segments([segment], usage(segment, **STANDARD) | usage(segment, llm_tokens=-5), invoiced)
    assert [(line.quantity, line.amount) for line in back] == [(-1_000_000, 0), (-234_567, -235)]


@pytest.mark.parametrize(
    ("numerator", "denominator", "whole"),
    [(3, 2, 2), (-3, 2, -2), (1, 2, 1), (-1, 2, -1), (1, 3, 0), (5, 3, 2), (0, 7, 0)],
)
def test_a_half_is_rounded_away_from_zero(numerator: int, denominator: int, whole: int) -> None:
    assert divide_rounded(numerator, denominator) == whole


def test_the_largest_numbers_are_exact() -> None:
    assert compute_amount(999_999_999_999_999, 123_456_789_012_345_678) == 123_456_789_012_345_554_543


# ---- any plan, any usage


def charges(lines: list[RatedLine]) -> dict[second_rater.Where, tuple[int, int]]:
    quantities: Counter[second_rater.Where] = Counter()
    cents: Counter[second_rater.Where] = Counter()
    for line in lines:
        if line.meter:
            quantities[line.meter, line.value, line.tier] += line.quantity
            cents[line.meter, line.value, line.tier] += line.amount
    return {where: (quantities[where], cents[where]) for where in quantities if quantities[where]}


def cases(seed: int, number: int) -> Iterator[tuple[random.Random, dict[str, Any], Segment]]:
    chance = random.Random(seed)
    for _ in range(number):
        currency = chance.choice(CURRENCIES)
        case_plan = draw_plan(chance, currency)
        part = Span(JANUARY.start + 60 * chance.choice([0, chance.randrange(44_000)]), JANUARY.end)
        with reading_in(currency):
            yield chance, case_plan, month("x@1", Plan.model_validate(case_plan), part)


@pytest.mark.parametrize("number", [2000, pytest.param(100_000, marks=LONG)])
def test_a_second_rater_agrees_to_the_cent(number: int, seed: int) -> None:
    for chance, case_plan, segment in cases(seed, number):
        quantities = draw_usage(chance, case_plan)
        try:
            lines = rate_segments([segment], to_keys(segment, quantities), settled={segment.span})
        except Exception:
            print(case_plan, quantities)
            raise
        time = {"seconds": JANUARY.end - segment.span.start, "of": JANUARY.end - JANUARY.start}
        currency = segment.plan.currency
        assert charges(lines) == second_rater.usage_charges(case_plan, quantities, currency), (
            currency,
            case_plan,
            quantities,
        )
        assert lines[0].amount == second_rater.fee(case_plan, **time, currency=currency)
        missing = second_rater.minimum(case_plan, quantities, **time, currency=currency)
        assert [line.amount for line in lines if line.kind == "minimum"] == [missing] * (missing > 0), case_plan


@given(st.integers(0, 2**32))
def test_however_usage_is_split_it_costs_the_same(seed: int) -> None:
    for chance, case_plan, segment in cases(seed, 3):
        whole = {name: {v: abs(q) for v, q in values.items()} for name, values in draw_usage(chance, case_plan).items()}
        invoiced: list[RatedLine] = []
        known: dict[str, dict[str, int]] = {name: dict.fromkeys(values, 0) for name, values in whole.items()}
        for part in (1, 2, 3):
            for name, values in whole.items():
                for value, quantity in values.items():
                    known[name][value] = quantity if part == 3 else chance.randint(known[name][value], quantity)
            before = sum_amounts(invoiced)
            invoiced += rate_segments([segment], to_keys(segment, known), invoiced, settled={segment.span})
            if not any("by" in meter or "tiers_mode" in meter for meter in case_plan["meters"].values()):
                assert sum_amounts(invoiced) >= before, "more usage never costs less"
        at_once = rate_segments([segment], to_keys(segment, whole), settled={segment.span})
        assert (charges(invoiced), sum_amounts(invoiced)) == (charges(at_once), sum_amounts(at_once))


def test_resumed_plan_continues_its_included_usage_and_credits_no_more_than_its_fee() -> None:
    price = {"included": "100", "price": "1", "by": {"dimension": "model", "prices": {"dear": "2"}}}
    plan = Plan.model_validate({"fee": "310", "meters": {"calls": price, "free": {"included": "unlimited"}}})
    small = Plan.model_validate({"fee": "31"})
    first, back = Span(JANUARY.start, JANUARY.start + 86400), Span(CHANGE, JANUARY.end)
    segments = [Segment("x@1", plan, first, JANUARY), Segment("x@2", plan, back, JANUARY)]
    used = {UsageKey(first, "calls", "other"): 80, UsageKey(back, "calls", "dear"): 40, UsageKey(back, "free"): 7}
    lines = [line for line in rate_segments(segments, used) if line.meter == "calls"]
    assert [(line.segment.start, line.value, line.tier, line.quantity, line.amount) for line in lines] == [
        (first.start, "", 0, 80, 0),
        (back.start, "dear", 0, 40, 0),
        (back.start, "", 0, -20, 0),
        (back.start, "", 1, 20, 2000),
    ]
    assert [line for line in rate_usage(segments, used, back.start) if line.meter == "calls"] == lines[1:]
    # A trial uses up nothing and costs nothing.
    trial = segments[0]._replace(is_trial=True)
    (free,) = rate_usage([trial, segments[1]], {key: used[key] for key in used if key.meter == "calls"}, back.start)
    assert (free.value, free.quantity, free.amount) == ("dear", 40, 0)
    assert rate_usage([trial], used) == []
    segments[1] = Segment("small@1", small, back, JANUARY)
    assert [line.amount for line in rate_segments(segments, {})] == [31000, -1550, 1550]
