"""Admission under rates and concurrency; whatever else terms have is in test_terms.py."""

import pytest

from edgeproxy.counters.rows import LimitTable
from edgeproxy.limits.admission import LimitSet, admit, denied
from edgeproxy.limits.policies import Policies
from edgeproxy.limits.policy import Policy
from edgeproxy.limits.rule import Rule
from tests.limits.conftest import Worker

START = 51_000_000.0
AT_ONCE = Rule("concurrency", 2, 0.0, algorithm="concurrency")


@pytest.fixture
def table(worker: Worker) -> LimitTable:
    return worker(0)


def several(table: LimitTable, *limits: int, cost: int = 1) -> tuple[Policy, ...]:
    """Policies of one customer with windows of a second, two seconds, …"""
    policies = Policies(table)
    rules = [Rule(f"limit-{place}", limit, float(place + 1)) for place, limit in enumerate(limits)]
    return tuple([policies.of(rule, b"acme", cost) for rule in rules])


def left(policies: tuple[Policy, ...]) -> list[int]:
    return [policy.left(START) for policy in policies]


def test_whoever_has_no_limits_is_let_through() -> None:
    terms = LimitSet()
    assert not terms.holds
    assert not terms.settles
    assert admit(terms, START) == (False, None, 0, None)


def test_all_are_charged_and_the_one_closest_to_refusal_is_shown(table: LimitTable) -> None:
    policies = several(table, 10, 5, 7)
    assert admit(LimitSet(policies), START) == (False, policies[1], 4, None)
    assert left(policies) == [9, 4, 6]
    dear = several(table, 10, 5, 7, cost=3)
    assert admit(LimitSet(dear), START) == (False, dear[1], 1, None)
    assert left(policies) == left(dear) == [6, 1, 3]


def test_each_is_charged_its_own_cost(table: LimitTable) -> None:
    policies = (several(table, 10, cost=4)[0], several(table, 10, 10)[1])
    assert admit(LimitSet(policies), START) == (False, policies[0], 6, None)
    assert left(policies) == [6, 9]


def test_of_those_equally_close_the_first_is_shown(table: LimitTable) -> None:
    policies = several(table, 5, 5)
    assert admit(LimitSet(policies), START)[1] is policies[0]


def test_where_one_refuses_none_is_charged(table: LimitTable) -> None:
    policies = several(table, 10, 2, 10, cost=3)
    assert admit(LimitSet(policies), START) == (True, policies[1], 2, None)
    assert left(policies) == [10, 2, 10]
    assert not admit(LimitSet(several(table, 10, 2, 10, cost=2)), START)[0]
    policies = several(table, 10, 2, 10)
    assert admit(LimitSet(policies), START) == (True, policies[1], 0, None)
    assert left(policies) == [8, 0, 8]


def test_what_is_left_is_never_shown_as_negative(table: LimitTable) -> None:
    policies = Policies(table)
    before = policies.of(Rule("before", 10, 1.0), b"acme")
    before.left(START)
    before.charge(8)
    after = policies.of(Rule("after", 5, 1.0), b"acme")
    assert admit(LimitSet((after,)), START) == (True, after, 0, None)


def test_whoever_has_a_slot_keeps_it_until_the_request_is_over(table: LimitTable) -> None:
    terms = LimitSet(slots=(Policies(table).concurrency(AT_ONCE, b"acme"),))
    assert terms.holds
    assert terms.settles
    assert [admit(terms, START)[0] for _ in range(3)] == [False, False, True]
    terms.release()
    assert [admit(terms, START)[0] for _ in range(2)] == [False, True]


def test_where_there_is_no_slot_no_rate_is_charged(table: LimitTable) -> None:
    policies = several(table, 10, 5)
    terms = LimitSet(policies, slots=(Policies(table).concurrency(AT_ONCE, b"acme"),))
    assert admit(terms, START) == (False, policies[1], 4, None)
    assert admit(terms, START) == (False, policies[1], 3, None)
    # It is shown what it has, as none of it is taken.
    assert admit(terms, START) == (True, policies[1], 3, None)
    assert left(policies) == [8, 3]


def test_a_refusal_for_want_of_a_slot_shows_no_rate_where_there_is_none(table: LimitTable) -> None:
    slot = Policies(table).concurrency(AT_ONCE, b"acme")
    terms = LimitSet(slots=(slot,))
    for _ in range(2):
        admit(terms, START)
    assert admit(terms, START) == (True, None, 0, None)
    assert denied(terms, START) == ((slot,), 1)


def test_where_a_rate_refuses_no_slot_is_taken(table: LimitTable) -> None:
    slot = Policies(table).concurrency(AT_ONCE, b"acme")
    refusing = LimitSet(several(table, 1, cost=2), slots=(slot,))
    for _ in range(5):
        assert admit(refusing, START)[0]
    assert [admit(LimitSet(slots=(slot,)), START)[0] for _ in range(3)] == [False, False, True]


def test_of_several_slots_all_are_taken_or_none(table: LimitTable) -> None:
    policies = Policies(table)
    one, other = policies.concurrency(AT_ONCE, b"acme"), policies.concurrency(AT_ONCE, b"globex")
    assert [admit(LimitSet(slots=(other,)), START)[0] for _ in range(3)] == [False, False, True]
    both = LimitSet(slots=(one, other))
    for _ in range(3):
        assert admit(both, START)[0]
    assert [admit(LimitSet(slots=(one,)), START)[0] for _ in range(3)] == [False, False, True]


def test_a_refusal_names_all_that_refuse_and_the_longest_wait(table: LimitTable) -> None:
    policies = several(table, 2, 9, 2, 2)
    terms = LimitSet(policies)
    for _ in range(2):
        admit(terms, START)
    refusal = denied(terms, START)
    assert refusal.violated == (policies[0], policies[2], policies[3])
    assert refusal.retry_after == max(policies[place].retry_after(START) for place in (0, 2, 3)) >= 4
    assert not admit(terms, START + refusal.retry_after)[0]


def test_a_refusal_that_has_become_groundless_still_names_someone(table: LimitTable) -> None:
    policies = several(table, 2, 2)
    assert denied(LimitSet(policies), START) == ((policies[0],), 1)
    assert denied(LimitSet(policies[1:]), START) == ((policies[1],), 1)


def test_a_refusal_by_the_only_policy_names_it_and_its_wait(table: LimitTable) -> None:
    (policy,) = several(table, 1, cost=1)
    terms = LimitSet((policy,))
    assert not admit(terms, START)[0]
    assert denied(terms, START) == ((policy,), policy.retry_after(START))


def test_the_wait_is_for_what_a_request_costs(table: LimitTable) -> None:
    (dear,) = several(table, 10, cost=4)
    terms = LimitSet((dear,))
    assert [admit(terms, START)[0] for _ in range(3)] == [False, False, True]
    assert dear.left(START) == 2
    refusal = denied(terms, START)
    assert refusal == ((dear,), dear.retry_after(START, 4))
    assert not admit(terms, START + refusal.retry_after)[0]
