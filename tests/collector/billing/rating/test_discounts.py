"""Discounts of coupons agree to the cent with a second rater, for any plan and any split into invoices."""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from edgeproxy.collector.billing.rating.discounts import Discount, rate_discounts
from edgeproxy.collector.billing.rating.periods import find_end_after, period_after
from edgeproxy.collector.billing.rating.rater import DISCOUNT, RatedLine, Segment, Span, UsageKey, rate_segments
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.collector.coupons import Coupon
from edgeproxy.config.collector.money import reading_in
from tests.support import second_rater
from tests.support.random_plans import CURRENCIES, draw_plan, draw_usage, to_keys

LONG = (pytest.mark.soak, pytest.mark.timeout(1800))
JANUARY = Span(1_798_761_600, 1_801_440_000)
FEBRUARY = period_after(JANUARY)
TENTH = 10**11


def plan(fee: str, **more: Any) -> Plan:
    calls = {"calls": {"included": "0", "price": "1"}}
    return Plan.model_validate({"fee": fee, "meters": calls, **more})


def month(version: str, sold: Plan, span: Span = JANUARY, period: Span = JANUARY) -> Segment:
    return Segment(version, sold, span, period, month=period)


def off(share: int | None = TENTH, amount: int | None = None, *, until: int | None = None, **more: Any) -> Discount:
    return Discount("OFF", share, amount, **{"plans": frozenset(), "starts": JANUARY.start, "until": until, **more})


def told(lines: Sequence[RatedLine]) -> list[tuple[int, int]]:
    return [(line.quantity, line.amount) for line in lines]


def test_discount_applies_to_the_periods_total_across_invoices() -> None:
    segment = month("a@1", plan("99.99"))
    fee = rate_segments([segment], {})
    first = rate_discounts(fee, (), [segment], [off()])
    assert told(first) == [(9999, -1000)]
    assert (first[0].kind, first[0].value, first[0].unit_price, first[0].span) == (DISCOUNT, "OFF", TENTH, JANUARY)
    invoiced = [*fee, *first]
    for calls, expected in ((3, [(300, -30)]), (4, [(100, -10)]), (2, [(-200, 20)]), (2, [])):
        used = {UsageKey(JANUARY, "calls"): calls}
        lines = rate_segments([segment], used, [line for line in invoiced if line.kind != DISCOUNT])
        discounts = rate_discounts(lines, invoiced, [segment], [off()])
        assert told(discounts) == expected, "the sum is that of one discount of all of it"
        invoiced += [*lines, *discounts]


def test_fixed_discount_applies_to_each_period_up_to_its_cost() -> None:
    segments = [month("a@1", plan("10")), month("a@1", plan("10"), FEBRUARY, FEBRUARY)]
    fees = rate_segments(segments, {})
    assert told(rate_discounts(fees, (), segments, [off(None, 1500)])) == [(1000, -1000)] * 2
    first = rate_discounts(fees[:1], (), segments, [off(None, 1500)])
    used = rate_segments(segments, {UsageKey(JANUARY, "calls"): 7}, fees[:1])
    more = rate_discounts(used, [fees[0], *first], segments, [off(None, 1500)])
    assert told(more) == [(700, -500), (1000, -1000)]


def test_discount_leaves_other_periods_and_plans_unchanged() -> None:
    other = Segment("b@1", plan("500"), Span(JANUARY.start + 86400, JANUARY.end), JANUARY)
    segments = [month("a@1", plan("31"), Span(JANUARY.start, JANUARY.start + 86400)), other]
    fees = rate_segments(segments, {})
    assert told(rate_discounts(fees, (), segments, [off(plans=frozenset({"b"}))])) == [(48387, -4839)]
    following = month("a@1", plan("31"), FEBRUARY, FEBRUARY)
    fees = rate_segments([*segments, following], {})
    ended = [off(until=JANUARY.start), off(starts=FEBRUARY.end)]
    assert rate_discounts(fees, (), [*segments, following], ended) == []
    assert rate_discounts(fees, (), [*segments, following], ()) == []
    second = rate_discounts(fees, (), [*segments, following], [off(starts=FEBRUARY.start)])
    assert told(second) == [(3100, -310)]


def test_upgrade_credits_the_discounted_part_of_a_yearly_fee() -> None:
    """An upgrade after the coupon's end credits the paid half of the old fee, and charges the new fee in full."""
    year = Span(JANUARY.start, JANUARY.start + 365 * 86400)
    small, large = (plan(fee, annual={"discount": "0%"}) for fee in ("100", "200"))
    months = [
        Segment("a@1", small, JANUARY, year, is_yearly=True, month=JANUARY),
        Segment("b@1", large, FEBRUARY, year, is_yearly=True, month=FEBRUARY),
    ]
    half = off(5 * TENTH, until=FEBRUARY.start)
    fees = rate_segments(months, {})
    assert [line.amount for line in fees] == [120_000, -109_808, 219_616]
    first = rate_discounts(fees[:1], (), months, [half])
    assert told(first) == [(120_000, -60_000)]
    assert told(rate_discounts(fees[1:], [fees[0], *first], months, [half])) == [(-109_808, 54_904)]


def test_unused_yearly_fee_counts_in_its_first_period() -> None:
    year = Span(JANUARY.start, JANUARY.start + 365 * 86400)
    march = Span(FEBRUARY.end, FEBRUARY.end + 31 * 86400)
    small, large, huge = (plan(fee, annual={"discount": "0%"}) for fee in ("100", "200", "300"))
    months = [
        Segment("a@1", small, JANUARY, year, is_yearly=True, month=JANUARY),
        Segment("b@1", large, FEBRUARY, year, is_yearly=True, month=FEBRUARY),
        Segment("c@1", huge, march, year, is_yearly=True, month=march),
    ]
    fees = rate_segments(months, {})
    february = off(5 * TENTH, starts=FEBRUARY.start, until=march.start)
    rated = rate_discounts(fees, (), months, [february])
    assert told(rated) == [(fees[2].amount + fees[3].amount, -(fees[2].amount + fees[3].amount) // 2)]


def test_discount_is_reversed_after_all_lines_of_its_period_are_credited() -> None:
    """The fee is credited after a later invoice carried its discount."""
    segment = month("a@1", plan("10"))
    (fee,) = rate_segments([segment], {})
    (discount,) = rate_discounts([fee], (), [segment], [off()])
    assert told(rate_discounts((), [fee, discount], [segment], [off()])) == []
    credited = fee._replace(taken_off=fee.amount, stands=False)
    assert told(rate_discounts((), [credited, discount], [segment], [off()])) == [(-1000, 100)]


def test_negative_correction_has_no_discount() -> None:
    segment = month("a@1", plan("1"))
    back = RatedLine("late", "a@1", JANUARY, "calls", "", 1, -5, 10**14, -500, JANUARY)
    assert told(rate_discounts([back], (), [segment], [off()])) == [(-500, 0)]


def test_discount_does_not_count_a_trial_as_a_fee_period() -> None:
    trial = Span(JANUARY.start, JANUARY.start + 14 * 86400)
    sold = plan("31")
    segments = [
        Segment("a@1", sold, trial, trial, month=trial, is_trial=True),
        month("a@1", sold, Span(trial.end, JANUARY.end)),
    ]
    (line,) = rate_discounts(rate_segments(segments, {}), (), segments, [off()])
    assert (line.quantity, line.amount, line.span) == (1700, -170, JANUARY)


# ---- any coupon of any plan


def draw_coupon(chance: random.Random, currency: str) -> dict[str, Any]:
    places = "" if currency == "jpy" else f".{chance.randrange(1, 100):02}"
    if chance.randrange(2):
        terms = {"percent_off": f"{chance.choice([100, chance.randrange(1, 100)])}%"}
        if chance.randrange(3) == 0:
            terms = {"percent_off": f"{chance.randrange(100)}.{chance.randrange(1, 10**4):04}%"}
    else:
        terms = {"amount_off": f"{chance.randrange(1, 10 ** chance.randrange(1, 6))}{places}"}
    duration = chance.choice(["once", "forever", "repeating"])
    return {
        **terms,
        "duration": duration,
        **({"periods": str(chance.randrange(1, 4))} if duration == "repeating" else {}),
    }


def draw_periods(chance: random.Random, sold: Plan) -> list[Segment]:
    """Draw three periods of a plan. The first one may begin late."""
    first = Span(JANUARY.start + 60 * chance.choice([0, chance.randrange(44_000)]), JANUARY.end)
    segments, period = [month("x@1", sold, first)], JANUARY
    for _ in range(2):
        period = period_after(period)
        segments.append(month("x@1", sold, period, period))
    return segments


@pytest.mark.parametrize("number", [500, pytest.param(100_000, marks=LONG)])
def test_a_second_rater_agrees_to_the_cent(number: int, seed: int) -> None:
    """Invoices have the first fee at once, then usage and the next fee of each period, and late usage."""
    chance = random.Random(seed)
    for _ in range(number):
        currency = chance.choice(CURRENCIES)
        written, coupon = draw_plan(chance, currency), draw_coupon(chance, currency)
        with reading_in(currency):
            segments = draw_periods(chance, Plan.model_validate(written))
            terms = Coupon.model_validate(coupon)
        count = terms.periods_off
        until = None if count is None else find_end_after(JANUARY, None, count)
        share = None if terms.percent_off is None else round(terms.percent_off * 10**10) * 100
        discount = Discount(
            "OFF", share, terms.amount_off and terms.amount_off[currency], frozenset(), JANUARY.start, until
        )
        usage = [draw_usage(chance, written) for _ in segments]
        invoiced = _invoice(chance, segments, usage, discount)
        expected, covered = [], second_rater.discounted_periods(coupon)
        for position, segment in enumerate(segments):
            time = {"seconds": segment.span.end - segment.span.start, "of": segment.period.end - segment.period.start}
            cost = second_rater.fee(written, **time, currency=currency)
            cost += sum(amount for _, amount in second_rater.usage_charges(written, usage[position], currency).values())
            cost += second_rater.minimum(written, usage[position], **time, currency=currency)
            is_covered = covered is None or position < covered
            expected.append((cost, second_rater.discount(coupon, cost, currency) if is_covered else 0))
        costs: Counter[int] = Counter()
        taken: Counter[int] = Counter()
        for line in invoiced:
            if line.kind == DISCOUNT:
                taken[line.segment.start] -= line.amount
            else:
                costs[
                    next(segment.period.start for segment in segments if segment.span.start == line.segment.start)
                ] += line.amount
        assert [(costs[segment.period.start], taken[segment.period.start]) for segment in segments] == expected, (
            *(currency, written, coupon, usage),
        )


def _invoice(
    chance: random.Random, segments: list[Segment], usage: list[dict[str, dict[str, int]]], discount: Discount
) -> list[RatedLine]:
    """Return the lines of all invoices of the periods. Some usage arrives late."""
    first = rate_segments(segments[:1], {})
    invoiced = [*first, *rate_discounts(first, (), segments, [discount])]
    known: dict[UsageKey, int] = {}
    late = set(chance.sample(range(len(segments)), chance.randrange(len(segments))))
    for ended in (1, 2, 3, None):
        for position, segment in enumerate(segments[:ended]):
            if position not in late or ended != position + 1:
                known |= to_keys(segment, usage[position])
        reached = segments if ended is None else segments[: ended + 1]
        before = [line for line in invoiced if line.kind != DISCOUNT]
        lines = rate_segments(reached, known, before, settled={segment.span for segment in segments[:ended]})
        invoiced += [*lines, *rate_discounts(lines, invoiced, segments, [discount])]
    return invoiced
