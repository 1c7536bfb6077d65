"""Random plan changes within a period (plans, intervals, ends and returns) agree with a second rater."""

import random
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from edgeproxy.collector.billing.rating.rater import RatedLine, Span, UsageKey, rate_segments, sum_amounts
from edgeproxy.collector.billing.subscriptions import changes
from edgeproxy.collector.billing.subscriptions.changes import PlanChange, PlanChangeError, SubscriptionState
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.collector.money import reading_in
from tests.support import second_rater
from tests.support.random_plans import CURRENCIES, draw_plan, draw_usage, to_keys
from tests.support.second_rater import PlanPart

JANUARY = 1_798_761_600
PERIODS = 3
Quantities = Mapping[str, Mapping[str, int]]


class PlanCatalog(NamedTuple):
    """Plans by version: `terms` as in the file, and `plans` as the product parses them."""

    currency: str
    terms: dict[str, dict[str, Any]]
    plans: dict[str, Plan]


def draw_catalog(chance: random.Random) -> PlanCatalog:
    """Draw three plans, one of them in two versions. Some have a yearly price too."""
    currency = chance.choice(CURRENCIES)
    terms = {}
    for version in ("a@1", "b@1", "b@2", "c@1"):
        drawn = draw_plan(chance, currency)
        drawn.pop("minimum", None)
        if chance.randrange(3) and float(drawn["fee"]):
            drawn["annual"] = {"discount": f"{chance.randrange(60)}%"}
        terms[version] = drawn
    with reading_in(currency):
        plans = {version: Plan.model_validate(drawn) for version, drawn in terms.items()}
    return PlanCatalog(currency, terms, plans)


class Life:
    """A subscription and its invoices by the product's rules, and its parts as input of the second rater."""

    def __init__(self, chance: random.Random, catalog: PlanCatalog) -> None:
        self.chance, self.catalog = chance, catalog
        version, begun = chance.choice(list(catalog.plans)), JANUARY + chance.randrange(20 * 86400)
        is_yearly = catalog.plans[version].year_fee is not None and bool(chance.randrange(2))
        self.current = changes.begin_subscription(
            version, catalog.plans[version], now=begun, anchor=None, is_yearly=is_yearly
        )
        self.used: dict[UsageKey, int] = {}
        self.invoiced: list[RatedLine] = []
        self.totals: list[int] = []
        self.parts: list[PlanPart] = []
        self.use_of: dict[int, Quantities] = {}
        self.events: list[str] = []
        self.add_part()
        self.invoice(changes.compute_fees(self.current.segments, ()))

    def invoice(self, lines: list[RatedLine]) -> None:
        self.invoiced += lines
        self.totals.append(sum_amounts(lines))

    def add_part(self) -> None:
        """Record the current segment for the second rater, and draw its usage."""
        last = self.current.last
        self.parts.append(PlanPart(last.version, last.is_yearly, *last.span, *last.period, *last.paid, last.is_resting))
        quantities = draw_usage(self.chance, self.catalog.terms[last.version])
        self.use_of[last.span.start] = quantities
        self.events.append(f"{last.version} {'year' if last.is_yearly else 'month'} from {last.span.start}")

    def record_usage(self) -> None:
        last = self.current.last
        self.used |= to_keys(last, self.use_of[last.span.start])

    def apply(self, change: PlanChange) -> None:
        """Apply a change now, or schedule it for the end of the period."""
        if change.begun is None:
            self.current = self.current._replace(
                next_version=change.next_version, next_is_yearly=change.next_is_yearly, cancel_at=None
            )
            return
        if self.current.last.span.end > change.at:
            self.current = self.current._replace(segments=changes.end_segments(self.current.segments, change.at))
        self.parts[-1] = self.parts[-1]._replace(end=self.current.last.span.end)
        self.record_usage()
        self.current = self.current._replace(
            segments=[*self.current.segments, change.begun], next_version=None, next_is_yearly=None, cancel_at=None
        )
        self.add_part()
        self.invoice(change.lines)

    def change_at(self, now: int) -> None:
        """Request a random change. A refused one changes nothing."""
        version = self.chance.choice(list(self.catalog.plans))
        plan, is_yearly = self.catalog.plans[version], self.chance.choice([None, True, False])
        fees = [line for line in self.invoiced if not line.meter]
        try:
            if self.chance.randrange(4):
                when = self.chance.choice([None, "now", "period_end"])
                self.apply(changes.change_plan(self.current, version, plan, when, now, fees, is_yearly=is_yearly))
                return
            at = min(max(now // 60 * 60, self.current.last.span.start + 60), self.current.period.end - 60)
            if at <= self.current.last.span.start:
                return
            ended = self.current._replace(segments=changes.end_segments(self.current.segments, at))
            back = at + self.chance.randrange(3 * 86400)
            change = changes.resume_plan(ended, version, plan, back, fees, is_yearly=bool(is_yearly))
            self.current = ended
            self.apply(change)
        except PlanChangeError:
            return

    def resume_fees(self) -> None:
        """Resume a resting fee within its period."""
        last = self.current.last
        at = last.span.start + 60 * self.chance.randrange(1, 20_000)
        if not last.is_resting or at >= last.span.end:
            return
        self.parts[-1] = self.parts[-1]._replace(end=at)
        segments = changes.end_segments(self.current.segments, at)
        self.current = self.current._replace(segments=segments)
        self.record_usage()
        resumed = last._replace(span=Span(at, last.span.end), is_resting=False)
        self.current = self.current._replace(segments=[*segments, resumed])
        self.add_part()
        self.invoice(changes.compute_fees(self.current.segments, self.invoiced))

    def end_period(self) -> None:
        self.record_usage()
        following = changes.next_segment(self.current, self.catalog.plans)
        assert following is not None
        is_new = (following.version, following.is_yearly) != (self.current.last.version, self.current.last.is_yearly)
        if following.paid != self.current.last.paid and not self.chance.randrange(4):
            following = following._replace(is_resting=True)  # The customer does not pay.
        self.current = SubscriptionState([*self.current.segments, following], following.period, None)
        assert is_new or following.version == self.current.last.version
        self.invoice(rate_segments(self.current.segments, self.used, self.invoiced))
        self.add_part()


@pytest.mark.parametrize("number", [500, pytest.param(20_000, marks=(pytest.mark.soak, pytest.mark.timeout(1800)))])
def test_a_second_rater_agrees_on_changes_within_a_period(number: int, seed: int) -> None:
    chance = random.Random(seed)
    kinds: set[bool] = set()
    for _ in range(number):
        catalog = draw_catalog(chance)
        life = Life(chance, catalog)
        for _ in range(PERIODS):
            times = sorted(chance.randrange(life.current.last.span.start, life.current.period.end) for _ in range(4))
            for now in times[: chance.randrange(5)]:
                if now >= life.current.last.span.start:
                    life.change_at(now)
            if chance.randrange(2):
                life.resume_fees()
            life.end_period()
        expected = second_rater.changed_totals(catalog.terms, life.parts, life.use_of, catalog.currency)
        assert life.totals == expected, (catalog.currency, catalog.terms, life.events, life.use_of)
        kinds |= {part.is_yearly for part in life.parts}
    assert kinds == {True, False}
