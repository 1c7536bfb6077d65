"""Admission under rates and concurrency; which limits hold a request is in test_rows_of_limits.py."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from edgeproxy.edge.body_usage.prompts import UNKNOWN, Prompt
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.admission import Admission, admit, admit_fast
from edgeproxy.edge.limits.denial import compute_denial
from edgeproxy.edge.limits.limit_set import LimitSet
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.quota import Quota
from edgeproxy.edge.limits.refusal import describe_refusal, find_stated_bound
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.limits.unit_limit import PARTS, BudgetReservation, RequestReserve, UnitLimit
from tests.edge.limits.conftest import Worker
from tests.support.tables import CUSTOMERS, limits, make

START = 51_000_000.0
AT_ONCE = Rule("concurrency", 2, 0.0, algorithm="concurrency")


@pytest.fixture
def table(worker: Worker) -> LimitTable:
    return worker(0)


def several(table: LimitTable, *limits: int, cost: int = 1) -> tuple[Policy, ...]:
    """Policies of one customer with windows of a second, two seconds, …"""
    policies = Policies(table)
    rules = [Rule(f"limit-{place}", limit, float(place + 1)) for place, limit in enumerate(limits)]
    return tuple([policies.get_policy(rule, b"acme", cost) for rule in rules])


def left(policies: tuple[Policy, ...]) -> list[int]:
    return [policy.left(START) for policy in policies]


def test_empty_limit_set_admits_requests() -> None:
    terms = LimitSet()
    assert not terms.traits.applies
    assert not terms.traits.has_end_work
    assert admit(terms, START) == (False, None, 0, None)


def test_first_of_equally_close_limits_is_shown(table: LimitTable) -> None:
    policies = several(table, 5, 5)
    assert admit(LimitSet(policies), START)[1] is policies[0]


def test_remaining_is_shown_as_zero_rather_than_negative(table: LimitTable) -> None:
    policies = Policies(table)
    before = policies.get_policy(Rule("before", 10, 1.0), b"acme")
    before.left(START)
    before.charge(8)
    after = policies.get_policy(Rule("after", 5, 1.0), b"acme")
    assert admit(LimitSet((after,)), START) == (True, after, 0, None)


@pytest.mark.parametrize("workers", [1, 64])
@pytest.mark.parametrize("algorithm", ["sliding_window", "token_bucket"])
def test_rows_looked_up_together_decide_like_any_others(tmp_path: Path, workers: int, algorithm: str) -> None:
    path = make(tmp_path, CUSTOMERS._replace(rows=20, columns=2 * workers))
    table, sibling = limits(path, 0), limits(path, 1)
    policies, rule = Policies(table), Rule("basic", 60, 60.0, algorithm=algorithm, depth=60)
    for subject in (b"acme", b"globex"):  # The second customer finds the cell of the window computed.
        terms = LimitSet((policies.get_policy(rule, subject),), slots=(policies.get_concurrency(AT_ONCE, subject),))
        terms.find_rows(table, START)
        in_use = table.rows_in_use
        assert [admit(terms, START)[2] for _ in range(2)] == [59, 58]
        terms.find_rows(table, START)
        assert table.rows_in_use == in_use
        assert Policies(sibling).get_policy(rule, subject).left(START) == 58
    assert table.rows_in_use == 4


def test_limits_without_rows_to_be_had_count_in_the_process(worker: Worker) -> None:
    table = worker(0)
    for number in range(table.layout.rows):
        Policies(table).get_policy(Rule("basic", 60, 60.0), b"%d" % number).left(START)
    terms = LimitSet((Policies(table).get_policy(Rule("basic", 60, 60.0), b"acme"),))
    terms.find_rows(table, START)
    before, after = [admit(terms, START)[2] for _ in range(2)]
    assert before == after + 1 > 0


def test_slot_refusal_without_a_rate_limit_states_no_rate(table: LimitTable) -> None:
    slot = Policies(table).get_concurrency(AT_ONCE, b"acme")
    terms = LimitSet(slots=(slot,))
    for _ in range(2):
        admit(terms, START)
    assert admit(terms, START) == (True, None, 0, None)
    assert compute_denial(terms, START) == ((slot,), 1)


def test_a_refusal_that_has_become_groundless_still_names_someone(table: LimitTable) -> None:
    policies = several(table, 2, 2)
    assert compute_denial(LimitSet(policies), START) == ((policies[0],), 1)
    assert compute_denial(LimitSet(policies[1:]), START) == ((policies[1],), 1)


def test_refusal_by_one_policy_names_it_and_its_retry_time(table: LimitTable) -> None:
    (policy,) = several(table, 1, cost=1)
    terms = LimitSet((policy,))
    assert not admit(terms, START)[0]
    assert compute_denial(terms, START) == ((policy,), policy.retry_after(START))


def test_retry_after_allows_for_the_cost_of_a_request(table: LimitTable) -> None:
    (dear,) = several(table, 10, cost=4)
    terms = LimitSet((dear,))
    assert [admit(terms, START)[0] for _ in range(3)] == [False, False, True]
    assert dear.left(START) == 2
    refusal = compute_denial(terms, START)
    assert refusal == ((dear,), dear.retry_after(START, 4))
    assert not admit(terms, START + refusal[1])[0]


def test_no_limit_is_charged_if_one_refuses(table: LimitTable) -> None:
    policies = several(table, 10, 2, 10, cost=3)
    assert admit(LimitSet(policies), START) == (True, policies[1], 2, None)
    assert left(policies) == [10, 2, 10]
    assert not admit(LimitSet(several(table, 10, 2, 10, cost=2)), START)[0]
    policies = several(table, 10, 2, 10)
    assert admit(LimitSet(policies), START) == (True, policies[1], 0, None)
    assert left(policies) == [8, 0, 8]


@pytest.mark.parametrize("decide", [admit, admit_fast])
def test_request_acquires_all_of_its_slots_or_none(table: LimitTable, decide: Callable[..., Admission]) -> None:
    policies = Policies(table)
    one, other = policies.get_concurrency(AT_ONCE, b"acme"), policies.get_concurrency(AT_ONCE, b"globex")
    assert [decide(LimitSet(slots=(other,)), START)[0] for _ in range(3)] == [False, False, True]
    both = LimitSet(slots=(one, other))
    for _ in range(3):
        assert decide(both, START)[0]
    assert [decide(LimitSet(slots=(one,)), START)[0] for _ in range(3)] == [False, False, True]


def test_fast_admission_decides_like_the_general_one(table: LimitTable) -> None:
    policies = several(table, 3, 2)
    slots = (Policies(table).get_concurrency(AT_ONCE, b"acme"),)
    assert admit_fast(LimitSet(policies, slots=slots), START) == (False, policies[1], 1, None)
    assert admit_fast(LimitSet(policies, slots=slots), START) == (False, policies[1], 0, None)
    assert admit_fast(LimitSet(policies), START) == admit(LimitSet(policies), START) == (True, policies[1], 0, None)
    assert left(policies) == [1, 0]
    assert admit_fast(LimitSet(policies[:1], slots=slots), START) == (True, policies[0], 1, None)


def test_one_rate_and_its_slots_decide_in_one_step_as_all_limits_do(table: LimitTable) -> None:
    policies = Policies(table)
    rate, slot = (
        policies.get_policy(Rule("basic", 3, 60.0), b"acme"),
        policies.get_concurrency(replace(AT_ONCE, limit=1), b"acme"),
    )
    lone, two = LimitSet((rate,), slots=(slot,)), LimitSet((rate, rate), slots=(slot,))
    assert (lone.policies, lone.slots, two.policies, two.slots) == ((rate,), (slot,), (rate, rate), (slot,))
    assert admit_fast(lone, START) == (False, rate, 2, None)
    assert admit_fast(lone, START) == (True, rate, 2, None)  # Its slot is in use.
    lone.release()
    assert admit_fast(lone, START) == (False, rate, 1, None)
    lone.release()
    assert admit_fast(LimitSet((rate,)), START) == (False, rate, 0, None)
    assert admit_fast(lone, START) == admit(lone, START) == (True, rate, 0, None)
    assert compute_denial(lone, START) == compute_denial(LimitSet((rate,)), START)
    assert slot.counts.used == 0


@pytest.mark.parametrize("algorithm", ["sliding_window", "token_bucket", "hybrid"])
def test_denial_by_a_rest_that_was_read_waits_as_long(table: LimitTable, algorithm: str) -> None:
    rule = Rule("basic", 3, 60.0, algorithm=algorithm, depth=0 if algorithm == "sliding_window" else 3)
    rate = Policies(table).get_policy(rule, b"acme")
    lone = LimitSet((rate,))
    for cost in (1, 1, 3):  # More than the limit, as by two workers at once or a lowered limit.
        rate.left(START)
        rate.charge(cost)
        refused = admit_fast(lone, START + 1)
        assert refused is not None
        if refused[0]:
            assert refused[2] < 1
            assert compute_denial(lone, START + 1, refused[2]) == ((rate,), rate.retry_after(START + 1))
    assert refused[:3] == (True, rate, rate.left(START + 1))
    assert refused[2] < 0


# ---- limits in units that answers state: reservations, charges, and the limit shown to the client


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
    for both in ((small, large), (large, small)):
        terms = LimitSet(units=both)
        assert admit(terms, START) == (False, small.policy, 40, None)
        for limit in both:
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


# ---- the sentence and the fields of refusals that no file of customers brings about


NOW = 51_000_000.0


@pytest.fixture
def policies(worker: Worker) -> Policies:
    return Policies(worker(0))


def get_budget(policies: Policies) -> Quota:
    return policies.get_quota(
        "n", 100, "day", ZoneInfo("UTC"), b"a", hard=True, when="answered", why=None, is_balance=False, kind="budget"
    )


def test_a_rate_in_units_says_that_the_rest_is_reserved(policies: Policies) -> None:
    rule, under_way = Rule("tokens", 100, 60.0, of="tokens"), Rule("under-way", 100, 0.0, algorithm="concurrency")
    limit = policies.get_unit_limit(rule, under_way, b"a", 40)
    assert all(limit.acquire(NOW) for _ in range(2))
    refusal = describe_refusal(limit, NOW, limit.retry_after(NOW))
    assert refusal.sentence == (
        "The rate limit is reached (tokens: 0 of 100 tokens in 60 s), the rest is reserved by requests under way; "
        "try again in 1 s"
    )


def test_a_rate_that_no_wait_ends_asks_for_another_request(policies: Policies) -> None:
    limit = policies.get_unit_limit(
        Rule("tokens", 100, 60.0, of="tokens"), Rule("under-way", 100, 0.0, algorithm="concurrency"), b"a", 40
    )
    limit.count(100, NOW)
    refusal = describe_refusal(limit, NOW, 0)
    assert refusal.sentence == "The rate limit is reached (tokens: 100 of 100 tokens in 60 s)"
    assert refusal.limit[4:] == ("change_request", None)


def test_a_budget_says_whether_it_is_reserved_or_used_up(policies: Policies) -> None:
    budget = get_budget(policies)
    slots = policies.get_concurrency(Rule("n", 100, 0.0, "key", "concurrency"), b"budget:1").counts
    reservation = BudgetReservation(budget, slots, RequestReserve(True, True, 10, 1000), 100).with_request(UNKNOWN)
    reserved = describe_refusal(reservation, NOW, 1)
    assert reserved.sentence == (
        "The budget is reserved (n: 0 of 100, the rest is reserved by requests under way); try again in 1 s"
    )
    assert reserved.limit.remedy == "wait"
    budget.count(100, NOW)
    used_up = describe_refusal(reservation, NOW, budget.retry_after(NOW), legacy=True)
    assert re.fullmatch(r"The budget is used up \(n: 100 of 100\); wait until .*Z", used_up.sentence)
    assert b"X-RateLimit-Limit: 100\r\nX-RateLimit-Remaining: 0\r\n" in used_up.lines
    assert describe_refusal(budget, NOW, 0).limit.remedy == "change_request"


def test_refusal_states_the_single_violated_limit(policies: Policies) -> None:
    budget = get_budget(policies)
    assert find_stated_bound(((budget,), 0), NOW) is budget
