"""Subscriptions with trials, thresholds, minimum fees and prices in several currencies, as a second rater has them."""

import random
from typing import Any

import pytest

from edgeproxy.collector.billing.rating.rater import RatedLine, Segment, UsageKey, rate_segments, sum_amounts
from edgeproxy.collector.billing.subscriptions import changes
from edgeproxy.collector.billing.subscriptions.changes import SubscriptionState
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.collector.money import reading_in
from tests.support import second_rater
from tests.support.random_plans import CURRENCIES, choose_currency, draw_terms, draw_usage, to_keys

Looks = list[dict[str, dict[str, int]]]
JANUARY = 1_798_761_600
MONTHS = 24
"""The months for the start of a subscription. They include a leap year."""


def draw_looks(chance: random.Random, terms: dict[str, Any]) -> Looks:
    """Return random cumulative usage of each meter at some moments of a period."""
    end = draw_usage(chance, terms)
    looks: Looks = [
        {name: {value: chance.randint(0, abs(used)) for value, used in values.items()} for name, values in end.items()}
        for _ in range(chance.randrange(4))
    ]
    return [*looks, end]


def rate_subscription(plan: Plan, begun: int, periods: list[Looks], trial: Looks, *, has_trial: bool) -> list[int]:
    """The totals of the invoices, in their order, as the period's close and the look at thresholds make them."""
    current = changes.begin_subscription("x@1", plan, now=begun, anchor=None, is_yearly=False, has_trial=has_trial)
    segments: list[Segment] = []
    used: dict[UsageKey, int] = {}
    invoiced: list[RatedLine] = []
    totals: list[int] = []

    def invoice(lines: list[RatedLine]) -> None:
        invoiced.extend(lines)
        totals.append(sum_amounts(lines))

    def begin_next() -> None:
        nonlocal current
        begun_segment = changes.next_segment(current, {"x@1": plan})
        assert begun_segment is not None
        segments.append(begun_segment)
        current = SubscriptionState([*segments], begun_segment.period, current.anchor)

    segments.append(current.last)
    if current.last.is_trial:
        used |= to_keys(current.last, trial[-1])
        begin_next()
    invoice(rate_segments(segments, used))
    for looks in periods:
        last = current.last
        for look in looks:
            used |= to_keys(last, look)
            lines = [line for line in rate_segments(segments, used, invoiced) if line.meter]
            if plan.threshold is not None and sum_amounts(lines) >= plan.threshold:
                invoice(lines)
        begin_next()
        settled = {segment.span for segment in segments[:-1]}
        invoice(rate_segments(segments, used, invoiced, settled=settled))
    return totals


@pytest.mark.parametrize("number", [250, pytest.param(100_000, marks=(pytest.mark.soak, pytest.mark.timeout(1800)))])
def test_a_second_rater_agrees_to_the_smallest_unit(number: int, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(number):
        terms, currency, begun = (
            draw_terms(chance),
            chance.choice(CURRENCIES),
            JANUARY + chance.randrange(MONTHS * 2_630_000),
        )
        with reading_in(chance.choice(CURRENCIES)):
            plan = Plan.model_validate(terms).in_currency(currency)
        own, has_trial = choose_currency(terms, currency), bool(chance.randrange(2))
        trial, periods = draw_looks(chance, terms), [draw_looks(chance, terms) for _ in range(2)]
        expected = second_rater.invoice_totals(own, begun, periods, has_trial=has_trial, currency=currency)
        totals = rate_subscription(plan, begun, periods, trial, has_trial=has_trial)
        assert totals == expected, (currency, own, begun, has_trial, periods)
