"""Admission under rates and concurrency; which limits hold a request is in test_rows_of_limits.py."""

from collections.abc import Callable

import pytest

from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.limits.admission import Admission, admit, admit_fast
from edgeproxy.edge.limits.denial import compute_denial
from edgeproxy.edge.limits.limit_set import LimitSet
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.policy import Policy
from edgeproxy.edge.limits.rule import Rule
from tests.edge.limits.conftest import Worker

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
