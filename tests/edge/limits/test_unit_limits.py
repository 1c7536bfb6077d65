"""Limits in units that answers state: reservations, charges, and the limit shown to the client."""

import pytest

from edgeproxy.edge.body_usage.prompts import UNKNOWN, Prompt
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.admission import admit
from edgeproxy.edge.limits.denial import compute_denial
from edgeproxy.edge.limits.limit_set import LimitSet
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.limits.unit_limit import PARTS, BudgetReservation, RequestReserve, UnitLimit
from tests.edge.limits.conftest import Worker

START = 51_000_000.0


@pytest.fixture
def table(worker: Worker) -> LimitTable:
    return worker(0)


def build_limit(
    table: LimitTable,
    most: int,
    reserve: int,
    name: str = "tokens",
    seconds: float = 60.0,
    by_request: RequestReserve | None = None,
) -> UnitLimit:
    rule = Rule(name, most, seconds, of="tokens")
    under_way = Rule(f"{name}-under-way", most, 0.0, algorithm="concurrency")
    return Policies(table).get_unit_limit(rule, under_way, b"acme", reserve, by_request)


def test_active_requests_reserve_units_until_they_end(table: LimitTable) -> None:
    limit = build_limit(table, 100, 40)
    assert limit.name == "tokens"
    assert [limit.acquire(START) for _ in range(3)] == [True, True, False]
    assert limit.retry_after(START) == 1, "units are left, and reserved"
    limit.release()
    assert limit.retry_after(START) == 0
    limit.count(90, START)
    assert not limit.acquire(START)
    assert limit.retry_after(START) == limit.policy.retry_after(START, 40) > 1


def test_answer_is_charged_in_full_beyond_the_remaining_units(table: LimitTable) -> None:
    limit = build_limit(table, 100, 10)
    assert limit.acquire(START)
    limit.count(250, START)
    limit.release()
    assert limit.policy.left(START) == -150
    assert admit(LimitSet(units=(limit,)), START) == (True, limit.policy, 0, None)


def test_the_limit_with_least_left_beside_its_reservation_is_shown(table: LimitTable) -> None:
    small, large = build_limit(table, 50, 10, "small"), build_limit(table, 1000, 10, "large", 3600.0)
    for limits in ((small, large), (large, small)):
        terms = LimitSet(units=limits)
        assert admit(terms, START) == (False, small.policy, 40, None)
        for limit in limits:
            limit.release()
    plain = Policies(table).get_policy(Rule("plain", 3, 1.0), b"acme")
    assert admit(LimitSet((plain,), units=(large,)), START)[1:3] == (plain, 2)


def test_limit_with_all_units_reserved_refuses_and_is_named(table: LimitTable) -> None:
    limit = build_limit(table, 20, 10)
    terms = LimitSet(units=(limit,))
    assert [admit(terms, START)[0] for _ in range(3)] == [False, False, True]
    assert compute_denial(terms, START) == ((limit,), 1)


@pytest.mark.parametrize(
    ("count", "prompt", "units"),
    [
        ("input_tokens", Prompt(30, 50), 30),
        ("cached_tokens", Prompt(30, 50), 30),
        ("uncached_tokens", Prompt(30, None), 30),
        ("output_tokens", Prompt(30, 50), 50),
        ("output_tokens", Prompt(30, None), 7),
        ("output_tokens", Prompt(30, 0), 1),
        ("total_tokens", Prompt(30, 50), 80),
        ("total_tokens", Prompt(30, None), 37),
        ("total_tokens", Prompt(30, 10**12), 90),
        ("total_tokens", UNKNOWN, 90),
    ],
)
def test_request_reserves_its_stated_units_within_a_bound(count: str, prompt: Prompt, units: int) -> None:
    assert RequestReserve(*PARTS[count], output=7, most=90).compute(prompt) == units


def test_requests_with_different_reservations_share_one_limit(table: LimitTable) -> None:
    limit = build_limit(table, 100, 10, by_request=RequestReserve(False, True, 10, 60))
    terms = LimitSet(units=(limit,))
    large, small = terms.with_request(Prompt(1, 60)), terms.with_request(Prompt(1, 15))
    assert admit(large, START) == (False, limit.policy, 40, None)
    assert admit(large, START)[0], "sixty more are too many"
    assert compute_denial(large, START)[1] == 1
    assert [admit(small, START)[0] for _ in range(3)] == [False, False, True]
    large.release()
    assert [admit(small, START)[0] for _ in range(5)] == [False, False, False, False, True]
    fixed = build_limit(table, 100, 10, "fixed")
    assert LimitSet(units=(fixed,)).with_request(Prompt(1, 60)).traits.other_rates.units == (fixed,)


def test_a_set_for_a_request_has_all_other_limits_as_well(table: LimitTable) -> None:
    policies = Policies(table)
    plain = policies.get_policy(Rule("plain", 1, 60.0), b"acme")
    slot = policies.get_concurrency(Rule("concurrency", 5, 0.0, algorithm="concurrency"), b"other")
    credits = policies.get_policy(Rule("burst-credits", 1, 60.0, algorithm="burst_credits", depth=1), b"acme")
    limit = build_limit(table, 100, 10, by_request=RequestReserve(True, False, 10, 60))
    terms = LimitSet((plain,), plan_policies=1, credits=credits, slots=(slot,), units=(limit,))
    own = terms.with_request(Prompt(20, None))
    assert [unit.reserve for unit in own.traits.other_rates.units] == [20]
    assert (own.policies, own.traits.credits, own.traits.plan_policies, own.slots[0]) == (
        terms.policies,
        credits,
        1,
        slot,
    )
    assert len(own.slots) == len(terms.slots) == 2
    assert admit(own, START)[0] is False
    assert slot.counts.used == 1
    own.release()
    assert slot.counts.used == limit.counts.used == 0


class TokenBudget:
    """A hard quota of 1,000 tokens, charged when answers end."""

    name, limit, used = "key-budget", 1000, 0

    def left(self, now: float) -> int:
        return self.limit - self.used

    def retry_after(self, now: float, cost: int = 1) -> int:
        return 0 if self.used < self.limit else 3600


@pytest.mark.parametrize("prompt", [Prompt(100, 300), Prompt(100, None), UNKNOWN])
def test_requests_at_once_overrun_a_budget_by_at_most_one_reservation(table: LimitTable, prompt: Prompt) -> None:
    budget = TokenBudget()
    slots = Policies(table).get_concurrency(Rule("key-budget", 1000, 0.0, "key", "concurrency"), b"budget:1").counts
    reserve = RequestReserve(*PARTS["total_tokens"], 4096, 1000)
    whole = LimitSet(slots=(BudgetReservation(budget, slots, reserve, 1000),))
    for _ in range(10):
        requests = [limits for _ in range(20) if not admit(limits := whole.with_request(prompt), START)[0]]
        for limits in requests:
            budget.used += 400  # Each answer states its usage, and ends.
            limits.release()
    assert 1000 <= budget.used <= 1000 + 400
    assert not slots.used


def test_reservation_of_a_budget_waits_for_others_and_then_for_the_period(table: LimitTable) -> None:
    budget = TokenBudget()
    slots = Policies(table).get_concurrency(Rule("key-budget", 1000, 0.0, "key", "concurrency"), b"budget:2").counts
    one, other = (BudgetReservation(budget, slots, RequestReserve(True, True, 10, 1000), 1000) for _ in range(2))
    assert one.counts is slots
    assert one.retry_after(START) == 0
    assert [one.acquire(START), other.acquire(START)] == [True, False]
    assert other.retry_after(START) == 1
    one.release()
    budget.used = 1000
    assert other.retry_after(START) == 3600
