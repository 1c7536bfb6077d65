"""The sentence and the fields of refusals that no file of customers brings about."""

import re
from zoneinfo import ZoneInfo

import pytest

from edgeproxy.edge.body_usage.prompts import UNKNOWN
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.quota import Quota
from edgeproxy.edge.limits.refusal import describe_refusal, find_stated_bound
from edgeproxy.edge.limits.rule import Rule
from edgeproxy.edge.limits.unit_limit import BudgetReservation, RequestReserve
from tests.edge.limits.conftest import Worker

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
